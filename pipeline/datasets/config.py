"""Section ``dataset`` of params.yaml, and what every reader says of it: a wrong setting, and a root without data."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.params import UserError, option
from pipeline.core.rates import FPS

WHERE_TO_GET = {
    "abaw": "Aff-Wild2 (ABAW) is given by its authors on request, for a signed licence: "
    "https://ibug.doc.ic.ac.uk/resources/aff-wild2/",
    "afew_va": "AFEW-VA is given by its authors on request: https://ibug.doc.ic.ac.uk/resources/afew-va-database/",
    "bah": "BAH is given by its authors on request, for a signed licence: https://github.com/sbelharbi/bah-dataset",
    "caer": "CAER: https://caer-dataset.github.io",
    "ckplus": "CK+ is given by its authors on request: http://www.jeffcohn.net/Resources/",
    "celeba": "CelebA is given for research by its authors, identity_CelebA.txt on request: "
    "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
    "dfew": "DFEW is given by its authors on request: https://dfew-dataset.github.io",
    "ferv39k": "FERV39k is given by its authors on request: https://github.com/wangyanckxx/FERV39k",
    "mafw": "MAFW is given by its authors on request: https://mafw-database.github.io/MAFW",
    "pairs": "Totally-Looks-Like: https://sites.google.com/view/totally-looks-like-dataset",
    "ravdess": "RAVDESS (CC BY-NC-SA 4.0): https://zenodo.org/records/1188976",
    "shapes": "draw it: python -m pipeline.datasets.shapes --out FOLDER",
}
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv")
SYNTHETIC_MARKER = (
    "Synthetic face clips, drawn by pipeline/datasets/synthetic.py."  # begins README.txt in such a folder
)
CUT_FIRST = (
    "these are videos: cut faces out of them first (python -m pipeline.faces), and name the folder that it wrote"
)
AUTO = "auto"  # the name of a data set that is to be recognised
HOW_TO_POINT = "name its folder as dataset.root in params.yaml, or with --root FOLDER"


@dataclass(frozen=True)
class DatasetConfig:
    """Section ``dataset`` of params.yaml: where a data set lies, and where its tables and its report go."""

    name: str = option(
        "auto",
        "--dataset",
        help="the reader: abaw, afew_va, bah, caer, celeba, ckplus, clips, csv, dfew, ferv39k, folder, mafw, pairs, "
        "ravdess, shapes; auto: recognised from the names in root; you are asked where that is not clear",
    )
    root: Path = option(Path("data/abaw"), help="the folder that holds the data set; paths in the tables start there")
    annotations: Path | None = option(
        None,
        help="abaw, afew_va, bah, celeba, ckplus, dfew, ferv39k, mafw: where the annotations lie, if not below root; "
        "clips, csv, pairs: the table",
    )
    columns: dict = option(
        {}, help="clips, csv, pairs: what the table calls a column, such as {path: image, label: emotion}"
    )
    outputs: list = option([], help="clips: columns of further continuous labels, such as [admiration, joy]")
    fps: float | Path | None = option(
        None,
        help=f"clips: {FPS}, such as faces.parquet, whose times are then taken; null: the faces.parquet in root",
    )
    crop_source: str | None = option(
        None,
        help="how the faces were cut; abaw, bah, caer, dfew, ferv39k and mafw read only the folders of that name "
        "(abaw: cropped_aligned)",
    )
    class_map: str | dict | None = option(
        None, help="abaw, for ABAW's eight classes, or {happy: Happiness, ...}; labels without a partner are dropped"
    )
    frame_number: int | str | None = option(
        None,
        help="which number in a file's name is the frame: 1 is the first, -1 the last; order: files are counted from 0 "
        "as they sort; null: the number that changes, and you are asked where that is not clear",
    )
    first_frame: int = option(
        1,
        help="abaw: number of the frame that the first line of an annotation belongs to; clips: number of a video's "
        "first frame, at 0 seconds",
        within="[0, 1_000_000]",
    )
    missing: list | None = option(
        None,
        help="words that mean 'no label' or 'no group' in a table or as a class folder; null: NA, nan, None, null, -1",
    )
    compare: int = option(
        50_000, help="most files that are compared to find images that stand in two splits or groups; 0: none"
    )
    frames: Path = option(Path("data/frames.parquet"), help="the frame table to write")
    labels: Path = option(Path("data/labels.parquet"), help="the label table to write")
    labels_mtl: Path | None = option(
        None,
        help="a second label table to write: abaw's multi-task lists, where they lie beside files by video; else the "
        "same labels again",
    )
    clips: Path = option(
        Path("data/clips.parquet"), help="the clip table to write; it has no rows if no clip is labelled"
    )
    report: Path = option(
        Path("data/index.json"), help="the report to write: what was found, and what was not understood"
    )
    val_fraction: float = option(0.2, help="the part of the groups held out where a data set has no split of its own")
    seed: int = option(
        0, help="which groups are held out where a data set has no split of its own", within="[0, 4_294_967_294]"
    )
    folds: int | None = option(None, help="number of folds, cut by group; null: the data set's own split")
    fold: int | None = option(None, help="val is this fold alone, from 0; null: each of them in turn")
    identities: str | None = option(
        None,
        help="make people the labels: a person is a label, group or video of the data set; celeba has people anyway",
        choices=("label", "group", "video"),
    )
    top_people: int | None = option(
        None, help="of people: keep so many in the training part, those with the most pictures", within="[2, inf)"
    )
    query_people: int = option(
        200,
        help="of people: number to look for in identification, each with two pictures or more",
        within="[1, inf)",
    )
    distractor_people: int = option(
        1000, help="of people: number of strangers among them; both are drawn by seed from val, then test",
        within="[0, inf)",
    )  # fmt: skip
    also: list = option([], help="further data sets, such as [{name: ravdess, root: data/ravdess}]")
    strict: bool = option(False, help="exit status 1, after all is written, when anything had to be skipped")


def display_name(config: DatasetConfig) -> str:
    """The data set's name as it stands beside its numbers; it says 'synthetic' of drawn faces."""
    readme = config.root / "README.txt"
    drawn = readme.is_file() and readme.read_text(encoding="utf-8", errors="replace").startswith(SYNTHETIC_MARKER)
    return f"synthetic {config.name}" if drawn else config.name


def nothing_found(config: DatasetConfig, problem: str, wanted: str, unreadable: Sequence[str] = ()) -> UserError:
    """The error for a root without the data set: what is there, what was wanted, where to get it, how to name it."""
    if unreadable:
        problem += f" ({len(unreadable)} could not be read, such as '{unreadable[0]}')"
    return UserError(
        f"data set '{config.name}': {problem}\n  wanted: {wanted}\n  to read another folder: {HOW_TO_POINT}"
        + (f"\n  {WHERE_TO_GET[config.name]}" if config.name in WHERE_TO_GET else "")
    )


def check_config(config: DatasetConfig, wanted: str, *, uses: Collection[str] = ()) -> None:
    """Raises ``UserError`` where ``root`` is no folder, or a setting is given that the reader has no use for."""
    unset = DatasetConfig()
    for key in ("annotations", "columns", "frame_number", "first_frame", "missing", "fps", "outputs"):
        if getattr(config, key) != getattr(unset, key) and key not in uses:
            raise UserError(f"data set '{config.name}' does not use dataset.{key}: leave it out")
    if not config.root.is_dir():
        raise nothing_found(config, f"there is no folder {config.root}", wanted)


def videos_among(others: Iterable[str]) -> list[str]:
    """The video files of a scan's ``others``: a reader takes frames, so these were not cut yet."""
    return [path for path in others if path.lower().endswith(VIDEO_SUFFIXES)]
