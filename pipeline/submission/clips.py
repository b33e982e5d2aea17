"""A trained run's predictions of clips, with or without labels, as a table.

    python -m pipeline.submission.clips --run runs/NAME -o predictions.csv          all clips of data/clips.parquet
    ... --part test                                  only those of the official test part
    ... --embeddings embeddings.npz                  and one embedding of length one for each clip, of the first seed
    ... --seed 0                                     from one seed alone

The table has a row a clip: clip, video, start, end, and what the run predicts: 'predicted' and p_CLASS, valence and
arousal, action units as probabilities, further outputs. The suffix says its format: .csv or .parquet. Several seeds,
and folds, are averaged, classes and action units as probabilities. How the windows of a clip are pooled is part of the
run. A clip without features (no face was found) has a row without a prediction, and is named.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline.adapter import sources as features
from pipeline.adapter.adapter import load_adapter
from pipeline.adapter.clips import per_clip, rule_of
from pipeline.core.clips import read_clips
from pipeline.core.device import pick_device
from pipeline.core.files import whole, write_table
from pipeline.core.frame_set import frames_of_clips
from pipeline.core.join import ALIKE_HELP, DATA_HELP, FRAMES, data_of_run, find_beside, open_store
from pipeline.core.params import UserError, entry, option, parse
from pipeline.core.progress import Line
from pipeline.core.rates import FPS
from pipeline.core.seen import USES, some
from pipeline.core.store import ALIKE
from pipeline.core.stores import each_store
from pipeline.core.tables import SPLITS, STORE

SUFFIXES = (".csv", ".parquet")


@dataclass(frozen=True)
class PredictClipsConfig:
    """The flags; params.yaml has no section for them."""

    run: Path | None = option(None, help="the folder of a run on clips")
    output: Path = option(Path("predictions.csv"), "-o", help="the table to write: .csv or .parquet")
    data: Path | list[Path] | None = option(
        None, "-d", help=f"{DATA_HELP}; default: {STORE}, or the several that the run was trained on"
    )
    clips: Path | None = option(None, help="the clip table; default: the one beside the store")
    part: str | None = option(None, help=f"only clips of this official part: {', '.join(SPLITS)}; default: all")
    table: Path | None = option(None, help=FRAMES)
    alike: list[str] = option([], help=ALIKE_HELP, choices=ALIKE)
    seed: int | None = option(None, help="this seed of the run alone; default: the mean of all")
    embeddings: Path | None = option(
        None, help="a .npz to write: names of clips and their embeddings, by the first network"
    )
    fps: float | Path | None = option(None, help=FPS)
    device: str = option("auto", help="auto, cpu, cuda, cuda:1, ...")

    def __post_init__(self) -> None:
        if self.run is None:
            raise UserError("predict: --run must be given")
        if self.output.suffix not in SUFFIXES:
            raise UserError(f"predict: output must end in one of {list(SUFFIXES)}, and is {self.output}")
        if self.embeddings is not None and self.embeddings.suffix != ".npz":
            raise UserError(f"predict: embeddings must end in .npz, and is {self.embeddings}")
        if self.part not in (None, *SPLITS):
            raise UserError(f"predict: part must be one of {list(SPLITS)}, and is '{self.part}'")


def main(argv: Sequence[str] | None = None) -> None:
    config = parse(PredictClipsConfig, argv, sections=[], description=__doc__)
    paths = _checkpoints(config)
    data = data_of_run(config.run) if config.data is None else config.data
    store = open_store(data, config.table)
    given = read_clips(config.clips or find_beside(each_store(data)[0], "clips.parquet"))
    clips = given.table
    if config.part is not None:
        clips = clips[clips["split"] == config.part] if "split" in clips else clips.iloc[:0]
    if clips.empty:
        of_part = f" of the part '{config.part}'" if config.part else ""
        raise UserError(f"the clip table of data set '{given.dataset}' has no clips{of_part}")
    rows, of, clip = frames_of_clips(store.keys, clips, np.arange(len(clips)))
    if not len(rows):
        raise UserError(f"none of the {len(clips):,} clips has features in {store.path}")
    frame, stored = store.keys["frame"].to_numpy()[rows], store.keys["row"].to_numpy()[rows]
    first = np.flatnonzero(np.diff(clip, prepend=-1))
    there, videos = of[first], clips["video"].iloc[of[first]].tolist()
    total: dict[str, np.ndarray] = {}
    device, line, embeddings, seen = pick_device(config.device), Line(), None, set()
    for number, path in enumerate(paths, 1):
        line.say(f"{config.run}: network {number} of {len(paths)}, {len(first):,} clips")
        adapter = load_adapter(path, store.made_by, config.alike)
        if rule_of(adapter) is None:
            raise UserError(f"{config.run} was trained on frames: python -m pipeline.submission.predict predicts these")
        adapter.modules().to(device)
        parts = [adapter.seen[part] for part in USES if adapter.seen and part in adapter.seen]
        seen |= {video for part in parts for video in part.known([], sorted({*videos}))[1]}
        source = features.open_inputs(store, stored, adapter.front, device)
        windows = adapter.window.over(clip, frame, videos, config.fps)
        z, predicted = per_clip(adapter, source, windows, clip, first, device)
        embeddings = z if embeddings is None else embeddings
        for what, values in predicted.items():
            total[what] = total.get(what, 0) + values / len(paths)
        facts = adapter.facts
    line.end()
    if not total and config.embeddings is None:
        raise UserError(f"{config.run} predicts nothing, as its loss '{facts['loss']}' trains no predictor")
    columns = {
        "classes": [f"p_{name}" for name in facts["classes"]],
        "va": ["valence", "arousal"],
        "aus": facts["au_names"],
        "outputs": facts.get("output_names", []),
    }
    table = clips[["clip", "video", "start", "end"]].reset_index(drop=True)
    if "classes" in total:
        table["predicted"] = None
        table.loc[there, "predicted"] = np.array(facts["classes"], dtype=object)[total["classes"].argmax(1)]
    for what, values in total.items():
        every = np.full((len(table), values.shape[1]), np.nan, dtype=np.float32)
        every[there] = values
        table[columns[what]] = every
    _write(config.output, table)
    if config.embeddings is not None:
        with whole(config.embeddings) as file:
            np.savez(file, clip=table["clip"].iloc[there].to_numpy("str"), embeddings=embeddings)
    absent = table["clip"].drop(index=there).tolist()
    print(f"{config.output}: {len(there):,} clips, by {len(paths)} networks of {config.run}")
    if absent:
        print(f"  without features, and so without a prediction: {len(absent):,} clips ({some(absent)})")
    if seen:
        print(f"  the run has seen {len(seen):,} of their videos in training or selection ({some(sorted(seen))})")


def _checkpoints(config: PredictClipsConfig) -> list[Path]:
    seed = "*" if config.seed is None else str(config.seed)
    found = [
        *config.run.glob(f"seed_{seed}/best.safetensors"),
        *config.run.glob(f"fold_*/seed_{seed}/best.safetensors"),
    ]
    if not found:
        raise UserError(f"no trained run in {config.run}: seed_{seed}/best.safetensors is what train.py makes")
    return sorted(found, key=lambda path: [int(place[5:]) for place in path.relative_to(config.run).parts[:-1]])


def _write(path: Path, table: pd.DataFrame) -> None:
    if path.suffix == ".parquet":
        write_table(path, pa.Table.from_pandas(table, preserve_index=False), {})
        return
    with whole(path) as file:
        table.to_csv(file, index=False)


if __name__ == "__main__":
    entry(main)
