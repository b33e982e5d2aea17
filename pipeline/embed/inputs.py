"""What an embedder is given: pictures of any kind, and folders of frames."""

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from pipeline.core.params import UserError
from pipeline.datasets.abaw import belongs
from pipeline.datasets.numbered import CROPS, frame_digits, how_cut_in, usual_and_how
from pipeline.datasets.scan import scan
from pipeline.extraction.frames import UnreadableImage, decode, decode_bytes
from pipeline.faces.video import STILLS

Image = str | Path | bytes | np.ndarray  # a file, what a file holds, or (H, W, 3) uint8 RGB


def as_list(images: Iterable[Image] | Image) -> list[Image]:
    """Many pictures, or a single one, which is a list of one."""
    if isinstance(images, str | Path | bytes) or (isinstance(images, np.ndarray) and images.ndim == 3):
        return [images]
    return list(images)


def names_of(images: Sequence[Image], names: Sequence[str] | None) -> list[str]:
    """What each picture is called; raises ``UserError`` where there is none, and for ``names`` that do not fit.

    Without ``names`` a file is called as it is without its ending, or by its whole path where two would have one name;
    the others are image_1, image_2, ... by their places.
    """
    if not images:
        raise UserError("no picture was given")
    if names is None:
        paths = {i: Path(image) for i, image in enumerate(images) if isinstance(image, str | Path)}
        stems = [path.stem for path in paths.values()]
        own = {i: path.stem if stems.count(path.stem) == 1 else path.as_posix() for i, path in paths.items()}
        names = [own.get(i, f"image_{i + 1}") for i in range(len(images))]
    names = list(map(str, names))
    if len(names) != len(images):
        raise UserError(f"{len(images)} pictures need as many names, and {len(names)} were given")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"two pictures are called '{twice[0]}': give each once, or names of their own")
    return names


def read_picture(image: Image) -> np.ndarray:
    """(H, W, 3) uint8 RGB, upright as its EXIF says; raises ``UnreadableImage`` where it is none."""
    if isinstance(image, bytes):
        return decode_bytes(image)
    if isinstance(image, str | Path):
        return decode(Path(image))
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        what = f"{image.shape} {image.dtype}" if isinstance(image, np.ndarray) else f"a {type(image).__name__}"
        raise UnreadableImage(f"a picture is a file, bytes or an array (H, W, 3) uint8, and this is {what}")
    if not image.size:
        raise UnreadableImage("it has no pixels")
    return image


def numbered_frames(folder: Path, crop_source: str) -> pd.DataFrame:
    """One row a picture below ``folder`` that is called by a number: video, frame, path, crop_source; sorted.

    A video is a folder of such pictures, called by its path below ``folder``, or below its ``cropped_aligned`` as
    ``pipeline.faces`` makes it. The crop source of a picture is what the nearest folder around its video says that is
    called 'cropped...', with how ``pipeline.faces`` cut the faces there, else the one given. Raises ``UserError`` where
    there is no such picture, and for a frame that is there twice.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    found = []
    for place in scan(folder, STILLS).folders:
        video = place.path.removeprefix(f"{CROPS}/") or folder.absolute().name
        around = [*folder.absolute().parts, *PurePosixPath(place.path).parts][:-1]
        source = crop_source
        if names := [name for name in around if name.startswith("cropped")]:
            usual = usual_and_how(crop_source)[0]
            source = usual if belongs(names[-1], usual) else names[-1]
            out, _, _ = f"{folder.absolute().as_posix()}/{place.path}/".rpartition(f"/{CROPS}/")
            source += how_cut_in(Path(out)) if out else ""
        numbers = ((name, frame_digits(name)) for name in place.names)
        found += [(video, int(digits), folder / place.path / name, source) for name, digits in numbers if digits]
    if not found:
        raise UserError(f"there is no numbered picture in {folder}, such as <video>/00001.jpg")
    table = pd.DataFrame(found, columns=["video", "frame", "path", "crop_source"])
    table = table.sort_values(["video", "frame", "path"], ignore_index=True)
    twice = np.flatnonzero(table.duplicated(["video", "frame"]))
    if len(twice):
        one, other = table["path"].iloc[twice[0] - 1 : twice[0] + 1]
        raise UserError(f"{one} and {other} are the same frame: keep one")
    return table
