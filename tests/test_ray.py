"""Work on a Ray cluster of two nodes of this machine, on which everything goes wrong: the end is always the same.

The nodes are made by Ray's own ``cluster_utils``. What a machine would do otherwise (see no disk, have other code) is
done to a node's processes by a ``sitecustomize`` of the test, in ``NODE``.
"""

import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT, draw
from test_extract import index
from test_faces import film, noise
from test_store import bytes_of

import extract
from pipeline.core.cluster import LOOPBACK
from pipeline.core.params import UserError
from pipeline.faces.__main__ import main as faces_main
from pipeline.training import all_runs

pytestmark = pytest.mark.cluster

TINY = ["--backbone", "test_efficientnet", "--weights", "random", "--input-size", "32", "--device", "cpu", "-b", "4"]
RUN = [*TINY, "--chunk-rows", "8", "--workers", "1"]
FRAMES = 240
NODE = """
import importlib.abc, os, sys, time
mode, pictures = os.environ.get("TEST_NODE", ""), os.environ.get("TEST_COUNT")

def hook(event, arguments):
    if event != "open":
        return
    name = str(arguments[0])
    if name.endswith(".jpg"):
        if mode == "blind":
            raise FileNotFoundError(2, "No such file or directory")
        handle = os.open(pictures, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, b".")
        os.close(handle)
        time.sleep(0.01)
    elif ".seen-" in name and mode == "far":
        raise FileNotFoundError(2, "No such file or directory")

if pictures:
    sys.addaudithook(hook)
if mode == "rootless":
    real = os.stat
    def stat(path, *args, **more):
        if str(path).endswith("/faces"):
            raise FileNotFoundError(2, "No such file or directory")
        return real(path, *args, **more)
    os.stat = stat

class Changed(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != {"code": "pipeline.extraction.frames", "weights": "pipeline.extraction.weights.file"}.get(mode):
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module
        def exec_module(module):
            run(module)
            if mode == "code":
                resize = module.resize_image
                module.resize_image = lambda image, *how: resize(image[::-1], *how)
            else:
                module.tensors_sha256 = lambda tensors: "of other weights"
        spec.loader.exec_module = exec_module
        return spec

if mode in ("code", "weights"):
    import importlib.util
    sys.meta_path.insert(0, Changed())
"""


def free_ports() -> dict[str, int]:
    """Ports that are given to a node leave it less to find out while it starts."""
    names = ("metrics_agent_port", "dashboard_agent_listen_port", "runtime_env_agent_port", "metrics_export_port")
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in names]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return {name: each.getsockname()[1] for name, each in zip(names, sockets, strict=True)}


class Nodes:
    """A cluster whose nodes have a core each."""

    def __init__(self, folder: Path) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        self.cluster_utils = pytest.importorskip("ray.cluster_utils")
        self.folder, self.count = folder, folder / "count"
        (folder / "sitecustomize.py").write_text(NODE)
        self.cluster = self.cluster_utils.Cluster()
        # A node that is gone is noticed within seconds. Ray's niceness of 15 starves workers on a busy machine.
        config = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_timeout_ms": 5000,
                  "worker_niceness": 0}  # fmt: skip
        self.add("", _system_config=config, include_dashboard=False)
        self.address = self.cluster.address

    def add(self, mode: str, **more) -> object:
        env = {"PYTHONPATH": str(self.folder), "TEST_NODE": mode, "TEST_COUNT": str(self.count)}
        return self.cluster.add_node(
            num_cpus=1, num_gpus=0, object_store_memory=100 << 20, env_vars=env, node_ip_address=LOOPBACK,
            **free_ports(), **more,
        )  # fmt: skip

    def read(self) -> int:
        """Pictures that workers have read since the last time."""
        number = self.count.stat().st_size if self.count.exists() else 0
        self.count.write_bytes(b"")
        return number


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """Two nodes; the second does not see the disk of the store, so that it sends its rows back."""
    made = Nodes(tmp_path_factory.mktemp("nodes"))
    made.second = made.add("far")
    yield made
    made.cluster.shutdown()


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "faces"
    for frame in range(1, FRAMES + 1):
        draw(root / f"v{frame % 5}" / f"{frame:05d}.jpg", frame)
    return root


@pytest.fixture
def whole(workplace, faces, nodes) -> dict:
    """The bytes of the store of one process. Four of the pictures are broken."""
    index(faces)
    table = pd.read_parquet("data/frames.parquet")
    for place in (0, 7, 100, 239):
        (faces / table["path"][place]).write_bytes(b"")
    index(faces)
    extract.main([*RUN, "-s", "whole.zarr"])
    nodes.read()
    return bytes_of(Path("whole.zarr"))


def workers() -> list[int]:
    """The processes of all workers of an extraction."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().startswith(b"ray::Extractor"):
                found.append(int(path.parent.name))
    return found


@contextlib.contextmanager
def meanwhile(work) -> object:
    """``work`` in a thread, whose error is raised at the end."""
    errors = []

    def run():
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join()
    assert errors == []


def wait_until(condition, seconds: float = 400) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def on_cluster(nodes, *more: str) -> int:
    return extract.main([*RUN, "-s", "s.zarr", "--ray", nodes.address, *more])


def test_two_nodes_give_the_store_of_one_process_whether_they_see_its_disk_or_not(whole, nodes, capsys):
    assert on_cluster(nodes) == 0
    assert bytes_of(Path("s.zarr")) == whole
    assert not Path("s.zarr.parts").exists()
    # Each worker reads what can be read of the first batch, to compare features; the second may come too late for that.
    assert FRAMES <= nodes.read() <= FRAMES + 2 * 3
    assert json.loads(Path("s.extract.json").read_text()) == json.loads(Path("whole.extract.json").read_text())
    assert "236 frames extracted, 0 were there, 4 of 240 could not be read" in capsys.readouterr().out
    assert workers() == []
    assert on_cluster(nodes) == 0  # nothing to do but what could not be read
    assert bytes_of(Path("s.zarr")) == whole


def test_twenty_workers_killed_at_random_change_no_byte_and_no_more_than_their_shares_is_done_twice(whole, nodes):
    """Every second kill comes when some pictures were read, the others soon after, also to workers that just start."""
    rng, kills, over = random.Random(0), 0, threading.Event()

    def worked(pictures: int) -> bool:
        return over.is_set() or (nodes.count.exists() and nodes.count.stat().st_size >= pictures)

    def kill():
        nonlocal kills
        seen = 0
        while not over.is_set():
            if kills % 2 == 0:
                wait_until(partial(worked, seen + rng.randrange(1, 40)))
                seen = nodes.count.stat().st_size
            else:
                time.sleep(rng.uniform(0, 1))
            if alive := workers():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(rng.choice(alive), signal.SIGKILL)
                    kills += 1

    stores = 0
    with meanwhile(kill):
        try:
            while kills < 20:
                assert extract.main([*RUN, "-s", f"{stores}.zarr", "--ray", nodes.address]) == 0
                assert bytes_of(Path(f"{stores}.zarr")) == whole
                stores += 1
        finally:
            over.set()
    # A worker has two shares, reads a batch before it begins, and is read two batches ahead.
    assert nodes.read() <= stores * (FRAMES + 2 * 3) + kills * (3 + 2 * 8)


def driver(nodes, *more: str) -> subprocess.Popen:
    command = [sys.executable, ROOT / "extract.py", *RUN, "-s", "s.zarr", "--ray", nodes.address, *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_node_that_is_removed_and_one_that_joins_change_nothing_but_the_speed(whole, nodes):
    process = driver(nodes)
    wait_until(lambda: len(list(Path("s.zarr/frame/c").glob("*"))) > 2)
    nodes.cluster.remove_node(nodes.second, allow_graceful=False)
    nodes.second = nodes.add("far")
    _, said = process.communicate(timeout=400)
    assert (process.returncode, said) == (0, "")
    assert bytes_of(Path("s.zarr")) == whole


def test_a_driver_that_is_killed_and_started_again_computes_nothing_again_that_was_done(whole, nodes, capsys):
    process = driver(nodes)
    wait_until(lambda: process.poll() is None and len(list(Path("s.zarr/frame/c").glob("*"))) > 4)
    process.kill()
    process.communicate()
    wait_until(lambda: not workers())
    done = 8 * len(list(Path("s.zarr/frame/c").glob("*")))
    read = nodes.read()
    assert on_cluster(nodes) == 0
    assert bytes_of(Path("s.zarr")) == whole
    again = nodes.read()
    assert again <= FRAMES - done + 2 * 4
    assert read + again <= FRAMES + 4 * 4 + 2 * (2 * 8 + 2 * 4) + 4  # in flight, and what is never readable


def test_control_c_stops_the_workers_and_is_one_line(whole, nodes):
    process = driver(nodes)
    wait_until(lambda: len(list(Path("s.zarr/frame/c").glob("*"))) > 1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "interrupted\n")
    wait_until(lambda: not workers(), 20)
    assert on_cluster(nodes) == 0
    assert bytes_of(Path("s.zarr")) == whole


def test_machines_that_cannot_do_it_are_named_and_left_out_and_the_others_do_it(whole, nodes, capsys):
    modes = ("rootless", "blind", "code", "weights")
    with contextlib.ExitStack() as bad:
        for mode in modes:
            bad.callback(nodes.cluster.remove_node, nodes.add(mode))
        assert on_cluster(nodes, "--ray-workers", "6") == 0
    assert bytes_of(Path("s.zarr")) == whole
    said = capsys.readouterr().err
    for words in (
        r"does not see \S+/faces: it is left out",
        r"does not see \S+/faces/v0/00\d+\.jpg: it is left out",
        r"gives other features for the same frames \(least cosine ",
        "would make features by something else: weights_sha256 '",
    ):
        assert re.search(rf"machine {socket.gethostname()} \(\w+\) {words}", said), said


def test_what_a_worker_cannot_store_ends_all_with_its_line(whole, nodes):
    with pytest.raises(UserError, match=r"rows of 'original' lose over 1 % .*: give --scale"):
        on_cluster(nodes, "--scale", "1e-9")
    with pytest.raises(UserError, match="gpus_per_worker is 1, and no machine of the cluster has more than 0 GPUs"):
        extract.main([*RUN[:-4], "--device", "auto", "-s", "t.zarr", "--ray", nodes.address, "--gpus-per-worker", "1"])


def test_no_cluster_at_an_address_is_one_line(whole):
    with pytest.raises(UserError, match=r"no Ray cluster at '127\.0\.0\.1:1'"):
        extract.main([*RUN, "-s", "t.zarr", "--ray", "127.0.0.1:1"])


def test_faces_of_many_machines_are_those_of_one(workplace, nodes, capsys):
    """Videos without a face, for a detector of photographs: what is compared is that each was cut, and said so."""
    for number in range(3):
        film(Path(f"videos/{number}.mp4"), noise(4 + number))
    assert faces_main(["--input", "videos", "--out", "one", "--workers", "1"]) == 0
    assert faces_main(["--input", "videos", "--out", "many", "--ray", nodes.address]) == 0
    one, many = (json.loads(Path(f"{out}/faces.json").read_text()) for out in ("one", "many"))
    assert many == one
    assert [video["frames"] for video in many["videos"].values()] == [4, 5, 6]
    # The second node does not see the mark in the folder for the faces, and so its machine must not cut.
    assert re.search(r"does not see \S+/many: it is left out", capsys.readouterr().err)
    assert not list(Path("many").rglob(".seen-*"))


TRAIN = """
import sys
from pathlib import Path

folder = Path("runs", sys.argv[1])
folder.mkdir(parents=True)
(folder / "x").write_text(folder.name)
sys.exit("error: it cannot be trained" if folder.name == "broken" else 0)
"""
STAGES = """
stages:
  train:
    foreach: ${runs}
    do:
      cmd: python train.py ${key}
      outs: ['runs/${key}']
"""


def test_stale_runs_are_trained_side_by_side_and_dvc_knows_them(tmp_path, nodes, capsys):
    pytest.importorskip("dvc")
    place = tmp_path / "place"
    place.mkdir()
    (place / "params.yaml").write_text("runs: {a: {}, b: {}, broken: {}}\n")
    (place / "train.py").write_text(TRAIN)
    (place / "dvc.yaml").write_text(STAGES)
    for words in (["init", "--no-scm", "-q"], ["repro", "-q", "train@a"]):
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        env = os.environ | {"PATH": path}
        subprocess.run([sys.executable, "-m", "dvc", *words], cwd=place, env=env, check=True)
    os.chdir(place)
    assert all_runs.main(["--ray", nodes.address, "--ray-workers", "2"]) == 1
    out, err = capsys.readouterr()
    said = dict(line.split(": ", 1) for line in out.splitlines())
    assert said["a"].startswith("was up to date")
    assert said["b"].startswith("trained")
    assert said["broken"].startswith("could not be trained")
    assert "broken: error: it cannot be trained" in err
    assert Path("runs/b/x").read_text() == "b"
    done = subprocess.run([sys.executable, "-m", "dvc", "status", "--json"], capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout)) == {"train@broken"}
    with pytest.raises(UserError, match="run 'c' is not one of"):
        all_runs.main(["--only", "c"])
