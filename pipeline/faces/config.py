"""Section ``faces`` of params.yaml, and the part of it that decides the pictures."""

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core.params import UserError, option
from pipeline.datasets.numbered import CROPS, how_cut
from pipeline.faces.detect import DETECTORS


@dataclass(frozen=True)
class CutSettings:
    """What decides the pictures, and so must be the same for all of an output folder."""

    detector: str = option("mtcnn", choices=DETECTORS, help="what finds the faces")
    min_face: int = option(
        40, help="pixels of the smallest face looked for; half of it takes four times as long", within="[12, 10_000]"
    )
    confidence: float = option(
        0.9, help="least confidence of the detector that counts as a face, from 0 to 1", within="[0, 1]"
    )
    every: int = option(
        1, help="detect in every n-th frame and follow faces in between: 3 is faster and steadier", within="[1, 100]"
    )
    size: int = option(112, help="pixels of the aligned face", within="[16, 4096]")
    quality: int = option(95, help="quality of the JPEGs, from 1 to 100", within="[1, 100]")
    min_frames: int = option(
        10, help="people seen in fewer frames of a video are left out and reported", within="[1, inf)"
    )
    most_people: int | None = option(
        None, help="keep only so many people of a video, those with the most and largest faces", within="[1, inf)"
    )
    enlarge: float = option(
        0.0,
        help="share of the width and height to show beyond the face, such as 0.2, which helps recognition",
        within="[0, 2]",
    )
    points: Path | None = option(None, help="a trained aligner, best.safetensors: its points replace the detector's")
    landmarks: str | None = option(
        None,
        choices=("afew_va", "celeba"),
        help="the input is this data set: cut its frames by the points that come with it",
    )

    @property
    def points_digest(self) -> str | None:
        """16 digits that are others for another aligner; None without one. Raises ``UserError`` where it is no file."""
        if self.points is None:
            return None
        try:
            return hashlib.sha256(self.points.read_bytes()).hexdigest()[:16]
        except OSError as error:
            raise UserError(f"faces: cannot read the aligner {self.points}: {error.strerror}") from None

    @property
    def facts(self) -> dict[str, Any]:
        """All of it, for files; an aligner by its content, wherever it lies."""
        return dataclasses.asdict(self) | {"points": self.points_digest}

    @property
    def crop_source(self) -> str:
        """What faces that are cut so are in the words of a store's ``made_by``."""
        return CROPS + how_cut(self.enlarge, self.points_digest)


@dataclass(frozen=True)
class FacesConfig(CutSettings):
    """Section ``faces`` of params.yaml."""

    input: Path = option(Path("data/videos"), help="the folder of videos and pictures, at any depth, or one file")
    out: Path = option(Path("data/faces"), help="the folder to write")
    names: str = option(
        "stem",
        choices=("stem", "path", "tree"),
        help="name of a video: its file (stem), its path, or its file within its folders (tree)",
    )
    stills: str = option(
        "single",
        choices=("single", "frames"),
        help="numbered pictures of a folder: each alone (single), or frames of one video",
    )
    fps: float | None = option(
        None, help="with --stills frames: frames per second; default: not known", within="(0, inf)"
    )
    workers: int = option(0, help="processes, each with a video of its own; 0: one a core", within="[0, 1024]")
    ray: str | None = option(
        None, help="cut on a Ray cluster: give its address, or auto: the one that runs, else one on this machine"
    )
    ray_workers: int | None = option(
        None, help="with --ray: workers, a core each; default: one for each core of the cluster", within="[1, 100_000]"
    )
    sheet: Path | None = option(
        None, help="a picture to write: originals with box and points, and beside each the cut face"
    )
    rebuild: bool = option(False, help="remove what was cut with other settings and start over")
    strict: bool = option(False, help="exit status 1, after all is written, when a file has a problem")

    def __post_init__(self) -> None:
        if self.sheet is not None and self.sheet.suffix.lower() not in (".png", ".jpg"):
            raise UserError(f"faces: sheet must be a .png or .jpg, and is {self.sheet}")
        if self.points is not None and self.landmarks is not None:
            raise UserError("faces: with landmarks the data set gives the points: leave points out")
        if self.fps is not None and self.stills != "frames":
            raise UserError(f"faces: stills must be 'frames', with fps, and is {self.stills}")

    @property
    def settings(self) -> CutSettings:
        return CutSettings(**{f.name: getattr(self, f.name) for f in dataclasses.fields(CutSettings)})
