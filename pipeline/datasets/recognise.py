"""Which data set lies in a folder, told from names alone."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.core.params import UserError
from pipeline.datasets import abaw, bah, caer, celeba, ckplus, clip_table, dfew, ferv39k, mafw, ravdess, shapes
from pipeline.datasets.config import AUTO, HOW_TO_POINT, VIDEO_SUFFIXES, DatasetConfig
from pipeline.datasets.folder import SPLIT_FOLDERS
from pipeline.datasets.numbered import frame_digits
from pipeline.datasets.scan import Scan, scan
from pipeline.datasets.sheet import read_head, rows_of

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
_FRAME = re.compile(r"\d{5,}\.\w+", re.ASCII)  # as frames of a video are called; images of a class seldom are
_AFEW = re.compile(r"(?:.*/)?(\d+)/\1\.json")


@dataclass
class Survey:
    """Names below a folder: ``images`` and ``videos`` per folder ('' is the top), all other files in ``others``."""

    root: Path
    scanned: Scan
    images: dict[str, list[str]]
    videos: list[str]
    others: list[str]

    @property
    def num_images(self) -> int:
        return sum(map(len, self.images.values()))


@dataclass(frozen=True)
class Candidate:
    """A data set that a folder may hold: its section of params.yaml; ``sure`` where nothing else looks like it."""

    settings: dict[str, Any]
    sure: bool

    @property
    def name(self) -> str:
        return self.settings["name"]

    def __str__(self) -> str:
        table = self.settings.get("annotations")
        return self.name + (f" (table {Path(table).name})" if table else "")


def survey_folder(root: Path) -> Survey:
    """The names below a folder. Links are followed and hidden folders left out, as the index stage does.

    Raises ``UserError`` where there is no folder.
    """
    if not root.is_dir():
        raise UserError(f"there is no folder {root}: {HOW_TO_POINT}")
    scanned = scan(root, IMAGES)
    images = {folder.path: sorted(folder.names) for folder in scanned.folders if folder.names}
    videos = [path for path in scanned.others if path.lower().endswith(VIDEO_SUFFIXES)]
    others = [path for path in scanned.others if not path.lower().endswith((*VIDEO_SUFFIXES, "/"))]
    return Survey(root, scanned, images, videos, others)


def candidates(survey: Survey) -> list[Candidate]:
    """What the folder may be read as, the likeliest first; [] where nothing is known."""
    found: list[Candidate] = []

    def add(name: str, sure: bool, **settings: object) -> None:
        found.append(Candidate({"name": name, "root": survey.root.as_posix(), **settings}, sure))

    if shapes.TABLE in survey.others and {"left", "right"} <= set(survey.images):
        add("shapes", True)
        return found
    if _is_celeba(survey):
        add("celeba", True)
        return found
    clips = _folders_and_videos(survey)
    for reader, table in ((bah, bah.LISTS), (dfew, dfew.TABLE), (ferv39k, ferv39k.TABLE), (mafw, mafw.TABLE)):
        if any(table.fullmatch(path) for path in survey.others) and any(map(reader.named, clips)):
            add(reader.__name__.rpartition(".")[2], True)
            return found
    if _is_caer(clips):
        add("caer", True)
        return found
    last = {path.rpartition("/")[2] for path in survey.images}
    if any(ravdess.CLIP.fullmatch(name) for name in last):
        add("ravdess", True)
    if any(ckplus.IMAGE.fullmatch(name.rpartition(".")[0]) for names in survey.images.values() for name in names[:3]):
        add("ckplus", True)
    if any(_AFEW.fullmatch(path) for path in survey.others):
        add("afew_va", True)
    root_name = survey.root.resolve().name
    cropped = any(part.startswith("cropped") for path in (root_name, *survey.images) for part in path.split("/"))
    numbered = any(frame_digits(name) for path, names in survey.images.items() if path for name in names[:3])
    annotated = _has_abaw_annotations(survey)
    if numbered and (cropped or annotated):
        add("abaw", annotated, **_crop_source(survey))
    if {"left", "right"} <= {path.lower() for path in survey.images}:
        add("pairs", False)
    if clip_table.OURS in survey.others:
        add("clips", True, annotations=(survey.root / clip_table.OURS).as_posix())
    for path in [p for p in survey.others if p.lower().endswith((".csv", ".tsv")) and "/" not in p]:
        if table := _table(survey.root / path):
            name, columns, labelled = table
            renamed = {"columns": columns} if columns else {}
            add(name, labelled, annotations=(survey.root / path).as_posix(), **renamed)
    classes = {path.split("/")[0] for path in survey.images if path}
    if any("/" in path and path.split("/")[0].lower() in SPLIT_FOLDERS for path in survey.images):
        add("folder", True)
    elif classes and all(fit.name in ("csv", "clips") and not fit.sure for fit in found) and len(classes) > len(found):
        add("folder", False)
        flat = [path for path in survey.images if path and "/" not in path]
        if flat and all(_FRAME.fullmatch(name) for path in flat for name in survey.images[path]):
            add("abaw", False)  # folders of 00001.jpg, 00002.jpg, ... are classes, or are videos without labels
    return sorted(found, key=lambda fit: not fit.sure)


def recognised(config: DatasetConfig) -> DatasetConfig:
    """The config with the name of the data set that lies in its folder, and with the settings that its reader needs.

    Where the config names the data set, only the settings are filled in, and only where one candidate fits. What is set
    already is never changed. Raises ``UserError`` where the name is to be recognised, and no known data set or several
    of them fit the folder.
    """
    found = candidates(survey_folder(config.root))
    if config.name != AUTO:
        found = [fit for fit in found if fit.name == config.name]
    chosen = [fit for fit in found if fit.sure] or found
    if len(chosen) != 1 and config.name == AUTO:
        what = f"it may be {' or '.join(map(str, chosen))}" if chosen else "no data set that is known lies in it"
        table = " (and --annotations TABLE)" if any("annotations" in fit.settings for fit in chosen) else ""
        raise UserError(
            f"{config.root}: {what}: say which with --dataset NAME{table}, or dataset.name in params.yaml; "
            f"'python -m pipeline.datasets --check {config.root}' shows what is there"
        )
    if len(chosen) != 1 or config.annotations is not None:
        return replace(config, name=chosen[0].name) if config.name == AUTO else config
    unset = DatasetConfig()
    told = {key: getattr(config, key) == getattr(unset, key) for key in ("annotations", "columns", "crop_source")}
    settings = {key: value for key, value in chosen[0].settings.items() if told.get(key)}
    if "annotations" in settings:
        settings["annotations"] = Path(settings["annotations"])
    return replace(config, name=chosen[0].name, **settings)


def _folders_and_videos(survey: Survey) -> list[list[str]]:
    """The parts of the path of each folder with images, and of each video without its ending."""
    videos = (path.rpartition(".")[0] for path in survey.videos)
    return [path.split("/") for path in (*survey.images, *videos) if path]


def _is_caer(clips: list[list[str]]) -> bool:
    """Whether there are clips of all its emotions, and in all its splits."""
    found = [where for where in clips if caer.named(where)]
    return {where[-3] for where in found} == set(caer.SPLITS) and {where[-2] for where in found} == set(caer.CLASSES)


def _is_celeba(survey: Survey) -> bool:
    """Whether there are photographs in one of its folders; of cut faces its lists are needed beside."""
    sources = {celeba.source_of(path, survey.root) for path, names in survey.images.items() if names}
    listed = any(p.fullmatch(path.rpartition("/")[2]) for path in survey.others for p in celeba.LISTS.values())
    return bool(sources & {celeba.ALIGNED, celeba.WILD}) or (celeba.CROPS in sources and listed)


def _has_abaw_annotations(survey: Survey) -> bool:
    try:
        per_video, lists, _ = abaw.find_annotations(survey.root, [p for p in survey.others if p.endswith(".txt")])
    except UserError:  # a video annotated twice: the reader will say which
        return True
    return bool(per_video or lists)


def _crop_source(survey: Survey) -> dict[str, str]:
    """The setting for ABAW's crop source, where it is not the default."""
    around = [survey.root.resolve().name, *(part for path in survey.images for part in path.split("/")[:-1])]
    crops = {part for part in around if part.startswith("cropped")}
    aligned = any(abaw.belongs(crop, "cropped_aligned") for crop in crops)
    return {} if aligned or not crops else {"crop_source": "cropped"}


def _table(path: Path) -> tuple[str, dict[str, str], bool] | None:
    """The reader for a table, 'csv', 'clips' or 'pairs', what it calls its columns, and whether it has labels.

    None for a table of no images and no videos, or one that cannot be read.
    """
    try:
        names, rows = rows_of(read_head(path), str(path))
        _, row = next(rows, (2, []))
    except (OSError, UserError):
        return None
    if {"left", "right"} <= set(names):
        return "pairs", {}, True
    images = [n for n, text in zip(names, row, strict=False) if text.strip().lower().endswith(IMAGES)]
    videos = [n for n, text in zip(names, row, strict=False) if text.strip().lower().endswith(VIDEO_SUFFIXES)]
    of_clips = not images and (bool(videos) or ("video" in names and {"start", "start_sec"} & set(names)))
    if not images and not of_clips:
        return None
    column, of_file = ("video", videos) if of_clips else ("path", images)
    theirs = {} if column in names else {column: of_file[0]}
    guesses = {
        "label": ("emotion", "expression", "class"),
        "group": ("subject", "person", "actor"),
        "split": ("usage",),
    }
    for ours, words in guesses.items():
        like = [name for name in names if name.lower() in words]
        if ours not in names and like:
            theirs[ours] = like[0]
    labelled = bool({"label", "expression", "valence"} & {*names, *theirs})
    return "clips" if of_clips else "csv", theirs, labelled
