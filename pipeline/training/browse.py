"""TensorBoard on a folder of runs, at an address that compares runs and not seeds.

    python -m pipeline.training.browse --runs runs

The address sets smoothing to 0 and colours curves by run instead of by seed. It pins the cards of the main metrics.
"""

import json
import os
import sys
import time
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from pipeline.core.params import UserError, entry, option, parse
from pipeline.metrics.catalogue import METRICS

COLOUR_BY = "regex:(.*)/seeds?_"  # seeds and their mean have the colour of their run


@dataclass(frozen=True)
class BrowseConfig:
    """Flags alone: params.yaml has no section for them."""

    runs: Path = option(Path("runs"), "-d", help="the folder of runs")
    port: int = option(6006, help="the port of the address; 0: any that is free", within="[0, 65535]")
    open: bool = option(True, help="open the address in the browser, where there is a screen")
    wait: bool = option(True, help="serve until Ctrl-C")


def main(argv: Sequence[str] | None = None) -> None:
    config = parse(BrowseConfig, argv, sections=[], description=__doc__)
    if not any(config.runs.rglob("events.out.tfevents.*")):
        raise UserError(f"there is nothing to show in {config.runs}: train.py writes runs")
    from tensorboard import program  # here: it takes most of a second to import

    board = program.TensorBoard()
    board.configure(argv=[None, "--logdir", str(config.runs), "--port", str(config.port)])
    try:
        url = board.launch()
    except program.TensorBoardServerException as error:
        raise UserError(f"{' '.join(str(error).split())} ('--port 0' takes one that is free)") from None
    url = address(url)
    print(f"TensorBoard: {url}", flush=True)
    if config.open and has_screen():
        webbrowser.open(url)
    while config.wait:
        time.sleep(3600)


def address(url: str) -> str:
    """The address of a TensorBoard with all that its user would set by hand."""
    tags = [f"{name}/val" for name in METRICS.shown("headline") if name in METRICS.shown("board")]
    pinned = json.dumps([{"plugin": "scalars", "tag": tag} for tag in [*tags, "loss/train"]])
    return f"{url}?{urlencode({'smoothing': 0, 'runColorGroup': COLOUR_BY, 'pinnedCards': pinned})}#timeseries"


def has_screen() -> bool:
    """Whether a browser can be seen here: without a screen, Python would open one in the terminal."""
    return sys.platform in ("win32", "darwin") or bool({"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ))


if __name__ == "__main__":
    entry(main)
