"""Several cuts of a face, each into a store of its own, in one pass over the files.

A cut is the middle of a frame's own image, or the same frame in the folder of another crop source. The store of cut
'tight' beside ``features.zarr`` is ``features.tight.zarr``. Its rows have the keys of the frame table, so that the
stores join by (video, frame).

A file is decoded once for all stores that lack its frame. All of them are written chunk by chunk, each by its own
writer: killed anywhere, the next run computes for each store what that store lacks.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
import torch

from pipeline.core.params import UserError
from pipeline.core.store import StoreWriter
from pipeline.extraction import loop
from pipeline.extraction.backbones import Backbone
from pipeline.extraction.config import ExtractConfig
from pipeline.extraction.forward import Forward, Pending, Rows
from pipeline.extraction.plan import Plan
from pipeline.extraction.run import lacking, matching

LOOKED_FOR = 100  # evenly spaced frames, one of which at least must be in the folder of another crop source


def store_of_cut(store: Path, name: str) -> Path:
    """``features.tight.zarr`` of ``features.zarr``."""
    return store.with_name(f"{store.stem}.{name}{store.suffix}")


def plans_of_cuts(plan: Plan, config: ExtractConfig) -> dict[Path, Plan]:
    """The plan of each cut, by the path of its store; ``plan`` is that of the frames themselves.

    Raises ``UserError`` where the frames do not lie in folders of their crop source, or none of them in the other one.
    """
    plans = {}
    for name, cut in config.cuts.items():
        crop_source, frames, wanted, share = str(cut), plan.frames, plan.wanted, 1.0
        if isinstance(cut, str):
            wanted = wanted.assign(path=_elsewhere(plan, name, cut))
        else:
            share, crop_source = float(cut), f"{plan.made_by['crop_source']}, middle {cut:g}"
        forward = plan.forward
        fitted = forward.backbone.fitted(config.fit, config.crop_pct, cut) if isinstance(cut, str) else forward.backbone
        forward = forward.of_cut(share, fitted)
        made_by = loop.made_by(
            fitted, replace(frames, crop_source=crop_source), config.precision, forward.views
        )  # fmt: skip
        path = store_of_cut(config.store, name)
        writer = StoreWriter(path, made_by, plan.writer.widths, config.chunk_rows)
        plans[path] = replace(plan, wanted=wanted, forward=forward, writer=writer, made_by=made_by)
    return plans


def _elsewhere(plan: Plan, name: str, folder: str) -> list[str]:
    """The paths of the wanted frames in the folder of another crop source."""
    source = plan.frames.crop_source.partition(",")[0]  # behind it stands how the faces in the folder were cut
    paths = [_in_folder(path, source, folder) for path in plan.wanted["path"]]
    if None in paths:
        path = plan.wanted["path"].iloc[paths.index(None)]
        raise UserError(
            f"cuts: '{name}' takes '{folder}' in the place of the folder '{source}', which is not in {path}"
        )
    some = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, LOOKED_FOR).astype(int))] if paths else []
    if some and not any((plan.frames.root / path).is_file() for path in some):
        raise UserError(f"cuts: '{name}': no frame lies in '{folder}', such as {plan.frames.root / some[0]}")
    return paths


def _in_folder(path: str, source: str, folder: str) -> str | None:
    """'b/cropped/v/1.jpg' of 'b/cropped_aligned/v/1.jpg'; of the folder 'cropped_aligned_new' it is 'cropped_new'."""
    *parents, file = PurePosixPath(path).parts
    for place in reversed(range(len(parents))):
        if parents[place] == source or parents[place].startswith(f"{source}_"):
            parents[place] = folder + parents[place].removeprefix(source)
            return PurePosixPath(*parents, file).as_posix()
    return None


def fill_together(plans: Mapping[Path, Plan]) -> dict[Path, loop.Outcome]:
    """Extracts what each of the stores lacks, as ``run.fill`` does for one; the first plan's is that of the frames."""
    with ExitStack() as held:
        begun = {path: matching(plan, path, lambda p=plan, s=path: _opened(p, s, held)) for path, plan in plans.items()}
        todo = {path: table for path, (table, _) in begun.items() if len(table)}
        if todo:
            prepared = next(iter(plans.values())).forward
            prepared.prepare()
            for paths, table in passes(plans, todo):
                forwards = {p: prepared.of_cut(plans[p].forward.share, plans[p].forward.backbone) for p in paths}
                _extract([(plans[p], forwards[p], begun[p][1]) for p in paths], table)
    return {path: outcome for path, (_, outcome) in begun.items()}


def _opened(plan: Plan, path: Path, held: ExitStack) -> tuple[pd.DataFrame, loop.Outcome]:
    """The frames that a store lacks; it stays open until ``held`` is left."""
    with ExitStack() as own:
        own.enter_context(plan.writer)
        found = lacking(plan, path)
        held.push(own.pop_all())
    return found


def passes(plans: Mapping[Path, Plan], todo: Mapping[Path, pd.DataFrame]) -> Iterator[tuple[list[Path], pd.DataFrame]]:
    """Stores and the frames (rows of their frame table) that just these lack, of those that read the same files."""
    sources: dict[int, list[Path]] = {}
    for path in todo:
        sources.setdefault(id(plans[path].wanted), []).append(path)
    for paths in sources.values():
        wanted = plans[paths[0]].wanted
        lacks = np.zeros((len(wanted), len(paths)), dtype=bool)
        for number, path in enumerate(paths):
            lacks[wanted.index.get_indexer(todo[path].index), number] = True
        for who in np.unique(lacks[lacks.any(axis=1)], axis=0)[::-1]:
            yield [path for path, of in zip(paths, who, strict=True) if of], wanted[(lacks == who).all(axis=1)]


def _extract(each: Sequence[tuple[Plan, Forward, loop.Outcome]], table: pd.DataFrame) -> None:
    plan, together = each[0][0], loop.Outcome(done_before=0)
    forwards = Forwards([forward for _, forward, _ in each])
    writers = Writers([of.writer for of, _, _ in each])
    loop.extract(plan.frames, table, writers, forwards, plan.workers, together)
    for number, (_, _, outcome) in enumerate(each):
        outcome.extracted += together.extracted
        outcome.skipped |= together.skipped
        for name, faint in together.faint.items():
            if name.startswith(prefix := _prefix(number)):
                outcome.faint[name.removeprefix(prefix)] = outcome.faint.get(name.removeprefix(prefix), 0) + faint


def _prefix(number: int) -> str:
    """What stands before the names of the arrays of store ``number`` where several are computed together."""
    return f"{number}/"


@dataclass(frozen=True)
class Forwards:
    """The forwards of several cuts as one: an image -> the resized image of each; the rows of all in one mapping."""

    each: Sequence[Forward]

    @property
    def batch_size(self) -> int:
        return self.each[0].batch_size

    @property
    def backbone(self) -> Backbone:
        return self.each[0].backbone

    @property
    def dtype(self) -> torch.dtype:
        return self.each[0].dtype

    def prepare(self) -> None:
        """They are copies of one that is prepared."""

    def resize_image(self, image: np.ndarray) -> list[np.ndarray]:
        return [forward.resize_image(image) for forward in self.each]

    def start(self, images: Sequence[list[np.ndarray]], videos: Sequence[str]) -> Pending:
        started = [f.start([cuts[n] for cuts in images], videos) for n, f in enumerate(self.each)]

        def wait() -> Rows:
            return {f"{_prefix(n)}{name}": rows for n, of in enumerate(started) for name, rows in of().items()}

        return wait


@dataclass(frozen=True)
class Writers:
    """The writers of several stores as one."""

    each: Sequence[StoreWriter]

    @property
    def chunk_rows(self) -> int:
        """What all of them take; a store that was made with larger chunks gets some that are not full."""
        return min(writer.chunk_rows for writer in self.each)

    @property
    def widths(self) -> dict[str, int]:
        return {f"{_prefix(n)}{name}": width for n, of in enumerate(self.each) for name, width in of.widths.items()}

    def write(self, keys: pd.DataFrame, rows: Mapping[str, Any]) -> None:
        for number, writer in enumerate(self.each):
            writer.write(keys, {name: rows[f"{_prefix(number)}{name}"] for name in writer.widths})
