"""Whatever the labels say later, nothing is scored on what it was trained on, selected on or fitted on."""

import hashlib
import json
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import test_train
from test_train import MADE_BY, D, Killed, folded, run

import train
from pipeline.adapter.adapter import load_adapter, save_adapter
from pipeline.core import projection
from pipeline.core.frame_set import frame_set
from pipeline.core.params import UserError
from pipeline.core.seen import Seen, from_arrays, hashes, refuse_seen, to_arrays
from pipeline.core.store import FeatureStore
from pipeline.core.tables import ABAW_CLASSES, Labels, of_fold, read_labels, write_labels
from pipeline.evaluation import baselines, evaluate
from pipeline.extraction import reduce
from pipeline.submission import predict
from pipeline.training import run as run_module

pytestmark = pytest.mark.usefixtures("undrawn")

made, place = test_train.made, test_train.place  # fixtures
LABELS = Path("data/labels.parquet")
VIDEOS = [f"v{i:02}" for i in range(18)]


def scored(folder, *more):
    flags = ["--run", str(folder), "-o", "out", "--device", "cpu", "--resamples", "20", "--timelines", "0", *more]
    evaluate.main(flags)
    return json.loads(Path("out/details.json").read_text())["about"]


def change(how):
    """The label table, changed: ``how`` takes the table and gives another."""
    labels = read_labels(LABELS)
    write_labels(LABELS, Labels(how(labels.table.copy()), labels.classes, labels.dataset))


def side(val):
    """The official split of all tracks with these videos as validation."""

    def how(table):
        part = np.where(table["video"].isin(val), "val", "train")
        return table.assign(expression_split=part, va_split=part, au_split=part)

    return how


def parts(test_split=None, select_split=0.15, fold=None):
    """Videos by part, as they are drawn from the label table now."""
    labels = of_fold(read_labels(LABELS), fold)
    frames = frame_set(
        FeatureStore(Path("data/features.zarr")), labels, test_split=test_split, select_split=select_split, split_seed=0
    )
    of = {}
    for part in ("train", "select", "val"):
        of[part] = {frames.videos[v] for v in frames.video[frames.centres(part)]}
    return of


def counts(message):
    """'trained on' and 'chose ... on' with the number of videos that the message names."""
    found = re.findall(
        r"it (was trained|chose its best epoch|uses a projection.*?) on ([\d,]+) of [\d,]+ videos", message
    )
    return {what: int(number) for what, number in found}


def refused(call, match="has seen what is the validation part now"):
    with pytest.raises(UserError, match=match) as error:
        call()
    return str(error.value)


def test_a_drawn_split_that_one_video_less_draws_otherwise_is_refused_by_the_number_trained_on(place):
    """The number that was wrong: so many of the validation videos of now had been trained on, without a word."""
    folder = run("--test-split", "0.25")
    then = parts(0.25)
    change(lambda table: table[table["video"] != "v03"])
    now = parts(0.25)
    trained, chosen = now["val"] & then["train"], now["val"] & then["select"]
    assert len(trained) >= 2
    message = refused(lambda: scored(folder))
    expected = {"was trained": len(trained), "chose its best epoch": len(chosen)}
    assert counts(message) == {what: number for what, number in expected.items() if number}
    assert any(name in message for name in trained)
    assert "Train it again, or evaluate it with the labels that it was trained with" in message
    assert not Path("out").exists()


def test_another_official_split_is_refused_and_its_groups_are_named(place):
    folder = run()
    then = parts()
    change(side(VIDEOS[:6]))
    message = refused(lambda: scored(folder))
    assert counts(message).get("was trained", 0) == len(then["train"] & set(VIDEOS[:6]))
    assert counts(message).get("chose its best epoch", 0) == len(then["select"] & set(VIDEOS[:6]))
    assert "runs/manual/mlp-contrastive_cross_entropy-balanced, seed 0 has seen" in message


def test_what_the_best_epoch_was_chosen_on_is_no_validation_either(place):
    folder = run()
    change(side(parts()["select"]))
    message = refused(lambda: scored(folder))
    assert "was trained on" not in message
    assert counts(message) == {"chose its best epoch": len(parts()["val"])}


def test_labels_that_changed_inside_their_parts_are_evaluated_as_ever(place, capsys):
    folder = run()
    before = scored(folder)
    change(lambda table: table.assign(expression=table["expression"].where(table["video"] != "v13", "Anger")))
    after = scored(folder)
    assert (before["val_videos_new"], before["val_videos_gone"]) == (0, 0)
    assert (after["val_videos_new"], after["val_videos_gone"]) == (0, 0)
    assert "not the validation part of its training" not in capsys.readouterr().out


def test_further_validation_videos_that_were_never_seen_are_scored_and_said(place, capsys):
    change(side(VIDEOS[12:16]))
    change(lambda table: table[~table["video"].isin(VIDEOS[16:])])
    folder, table = run(), read_labels(LABELS).table
    more = table[table["video"].isin(["v12", "v13"])].replace({"video": {"v12": "v16", "v13": "v17"}})
    more = more.assign(group=more["video"])
    change(lambda table: pd.concat([table[table["video"] != "v15"], more]))
    about = scored(folder)
    assert (about["val_videos_new"], about["val_videos_gone"]) == (2, 1)
    assert "2 videos are new, and 1 are gone; the run has seen none of them" in capsys.readouterr().out


# --- groups and videos


def persons(table):
    """Two videos a person: v00 and v01 are p00, v02 and v03 are p01, ..."""
    return table.assign(group="p" + (table["video"].str[1:].astype(int) // 2).astype("str").str.zfill(2))


@pytest.mark.parametrize("still_labelled", [True, False])
def test_a_person_whose_groups_were_merged_is_known_by_the_other_video(place, still_labelled):
    """v12 validates, and is found to be the person of a video that was trained on: v12 itself was never seen."""
    folder = run()
    video = sorted(parts()["train"])[0]

    def merged(table):
        splits = {c: table[c].mask(table["video"] == video, None) for c in table if c.endswith("_split")}
        label = table["expression"].where((table["video"] != video) | still_labelled, None)
        group = table["group"].replace({"v12": "merged", video: "merged"})
        return table.assign(group=group, expression=label, **splits)

    change(merged)
    message = refused(lambda: scored(folder))
    assert counts(message) == {"was trained": 1}
    assert f"({video})" in message


def test_a_person_whose_video_was_renamed_is_known_by_the_group(place):
    folder = run()
    video = sorted(parts()["train"])[0]
    change(lambda table: table[table["video"] != video])
    change(lambda table: table.assign(group=table["group"].mask(table["video"] == "v12", video)))
    message = refused(lambda: scored(folder))
    assert re.search(rf"was trained on 1 of 6 groups \({video}\)", message)


def test_a_group_renamed_with_all_its_videos_in_place_is_the_same_part(place):
    change(persons)
    folder = run("--select-split", "0.34")
    change(lambda table: table.assign(group="x" + table["group"]))
    assert scored(folder)["val_videos_new"] == 0


# --- folds, baselines, predict


def test_folds_that_were_cut_again_with_another_seed_are_refused(place):
    folded()
    folder = run("--name", "folds")
    then = [parts(fold=k) for k in range(3)]
    change(lambda table: table.assign(fold=((table["video"].str[1:].astype(int) // 2) % 3).astype("Int16")))
    trained = parts(fold=0)["val"] & then[0]["train"]
    message = refused(lambda: scored(folder))
    assert "runs/manual/folds, fold 0, seed 0 has seen" in message
    assert counts(message)["was trained"] == len(trained) > 0


def test_baselines_refuse_what_the_run_of_single_frames_has_seen(place):
    folder = run("--window", "1", "--pooling", "centre", "--loss", "cross_entropy")
    change(side(VIDEOS[:6]))
    flags = ["--run", str(folder), "-o", "baselines", "--device", "cpu", "--resamples", "20"]
    refused(lambda: baselines.main(flags))
    assert not Path("baselines").exists()


def as_abaw(place):
    """The place with all of ABAW's classes, so that it can be predicted by its neighbours."""
    labels = read_labels(LABELS)
    names = pd.Series(ABAW_CLASSES)[(labels.table.index // 5) % 8].to_numpy()
    write_labels(LABELS, Labels(labels.table.assign(expression=names), ABAW_CLASSES, labels.dataset))


def predicted(folder, *more):
    videos = VIDEOS[:2] + VIDEOS[12:14]
    Path("list.txt").write_text("".join(f"{video}/{f:05}.jpg,\n" for video in videos for f in range(1, 13)))
    flags = ["--run", str(folder), "--list", "list.txt", "--task", "expr", "-o", "said", "--device", "cpu"]
    return predict.main([*flags, *more])


def test_neighbours_are_not_asked_of_another_split_than_the_runs_own(place, capsys):
    as_abaw(place)
    folder = run()
    seen = sorted((parts()["train"] | parts()["select"]) & set(VIDEOS[:2]))
    assert predicted(folder, "--by", "knn") == 0
    assert (
        f"has seen {len(seen)} of the 4 videos in training or selection ({', '.join(seen)})" in capsys.readouterr().out
    )
    shutil.rmtree("said")
    change(side(VIDEOS[:6]))
    refused(lambda: predicted(folder, "--by", "knn"))
    assert not Path("said").exists()


# --- going on


def killed(monkeypatch, *flags):
    """A run that ends in its second epoch, with its state stored."""
    monkeypatch.setattr(run_module, "STATE_EVERY", 0.0)
    real, calls = run_module._epoch, []

    def epoch(*args):
        calls.append(args)
        if len(calls) == 3:
            raise Killed
        return real(*args)

    monkeypatch.setattr(run_module, "_epoch", epoch)
    with pytest.raises(Killed):
        run("--name", "cut", "-e", "4", *flags)
    monkeypatch.setattr(run_module, "_epoch", real)
    return Path("runs/manual/cut")


def test_a_run_does_not_go_on_where_its_training_videos_are_held_out_now(place, monkeypatch):
    folder = killed(monkeypatch, "--test-split", "0.25")
    then, before = parts(0.25), {p: p.read_bytes() for p in folder.rglob("*.safetensors")}
    change(lambda table: table[table["video"] != "v03"])
    message = refused(lambda: train.main(["--resume", str(folder)]))
    assert counts(message)["was trained"] == len(parts(0.25)["val"] & then["train"]) > 0
    assert "Put the earlier labels and split back, or train a new run" in message
    assert {p: p.read_bytes() for p in folder.rglob("*.safetensors")} == before


def test_a_run_does_not_go_on_where_training_and_selection_have_changed_places(place, monkeypatch):
    folder = killed(monkeypatch)
    change(lambda table: table[table["video"] != sorted(parts()["train"])[0]])
    refused(lambda: train.main(["--resume", str(folder)]), "cannot go on: its (train|select) part has changed")


def test_a_finished_seed_is_not_taken_into_a_summary_of_other_parts(place):
    folder = run("--name", "done")
    change(side(VIDEOS[:6]))
    refused(lambda: train.main(["--resume", str(folder)]))


def test_a_run_goes_on_where_labels_changed_inside_their_parts(place, monkeypatch):
    folder = killed(monkeypatch)
    change(lambda table: table.assign(valence=table["valence"] * 0.5))
    train.main(["--resume", str(folder)])
    assert (folder / "summary.json").is_file()


# --- the projection


def reduced(*more):
    reduce.main(["-n", "4", *more])


def test_a_projection_that_has_seen_what_is_held_out_now_is_refused_by_training(place):
    reduced()
    change(side(VIDEOS[:6]))
    message = refused(lambda: run("--reduce"), r"the projection data/projection.safetensors has seen what is the val")
    assert "it was fitted on 6 of 6 videos (v00, v01, v02 and 3 more)" in message
    assert "python -m pipeline.extraction.reduce" in message
    reduced()
    run("--reduce")


def test_a_run_remembers_what_its_projection_was_fitted_on(place):
    """A projection of all tracks has seen v11, which the run, of expressions alone, was not trained on."""
    change(lambda table: table.assign(expression_split=table["expression_split"].mask(table["video"] == "v11", None)))
    reduced()
    folder = run("--reduce")
    change(side(["v11"]))
    message = refused(lambda: scored(folder))
    assert counts(message).keys() == {"uses a projection that was fitted"}
    assert "uses a projection that was fitted on 1 of 1 videos (v11)" in message


def test_the_projection_of_a_fold_remembers_its_own_fold(place):
    folded()
    reduced()
    for k in range(3):
        fitted = projection.load(Path("data/projection.safetensors"), MADE_BY, k)
        table = of_fold(read_labels(LABELS), k).table
        train_part = table[table["expression_split"] == "train"]
        assert fitted.seen == Seen.of(train_part["group"].unique(), train_part["video"].unique())
    change(lambda table: table.assign(fold=((table["video"].str[1:].astype(int) // 2) % 3).astype("Int16")))
    refused(lambda: run("--reduce"), "the projection .* has seen what is the validation part now")


def test_a_projection_that_does_not_say_what_it_was_fitted_on_is_refused(place):
    fitted = projection.fit([np.random.default_rng(0).normal(size=(50, D))], 4)
    projection.save(Path("data/projection.safetensors"), fitted, MADE_BY)
    with pytest.raises(UserError, match=r"does not say which videos it was made with.*pipeline\.extraction\.reduce"):
        run("--reduce")


# --- what is kept


def test_a_checkpoint_holds_just_what_it_was_trained_and_selected_on_and_no_names(place):
    folder = run()
    path = folder / "seed_0/best.safetensors"
    seen, expected = load_adapter(path, MADE_BY).seen, parts()
    assert seen == {part: Seen.of(videos, videos) for part, videos in expected.items()}
    content = path.read_bytes()
    assert not any(video.encode() in content for video in VIDEOS)


@pytest.mark.parametrize(
    ("flags", "known"),
    [
        (["-e", "0", "--normalise", "none"], {"val"}),
        (["-e", "0"], {"train", "val"}),
        (["-e", "1"], {"train", "select", "val"}),
    ],
)
def test_frozen_features_have_seen_nothing_and_may_be_scored_on_any_split(place, flags, known):
    folder = run("--model", "identity", *flags) if "0" in flags else run(*flags)
    assert set(load_adapter(folder / "seed_0/best.safetensors", MADE_BY).seen) == known
    change(side(VIDEOS[:6]))
    if known == {"val"}:
        assert scored(folder)["val_videos_new"] == 6
    else:
        refused(lambda: scored(folder))


def test_a_checkpoint_that_does_not_say_what_it_has_seen_is_not_evaluated(place):
    folder = run()
    path = folder / "seed_0/best.safetensors"
    adapter = load_adapter(path, MADE_BY)
    adapter.seen = None
    save_adapter(path, adapter)
    refused(
        lambda: scored(folder), "seed 0 does not say which videos it was made with, and may have seen any. Train it"
    )


def test_a_hundred_thousand_videos_are_a_few_bytes_each_and_found_at_once():
    """And no name of another hundred thousand passes for one of them: the chance of any is 5e-10."""
    names = [f"person_{i:06}/video" for i in range(100_000)]
    started = time.process_time()
    seen = Seen.of(names, names)
    assert sum(array.nbytes for array in to_arrays({"train": seen}).values()) == 2 * 8 * 100_000
    assert seen.known(names[:3], ["other", names[7]]) == (names[:3], [names[7]])
    assert seen.known([f"other_{i}" for i in range(100_000)], []) == ([], [])
    assert time.process_time() - started < 5
    assert from_arrays(to_arrays({"train": seen})) == {"train": seen}


def test_a_name_is_hashed_as_blake2b_says_whatever_its_order_and_number():
    expected = int.from_bytes(hashlib.blake2b("é/1".encode(), digest_size=8).digest(), "little", signed=True)
    assert hashes(["é/1"]).tolist() == [expected]
    assert Seen.of(["b", "a", "b"], []) == Seen.of(["a", "b"], [])
    assert Seen.of([], []).known(["a"], []) == ([], [])


def test_the_first_names_and_the_number_of_the_others_are_said():
    seen = {"train": Seen.of([], [f"v{i}" for i in range(1500)])}
    videos = [f"v{i}" for i in range(1200)]
    with pytest.raises(UserError, match=r"it was trained on 1,200 of 1,200 videos \(v0, v1, v2 and 1,197 more\)"):
        refuse_seen("the run", seen, (["g"], videos), "test", "Train it again")
    refuse_seen("the run", seen, (["g"], ["w"]), "test", "Train it again")
