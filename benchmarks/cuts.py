"""What several cuts of a face cost beside one, in one run.

    python benchmarks/cuts.py                      1 and 2 further cuts of 512 frames of data/frames.parquet, by turns
    python benchmarks/cuts.py --frames 2000 --turns 7 --input-size 224

Each turn extracts the frames alone, then with one further cut, then with two, into new stores, by the same backbone.
The time of K stores over K times that of one is the ratio, of processor seconds, which other work on the machine
disturbs less, and of the clock; the median of the turns' own ratios counts. Loading the backbone is not in it.
"""

import argparse
import sys
import tempfile
import time
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent))

from pipeline.core.store import StoreWriter
from pipeline.core.tables import read_frames
from pipeline.extraction.config import ExtractConfig
from pipeline.extraction.cuts import fill_together, plans_of_cuts
from pipeline.extraction.plan import Plan, make_plan
from pipeline.extraction.run import fill

CUTS = {"tight": 0.8, "tighter": 0.6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/frames.parquet"))
    parser.add_argument("--frames", type=int, default=512)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--input-size", type=int, default=112)
    given = parser.parse_args()
    frames = read_frames(given.data)
    wanted = frames.table.head(given.frames)
    with tempfile.TemporaryDirectory() as folder:
        config = ExtractConfig(backbone=given.backbone, input_size=given.input_size, store=Path(folder) / "one.zarr")
        plan = make_plan(config, frames, wanted)
        seconds(plan, config, 0, Path(folder) / "warm")
        ratios: dict[int, list[tuple[float, float]]] = {number: [] for number in range(1, len(CUTS) + 1)}
        for turn in range(given.turns):
            alone = seconds(plan, config, 0, Path(folder) / f"{turn}_0")
            for number in ratios:
                took = seconds(plan, config, number, Path(folder) / f"{turn}_{number}")
                ratios[number].append(tuple(t / ((number + 1) * a) for t, a in zip(took, alone, strict=True)))
    print(f"{len(wanted):,} frames, {given.backbone} at {given.input_size} pixels, {given.turns} turns\n")
    print("| stores | processor seconds of so many times one | seconds of the clock |")
    print("| --- | --- | --- |")
    for number, of in ratios.items():
        print(f"| {number + 1} | {' | '.join(f'{median(values):.2f}' for values in zip(*of, strict=True))} |")


def seconds(plan: Plan, config: ExtractConfig, num_cuts: int, folder: Path) -> tuple[float, float]:
    """Processor seconds and seconds of extracting into new stores in ``folder``."""
    config = replace(config, store=folder / "one.zarr", cuts=dict(list(CUTS.items())[:num_cuts]))
    plan = replace(plan, writer=StoreWriter(config.store, plan.made_by, plan.writer.widths))
    plans = {config.store: plan, **plans_of_cuts(plan, config)}
    before = time.process_time(), time.monotonic()
    with redirect_stdout(StringIO()):
        outcomes = fill_together(plans) if num_cuts else {config.store: fill(plan, config.store)}
    assert all(outcome.extracted == len(plan.wanted) for outcome in outcomes.values())
    return time.process_time() - before[0], time.monotonic() - before[1]


if __name__ == "__main__":
    main()
