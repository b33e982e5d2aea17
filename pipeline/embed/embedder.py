"""A trained run in a program: a video, pictures or features in, a table with an embedding a face and frame out."""

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import pandas as pd
import torch

from pipeline.adapter.adapter import Adapter
from pipeline.adapter.examples import load_examples
from pipeline.adapter.front import hide_
from pipeline.adapter.inference import per_frame
from pipeline.adapter.sources import InMemory
from pipeline.adapter.windows import Windows
from pipeline.core.device import pick_device
from pipeline.core.params import UserError, one_of
from pipeline.core.store import ALIKE, vouched_for
from pipeline.core.stores import made_by_each
from pipeline.datasets.numbered import usual_and_how
from pipeline.embed.compare import unit
from pipeline.embed.frozen import BATCH, Batches, Frozen, FrozenTogether
from pipeline.embed.inputs import Image, as_list, names_of, numbered_frames, read_picture
from pipeline.embed.loading import Seed, Trained, load_trained
from pipeline.embed.people import Picture, Progress, cut_pictures, cut_settings, whole_pictures
from pipeline.embed.table import BOX, rows, with_embeddings
from pipeline.extraction.backbones import PICTURES
from pipeline.extraction.forward import EXPORT_FROM
from pipeline.extraction.frames import UnreadableImage, read_batches
from pipeline.faces.config import CutSettings
from pipeline.faces.detect import Detector
from pipeline.faces.find import make_detector
from pipeline.faces.loop import encode_crop, name_people
from pipeline.faces.video import STILLS, Frame, UnreadableVideo, read

if TYPE_CHECKING:
    from pipeline.embed.stream import Stream

Problems = list[dict[str, str]]  # the 'file' and the 'problem' (or 'note') of each


class Embedder:
    """A trained run, ready to be used. What it gives are tables with a row a face and frame; docs/embed.md has more.

    An embedding is that of the window around the frame, as in training, and of length one. Of several seeds or folds it
    is that of each, side by side, divided by the root of their number: its cosine is the mean of theirs. Probabilities
    and values are their means.

    ``frozen`` (pictures to features) and ``embed`` (features to embeddings) are the steps of which all is made.
    """

    def __init__(self, trained: Trained, device: torch.device, alike: Collection[str] = ()) -> None:
        self.trained, self.device, self.alike = trained, device, tuple(alike)
        self.identity: tuple[Embedder, float] | None = None  # of ``with_identity``
        for adapter in self.adapters:
            adapter.modules().to(device).eval()

    @classmethod
    def load(
        cls, path: str | Path, seed: Seed = None, alike: Collection[str] = (), device: str = "auto",
        weights: str | Path | None = None,
    ) -> Self:  # fmt: skip
        """The run, or the bundle, in the folder ``path``.

        ``seed`` None is the one with the best selection score, 'all' is the mean of all. ``alike`` is what the pictures
        may differ in from those of training, by your word: ('crop_source',). ``weights`` is the file of the backbone's
        weights, where it does not lie where it lay in training.

        Raises ``UserError`` where there is no such run or seed, where the training is not finished, and for a damaged
        file. The weights are looked at when the first picture comes: features need none.
        """
        for name in alike:
            one_of("alike", name, ALIKE)
        trained = load_trained(path, seed)
        if weights is not None and "stores" in trained.facts:
            names = ", ".join(of["name"] for of in trained.facts["stores"])
            raise UserError(f"weights names one file, and the run {path} was trained on several stores, {names}")
        if weights is not None:
            trained = replace(trained, weights=Path(weights))
        return cls(trained, pick_device(device), alike)

    def with_identity(self, run: "Embedder", threshold: float | None = None) -> Self:
        """This one, which from now on tells who is who in a video by the embeddings of ``run``.

        ``run`` was trained on people, on features of the same backbone. Two tracks may be one person from a cosine of
        ``threshold`` on, by default the run's own (``matrix.threshold_of``). Without such a run tracks are compared by
        what a face looks like at 14 x 14 pixels. Raises ``UserError`` for a run of another kind or backbone.
        """
        if not run.facts.get("num_people"):
            raise UserError(
                f"{run.trained.path} cannot tell people apart: it was not trained on people (dataset.identities)"
            )
        refusal = f"{run.trained.path} tells people apart by other features than those of {self.trained.path}"
        vouched_for(refusal, run.facts["made_by"], self.facts["made_by"], self.alike)
        if threshold is None:
            from pipeline.embed.matrix import threshold_of  # it draws too, which is for few

            threshold = threshold_of(run)[0]
        self.identity = run, threshold
        return self

    # --- what it is ----------------------------------------------------------------------------------------------

    @property
    def facts(self) -> dict[str, Any]:
        """What is known of the run, as in ``Adapter``."""
        return self.trained.facts

    @property
    def adapters(self) -> list[Adapter]:
        """Those of the seeds and folds that are used together."""
        return list(self.trained.adapters.values())

    @property
    def embedding_size(self) -> int:
        return sum(adapter.head.embedding_size for adapter in self.adapters)

    @property
    def classes(self) -> list[str]:
        """Names, in the order of the run's labels; none where it was trained without classes."""
        return self.facts["classes"]

    @property
    def classes_by(self) -> str | None:
        """What tells the class: 'classifier' or 'class centres'; None without classes."""
        if not self.classes:
            return None
        return "classifier" if "classes" in self.adapters[0].predicts else "class centres"

    @property
    def au_thresholds(self) -> dict[str, float] | None:
        """The probability from which each action unit counts as active, mean over members; None without units."""
        if "aus" not in self.adapters[0].predicts:
            return None
        mean = torch.stack([adapter.au_thresholds for adapter in self.adapters]).mean(dim=0).tolist()
        return dict(zip([name.upper() for name in self.facts["au_names"]], mean, strict=True))

    @property
    def cuts(self) -> bool:
        """Whether faces are found and cut; a run that was trained on pictures as given gets them whole."""
        return usual_and_how(str(self.facts["made_by"].get("crop_source")))[0] not in PICTURES

    # --- what it gives -------------------------------------------------------------------------------------------

    def video(
        self, path: str | Path, *, name: str | None = None, on_progress: Progress | None = None,
        with_features: bool = False, with_crops: bool = False, **cut: Any,
    ) -> pd.DataFrame:  # fmt: skip
        """A table of all faces in a video, sorted by (video, person, frame). A frame without a face has no row.

        It is called ``name``, by default as the file without its ending. ``on_progress(done, total)`` is called after
        each frame, ``total`` being None where the file does not say it; it may raise, which stops. ``with_features``
        adds the column features (D float16), ``with_crops`` the column crop (JPEG). ``cut`` are settings of
        ``python -m pipeline.faces`` by their names: every=3, min_face=60, confidence, min_frames, most_people, ...

        ``attrs`` of the table has 'problems' (what was lost or left out, each with its file), 'notes', 'classes_by' and
        'fps' (None where it is not known). Raises ``UserError`` where no face is found, and for what is no video.
        """
        path, settings = Path(path), self.cut_settings(cut)
        vouched = self.check_pictures(settings)
        gathered = _Gathered(self.frozen, with_crops, settings.quality)
        try:
            video = read(path)
            detect = make_detector(settings) if self.cuts else None
            for picture in self._pictures(_counted(video.frames, video.expected_frames, on_progress), detect, settings):
                gathered.add(picture)
        except UnreadableVideo as error:
            raise UserError(f"{path}: {error}") from None
        least = 1 if path.suffix.lower() in STILLS else settings.min_frames
        found, problems = self._people(gathered, least, settings)
        if found.empty:
            raise UserError(f"{path}: {'; '.join(problems)}")
        found = found.assign(video=path.stem if name is None else name, time_sec=found["frame"].map(video.times))
        fps = None if np.isnan(video.fps) else video.fps
        table = self._table(found, gathered.features(), fps, gathered.crops, with_features)
        notes = _of(path, [*video.notes, *_by_your_word(vouched)], "note")
        table.attrs |= {"problems": _of(path, video.problems + problems), "notes": notes}
        return table

    def images(
        self, images: Iterable[Image] | Image, *, names: Sequence[str] | None = None,
        on_progress: Progress | None = None, with_features: bool = False, with_crops: bool = False, **cut: Any,
    ) -> pd.DataFrame:  # fmt: skip
        """The same of pictures: files, what files hold (bytes), or arrays (H, W, 3) uint8 RGB.

        Each is a video of one frame, called as ``names`` say; by default as its file without the ending, by its whole
        path where two would be called alike, and image_1, image_2, ... of others.

        A picture that cannot be read, or shows no face, is one of the 'problems'. Raises ``UserError`` where there are
        no others.
        """
        images, settings = as_list(images), self.cut_settings(cut)
        names = names_of(images, names)
        vouched = self.check_pictures(settings)
        detect = make_detector(settings) if self.cuts else None
        gathered = _Gathered(self.frozen, with_crops, settings.quality)
        kept, problems = [], Problems()
        for number, (image, name) in enumerate(zip(images, names, strict=True), start=1):
            file = image if isinstance(image, str | Path) else name
            try:
                frame = Frame(1, 0.0, read_picture(image))
            except UnreadableImage as error:
                problems += _of(file, [str(error)])
            else:
                for picture in self._pictures([frame], detect, settings):
                    gathered.add(picture)
                found, lost = self._people(gathered, 1, settings)
                problems += _of(file, lost)
                kept.append(found.assign(video=name))
                gathered.next()
            if on_progress:
                on_progress(number, len(images))
        found = _some(pd.concat(kept, ignore_index=True) if kept else pd.DataFrame(), problems)
        # A window of a single frame is that frame at any rate.
        table = self._table(found, gathered.features(), 1.0, gathered.crops, with_features)
        notes = _of("all pictures", _by_your_word(vouched), "note")
        table.attrs |= {"problems": problems, "notes": notes, "fps": None}
        return table

    def frames(
        self, folder: str | Path, *, fps: float | None = None, on_progress: Progress | None = None,
        with_features: bool = False, with_crops: bool = False,
    ) -> pd.DataFrame:  # fmt: skip
        """The same of pictures that are cut already: <video>/00001.jpg, as ABAW and ``pipeline.faces`` lay them out.

        Each folder of numbered pictures, at any depth, is a video, called by its path below ``folder``. ``person`` is
        '' everywhere: <video>_left is a folder of its own. The pictures are not cut again: ``box`` is the whole picture
        and ``confidence`` NaN. ``fps`` gives the times, which else are NaN. ``with_crops`` gives the files' bytes.

        A folder called 'cropped...' says how the faces were cut, and another way than that of training is refused.
        """
        folder = Path(folder)
        listed = numbered_frames(folder, str(self.facts["made_by"].get("crop_source")))
        vouched = [self.frozen.check(crop_source) for crop_source in listed["crop_source"].unique()]
        sizes, features, problems = {}, [], Problems()
        for places, images, failed in read_batches(listed["path"], self.frozen.batch_size, os.cpu_count() or 1):
            features.append(self.frozen(images))
            sizes |= {place: image.shape[1::-1] for place, image in zip(places, images, strict=True)}
            problems += [of for place, why in failed.items() for of in _of(listed["path"].iloc[place], [why])]
            if on_progress:
                on_progress(len(sizes) + len(problems), len(listed))
        found = _some(listed.iloc[list(sizes)], problems)
        found = found.assign(person="", at=np.arange(len(found)), left=0.0, top=0.0, confidence=np.nan)
        found[["right", "bottom"]] = list(sizes.values())
        first = found.groupby("video")["frame"].transform("min")
        found["time_sec"] = (found["frame"] - first) / (fps or np.nan)
        crops = [path.read_bytes() for path in found["path"]] if with_crops else []
        table = self._table(found, np.concatenate(features), fps, crops, with_features)
        table.attrs |= {"problems": problems, "notes": _of(folder, _by_your_word(*vouched), "note")}
        return table

    def features(
        self, features: np.ndarray, video: Sequence[str] | None = None, frame: Sequence[int] | None = None, *,
        fps: float | None = None,
    ) -> pd.DataFrame:  # fmt: skip
        """The same of features (n, D) of the run's backbone, with the columns video, person (''), frame and embedding.

        Of a run on several stores they are those of all, side by side in their order. A store that has no row of a
        frame is NaN in all its columns there.

        ``video`` (n,) are names, by default one video called ''. ``frame`` (n,) are numbers, by default 1, 2, 3, ... in
        each video. The index of the table is the row in ``features``, since it is sorted.
        """
        found = pd.DataFrame({"video": "" if video is None else list(video), "person": ""}, range(len(features)))
        found = found.astype({"video": "str"}).assign(at=np.arange(len(features)))
        number = found.groupby("video").cumcount() + 1 if frame is None else np.asarray(frame, np.int64)
        found = found.assign(frame=number)
        if found.duplicated(["video", "frame"]).any():
            twice = found[found.duplicated(["video", "frame"])].iloc[0]
            raise UserError(f"frame {twice['frame']} of video '{twice['video']}' is among the features twice")
        return self._table(found, features, fps)

    def nearest(self, embedding: np.ndarray, most: int = 6) -> pd.DataFrame:
        """The training videos that hold the windows nearest to an ``embedding`` (E,), nearest first, ``most`` at most.

        Columns: video, frame (the centre of the nearest window), class (null where it has none), cosine, path (its
        picture, which may be gone since; null where training knew of none). Searched are the run's example windows, a
        few evenly spaced ones of each training video. A cosine is the mean over the seeds or folds that were trained on
        that window. Raises ``UserError`` where there are no examples, as in a bundle.
        """
        if not self.trained.examples:
            raise UserError(
                f"{self.trained.path} has no example windows: they are training data, and stay with the run"
            )
        found, start = [], 0
        whole = unit(np.asarray(embedding)) * np.sqrt(len(self.adapters), dtype=np.float32)
        for name, adapter in self.trained.adapters.items():
            part, start = whole[start : start + adapter.head.embedding_size], start + adapter.head.embedding_size
            examples = load_examples(self.trained.examples[name])
            found.append(examples.table.assign(cosine=examples.embeddings @ part))
        by_window = pd.concat(found).groupby(["video", "frame"], as_index=False)
        windows = by_window.agg({"class": "first", "cosine": "mean", "path": "first"})
        windows = windows.sort_values("cosine", ascending=False, kind="stable")
        return windows.drop_duplicates("video").head(most).reset_index(drop=True)

    def stream(self, fps: float, *, delay_frames: int | Literal["window"] = 0, every: int = 5, **cut: Any) -> "Stream":
        """Takes frames one by one, such as those of a camera: see ``pipeline.embed.stream``."""
        from pipeline.embed.stream import Stream  # it is for few

        return Stream(self, fps, delay_frames, {"every": every} | cut)

    # --- the steps -----------------------------------------------------------------------------------------------

    @cached_property
    def frozen(self) -> Frozen | FrozenTogether:
        """The backbone: pictures (H, W, 3) uint8 RGB -> features (n, D) float16."""
        return self.frozen_by(BATCH)

    @cached_property
    def frozen_live(self) -> Frozen | FrozenTogether:
        """The same for pictures that come one by one, prepared as for many: ONNX Runtime on a CPU, a CUDA graph."""
        return self.frozen_by(1, EXPORT_FROM)

    def frozen_by(self, batch_size: int, frames: int = 0) -> Frozen | FrozenTogether:
        """The backbone, or those of all stores, for so many pictures at a time, and in all, as in ``Frozen``."""

        def frozen(made_by: dict[str, Any], weights: Path | None) -> Frozen:
            return Frozen(self.trained.path, made_by, weights, self.device, self.alike, batch_size, frames)

        if "stores" not in self.facts:
            return frozen(self.facts["made_by"], self.trained.weights)
        each = made_by_each(self.facts["made_by"])
        weights = self.trained.weights or [None] * len(each)
        return FrozenTogether(
            self.trained.path,
            {name: frozen(made_by, of_one) for (name, made_by), of_one in zip(each, weights, strict=True)},
        )

    def cut_settings(self, given: dict[str, Any]) -> CutSettings:
        """The settings of ``pipeline.faces`` that are ``given`` by name; faces are enlarged as those of training."""
        return cut_settings(given, str(self.facts["made_by"].get("crop_source")))

    def check_pictures(self, settings: CutSettings | None = None) -> str:
        """What you vouch for of pictures that are cut here by these settings, '' for nothing.

        Raises ``UserError`` where they would give other features than the run was trained on.
        """
        own = str(self.facts["made_by"].get("crop_source"))
        settings = settings or self.cut_settings({})
        points = usual_and_how(own)[2]
        if self.cuts and points is not None and settings.points is None and "crop_source" not in self.alike:
            raise UserError(
                f"the run {self.trained.path} was trained on faces that were cut by the points of an aligner "
                f"({points}): name its file with points, or --points"
            )
        return self.frozen.check(settings.crop_source if self.cuts else own)

    def embed(
        self, features: np.ndarray, video: np.ndarray, frame: np.ndarray, fps: float | None = None
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Unit embeddings (n, E) float32 of features (n, D), each by the window around its frame; and predictions.

        ``video`` (n,) are codes that never decrease, ``frame`` (n,) numbers that rise in each video. ``fps`` counts
        only for windows whose step is a time. Predictions are float64: probabilities of 'classes' (n, C) and 'aus'
        (n, A), values of 'va' (n, 2). Raises ``UserError`` for features of another width, or that are not finite.
        """
        features = self._checked(features)
        videos = [str(code) for code in range(int(video.max()) + 1)]
        fps = None if fps is None else float(fps)
        windows = [adapter.window.over(video, frame, videos, fps) for adapter in self.adapters]
        return self.embed_rows(features, windows, np.arange(len(frame)))

    def embed_rows(
        self, features: np.ndarray, windows: Sequence[Windows], at: np.ndarray
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The same of the rows ``at`` (m,), ascending, of features (n, D) float16 by ``windows`` of each adapter."""
        present = None
        if (absent := self._absent(features)).any():
            present = torch.from_numpy(~absent).to(self.device)
            features = np.nan_to_num(features, nan=0.0)
        values = torch.from_numpy(features).to(self.device)
        embeddings, total = [], {}
        for adapter, around in zip(self.adapters, windows, strict=True):
            source = InMemory(values, adapter.front, present)
            if adapter.front.projects:
                inputs = adapter.front(values)
                source = InMemory(inputs if present is None else hide_(inputs, adapter.front.columns, ~present))
            z, predicted = per_frame(adapter, source, around, at, None, self.device)
            embeddings.append(unit(z))
            if self.classes_by == "class centres":
                centres = adapter.centres.cpu().numpy()
                predicted["classes"] = by_centres(embeddings[-1], centres, adapter.facts["temperature"])
            for what, each in predicted.items():
                total[what] = total.get(what, 0) + each / len(self.adapters)
        return np.concatenate(embeddings, axis=1) / np.sqrt(len(embeddings), dtype=np.float32), total

    def _checked(self, features: np.ndarray) -> np.ndarray:
        width, found = self.facts["num_features"], np.asarray(features)
        if found.ndim != 2 or found.shape[1] != width:
            raise UserError(f"features must be (n, {width}), as the run was trained on, and are {found.shape}")
        if not len(found):
            raise UserError("no features were given")
        with np.errstate(over="ignore"):
            found = found.astype(np.float16)
        bad = ~np.isfinite(found)
        for (start, end), absent in zip(self._columns, self._absent(found).T, strict=True):
            bad[absent, start:end] = False
        if bad.any():
            raise UserError("some features are not finite, or beyond 65,504, the most that float16 can say")
        return found

    @property
    def _columns(self) -> list[tuple[int, int]]:
        """Those of each of several stores in a row of features, [start, end); none of one store."""
        return [tuple(of["columns"]) for of in self.facts.get("stores", [])]

    def _absent(self, features: np.ndarray) -> np.ndarray:
        """Which of several stores (n, S) have no row of each frame: all their columns are NaN."""
        each = [np.isnan(features[:, start:end]).all(axis=1) for start, end in self._columns]
        return np.stack(each, axis=1) if each else np.zeros((len(features), 0), dtype=bool)

    def _pictures(self, frames: Iterable[Frame], detect: Detector | None, settings: CutSettings) -> Iterator[Picture]:
        return whole_pictures(frames) if detect is None else cut_pictures(frames, detect, settings)

    def _people(self, gathered: "_Gathered", least: int, settings: CutSettings) -> tuple[pd.DataFrame, list[str]]:
        """The pictures that were gathered, with the ``person`` of each, without those who are left out."""
        found = gathered.table()
        if not self.cuts:
            return found.assign(person=""), []
        looks, alike = gathered.looks, ()
        if self.identity is not None and len(looks) > 1:
            run, threshold = self.identity
            order = np.lexsort((found["frame"], found["track"]))
            code = np.unique(found["track"].to_numpy()[order], return_inverse=True)[1]
            features = gathered.features()[found["at"].to_numpy()[order]]
            z, _ = run.embed(features, code, found["frame"].to_numpy()[order])
            tracks = np.unique(found["track"])
            looks, alike = {track: z[code == k].mean(axis=0) for k, track in enumerate(tracks)}, (threshold,)
        found, problems = name_people(found, looks, least, settings.most_people, *alike)
        return found.assign(person=found["suffix"].str.removeprefix("_")), problems

    def _table(
        self, found: pd.DataFrame, features: np.ndarray, fps: float | None, crops: Sequence[bytes] = (),
        with_features: bool = False,
    ) -> pd.DataFrame:  # fmt: skip
        """The table of what was ``found``: video, person, frame, ``at`` (its row in ``features``), ..."""
        found = found.sort_values(["video", "person", "frame"])
        at = found["at"].to_numpy()
        code = found.groupby(["video", "person"], sort=True).ngroup().to_numpy()
        embeddings, predicted = self.embed(features[at], code, found["frame"].to_numpy(), fps)
        table = found[["video", "person", "frame"]].set_axis(at)
        if "time_sec" in found:
            boxes = rows(found[BOX].to_numpy(np.float32))
            table = table.assign(
                time_sec=found["time_sec"].to_numpy(), box=boxes, confidence=found["confidence"].to_numpy()
            ).reset_index(drop=True)
        table = with_embeddings(table, embeddings, predicted, self.facts)
        if with_features:
            table["features"] = rows(features[at])
        if len(crops):
            table["crop"] = [crops[i] for i in at]
        table.attrs = {"problems": [], "notes": [], "classes_by": self.classes_by, "fps": fps}
        if (thresholds := self.au_thresholds) is not None:
            table.attrs["au_thresholds"] = thresholds
        return table


class _Gathered:
    """The pictures of a video, or of many: what is known of each, its features, and its JPEG where that is wanted."""

    def __init__(self, frozen: Frozen, with_crops: bool, quality: int) -> None:
        self._batches, self._with_crops, self._quality = Batches(frozen), with_crops, quality
        self._rows, self._done = list[tuple](), 0
        self.looks: dict[int, Any] = {}  # the sum of each track's
        self.crops: list[bytes] = []

    def add(self, picture: Picture) -> None:
        self._rows.append((picture.frame, picture.time_sec, picture.track, *picture.box, picture.confidence))
        self.looks[picture.track] = self.looks.get(picture.track, 0) + picture.look
        self._batches.add(picture.image)
        if self._with_crops:
            self.crops.append(picture.jpeg or encode_crop(picture.image, self._quality))

    def next(self) -> None:
        """Begins with another video: tracks of the same number are others."""
        self._done, self._rows, self.looks = self._done + len(self._rows), [], {}

    def table(self) -> pd.DataFrame:
        """A row a picture of the present video; ``at`` is its place among all."""
        table = pd.DataFrame(self._rows, columns=["frame", "time_sec", "track", *BOX, "confidence"])
        return table.assign(at=self._done + np.arange(len(table)))

    def features(self) -> np.ndarray:
        return self._batches.features()


def by_centres(embeddings: np.ndarray, centres: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (n, C) float64: the softmax of ``temperature`` times the cosines to the class ``centres`` (C, E).

    The temperature is the scale on cosines that the run was trained with. A class without a centre has probability 0.
    """
    logits = temperature * (embeddings.astype(np.float64) @ unit(centres).astype(np.float64).T)
    logits[:, np.isnan(centres).any(axis=1)] = -np.inf
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def _counted(frames: Iterator[Frame], expected: int, on_progress: Progress | None) -> Iterator[Frame]:
    for frame in frames:
        yield frame
        if on_progress:
            on_progress(frame.number, expected or None)


def _of(file: str | Path, said: Iterable[str], what: str = "problem") -> Problems:
    return [{"file": str(file), what: words} for words in said]


def _by_your_word(*vouched: str) -> list[str]:
    return [f"alike by your word: {what}" for what in vouched if what]


def _some(found: pd.DataFrame, problems: Problems) -> pd.DataFrame:
    """``found``, which is not empty; raises ``UserError`` where all that came are problems."""
    if found.empty:
        more = f"; {len(problems) - 1} others fail too" if len(problems) > 1 else ""
        raise UserError(f"{problems[0]['file']}: {problems[0]['problem']}{more}")
    return found
