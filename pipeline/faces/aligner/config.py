"""Section ``aligner`` of params.yaml, and the part of it that the trained file is of."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core.params import UserError, option
from pipeline.datasets.points import POINT_TABLE
from pipeline.faces.aligner.network import STRIDE

UNIMPORTANT = ("output", "workers", "device", "rebuild")  # for what comes out


@dataclass(frozen=True)
class Shape:
    """The network, and the square that it sees."""

    size: int = option(64, help="pixels a side that the network sees; a heatmap has half of them", within="[16, 512]")
    stacks: int = option(2, help="number of hourglasses in a row, each with heatmaps of its own", within="[1, 16]")
    channels: int = option(48, help="channels of the network", within="[2, 1024]")
    depth: int = option(3, help="number of halvings in an hourglass", within="[1, 7]")
    sigma: float = option(1.5, help="width of the Gaussians, in pixels of a heatmap", within="(0.2, 32]")
    margin: float = option(
        0.5,
        help="how far the square reaches beyond the points on each side, as a share of their extent",
        within="[0, 4]",
    )

    @property
    def heatmap(self) -> int:
        return self.size // STRIDE


@dataclass(frozen=True)
class AlignerConfig(Shape):
    """Section ``aligner`` of params.yaml."""

    data: list[Path] = option(
        [Path("data/synthetic") / POINT_TABLE], help="tables of points (.csv, .parquet), or the folder of CelebA"
    )
    output: Path = option(Path("weights/aligner"), help="the folder to write: best.safetensors is for --points")
    epochs: int = option(
        20, help="number of epochs; each ends with a look at the held-out pictures", within="[1, 100_000]"
    )
    pictures: int = option(1024, help="pictures of an epoch, drawn anew in each", within="[2, inf)")
    batch_size: int = option(16, help="pictures at a time", within="[2, 4096]")
    learning_rate: float = option(
        2e-3, help="learning rate of Adam at the start; it falls to 0 as a cosine", within="(0, 1]"
    )
    val_fraction: float = option(0.2, help="share of the groups that is held out", within="(0, 1)")
    val_pictures: int = option(
        400, help="number of evenly spaced held-out pictures that choose the best epoch", within="[1, inf)"
    )
    augment: bool = option(True, help="turned, grey, dark, small and covered faces; without it only the square moves")
    seed: int = option(0, help="everything follows from it", within="[0, inf)")
    workers: int = option(2, help="threads that prepare pictures", within="[1, 256]")
    device: str = option("auto", choices=("auto", "cpu", "cuda"), help="where to train")
    rebuild: bool = option(False, help="remove what other settings trained, and start over")

    def __post_init__(self) -> None:
        if self.size % (STRIDE * 2**self.depth):
            raise UserError(
                f"aligner: size must be a multiple of {STRIDE * 2**self.depth} with depth {self.depth}, and is "
                f"{self.size}"
            )
        if not self.data:
            raise UserError("aligner: name a table of points, or the folder of CelebA, with --data")

    @property
    def shape(self) -> Shape:
        return Shape(**{f.name: getattr(self, f.name) for f in dataclasses.fields(Shape)})

    @property
    def facts(self) -> dict[str, Any]:
        """What decides the weights."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in UNIMPORTANT}
        return values | {"data": [path.as_posix() for path in self.data]}
