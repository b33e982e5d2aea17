"""Several feature stores side by side, read as if they were one: rows joined by (video, frame), columns put together.

A row is there where any of the stores has it. In the columns of a store that lacks it, it holds zeros, and ``present``
says so. A view that a store does not have is its 'original' there: augmented pictures have no augmented sound.

With one store there is nothing to join: ``FeatureStore`` itself is used.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.core import store as of_one
from pipeline.core.params import UserError
from pipeline.core.store import FeatureStore

Data = Path | list[Path]  # what ``--data`` names: a store, or several


def each_store(data: Data) -> list[Path]:
    """The paths of the stores that ``data`` names. Raises ``UserError`` where it names none, or one twice."""
    paths = data if isinstance(data, list) else [data]
    if not paths:
        raise UserError("data must name a feature store, and names none")
    twice = [path for path in paths if [p.absolute() for p in paths].count(path.absolute()) > 1]
    if twice:
        raise UserError(f"data names the store {twice[0]} more than once")
    return paths


def store_names(paths: Sequence[Path]) -> list[str]:
    """What the stores are called: 'faces' of faces.zarr; with as many folders before it as tell them apart."""
    parts = [path.absolute().with_suffix("").parts for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(of[-depth:]) for of in parts]
        if len({*names}) == len(names):
            break
    return names


class Stores:
    """Opened stores side by side; has what a reader of a ``FeatureStore`` uses.

    ``keys`` has a row for each (video, frame) that any store has, sorted by them: video, frame and row. Rows are
    numbered in the order of the first store, then in that of the next for what the first lacks, so that reading is
    sequential. ``columns`` are those of each store in a row of 'original'. ``made_by['stores']`` has the name and the
    ``made_by`` of each. The 'logits' are those of the first store that has some, and zeros in rows that it lacks.
    """

    def __init__(self, stores: Sequence[FeatureStore]) -> None:
        self.stores = list(stores)
        self.names = store_names([store.path for store in self.stores])
        self.path = " + ".join(str(store.path) for store in self.stores)
        self.views = list(dict.fromkeys(view for store in self.stores for view in store.views))
        each = {view: [store.widths[view_of(store, view)] for store in self.stores] for view in self.views}
        self._columns = {view: _slices(widths) for view, widths in each.items()}
        self.columns = self._columns["original"]
        self.widths = {view: sum(widths) for view, widths in each.items()}
        self._with_logits = next((k for k, store in enumerate(self.stores) if "logits" in store.widths), None)
        if self._with_logits is not None:
            self.widths["logits"] = self.stores[self._with_logits].widths["logits"]
        self.num_features = self.widths["original"]
        self.keys, self._own = _union([store.keys for store in self.stores])
        self._complete = not any(self.lacking())
        self.made_by = _together(self.names, [store.made_by for store in self.stores], self._with_logits)

    def own_rows(self, rows: np.ndarray, number: int) -> np.ndarray:
        """Where ``rows`` (n,) lie in store ``number``; -1 where it lacks them."""
        return self._own[number][rows]

    def has_logits(self, rows: np.ndarray) -> np.ndarray:
        """Which of ``rows`` (n,) the store has whose logits these are."""
        return self._own[self._with_logits][rows] >= 0

    def present(self, rows: np.ndarray) -> np.ndarray | None:
        """Which stores have each of ``rows`` (n,), as (n, S); None where all have all."""
        if self._complete:
            return None
        there = np.stack([own[rows] >= 0 for own in self._own], axis=1)
        return None if there.all() else there

    def lacking(self) -> list[int]:
        """How many rows each store lacks."""
        return [int((own < 0).sum()) for own in self._own]

    def read(self, rows: np.ndarray, name: str = "original") -> np.ndarray:
        """As ``FeatureStore.read``: rows (n,) of a view as (n, D) float16, the columns of each store after another."""
        rows = np.asarray(rows, dtype=np.int64)
        if name not in self.widths:
            raise UserError(f"'{name}' is not in the stores {self.path}, which have {list(self.widths)}")
        out = np.empty((len(rows), self.widths[name]), np.float16)
        if name == "logits":
            _read_into(out, self.stores[self._with_logits], self._own[self._with_logits][rows], name)
            return out
        for columns, store, own in zip(self._columns[name], self.stores, self._own, strict=True):
            _read_into(out[:, columns], store, own[rows], view_of(store, name))
        return out


def side_by_side(stores: Sequence[FeatureStore]) -> FeatureStore | Stores:
    """The one store itself, or several as one; prints how many rows each of several lacks.

    Raises ``UserError`` where two of them have no row in common: they are not of the same frames.
    """
    if len(stores) == 1:
        return stores[0]
    together = Stores(stores)
    lacking = [
        f"{name} lacks {count:,}" for name, count in zip(together.names, together.lacking(), strict=True) if count
    ]
    rest = f": {', '.join(lacking)}, which are masked there" if lacking else ", which all of them have"
    print(f"{len(stores)} stores side by side ({', '.join(together.names)}), {len(together.keys):,} frames{rest}")
    first = together.own_rows(together.keys["row"].to_numpy(), 0) >= 0
    for number, name in enumerate(together.names[1:], start=1):
        if not (first & (together.own_rows(together.keys["row"].to_numpy(), number) >= 0)).any():
            raise UserError(
                f"the stores {together.names[0]} and {name} have no frame in common: rows are joined by video and "
                f"frame, and one has {_first_key(stores[0])}, the other {_first_key(stores[number])}"
            )
    return together


def vouched_for(refusal: str, there: Mapping[str, Any], here: Mapping[str, Any], alike: Collection[str]) -> str:
    """As ``core.store.vouched_for``, also of several stores side by side: each is compared with that in its place.

    Their names need not be the same: a test set has stores of its own. Raises ``UserError`` too where there are more or
    fewer of them, and says so where they are the same in another order.
    """
    ours, theirs = here.get("stores"), there.get("stores")
    if ours is None and theirs is None:
        return of_one.vouched_for(refusal, there, here, alike)
    if ours is None or theirs is None or len(ours) != len(theirs):
        raise UserError(f"{refusal}: it needs {_named(theirs)}, and here is {_named(ours)}: name them with -d")
    pairs = list(zip(theirs, ours, strict=True))
    if any(of_one.differences(a["made_by"], b["made_by"]) for a, b in pairs):
        order = [
            next((b["name"] for b in ours if not of_one.differences(a["made_by"], b["made_by"])), None) for a in theirs
        ]
        if len({*order} - {None}) == len(ours):
            raise UserError(f"{refusal}: they are the same in another order, which is {', '.join(order)}")
    said = []
    for a, b in pairs:
        which = a["name"] if a["name"] == b["name"] else f"{a['name']}, here {b['name']}"
        if words := of_one.vouched_for(f"{refusal}, in the store {which}", a["made_by"], b["made_by"], alike):
            said.append(f"{which}: {words}")
    return "; ".join(said)


def made_by_each(made_by: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The name and the ``made_by`` of each of several stores; of one store, '' and its own."""
    return [(of["name"], of["made_by"]) for of in made_by.get("stores", [{"name": "", "made_by": dict(made_by)}])]


def view_of(store: FeatureStore, view: str) -> str:
    """The view of one of several stores that is read where ``view`` is asked for: 'original' where it lacks that."""
    return view if view in store.widths else "original"


def _named(stores: Sequence[Mapping[str, Any]] | None) -> str:
    return "one store" if stores is None else f"{len(stores)} stores ({', '.join(of['name'] for of in stores)})"


def _first_key(store: FeatureStore) -> str:
    return "/".join(map(str, store.keys[["video", "frame"]].iloc[0])) if len(store.keys) else "none"


def _slices(widths: Sequence[int]) -> list[slice]:
    ends = np.cumsum(widths).tolist()
    return [slice(end - width, end) for end, width in zip(ends, widths, strict=True)]


def _read_into(out: np.ndarray, store: FeatureStore, own: np.ndarray, view: str) -> None:
    """Rows ``own`` (n,) of a store into ``out`` (n, D), which may be some columns of more; zeros where they are -1."""
    there = own >= 0
    out[~there] = 0
    out[there] = store.read(own[there], view)


def _union(each: Sequence[pd.DataFrame]) -> tuple[pd.DataFrame, list[np.ndarray]]:
    """The keys that any of several stores has, and for each store its own row (N,) of each row, or -1."""
    names = pd.Index(sorted({name for keys in each for name in keys["video"].cat.categories}), dtype="str")
    numbers = np.unique(np.concatenate([keys["frame"].to_numpy() for keys in each]))
    codes = []
    for keys in each:
        of_video = names.get_indexer(keys["video"].cat.categories)[keys["video"].cat.codes]
        codes.append(of_video.astype(np.int64) * len(numbers) + np.searchsorted(numbers, keys["frame"]))
    union = np.unique(np.concatenate(codes))
    own = [np.full(len(union), -1) for _ in each]
    for keys, code, of_store in zip(each, codes, own, strict=True):
        of_store[np.searchsorted(union, code)] = keys["row"].to_numpy()
    last = np.iinfo(np.int64).max
    order = np.lexsort([np.where(of_store < 0, last, of_store) for of_store in reversed(own)])
    row = np.empty(len(union), dtype=np.int64)
    row[order] = np.arange(len(union))
    video, frame = np.divmod(union, max(len(numbers), 1))
    videos = pd.Categorical.from_codes(video, categories=names, ordered=True)
    keys = pd.DataFrame({"video": videos, "frame": numbers[frame], "row": row})
    return keys, [of_store[order] for of_store in own]


def _together(names: Sequence[str], each: Sequence[dict[str, Any]], with_logits: int | None) -> dict[str, Any]:
    """The ``made_by`` of several: what they all agree about, or both sides, for people; 'stores' is what counts."""

    def of_all(key: str) -> Any:
        values = [made_by.get(key) for made_by in each]
        return values[0] if all(value == values[0] for value in values) else " + ".join(map(str, values))

    return {
        **{key: of_all(key) for key in ("backbone", "source", "input_size", "crop_source")},
        "outputs": None if with_logits is None else each[with_logits].get("outputs"),
        "stores": [{"name": name, "made_by": made_by} for name, made_by in zip(names, each, strict=True)],
    }
