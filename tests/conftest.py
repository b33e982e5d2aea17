"""A workplace in a temporary folder, with the project's params.yaml, and small pictures to put there."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from forks import bin_folder

ROOT = Path(__file__).parent.parent
torch.set_num_threads(1)  # everything here is tiny: two threads wait for each other longer than they work
cv2.setNumThreads(1)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Each test runs in an empty folder: what data/ and runs/ of the project hold must not decide it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def undrawn():
    """Figures are made and saved as blank files: drawing them is most of what a small run or evaluation costs.

    They are drawn in test_board.py, test_plots.py, test_report.py, test_same_bytes.py and test_end_to_end.py.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.draw", lambda self, renderer: None)
        yield


@pytest.fixture
def quick_children(monkeypatch):
    """Commands that a command starts begin at once; see forks.py."""
    from pipeline.core import children

    plain = children.run
    monkeypatch.setattr(children, "run", lambda command: plain([str(bin_folder() / "python"), *command[1:]]))


@pytest.fixture
def workplace(tmp_path):
    """The current folder for the test, with the project's params.yaml in it."""
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    return tmp_path


def draw(path: Path, seed: int, size: tuple[int, int] = (40, 40)) -> None:
    """A smooth random picture (height, width), the same for the same seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
    path.write_bytes(cv2.imencode(path.suffix, picture)[1].tobytes())


def draw_folder(root: Path, videos: dict[str, int]) -> None:
    """Class folders under train/ and val/ with one sub-folder a video: {'train/happy/v1': frames, ...}."""
    for number, (name, frames) in enumerate(sorted(videos.items())):
        for frame in range(1, frames + 1):
            draw(root / name / f"{frame:05d}.jpg", 1000 * number + frame)


@pytest.fixture
def content() -> dict[str, np.ndarray]:
    """A file of features: 11 rows of two videos, not in order, with a second view, a third one and logits."""
    rng = np.random.default_rng(0)
    return {
        "features": rng.standard_normal((11, 4)).astype(np.float16),
        "video": np.array(["b é"] * 5 + ["a"] * 6),
        "frame": np.array([5, 4, 3, 2, 1, 1, 2, 3, 10, 20, 30]),
        "flipped": rng.standard_normal((11, 4)).astype(np.float16),
        "views/dark": rng.standard_normal((11, 3)).astype(np.float16),
        "logits": rng.standard_normal((11, 2)).astype(np.float16),
    }


def loss_of(facts: dict[str, Any]) -> torch.nn.Module:
    """The loss that an adapter with these facts is trained by."""
    from pipeline.training.losses.build import build_loss  # here: most tests need no loss

    given = {"class_counts": None, "num_aus": None, "temperature": None, "margin": None, "loss_options": {}} | facts
    return build_loss(
        given["loss"], given["loss_options"], num_classes=len(given["classes"]) or None, embedding_size=8,
        num_outputs=len(given.get("output_names", ())) or None,
        **{name: given[name] for name in ("class_counts", "num_aus", "temperature", "margin")},
    )  # fmt: skip


def adapter_of(facts: dict[str, Any]) -> Any:
    """An untrained adapter with the predictors that its loss trains."""
    from pipeline.adapter.adapter import build_adapter

    return build_adapter(facts | {"predictors": loss_of(facts).trains})


LIMITED = """
import resource, sys, time
from pathlib import Path
from pipeline.extraction import transfer
from pipeline.extraction.weights import fetch
from pipeline.core.params import UserError
now = int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (now + (200 << 20), now + (200 << 20)))
for name in sys.argv[1:]:
    start = time.process_time()
    try:
        CALL
        print(f"{name}\\ttaken")
    except UserError as error:
        print(f"{name}\\t{time.process_time() - start:.1f}\\t{error}")
"""


def within_200_megabytes(call: str, files: list[str], folder: Path) -> dict[str, tuple[float, str]]:
    """``call`` on each ``name`` of ``files`` in a process that cannot have more: seconds, and the line that refuses it.

    Fails where a file is taken, and where the process ends otherwise than by itself.
    """
    done = subprocess.run(
        [sys.executable, "-c", LIMITED.replace("CALL", call), *files], cwd=folder, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, timeout=120,
    )  # fmt: skip
    came = {line.split("\t")[0]: line.split("\t")[1:] for line in done.stdout.splitlines()}
    assert sorted(came) == sorted(files)
    assert [name for name, answer in came.items() if answer == ["taken"]] == []
    return {name: (float(seconds), words) for name, (seconds, words) in came.items()}


@pytest.fixture
def hand_made_clips() -> Any:
    """Clips of the videos a (frames 1 to 40), b (1 to 5), d (3, 4 and 9) and c, which has no frame: two folds, a test.

    Two of a overlap, one is of one frame, one of d begins and one ends at a frame that is not there. Anna is in both
    folds.
    """
    from pipeline.core.clips import Clips

    columns = ["clip", "video", "start", "end", "group", "expression", "valence", "arousal", "au1", "joy"]
    nan = float("nan")
    rows = [
        ("a-0", "a", 1, 16, "anna", "happy", 0.5, 0.25, 1, 0.75, "fold", 1),
        ("a-1", "a", 11, 31, "anna", "sad", -0.5, 0.0, 0, 0.25, "fold", 1),
        ("a-2", "a", 40, 41, "anna", "happy", nan, nan, None, 0.5, "fold", 2),
        ("b-0", "b", None, None, "ben", "sad", -1.0, 1.0, 1, 0.0, "fold", 2),
        ("c-0", "c", None, 9, "cem", "happy", 0.0, 0.0, 0, 1.0, "fold", 1),
        ("d-0", "d", 4, 9, "dora", "sad", 0.0, -1.0, None, nan, "fold", 2),
        ("d-1", "d", 8, None, "dora", None, nan, nan, None, nan, "test", None),
    ]  # fmt: skip
    types = {"start": "Int64", "end": "Int64", "au1": "Int8", "fold": "Int16"}
    return Clips(pd.DataFrame(rows, columns=[*columns, "split", "fold"]).astype(types), ["happy", "sad"], "by hand")


@pytest.fixture
def keys_of_clips() -> pd.DataFrame:
    """Keys as a store has them, of the frames that the videos of ``hand_made_clips`` have."""
    frames = {"a": range(1, 41), "b": range(1, 6), "d": [3, 4, 9]}
    keys = pd.DataFrame([(video, frame) for video, of in frames.items() for frame in of], columns=["video", "frame"])
    return keys.astype({"video": "category"}).assign(row=range(len(keys)), size=10)
