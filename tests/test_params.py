import dataclasses
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from sklearn.utils import check_random_state

from pipeline.core import params
from pipeline.core.params import UserError, option
from pipeline.datasets.config import DatasetConfig
from pipeline.evaluation.baselines import BaselinesConfig
from pipeline.evaluation.evaluate import EvaluateConfig
from train import TrainConfig

FILE = """
train:
  lr: 1e-3
  epochs: 5
  views: [original]
  loss:
    name: supcon
    margin: 0.5
store:
  store: data/features.zarr
  backbone: tf_efficientnet_b0
empty:
"""


@dataclass(frozen=True)
class Config:
    lr: float = option(0.1, help="learning rate, 10% of it at the end")
    epochs: int = option(1, "-e", help="epochs")
    amp: bool = option(False, help="mixed precision")
    views: list[str] = option([], help="views", choices=None)
    steps: list[int] = option([1, 2], help="steps")
    head: str = option("mean", help="head", choices=["mean", "tcn"])
    limit: int | None = option(None, help="limit")
    store: Path = option(Path("s.zarr"), help="the store")
    loss: dict[str, Any] = option({}, help="loss")
    layer: int | str | None = option(None, help="layer")
    cache: Path | None = option(None, help="cache")
    word: str | None = option(None, help="word")
    widths: list[int | str] = option([1], help="widths")


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(FILE)
    return path


def parse(file: Path, *argv: str, sections=("train",), borrow=()):
    return params.parse(Config, ["--params", str(file), *argv], sections=sections, description="d", borrow=borrow)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "other.yaml"
    path.write_text(text)
    return path


def test_the_file_beats_the_defaults_and_a_flag_beats_the_file(file):
    assert parse(file) == Config(lr=0.001, epochs=5, views=["original"], loss={"name": "supcon", "margin": 0.5})
    assert parse(file, "--epochs", "7").epochs == 7
    assert parse(file, "-e", "8", "--lr", "1e-2") == dataclasses.replace(parse(file), epochs=8, lr=0.01)


def test_items_of_a_list_may_be_of_two_kinds(file, tmp_path):
    assert parse(file, "--widths", "15", "3.4s").widths == [15, "3.4s"]
    assert parse(written(tmp_path, "train:\n  widths: [3.4s, 15]\n")).widths == ["3.4s", 15]


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.0e-3", "0.001", "+1e-3"])
def test_a_number_with_an_exponent_is_a_number_though_yaml_reads_a_string(tmp_path, text):
    assert parse(written(tmp_path, f"train:\n  lr: {text}\n")).lr == 0.001


@pytest.mark.parametrize("config", [TrainConfig, EvaluateConfig, BaselinesConfig])
def test_each_item_of_a_list_must_be_a_choice_so_nobody_can_vouch_for_backbone_weights_or_size(config):
    assert params.build(config, {"alike": ["crop_source"]}, "").alike == ["crop_source"]
    for name in ("backbone", "source_sha256", "input_size", "fit"):
        with pytest.raises(UserError, match=rf"^alike '{name}' is not one of \['crop_source'\]"):
            params.build(config, {"alike": ["crop_source", name]}, "")


def test_an_integer_is_good_for_a_float_and_a_word_is_not(tmp_path):
    lr = parse(written(tmp_path, "train:\n  lr: 1\n")).lr
    assert (lr, type(lr)) == (1.0, float)
    with pytest.raises(UserError, match="train: lr must be float, and is 'fast'"):
        parse(written(tmp_path, "train:\n  lr: fast\n"))


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("epochs: 1.5", "train: epochs must be int, and is 1.5"),
        ("epochs: true", "train: epochs must be int, and is True"),
        ("lr: true", "train: lr must be float, and is True"),
        ("amp: 1", "train: amp must be bool, and is 1"),
        ("amp: null", "train: amp must be bool, and is None"),
        ("steps: 3", r"train: steps must be list\[int\], and is 3"),
        ("steps: [1, x]", "train: steps must be int, and is 'x'"),
        ("limit: many", r"train: limit must be int \| None, and is 'many'"),
        ("head: 3", "train: head must be str, and is 3"),
        ("head: tnc", r"train: head 'tnc' is not one of \['mean', 'tcn'\] \(did you mean 'tcn'\?\)"),
    ],
)
def test_a_value_of_a_wrong_kind_is_an_error_that_names_section_and_key(tmp_path, line, error):
    with pytest.raises(UserError, match=error):
        parse(written(tmp_path, f"train:\n  {line}\n"))


def test_an_unknown_key_is_an_error_that_names_the_nearest(tmp_path):
    with pytest.raises(UserError, match=r"train: parameter 'epoch' is not one of .*did you mean 'epochs'"):
        parse(written(tmp_path, "train:\n  epoch: 3\n"))


def test_bool_flags_switch_on_and_off(tmp_path):
    on = written(tmp_path, "train:\n  amp: true\n")
    assert parse(on).amp is True
    assert parse(on, "--no-amp").amp is False
    assert parse(written(tmp_path, "train:\n"), "--amp").amp is True


def test_lists_take_their_values_one_after_another_and_replace_those_of_the_file(file):
    config = parse(file, "--views", "original", "flipped", "--steps", "3", "4")
    assert config.views == ["original", "flipped"]
    assert config.steps == [3, 4]


def test_each_instance_has_its_own_list():
    first = Config()
    first.steps.append(3)
    assert Config().steps == [1, 2]


def test_paths_null_and_mixed_kinds_arrive_as_declared(tmp_path):
    config = parse(written(tmp_path, "train:\n  store: a/b.zarr\n  limit: null\n  layer: last\n"))
    assert (config.store, config.limit, config.layer) == (Path("a/b.zarr"), None, "last")
    assert parse(written(tmp_path, "train:\n"), "--limit", "3", "--layer", "2").layer == 2


@pytest.mark.parametrize(("flag", "name"), [("--limit", "limit"), ("--cache", "cache"), ("--word", "word")])
def test_a_flag_that_may_be_null_takes_null_as_the_file_does(tmp_path, flag, name):
    place = written(tmp_path, "train:\n  limit: 3\n  cache: a\n  word: b\n")
    assert getattr(parse(place), name) is not None
    assert getattr(parse(place, flag, "null"), name) is None
    assert getattr(parse(place, flag, "7"), name) == {"limit": 7, "cache": Path("7"), "word": "7"}[name]


def test_a_flag_that_may_not_be_null_refuses_it(file, capsys):
    with pytest.raises(SystemExit):
        parse(file, "--epochs", "null")
    assert "argument -e/--epochs: invalid int value: 'null'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parse(file, "--limit", "none")
    assert "argument --limit: invalid int value: 'none'" in capsys.readouterr().err
    assert parse(file, "--store", "null").store == Path("null")


def test_of_a_borrowed_section_only_the_known_keys_are_taken_and_ones_own_section_wins(file, tmp_path):
    assert parse(file, borrow=("store",)).store == Path("data/features.zarr")
    both = written(tmp_path, "store: {store: borrowed.zarr, epochs: 3, x: 1}\ntrain: {store: own.zarr}\n")
    config = parse(both, borrow=("store",))
    assert (config.store, config.epochs) == (Path("own.zarr"), 3)
    with pytest.raises(UserError, match="parameter 'backbone' is not one of"):
        parse(file, sections=("train", "store"))


def test_later_sections_win_and_a_dot_goes_inside(tmp_path):
    path = written(tmp_path, "a:\n  epochs: 1\n  lr: 2\nb:\n  deep:\n    epochs: 3\n")
    config = parse(path, sections=("a", "b.deep"))
    assert (config.epochs, config.lr) == (3, 2.0)


def test_an_empty_name_is_the_whole_file(tmp_path):
    assert parse(written(tmp_path, "epochs: 3\n"), sections=("",)).epochs == 3


def test_an_empty_section_leaves_the_defaults(file):
    assert parse(file, sections=("empty",)) == Config()


def test_a_missing_section_is_an_error_that_lists_those_there_are(file):
    with pytest.raises(UserError, match=r"section 'trian' is not in .*\['train', 'store', 'empty'\]"):
        parse(file, sections=("trian",))


def test_a_missing_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*nowhere.yaml: No such file"):
        parse(tmp_path / "nowhere.yaml")


def test_a_file_that_is_not_yaml_or_a_section_that_is_no_mapping_is_an_error(tmp_path):
    with pytest.raises(UserError, match="is not YAML"):
        parse(written(tmp_path, "train: ["))
    with pytest.raises(UserError, match=r"section 'train' of .* must be a mapping, and is \[1\]"):
        parse(written(tmp_path, "train: [1]\n"))


def test_a_flag_cannot_be_shortened(file, capsys):
    with pytest.raises(SystemExit):
        parse(file, "--epo", "3")
    assert "unrecognized arguments" in capsys.readouterr().err


def test_help_lists_flags_with_their_choices_and_survives_a_percent_sign(file, capsys):
    with pytest.raises(SystemExit) as exit_:
        parse(file, "--help")
    printed = " ".join(capsys.readouterr().out.split())
    assert exit_.value.code == 0
    assert "head (one of mean, tcn)" in printed
    assert "10% of it at the end" in printed


def test_one_of_gives_the_name_or_lists_the_known():
    assert params.one_of("loss", "supcon", {"supcon": 1, "ntxent": 2}) == "supcon"
    with pytest.raises(UserError) as error:
        params.one_of("loss", "supcom", {"supcon": 1, "ntxent": 2})
    assert str(error.value) == "loss 'supcom' is not one of ['ntxent', 'supcon'] (did you mean 'supcon'?)"


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [(None, 0, ""), (UserError("no frames"), 2, "error: no frames\n"), (KeyboardInterrupt(), 130, "interrupted\n")],
)
def test_entry_turns_errors_into_a_line_and_a_status(capsys, raised, status, said):
    def main():
        if raised:
            raise raised
        return 0

    with pytest.raises(SystemExit) as exit_:
        params.entry(main)
    assert exit_.value.code == status
    assert capsys.readouterr().err == said


def test_entry_does_not_hide_a_fault_of_ours():
    def main():
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        params.entry(main)


@dataclass(frozen=True)
class Ranged:
    share: float = option(0.5, help="share", within="[0, 1)")
    rate: float = option(0.1, help="rate", within="(0, inf)")
    step: int | None = option(None, help="step", within="[1, inf)")
    size: int | str = option(15, help="size", within="[1, 10_000]")
    betas: list[float] = option([0.9], help="betas", within="[0, 1)")
    seed: int = option(0, help="seed")
    options: dict = option({}, help="options")
    pairs: list = option([], help="pairs")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("share: 1", r"share must be in \[0, 1\), and is 1.0"),
        ("share: -0.1", r"share must be in \[0, 1\), and is -0.1"),
        ("rate: 0", "rate must be above 0, and is 0.0"),
        ("rate: .nan", "rate must be above 0, and is nan"),
        ("rate: .inf", "rate must be above 0, and is inf"),
        ("rate: 1e999", "rate must be above 0, and is inf"),
        ("step: -1", "step must be at least 1, and is -1"),
        ("size: 0", "size must be from 1 to 10,000, and is 0"),
        ("size: 10001", "size must be from 1 to 10,000, and is 10001"),
        ("betas: [0.9, 1.5]", r"betas must be in \[0, 1\), and is 1.5"),
        ("seed: 1000000000000000000000000000000", "seed must be an integer of 64 bits, and is 10{30}$"),
        ("options: {a: {b: [.nan]}}", "options must be a finite number, and is nan"),
        ("pairs: [[.inf]]", "pairs must be a finite number, and is inf"),
    ],
)
def test_a_number_out_of_its_range_is_one_line(tmp_path, text, words):
    file = tmp_path / "p.yaml"
    file.write_text(f"train: {{{text}}}")
    with pytest.raises(UserError, match=f"^train: {words}"):
        params.parse(Ranged, ["--params", str(file)], sections=["train"], description="d")


def test_the_ends_of_a_range_and_other_kinds_are_good():
    for values in (
        {"share": 0},
        {"step": 1},
        {"step": None},
        {"size": 10_000},
        {"size": "3.4s"},
        {"options": {"a": True}},
    ):
        params.build(Ranged, values, "train")
    assert params.build(Ranged, {"seed": -(2**63)}, "").seed == -(2**63)


def test_a_flag_out_of_its_range_is_named(file):
    for flag, value in (("--share", "nan"), ("--share", "2"), ("--step", "0"), ("--betas", "inf")):
        with pytest.raises(UserError, match=f"^{flag[2:]} must be"):
            params.parse(Ranged, ["--params", str(file), flag, value], sections=[], description="d")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_parameter_file_in_unicode_is_read(tmp_path, encoding):
    (tmp_path / "p.yaml").write_bytes("train: {head: größe}".encode(encoding))
    assert params.read(tmp_path / "p.yaml", "train") == {"head": "größe"}


@pytest.mark.parametrize(
    "content",
    ["train: {head: größe}".encode("latin-1"), b"\xff\xfe\0", b"a: \x00", b"\x80", b"a: 2026-99-99", b"[" * 5000],
)
def test_a_parameter_file_in_another_encoding_is_one_line(tmp_path, content):
    (tmp_path / "p.yaml").write_bytes(content)
    with pytest.raises(UserError, match=r"^parameters: .*p\.yaml is not .*$"):
        params.read(tmp_path / "p.yaml", "train")


def test_an_operating_systems_error_is_one_line_too(capsys):
    def fail():
        raise PermissionError(13, "Permission denied", "/data/x")

    with pytest.raises(SystemExit) as exit:
        params.entry(fail)
    assert exit.value.code == 2
    assert capsys.readouterr().err == "error: [Errno 13] Permission denied: '/data/x'\n"


@pytest.mark.parametrize(("config", "key"), [(TrainConfig, "split_seed"), (DatasetConfig, "seed")])
def test_a_seed_of_a_split_is_one_that_scikit_learn_takes(config, key):
    """numpy's legacy generator, which scikit-learn 1.9 seeds, takes 32 bits; the second of two cuts takes seed + 1."""
    most = 2**32 - 2
    assert getattr(params.build(config, {key: most}, ""), key) == most
    check_random_state(most + 1)
    with pytest.raises(ValueError, match="between 0 and"):
        check_random_state(most + 2)
    with pytest.raises(UserError, match=rf"{key} must be from 0 to 4,294,967,294"):
        params.build(config, {key: most + 1}, "")


@pytest.mark.parametrize("words", [["train.py"], ["-m", "pipeline.code"], ["-m", "pipeline.report"]])
def test_every_command_says_the_version_of_the_project(words):
    """In a folder without params.yaml, and also of a command that takes no flags."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    script = [str(ROOT / word) if word.endswith(".py") else word for word in words]
    done = subprocess.run([sys.executable, *script, "--version"], capture_output=True, text=True)
    assert done.stdout == f"{project['name']} {project['version']}\n"
    assert (done.stderr, done.returncode) == ("", 0)
    assert project["name"] == params.PACKAGE


def test_the_version_stands_among_the_flags_and_needs_no_file(capsys):
    with pytest.raises(SystemExit) as ended:
        params.parse(Config, ["--version"], sections=["train"], description="x")
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"{params.PACKAGE} ")
