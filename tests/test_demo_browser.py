"""The demo in a real browser, headless Chromium: what is clicked, what is seen, and what goes over the network.

The run is the project's runs/tcn_supcon where 'make repro' has made it, else the tiny one of test_demo.py. Faces are
found by the real detector. FACES names a folder of real clips; without it a clip is drawn. CHROMIUM names the browser
where it is not called chromium.
"""

import contextlib
import csv
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import ROOT
from test_demo import project  # noqa: F401 a fixture

from pipeline.datasets.synthetic.clip import draw_clip
from pipeline.demo import page as demo
from pipeline.embed import Embedder

pytestmark = pytest.mark.slow
pytest.importorskip("streamlit", reason="the extra 'demo' is not installed")
sync_api = pytest.importorskip("playwright.sync_api", reason="the extra 'dev' is not installed: no Playwright")

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
REAL = Path(os.environ.get("FACES", "not given"))
LOCAL = ("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:")
MADE = ROOT / "runs" / demo.FIRST
RUN = demo.FIRST if (MADE / "summary.json").is_file() else "centres"
PAGE = (ROOT / "docs" / "demo.md").read_text(encoding="utf-8")
WAIT_MS = 240_000  # for what is computed: the machine may be busy
if CHROMIUM is None:
    pytest.skip(
        "Chromium is not installed (apt install chromium), or CHROMIUM does not name it", allow_module_level=True
    )


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def demo_at(place: Path, flags: Sequence[str] = ()) -> Iterator[str]:
    """The address of a demo that is started in the folder ``place`` as 'make demo' starts it."""
    port = free_port()
    app = str(ROOT / "pipeline" / "demo" / "app.py")
    command = [sys.executable, "-m", "streamlit", "run", app, f"--server.port={port}", *flags]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, cwd=place, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            address = f"http://127.0.0.1:{port}"
            while True:
                with contextlib.suppress(OSError):
                    if urllib.request.urlopen(f"{address}/_stcore/health").read() == b"ok":
                        break
                assert process.poll() is None, "it ended by itself"
                time.sleep(0.2)
            yield address
        finally:
            process.terminate()
            process.wait(30)
            log.seek(0)
            said = log.read()
            print(said)
    assert "Traceback" not in said
    assert "External URL" not in said  # Streamlit asks a server of its makers for that address


@pytest.fixture(scope="module")
def server(request):
    """The address of the demo, in the folder where the runs are."""
    if RUN == demo.FIRST:
        Embedder.load(MADE)  # a run that older code made is told here, and not after minutes of waiting for its charts
    with demo_at(ROOT if RUN == demo.FIRST else request.getfixturevalue("project")) as address:
        yield address


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> dict[str, Path]:
    """A clip with one face and a few seconds, one with two people, and files that are none."""
    folder = tmp_path_factory.mktemp("films")
    draw_clip(folder / "two.mp4", seconds=1.2)
    one = REAL / "single_face.mp4"
    if one.is_file():
        shutil.copy(one, folder / "one.mp4")
    else:
        draw_clip(folder / "one.mp4", seconds=2, people=1)
    (folder / "text.mp4").write_text("this is no video\n" * 100, encoding="utf-8")
    with (folder / "large.mp4").open("wb") as file:
        file.truncate(2 << 30)  # takes no room on disk
    return {path.stem: path for path in folder.iterdir()}


@contextlib.contextmanager
def browser(address: str, *flags: str, **context):
    """A page in a new browser; at its end, nothing may have gone elsewhere, and the console may hold no error."""
    asked: list[str] = []
    errors: list[str] = []
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *flags])
        page = started.new_context(viewport={"width": 1325, "height": 900}, **context).new_page()
        page.set_default_timeout(WAIT_MS)
        page.on("request", lambda request: asked.append(request.url))
        page.on("websocket", lambda socket: asked.append(socket.url))
        page.on("console", lambda message: errors.append(message.text) if is_error(message) else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        page.get_by_text("What to look at").wait_for()
        yield page
        started.close()
    assert [url for url in asked if not url.startswith(LOCAL)] == []
    assert any(url.startswith("ws://") for url in asked)
    assert errors == []


def is_error(message) -> bool:
    """Streamlit drops the pictures of a run of the page that is over; a busy browser may still ask for them."""
    where = message.text + message.location.get("url", "")
    is_gone = "/media/" in where and ("404" in message.text or "Image source error" in message.text)
    return message.type == "error" and not is_gone


def upload(page, *paths: Path) -> None:
    page.get_by_text("Upload", exact=True).click()
    page.locator("input[type=file]").set_input_files(list(paths))


def chart(page, name: str):
    return page.locator(f"[class*='st-key-{name}-'] .marks").first


def click(page, name: str, across: float) -> None:
    """A click into the middle of a chart, at a part of its width."""
    settled(page)
    shown = chart(page, name)
    shown.scroll_into_view_if_needed()
    box = shown.bounding_box()
    page.mouse.click(box["x"] + across * box["width"], box["y"] + box["height"] / 2)


def settled(page) -> None:
    """Waits for the end of the run of the page: until then what is old may stand beside what is new."""
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()


def compared_with(page) -> int:
    settled(page)
    text = page.get_by_text("Now it is frame").inner_text()
    return int(re.search(r"Now it is frame (\d+)", text)[1])


def wait_for_frame(page, other_than: int) -> int:
    page.wait_for_function(
        "old => { const m = document.body.innerText.match(/Now it is frame (\\d+)/); return m && +m[1] !== old }",
        arg=other_than,
    )
    frame = compared_with(page)
    assert page.get_by_role("heading", name=f"Similarity of every frame to frame {frame}", exact=True).count() == 1
    return frame


def table_of(page, words: str) -> list[dict[str, str]]:
    """What a download button gives."""
    settled(page)
    with page.expect_download() as waiting:
        page.get_by_role("button", name=words).click()
    return list(csv.DictReader(io.StringIO(Path(waiting.value.path()).read_text(encoding="utf-8"))))


def similarities(page) -> dict[int, float]:
    frame = compared_with(page)
    rows = table_of(page, "Download this person's frames as CSV")
    return {int(row["frame"]): float(row[f"cosine to frame {frame}, {RUN}"]) for row in rows}


def test_a_clip_is_uploaded_a_frame_is_clicked_and_the_similarity_changes(server, films):
    with browser(server) as page:
        upload(page, films["one"])
        chart(page, "probabilities").wait_for()
        settled(page)
        for name in ("strip", "similarity0", "similarity1", "map", "map_time"):
            chart(page, name).wait_for()
        first = compared_with(page)
        before = similarities(page)
        assert before[first] == pytest.approx(1, abs=1e-4)
        click(page, "probabilities", 0.85)
        second = wait_for_frame(page, first)
        assert second > first
        after = similarities(page)
        assert after[second] == pytest.approx(1, abs=1e-4)
        assert after.keys() == before.keys()
        assert max(abs(after[frame] - before[frame]) for frame in before) > 1e-3
        click(page, "strip", 0.12)
        third = wait_for_frame(page, second)
        assert third < first
        click(page, "probabilities", 0.85)  # the same place of the same chart, after a click elsewhere
        assert wait_for_frame(page, third) == second
        assert page.get_by_text("Traceback").count() == 0


def test_two_people_stay_apart_and_are_compared(server, films):
    with browser(server) as page:
        upload(page, films["two"])
        page.get_by_role("heading", name="two, left").wait_for()
        page.get_by_text("right", exact=True).click()
        page.get_by_role("heading", name="two, right").wait_for()
        rows = table_of(page, f"Download the matrix of {RUN} as CSV")
        assert [row["cosine"] for row in rows] == ["two, left", "two, right"]
        assert float(rows[0]["two, left"]) == pytest.approx(1, abs=1e-4)
        assert {row["person"] for row in table_of(page, "Download this person's frames as CSV")} == {"right"}


def test_long_work_can_be_stopped_and_gone_on_with(server, tmp_path):
    draw_clip(tmp_path / "long.mp4", seconds=5, people=1)
    with browser(server) as page:
        upload(page, tmp_path / "long.mp4")
        page.get_by_text(re.compile(rf"long, {RUN}: \d+ of 125")).wait_for()
        page.get_by_role("button", name="Stop", exact=True).click()
        page.get_by_text("Stopped.").wait_for(timeout=20_000)
        assert page.locator(".marks").count() == 0
        page.get_by_role("button", name="Go on").click()
        page.get_by_text(re.compile(rf"long, {RUN}: \d+ of 125")).wait_for()
        page.get_by_text("Drawn sample", exact=True).click()  # another choice stops it, too
        page.get_by_text(f"long, {RUN}").wait_for(state="detached")


def test_what_is_no_clip_is_one_line(server, films):
    with browser(server) as page:
        upload(page, films["text"])
        line = page.locator("[data-testid=stAlert]")
        line.wait_for()
        assert line.inner_text().startswith("text.mp4: ")
        assert "\n" not in line.inner_text().strip()
        assert page.get_by_text("Traceback").count() == 0


def test_two_gigabytes_are_refused_by_one_line(server, films):
    with browser(server) as page:
        started = time.monotonic()
        upload(page, films["large"])
        page.get_by_text("File must be 1.0GB or smaller.").wait_for(timeout=60_000)
        assert time.monotonic() - started < 60
        assert page.locator(".marks").count() == 0


def test_a_snapshot_is_taken_by_the_camera(server, films, tmp_path):
    film = tmp_path / "camera.mjpeg"
    as_camera(films["one"], film)
    flags = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    with browser(server, *flags, f"--use-file-for-fake-video-capture={film}", permissions=["camera"]) as page:
        page.get_by_text("Camera", exact=True).click()
        page.locator("video").wait_for()
        # A photo of before the camera's first frame is black, and has no face.
        page.wait_for_function("() => { const v = document.querySelector('video'); return v && v.currentTime > 0.2 }")
        page.get_by_role("button", name="Take Photo").click()
        chart(page, "pictures").wait_for()
        page.get_by_role("heading", name="1 face in pictures").wait_for()
        rows = table_of(page, "Download these faces as CSV")
        assert [row["video"] for row in rows] == ["snapshot 1"]


def as_camera(clip: Path, out: Path) -> None:
    """The clip as the Motion JPEG that Chromium's fake camera plays."""
    with av.open(str(clip)) as source, av.open(str(out), "w", format="mjpeg") as target:
        stream = target.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuvj420p"
        for frame in source.decode(video=0):
            picture = frame.to_ndarray(width=640, height=360, format="rgb24")
            target.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        target.mux(stream.encode(None))


def listened_at(server: str) -> set[str]:
    """The addresses that the server's port is open at, as the kernel writes them."""
    port = f"{int(server.rpartition(':')[2]):04X}"
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    return {local.partition(":")[0] for _, local, _, state, *_ in lines if state == "0A" and local.endswith(f":{port}")}


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads Linux's table of open ports")
def test_only_this_machine_can_see_it(server):
    assert listened_at(server) == {"0100007F"}  # 127.0.0.1


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads Linux's table of open ports")
def test_it_is_shown_to_the_network_by_the_flag_of_the_page(tmp_path):
    (command,) = re.findall(r"^    (streamlit run .*0\.0\.0\.0)$", PAGE, flags=re.MULTILINE)
    with demo_at(tmp_path, command.split()[3:]) as address:
        assert listened_at(address) == {"00000000"}  # all addresses


def test_the_pictures_of_the_page_are_made_again_and_are_small(server, tmp_path):
    (command,) = re.findall(r"^    python (-m pipeline\.demo\.screenshots docs/pictures)$", PAGE, flags=re.MULTILINE)
    done = subprocess.run(
        [sys.executable, *command.split(), "--address", server], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"CHROMIUM": CHROMIUM, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = {path.name: path.stat().st_size for path in (tmp_path / "docs/pictures").iterdir()}
    assert sorted(made) == sorted(re.findall(r"\]\(pictures/(\w+\.png)\)", PAGE))
    assert max(made.values()) < 150_000
