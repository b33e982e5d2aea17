"""A trained run in a program: a video, pictures or features in, a table with an embedding a face and frame out."""

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Self

import numpy as np
import pandas as pd
import torch

from pipeline.adapter.adapter import Adapter
from pipeline.adapter.inference import per_frame
from pipeline.adapter.sources import InMemory
from pipeline.core.device import pick_device
from pipeline.core.params import UserError, one_of
from pipeline.core.store import ALIKE
from pipeline.datasets.abaw import belongs
from pipeline.datasets.numbered import frame_digits
from pipeline.datasets.scan import scan
from pipeline.embed.compare import unit
from pipeline.embed.frozen import BATCH, Frozen
from pipeline.embed.loading import Seed, Trained, load_trained
from pipeline.embed.people import (
    BOX,
    Picture,
    Progress,
    cut_pictures,
    cut_settings,
    make_detector,
    whole_pictures,
)
from pipeline.embed.table import make_table, rows
from pipeline.extraction.backbones import PICTURES
from pipeline.extraction.frames import UnreadableImage, decode, decode_bytes, read_batches
from pipeline.faces.loop import encode_crop, name_people
from pipeline.faces.video import STILLS, Frame, UnreadableVideo, Video, read

CUT = "cropped_aligned"  # what the faces that are cut here are, in the words of ``made_by``


class Embedder:
    """A trained run, ready for use: ``Embedder.load``. All it gives are tables, a row a face and frame.

    Of several seeds or folds, an embedding is that of each side by side, divided by the root of their number: its
    cosine is the mean of theirs. Probabilities and values are means.
    """

    def __init__(self, trained: Trained, device: torch.device, alike: Collection[str] = ()) -> None:
        self.trained, self.device, self.alike = trained, device, tuple(alike)
        for adapter in trained.adapters.values():
            adapter.modules().to(device).eval()

    @classmethod
    def load(
        cls, path: str | Path, seed: Seed = None, alike: Collection[str] = (), device: str = "auto",
        weights: str | Path | None = None,
    ) -> Self:  # fmt: skip
        """The run, or the bundle, in the folder ``path``.

        ``seed`` None is the one with the best selection score, 'all' the mean of all. ``alike`` is what the pictures
        may differ in from those of training, by your word: 'crop_source'. ``weights`` is the backbone's file, where it
        is not where it was in training. Raises ``UserError``.
        """
        for name in alike:
            one_of("alike", name, ALIKE)
        trained = load_trained(path, seed)
        if weights is not None:
            trained = replace(trained, weights=Path(weights))
        return cls(trained, pick_device(device), alike)

    # --- what it is ----------------------------------------------------------------------------------------------

    @property
    def facts(self) -> dict[str, Any]:
        return self.trained.facts

    @property
    def adapters(self) -> list[Adapter]:
        return list(self.trained.adapters.values())

    @property
    def embedding_size(self) -> int:
        """E, of all members together."""
        return sum(adapter.head.embedding_size for adapter in self.adapters)

    @property
    def classes(self) -> list[str]:
        return self.facts["classes"]

    @property
    def classes_by(self) -> str | None:
        """Who says the class: 'classifier', 'class centres', or None where the run was trained without classes."""
        if not self.classes:
            return None
        return "classifier" if "classes" in self.adapters[0].predicts else "class centres"

    @property
    def cuts(self) -> bool:
        """Whether faces are found and cut; a run that was trained on pictures as given takes them whole."""
        return self.facts["made_by"].get("crop_source") not in PICTURES

    @cached_property
    def frozen(self) -> Frozen:
        """The backbone: pictures to features."""
        return self.frozen_by(BATCH)

    def frozen_by(self, batch_size: int) -> Frozen:
        """The backbone for so many pictures at a time."""
        made_by, weights = self.facts["made_by"], self.trained.weights
        return Frozen(self.trained.path, made_by, weights, self.device, self.alike, batch_size)

    # --- what it gives -------------------------------------------------------------------------------------------

    def video(
        self, path: str | Path, *, on_progress: Progress | None = None, with_features: bool = False,
        with_crops: bool = False, **cut: Any,
    ) -> pd.DataFrame:  # fmt: skip
        """A table of all faces in a video, a row a face and frame, sorted by (video, person, frame).

        ``on_progress(done, total)`` is called after each frame; ``total`` is None where the file does not say. It may
        raise, which stops. ``with_features`` adds the column ``features``, ``with_crops`` the column ``crop`` (the JPEG
        of the aligned face). ``cut`` are settings of ``python -m pipeline.faces``: every=3, min_face=60, ...

        Raises ``UserError`` where there is no face in it, and for what is no video.
        """
        path, settings = Path(path), cut_settings(cut)
        self.check_pictures()
        try:
            video = read(path)
            pictures = self.pictures(video, settings, on_progress)
            found, looks, features, crops = self._gathered(pictures, with_crops)
        except UnreadableVideo as error:
            raise UserError(f"{path}: {error}") from None
        least = 1 if path.suffix.lower() in STILLS else settings.min_frames
        found, problems = self._named(found, looks, least, settings.most_people)
        if found.empty:
            raise UserError(f"{path}: {'; '.join(problems)}")
        found = found.assign(time_sec=found["frame"].map(video.times))
        fps = None if np.isnan(video.fps) else video.fps
        return self._table(
            found.assign(video=path.stem), features, crops, fps, with_features,
            problems=[{"file": str(path), "problem": why} for why in video.problems + problems], notes=video.notes,
        )  # fmt: skip

    def images(
        self, images: Iterable[str | Path | bytes | np.ndarray], *, names: Sequence[str] | None = None,
        on_progress: Progress | None = None, with_features: bool = False, with_crops: bool = False, **cut: Any,
    ) -> pd.DataFrame:  # fmt: skip
        """The same of pictures: files, their bytes, or arrays (H, W, 3) uint8 RGB; each is a video of one frame.

        ``names`` are what each is called in column ``video``; by default a file's name without its ending, or its whole
        path where two files have one name, and image_1, ... of others. Raises ``UserError`` where there is no picture,
        and where none of them shows a face; what is wrong with some of them is in ``attrs['problems']``.
        """
        images, settings = list(images), cut_settings(cut)
        if not images:
            raise UserError("no picture was given")
        names = picture_names(images) if names is None else list(names)
        if len(names) != len(images) or len(set(names)) < len(names):
            raise UserError(f"{len(images)} pictures need as many names, each once, and there are {len(set(names))}")
        self.check_pictures()
        kept, features, crops, problems = [], [], [], []
        for number, (image, name) in enumerate(zip(images, names, strict=True)):
            file = str(image) if isinstance(image, str | Path) else name
            try:
                frame = Frame(1, 0.0, decode_picture(image))
                video = Video(float("nan"), 1, iter([frame]))
                found, looks, some, jpegs = self._gathered(self.pictures(video, settings), with_crops)
                found, lost = self._named(found, looks, 1, settings.most_people)
                problems += [{"file": file, "problem": why} for why in lost]
                kept.append(found.assign(video=name, at=found["at"] + sum(map(len, features)), time_sec=0.0))
                features.append(some)
                crops += jpegs
            except UnreadableVideo as error:
                problems.append({"file": file, "problem": str(error)})
            if on_progress:
                on_progress(number + 1, len(images))
        found = pd.concat(kept, ignore_index=True) if kept else pd.DataFrame()
        if found.empty:
            more = f", and {len(problems) - 1} more like it" if len(problems) > 1 else ""
            raise UserError(f"{problems[0]['file']}: {problems[0]['problem']}{more}")
        return self._table(found, np.concatenate(features), crops, 1.0, with_features, problems=problems)

    def frames(
        self, folder: str | Path, *, fps: float | None = None, on_progress: Progress | None = None,
        with_features: bool = False, with_crops: bool = False,
    ) -> pd.DataFrame:  # fmt: skip
        """The same of faces that are cut already: <video>/00001.jpg, as ABAW and ``pipeline.faces`` lay them out.

        Each folder with numbered pictures in ``folder``, at any depth, is a video, called by its path below ``folder``;
        person is '' for all, since <video>_left is a folder of its own. The pictures are not cut again: box is the
        whole picture and confidence NaN. ``fps`` gives their times; without it they are NaN. What a folder is called
        tells how it was cut: 'cropped' is refused where the run was trained on 'cropped_aligned'. Raises ``UserError``
        where there is no such picture, and where none can be read.
        """
        listed = numbered_frames(Path(folder), self.facts["made_by"].get("crop_source"))
        for crop_source in listed["crop_source"].unique():
            self.frozen.check(crop_source)
        sizes, features, problems = {}, [], []
        for places, images, failed in read_batches(listed["path"], self.frozen.batch_size, os.cpu_count() or 1):
            features.append(self.frozen(images))
            sizes |= {place: image.shape[1::-1] for place, image in zip(places, images, strict=True)}
            problems += [{"file": str(listed["path"].iloc[place]), "problem": why} for place, why in failed.items()]
            if on_progress:
                on_progress(len(sizes) + len(problems), len(listed))
        if not sizes:
            more = f", and {len(problems) - 1} more like it" if len(problems) > 1 else ""
            raise UserError(f"{problems[0]['file']}: {problems[0]['problem']}{more}")
        found = listed.iloc[list(sizes)].assign(person="", at=np.arange(len(sizes)), left=0.0, top=0.0)
        found[["right", "bottom"]] = list(sizes.values())
        first = found.groupby("video")["frame"].transform("min")
        found = found.assign(confidence=np.nan, time_sec=(found["frame"] - first) / (fps or np.nan))
        crops = [path.read_bytes() for path in found["path"]] if with_crops else []
        return self._table(found, np.concatenate(features), crops, fps, with_features, problems=problems)

    def features(
        self, features: np.ndarray, video: Sequence[str] | None = None, frame: Sequence[int] | None = None, *,
        fps: float | None = None,
    ) -> pd.DataFrame:  # fmt: skip
        """The same of features (n, D) of this run's backbone: columns video, person (''), frame, embedding, ...

        ``video`` (n,) are names, by default '' for all; ``frame`` (n,) numbers, by default 1, 2, 3, ... within each
        video. The table's index is the row in ``features``.
        """
        values = np.asarray(features)
        width = self.facts["num_features"]
        if values.ndim != 2 or values.shape[1] != width:
            raise UserError(f"features must be (n, {width}), as the run was trained on, and are {values.shape}")
        if not len(values):
            raise UserError("no features were given")
        if not np.isfinite(values).all():
            raise UserError("the features hold values that are not finite")
        names = pd.Series([""] * len(values) if video is None else list(video), dtype="str")
        number = names.groupby(names).cumcount() + 1 if frame is None else pd.Series(frame, dtype="int64")
        found = pd.DataFrame({"video": names, "person": "", "frame": number, "at": np.arange(len(values))})
        if found.duplicated(["video", "frame"]).any():
            raise UserError("the features hold a frame twice")
        table = self._table(found, values, [], fps, False)
        return table

    # --- its steps -----------------------------------------------------------------------------------------------

    def check_pictures(self) -> str:
        """What you vouch for of the pictures that are cut here, '' for nothing; ``UserError`` for other weights, ..."""
        return self.frozen.check(CUT if self.cuts else self.facts["made_by"]["crop_source"])

    def pictures(self, video: Video, settings: Any, on_progress: Progress | None = None) -> Iterator[Picture]:
        """What the backbone is to get of each frame: its faces, found and cut, or, of other runs, the whole frame."""
        frames = counted(video, on_progress)
        return cut_pictures(frames, make_detector(settings), settings) if self.cuts else whole_pictures(frames)

    def embed(
        self, features: np.ndarray, video: np.ndarray, frame: np.ndarray, videos: Sequence[str] = (),
        fps: float | None = None,
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:  # fmt: skip
        """Unit embeddings (n, E) float32 of features (n, D), each by the window centred on its frame; predictions.

        Rows are sorted by (video, frame): ``video`` (n,) are codes into ``videos`` that never decrease, ``frame`` (n,)
        numbers. ``fps`` counts only for windows whose step is a time. Predictions are float64: probabilities of
        'classes' (n, C) and 'aus' (n, A), values of 'va' (n, 2).
        """
        values = torch.from_numpy(np.asarray(features, np.float16)).to(self.device)
        parts, total = [], {}
        for adapter in self.adapters:
            windows = adapter.window.over(video, frame, videos, fps)
            front = adapter.front
            projected = hasattr(front, "components")
            source = InMemory(front(values)) if projected else InMemory(values, front)
            z, predicted = per_frame(adapter, source, windows, np.arange(len(frame)), None, self.device)
            z = unit(z)
            if self.classes_by == "class centres":
                predicted["classes"] = by_centres(z, adapter.centres.cpu().numpy(), adapter.facts["temperature"])
            parts.append(z)
            for what, value in predicted.items():
                total[what] = total.get(what, 0) + value / len(self.adapters)
        return np.concatenate(parts, axis=1) / np.float32(np.sqrt(len(parts))), total

    def _gathered(
        self, pictures: Iterable[Picture], with_crops: bool
    ) -> tuple[pd.DataFrame, dict[int, np.ndarray], np.ndarray, list[bytes]]:
        """A row a picture (``at`` is its place), looks of each track, features (n, D) and, where wanted, JPEGs."""
        seen, looks, features, crops, waiting = [], {}, [], [], []
        for picture in pictures:
            seen.append((picture.frame, picture.time_sec, picture.track, *picture.box, picture.confidence))
            looks[picture.track] = looks.get(picture.track, 0) + picture.look
            if with_crops:
                crops.append(picture.jpeg or encode_crop(picture.image, 95))
            waiting.append(picture.image)
            if len(waiting) == self.frozen.batch_size:
                features.append(self.frozen(waiting))
                waiting = []
        features.append(self.frozen(waiting))
        table = pd.DataFrame(seen, columns=["frame", "time_sec", "track", *BOX, "confidence"])
        return table.assign(at=np.arange(len(table))), looks, np.concatenate(features), crops

    def _named(
        self, found: pd.DataFrame, looks: dict[int, np.ndarray], least: int, most_people: int | None
    ) -> tuple[pd.DataFrame, list[str]]:
        if not self.cuts:
            return found.assign(person=""), []
        named, problems = name_people(found, looks, least, most_people)
        return named.assign(person=named["suffix"].str.removeprefix("_")), problems

    def _table(
        self, found: pd.DataFrame, features: np.ndarray, crops: list[bytes], fps: float | None, with_features: bool,
        **attrs: Any,
    ) -> pd.DataFrame:  # fmt: skip
        found = found.sort_values(["video", "person", "frame"])
        at = found["at"].to_numpy()
        who = pd.MultiIndex.from_frame(found[["video", "person"]])
        code, people = pd.factorize(who)
        z, predicted = self.embed(features[at], code, found["frame"].to_numpy(), list(people), fps)
        keys = found[["video", "person", "frame"]]
        if "time_sec" in found:
            boxes = found[BOX].to_numpy(np.float32)
            keys = keys.assign(time_sec=found["time_sec"], box=rows(boxes), confidence=found["confidence"])
        keys.index = pd.RangeIndex(len(keys)) if "time_sec" in found else at
        au_names = self.facts["au_names"]
        table = make_table(keys, z, predicted, self.classes, au_names)
        if with_features:
            table["features"] = rows(features[at])
        if crops:
            table["crop"] = [crops[i] for i in at]
        table.attrs = {"problems": [], "notes": [], "classes_by": self.classes_by} | attrs
        return table


def numbered_frames(folder: Path, crop_source: str | None) -> pd.DataFrame:
    """A row a numbered picture below ``folder``: video (its folder), frame, path, crop_source.

    The crop source is what the nearest folder around that is called cropped... says, else the one given.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    found = []
    for place in scan(folder, STILLS).folders:
        around = [*folder.absolute().parts, *PurePosixPath(place.path).parts]
        source = next((name for name in reversed(around[:-1]) if name.startswith("cropped")), crop_source)
        if crop_source and belongs(source, crop_source):
            source = crop_source
        video = place.path.removeprefix(f"{CUT}/") or folder.absolute().name
        numbers = {name: frame_digits(name) for name in place.names}
        found += [(video, int(n), folder / place.path / name, source) for name, n in numbers.items() if n]
    if not found:
        raise UserError(f"no numbered picture in {folder}, such as <video>/00001.jpg")
    table = pd.DataFrame(found, columns=["video", "frame", "path", "crop_source"])
    twice = table[table.duplicated(["video", "frame"])]
    if len(twice):
        raise UserError(f"{twice['path'].iloc[0]} and another picture are the same frame: keep one")
    return table.sort_values(["video", "frame"], ignore_index=True)


def counted(video: Video, on_progress: Progress | None) -> Iterator[Frame]:
    for frame in video.frames:
        yield frame
        if on_progress:
            on_progress(frame.number, video.expected_frames or None)


def by_centres(z: np.ndarray, centres: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (n, C) float64: the softmax of ``temperature`` times the cosines of z (n, E) to the class centres.

    The temperature is the run's own, the scale on cosines in its loss. A class without a centre has probability 0.
    """
    logits = temperature * (z.astype(np.float64) @ unit(centres).T.astype(np.float64))
    logits[:, np.isnan(centres).any(axis=1)] = -np.inf
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def picture_names(images: Sequence[Any]) -> list[str]:
    """What each picture is called: see ``Embedder.images``."""
    paths = {i: Path(image) for i, image in enumerate(images) if isinstance(image, str | Path)}
    stems = [path.stem for path in paths.values()]
    own = {i: path.stem if stems.count(path.stem) == 1 else path.as_posix() for i, path in paths.items()}
    return [own.get(i, f"image_{i + 1}") for i in range(len(images))]


def decode_picture(image: str | Path | bytes | np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB, upright as its EXIF says; raises ``UnreadableVideo`` where it is none."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise UnreadableVideo(f"a picture must be (H, W, 3) uint8, and is {image.shape} {image.dtype}")
        return image
    try:
        return decode_bytes(image) if isinstance(image, bytes) else decode(Path(image))
    except UnreadableImage as error:
        raise UnreadableVideo(str(error)) from None
