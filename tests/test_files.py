"""The files between the steps: whole or not at all, the same bytes for the same content, and no bit that may change."""

import json
import os
import resource
import shutil
import signal
import stat

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
import torch

from pipeline.core import files
from pipeline.core.params import UserError

WHAT, OUT = "a test's file", "Make it again with 'make'"
FACTS = {"b": [1, None, "ü"], "a": {"epoch": 3}}
TENSORS = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(3), "none": np.zeros((0, 4))}
TABLE = pa.table({"video": ["a", "a", "b"], "frame": [1, 2, 1], "x": pa.array([0.5, None, -1], pa.float32())})


def save_tensors(path):
    files.save_tensors(path, TENSORS, FACTS)


def save_table(path):
    files.write_table(path, TABLE, FACTS)


def load_tensors(path):
    tensors, facts = files.load_tensors(path, WHAT, OUT)
    return {name: (a.dtype.str, a.shape, a.tobytes()) for name, a in sorted(tensors.items())}, facts


def load_table(path):
    table, facts = files.read_table(path, WHAT, OUT)
    return table.schema.to_string(), table.to_pylist(), facts


BOTH = pytest.mark.parametrize(("save", "load"), [(save_tensors, load_tensors), (save_table, load_table)])


@pytest.mark.parametrize("kind", ["transposed", "strided", "fortran", "big-endian"])
def test_an_array_comes_back_as_it_was_however_it_lies_in_memory(tmp_path, kind):
    """safetensors.numpy 0.8.0 writes the memory of a transposed array as it lies, and so gives it back scrambled."""
    plain = np.arange(12, dtype=np.float64).reshape(3, 4)
    given = {
        "transposed": plain.T, "strided": plain[::2, ::-1], "fortran": np.asfortranarray(plain),
        "big-endian": plain.astype(">f8"),
    }[kind]  # fmt: skip
    files.save_tensors(tmp_path / "x", {"x": given}, {})
    np.testing.assert_array_equal(files.load_tensors(tmp_path / "x", WHAT, OUT)[0]["x"], given)


def test_tensors_of_torch_come_back_with_their_types_and_facts(tmp_path):
    given = {
        "t": torch.arange(6).reshape(2, 3).T, "b": torch.ones(2, dtype=torch.bfloat16), "m": torch.tensor([True]),
        "s": torch.tensor(2.5), "e": torch.zeros(0, 3), "p": torch.nn.Parameter(torch.ones(2)),
    }  # fmt: skip
    files.save_tensors(tmp_path / "x", given, FACTS)
    found, facts = files.load_tensors(tmp_path / "x", WHAT, OUT, "pt")
    assert facts == FACTS == files.load_facts(tmp_path / "x", WHAT, OUT)
    assert found.keys() == given.keys()
    for name, value in given.items():
        assert found[name].dtype == value.dtype
        torch.testing.assert_close(found[name], value.detach(), rtol=0, atol=0)


def test_other_readers_of_the_formats_read_the_files(tmp_path):
    save_tensors(tmp_path / "x")
    save_table(tmp_path / "y")
    found = safetensors.numpy.load_file(tmp_path / "x")
    assert {n: a.tolist() for n, a in found.items()} == {n: a.tolist() for n, a in TENSORS.items()}
    assert pq.read_table(tmp_path / "y").equals(TABLE)


@BOTH
def test_equal_content_gives_equal_bytes_in_whatever_order_it_is_given(tmp_path, monkeypatch, save, load):
    save(tmp_path / "x")
    for name in ("FACTS", "TENSORS"):
        monkeypatch.setitem(globals(), name, dict(reversed(globals()[name].items())))
    save(tmp_path / "y")
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


@BOTH
def test_no_bit_of_a_file_can_change_unseen(tmp_path, save, load):
    """Each bit in turn, and each length that a cut can leave."""
    path = tmp_path / "x"
    save(path)
    right = path.read_bytes()
    load(path)
    damaged = [right[:length] for length in range(len(right))] + [right + b"\0"]
    for at in range(8 * len(right)):
        flipped = bytearray(right)
        flipped[at // 8] ^= 1 << at % 8
        damaged.append(bytes(flipped))
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(UserError) as error:
            load(path)
        assert str(path) in str(error.value)
        assert str(error.value).endswith(OUT)
        assert "\n" not in str(error.value)


@BOTH
def test_a_file_of_another_maker_is_named(tmp_path, save, load):
    safetensors.numpy.save_file(TENSORS, tmp_path / "x", {"facts": "{}"})
    pq.write_table(TABLE, tmp_path / "y")
    for name in "xy":
        with pytest.raises(UserError, match=r"is not a test's file: there is no digest .* Make it again"):
            load(tmp_path / name)
    with pytest.raises(UserError, match=r"cannot read .*z, a test's file: No such file or directory\. Make it again"):
        load(tmp_path / "z")


def test_a_table_in_pieces_is_the_same_table(tmp_path):
    with files.table_writer(tmp_path / "x", TABLE.schema, {}) as writer:
        for row in range(len(TABLE)):
            writer.write_table(TABLE.slice(row, 1))
    assert files.read_table(tmp_path / "x", WHAT, OUT) == (TABLE, {})
    assert files.read_table(tmp_path / "x", WHAT, OUT, ["frame", "x"])[0] == TABLE.select(["frame", "x"])
    assert files.read_table_facts(tmp_path / "x", WHAT, OUT) == {}


def test_json_knows_no_nan_and_no_infinity(tmp_path):
    given = {"a": float("nan"), "b": [1.5, float("inf"), {"c": np.float64("-inf")}], "d": "NaN", "e": (1, None, True)}
    files.write_json(tmp_path / "x", given)

    def refuse(word):
        raise AssertionError(word)

    found = json.loads((tmp_path / "x").read_text(encoding="utf-8"), parse_constant=refuse)
    assert found == {"a": None, "b": [1.5, None, {"c": None}], "d": "NaN", "e": [1, None, True]}
    assert files.read_json(tmp_path / "x", WHAT, OUT) == found
    files.save_tensors(tmp_path / "y", TENSORS, given)
    assert files.load_facts(tmp_path / "y", WHAT, OUT) == found


def test_a_name_that_is_no_utf8_goes_through_json(tmp_path):
    name = os.fsdecode(b"b\xfcro.txt")
    files.write_json(tmp_path / "x", {name: "büro"})
    assert files.read_json(tmp_path / "x", WHAT, OUT) == {name: "büro"}
    assert "büro" in (tmp_path / "x").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "content", [b"", b'{"a": 1', b"\xff\xfe{\0", b'{"\xe4": 1}', b"[" * 100_000, b"1" * 5000, b"[1]"]
)
def test_what_is_not_json_is_one_line_with_the_way_out(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(UserError, match=r"^.*/x is not a test's file: it is not .*JSON.* Make it again with 'make'$"):
        files.read_json(tmp_path / "x", WHAT, OUT)


def test_json_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "x").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert files.read_json(tmp_path / "x", WHAT, OUT) == {"a": 1}


SAVES = [save_tensors, save_table, lambda path: files.write_json(path, FACTS)]


@pytest.mark.parametrize("save", SAVES)
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_follow_the_umask(tmp_path, save, umask):
    """safetensors 0.8's save_file writes 0600 whatever the umask, and tensors of lab mates could not be read."""
    before = os.umask(umask)
    try:
        save(tmp_path / "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("save", SAVES)
def test_a_full_disk_is_one_line_and_the_old_file_stays(tmp_path, save):
    """A limit on the size of files stands for the disk: the kernel fails the write in the same place."""
    path = tmp_path / "x"
    path.write_bytes(b"old")
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))
    try:
        with pytest.raises(UserError, match=f"^cannot write {path}: File too large$"):
            save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("save", SAVES)
def test_a_place_that_cannot_be_written_to_is_one_line(tmp_path, save):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"^cannot write .*/file/x: File exists \(.*/file\)$"):
        save(tmp_path / "file" / "x")
    with pytest.raises(UserError, match=r"^cannot write .*/folder: Is a directory$"):
        save(tmp_path / "folder")


def test_an_error_in_the_middle_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def fail():
        with files.whole(path) as file:
            file.write(b"new")
            raise KeyError("a fault of the program is no UserError")

    with pytest.raises(KeyError):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    with files.whole(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def evaluated(folder, version, count):
    """Writes three files and a folder, as an evaluation is, of one version."""
    with files.all_or_none(folder, "x") as new:
        for name in ("a.json", "b.csv", "c.npz"):
            files.write_text(new / name, version)
        (new / "plots").mkdir()
        for number in range(count):
            files.write_text(new / "plots" / f"{version}_{number}.png", version)


def versions(folder):
    found = [path for path in folder.rglob("*") if path.is_file() and path.name != "mine"]
    return {path.read_text() for path in found}, sum(path.suffix == ".png" for path in found)


def killed_at(step, folder, monkeypatch):
    """Whether a process that writes a new version was killed just before its ``step``-th change on disk, or ended."""
    pid = os.fork()
    if pid == 0:
        left = iter(range(step))

        def counted(change):
            def do(*args, **kwargs):
                if next(left, None) is None:
                    os._exit(9)
                return change(*args, **kwargs)

            return do

        try:
            for name in ("replace", "rename", "mkdir", "rmdir", "unlink", "open"):
                monkeypatch.setattr(os, name, counted(getattr(os, name)))
            evaluated(folder, "new", 2)
            os._exit(0)
        except BaseException:
            os._exit(1)
    return {0: False, 9: True}[os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]


def test_killed_anywhere_the_old_files_or_the_new_ones_are_there_and_never_some_of_both(tmp_path, monkeypatch):
    seen, step = [], 0
    while True:
        folder = tmp_path / str(step)
        evaluated(folder, "old", 3)
        (folder / "mine").write_text("mine")
        killed = killed_at(step, folder, monkeypatch)
        files.settle(folder, "x")
        shutil.rmtree(folder / ".x.new", ignore_errors=True)  # the next writer removes it
        seen.append(versions(folder))
        assert seen[-1] in (({"old"}, 3), ({"new"}, 2))
        assert (folder / "mine").read_text() == "mine"
        evaluated(folder, "next", 1)
        assert versions(folder) == ({"next"}, 1)
        if not killed:
            break
        step += 1
    assert step > 10
    assert seen[0] == ({"old"}, 3)
    assert seen[-1] == ({"new"}, 2)
    assert seen == sorted(seen, key=lambda found: found == ({"new"}, 2))


def test_an_error_while_several_files_are_written_leaves_the_old_ones(tmp_path):
    evaluated(tmp_path / "e", "old", 3)

    def fail():
        with files.all_or_none(tmp_path / "e", "x"):
            raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"^cannot write .*/e: No space left on device$"):
        fail()
    assert versions(tmp_path / "e") == ({"old"}, 3)
    assert sorted(p.name for p in (tmp_path / "e").iterdir()) == ["a.json", "b.csv", "c.npz", "plots"]
