"""How many trials an hour 'train.py --search' makes, beside as many calls of 'train.py', in one run.

    python benchmarks/search.py                          40 trials, beside 3 calls with and 3 without evaluation
    python benchmarks/search.py --trials 40 --calls 5 --flags -e 20

Both train trials of the same space on the store, tables and projection in ``data/``. The calls are of the first trials
that the search draws, in full, one seed. The calls are made before and after the search, in turns with and without
evaluation. What counts is processor seconds, which other work on the machine disturbs less; the ratio is that of the
medians. The search's own time has its finalists' seeds in it.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent))

import yaml

from pipeline.training.config import from_flags
from pipeline.training.space import Draws, read_space

ROOT = Path(__file__).parent.parent
SPACE = """
loss: [supcon, contrastive_cross_entropy, arcface]
sampler: [balanced, uniform]
learning_rate: {log: [3.0e-4, 1.0e-2]}
weight_decay: {log: [1.0e-3, 0.1]}
dropout: {range: [0, 0.6]}
window: {range: [1, 31]}
temperature: {log: [5, 40]}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--calls", type=int, default=3, help="calls of train.py, with and without evaluation each")
    parser.add_argument(
        "--flags", nargs=argparse.REMAINDER, default=[], help="of train.py, for both; the last one here"
    )
    given = parser.parse_args()
    took: dict[str, list[float]] = {"search": [], "call": [], "call without evaluation": []}
    with tempfile.TemporaryDirectory() as folder:
        space = Path(folder) / "space.yaml"
        space.write_text(SPACE, encoding="utf-8")
        base, _ = from_flags(given.flags, __doc__)
        drawn = [values for values, _ in islice(Draws(read_space(space), base, base.seed), given.calls)]
        for number, values in enumerate(drawn):
            if number == (given.calls + 1) // 2:
                took["search"].append(searched(space, given.trials, folder, given.flags))
            flags = [
                word for name, value in values.items() for word in ("--" + name.replace("_", "-"), yaml_word(value))
            ]
            common = [*given.flags, *flags, "-r", "1", "--output", folder]
            took["call"].append(seconds([*common, "--name", f"with_{number}"]))
            took["call without evaluation"].append(seconds([*common, "--name", f"without_{number}", "--no-evaluate"]))
        if not took["search"]:
            took["search"].append(searched(space, given.trials, folder, given.flags))
    a_trial = took["search"][0] / given.trials
    print("\n| | processor seconds a trial | trials an hour | search makes times as many |")
    print("| --- | --- | --- | --- |")
    print(f"| search, {given.trials} trials | {a_trial:.2f} | {3600 / a_trial:,.0f} | |")
    for name in ("call", "call without evaluation"):
        each = median(took[name])
        print(f"| {name} of train.py | {each:.2f} | {3600 / each:,.0f} | {each / a_trial:.1f} |")


def searched(space: Path, trials: int, folder: str, flags: Sequence[str]) -> float:
    return seconds(["--search", str(space), "-n", str(trials), *flags, "-r", "2", "--output", folder])


def seconds(flags: Sequence[str]) -> float:
    """Processor seconds of a call of train.py, with all processes that it starts."""
    before, wall = os.times(), time.monotonic()
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, str(ROOT / "train.py"), *flags], env=env, stdout=subprocess.DEVNULL, check=True)
    now = os.times()
    took = now.children_user - before.children_user + now.children_system - before.children_system
    print(
        f"{took:.1f} processor seconds, {time.monotonic() - wall:.0f} s: train.py {' '.join(flags[:6])} ...", flush=True
    )
    return took


def yaml_word(value: object) -> str:
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()


if __name__ == "__main__":
    main()
