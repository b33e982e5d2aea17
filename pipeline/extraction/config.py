"""Section ``extract`` of params.yaml and the flags of extract.py."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.params import UserError, option
from pipeline.core.rates import FPS, check_rate
from pipeline.core.store import CHUNK_ROWS
from pipeline.core.tables import STORE
from pipeline.extraction.backbones import TOKEN_POOLINGS
from pipeline.extraction.forward import PRECISIONS
from pipeline.extraction.frames import FITS
from pipeline.extraction.series import RULES


@dataclass(frozen=True)
class ExtractConfig:
    """Section ``extract`` of params.yaml."""

    data: Path = option(Path("data/frames.parquet"), "-d", help="the frame table, or a folder of frames to index first")
    dataset: str | None = option(
        None, help="the data set in a folder; default: what params.yaml says of it, else it is recognised"
    )
    store: Path = option(STORE, "-s", help="the feature store")
    batch_size: int = option(16, "-b", help="images handed to the backbone at a time", within="[1, 65_536]")
    backbone: str = option("tf_efficientnet_lite0", help="an HSEmotion name, or any timm name")
    weights: str = option("auto", help="auto, random, or a .pt, .pth or .safetensors file")
    input_size: int | None = option(
        None, help="pixels a side of the resized images; default: the backbone's own", within="[1, 16_384]"
    )
    fit: str | None = option(
        None, help="how images become square; default: the backbone's own way; faces are squashed", choices=FITS
    )
    crop_pct: float | None = option(
        None, help="share of the resized side that is kept; default: the backbone's own", within="[0.1, 1]"
    )
    layers: list[str] = option(
        [], help="modules of the backbone whose features are joined; 'features': its last features"
    )
    grid: int = option(
        1, help="cells a side of the grid over which features are averaged; 1: over the whole map", within="[1, 1024]"
    )
    token_pooling: str | None = option(
        None,
        help="what is taken of a transformer's tokens: the class token, the mean of the patches' or both; default: its "
        "own pooling. (The pooling of a window's frames is training's)",
        choices=TOKEN_POOLINGS,
    )
    data_aug: bool = option(False, help="also store the features of the mirrored image, as view 'flipped'")
    views: int = option(
        0, help="number of augmented views to store too: augmented_1, augmented_2, ...", within="[0, 1000]"
    )
    cuts: dict = option(
        {}, help="further cuts of each frame, each into a store of its own: {tight: 0.8, loose: cropped}; docs/store.md"
    )
    maps: str | None = option(
        None,
        help="store the input of this stage, such as blocks.5, for training from there (docs/unfreeze.md), in a "
        "store of its own beside --store; list: what each would take on disk",
    )
    stride: int = option(1, help="only every n-th frame of each video", within="[1, inf)")
    device: str = option("auto", help="auto, cpu, cuda, cuda:1, ...")
    workers: int = option(0, help="threads that decode images; 0: one a core", within="[0, 1024]")
    precision: str = option("float32", help="precision of the forward pass", choices=PRECISIONS)
    crop_source: str | None = option(None, help="how faces were cut, if not as the frame table says; one name: alike")
    scale: float = option(
        1.0, help="features are multiplied by this, also imported ones: float16 ends at 65,504", within="[1e-30, 1e30]"
    )
    report: Path | None = option(None, help="what was skipped and why, as JSON; default: beside the store")
    dry_run: bool = option(False, help="say what would be done, and do nothing")
    rebuild: bool = option(False, help="make a store of something else again from nothing; repair a damaged one")
    strict: bool = option(False, help="exit status 1 if a frame was skipped")
    chunk_rows: int = option(CHUNK_ROWS, help="rows of a chunk in a new store", within="[1, 1_000_000]")
    verify: bool = option(False, help="read the whole store, name what is damaged; exit status 1 if anything is")
    repair: bool = option(False, help="drop the damaged chunks, and extract (or --import) their frames again")
    compact: bool = option(False, help="rewrite the store without holes and without frames not in the frame table")
    import_from: Path | None = option(None, "--import", help="take features made elsewhere, from an .h5, .npz or .npy")
    made_by: dict | None = option(None, help="with --import: what made the features: '{backbone: x, input_size: 224}'")
    resample: str = option(
        "nearest", help="with --import of a series (time_sec): what each frame of --data gets", choices=RULES
    )
    fps: float | Path | None = option(None, help=f"of a series: {FPS}; default: the faces.parquet of the frames")
    first_frame: int = option(1, help="of a series: the number of the frame at 0 s, where --fps says no times")
    export_to: Path | None = option(None, "--export", help="write the store's features to a new .h5 or .npz")
    part: str | None = option(None, help="only this part of the work, such as 3/16; --join puts all into the store")
    join: bool = option(False, help="put what --part has made into the store")
    ray: str | None = option(
        None,
        help="compute on a Ray cluster: give its address, or auto: the one that runs, else one on this machine",
    )
    ray_workers: int | None = option(
        None, help="with --ray: workers; default: one a GPU, or one a core where there are none", within="[1, 100_000]"
    )
    gpus_per_worker: float | None = option(
        None, help="with --ray: GPUs of a worker; default: 1 where the cluster has any", within="[0, 64]"
    )

    def __post_init__(self) -> None:
        check_rate(self.fps)
        if self.grid > 1 and self.token_pooling in ("cls", "mean"):
            raise UserError(
                f"extract: grid {self.grid} averages the patches over cells, beside which token_pooling may be "
                f"'cls+mean' or null, and not '{self.token_pooling}'"
            )
        _check_cuts(self.cuts)
        if self.made_by is not None:
            _check_made_by(self.made_by, bool(self.import_from))
        works = {"import_from": "--import", "repair": "--repair", "dry_run": "--dry-run", "verify": "--verify"}
        works |= {"compact": "--compact", "export_to": "--export", "part": "--part", "join": "--join"}
        given = [flag for name, flag in works.items() if getattr(self, name)]
        if len(given) > 1 and given != ["--import", "--repair"]:
            raise UserError(f"extract: {' and '.join(given)} do not go together")
        several = {"part": "--part", "join": "--join", "ray": "--ray"}
        if self.cuts and (with_cuts := [flag for name, flag in several.items() if getattr(self, name)]):
            raise UserError(f"extract: cuts and {with_cuts[0]} do not go together: give each cut a run of its own")
        self._check_maps()
        if self.part is not None:
            numbers_of(self.part)
            if self.data.is_dir():
                raise UserError(
                    "extract: --part takes a frame table, since all parts would index the folder at once: make it with "
                    f"'python -m pipeline.datasets.index --root {self.data} --frames FILE' and give it with -d FILE"
                )

    def _check_maps(self) -> None:
        """Raises ``UserError`` for what is not stored of maps."""
        others = {"views": "views", "data_aug": "data_aug", "cuts": "cuts", "import_from": "--import"}
        others |= {"export_to": "--export", "ray": "--ray"}
        if self.maps is not None and (with_maps := [words for name, words in others.items() if getattr(self, name)]):
            raise UserError(f"extract: maps are made of the frames as they are: leave {with_maps[0]} out")


def numbers_of(part: str) -> tuple[int, int]:
    """(3, 16) of '3/16'. Raises ``UserError`` for anything that is no part."""
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", part)
    number, parts = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= number <= parts:
        raise UserError(f"extract: part must say which of how many, such as 3/16, and is {part}")
    return number, parts


def _check_cuts(cuts: dict) -> None:
    for name, cut in cuts.items():
        if not (isinstance(name, str) and re.fullmatch(r"[a-z][a-z0-9_]*", name)):
            raise UserError(f"extract: a cut must have a name of small letters, digits and _, and has {name!r}")
        share = isinstance(cut, int | float) and not isinstance(cut, bool) and 0 < cut < 1
        folder = isinstance(cut, str) and re.fullmatch(r"[^/\\\s]+", cut) and cut not in (".", "..")
        if not share and not folder:
            beyond = ": a frame has no pixels beyond its own" if isinstance(cut, int | float) and cut >= 1 else ""
            raise UserError(
                f"extract: cut '{name}' must be a share between 0 and 1, or the folder of another crop source, and is "
                f"{cut!r}{beyond}"
            )


def _check_made_by(made_by: dict, for_import: bool) -> None:
    if not for_import:
        raise UserError("extract: --made-by goes with --import alone")
    try:
        plain = json.loads(json.dumps(made_by, allow_nan=False)) == made_by
    except (TypeError, ValueError):
        plain = False
    if not plain or not made_by or {"scale", "provenance", "outputs"} & {*made_by}:
        raise UserError(
            "extract: --made-by must name what made the features by plain values, such as '{backbone: x, input_size: "
            f"224}}', without scale, outputs and provenance, and is {made_by}"
        )
