"""The pictures of docs/demo.md, of the drawn sample.

``python -m pipeline.demo.screenshots docs/pictures`` makes them while the demo runs. Playwright (extra 'dev') and
Chromium must be there. CHROMIUM names the browser where it is not called chromium.
"""

import argparse
import io
import os
import shutil
from pathlib import Path

from PIL import Image

from pipeline.core.files import whole
from pipeline.core.params import UserError, entry

WIDTH, HEIGHT = 1100, 3400
COLOURS = 256  # of a picture: a third of the size
# Each picture, the heading it begins at, and the one it ends before.
PARTS = {"timeline": ("drawn_sample, left", "Map of the frames"), "map": ("Map of the frames", "Similarity of people")}
MARGIN = 6
WAIT_MS = 600_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="where the pictures are written")
    parser.add_argument("--address", default="http://127.0.0.1:8501", help="the address of the demo")
    options = parser.parse_args()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise UserError("the screenshots need Playwright: pip install -e '.[dev]'") from None
    browser = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if browser is None:
        raise UserError(
            "the screenshots need Chromium, and there is no command chromium: set the variable CHROMIUM to yours"
        )
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = started.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.set_default_timeout(WAIT_MS)
        page.goto(options.address)
        page.locator("[class*='st-key-map_time-'] .marks").wait_for()
        page.get_by_test_id("stStatusWidget").wait_for(state="detached")
        page.add_style_tag(content="[data-testid=stSidebar] { display: none }")
        page.wait_for_timeout(3000)  # the charts take the new width
        for name, (first, last) in PARTS.items():
            top = page.get_by_role("heading", name=first).bounding_box()["y"] - MARGIN
            bottom = page.get_by_role("heading", name=last).bounding_box()["y"] - MARGIN
            clip = {"x": 0, "y": top, "width": WIDTH, "height": bottom - top}
            _write(options.folder / f"demo_{name}.png", page.screenshot(clip=clip))
        started.close()


def _write(path: Path, png: bytes) -> None:
    image = Image.open(io.BytesIO(png)).convert("RGB").quantize(COLOURS, Image.Quantize.FASTOCTREE)
    with whole(path) as file:
        image.save(file, "PNG", optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    entry(main)
