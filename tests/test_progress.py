import io

import pytest
import test_train
from test_train import run

from pipeline.core import progress
from pipeline.core.progress import FrameCounter, Line, clock
from pipeline.training import run as run_module

made, place = test_train.made, test_train.place  # fixtures


class Stream(io.StringIO):
    def __init__(self, terminal):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal


@pytest.fixture
def at(monkeypatch):
    """Sets the time in seconds."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return lambda seconds: now.__setitem__(0, float(seconds))


def test_on_a_terminal_one_line_rewrites_itself_and_is_taken_off_in_the_end(at):
    stream = Stream(terminal=True)
    line = Line(stream)
    for second, text in ((0, "epoch 1, long"), (0.1, "dropped"), (1, "epoch 2"), (2, "epoch 3")):
        at(second)
        line.say(text)
    line.end()
    assert stream.getvalue().split("\r") == ["", "epoch 1, long", "epoch 2      ", "epoch 3", " " * 7, ""]
    line.end()
    assert stream.getvalue().count("\r") == 5


def test_in_a_log_there_is_a_plain_line_now_and_then_and_later_fewer(at):
    stream, said = Stream(terminal=False), []
    line = Line(stream)
    for second in range(0, 3600):
        at(second)
        before = len(stream.getvalue())
        line.say(f"epoch {second}")
        said += [second] * (len(stream.getvalue()) > before)
    line.end()
    assert "\r" not in stream.getvalue()
    assert stream.getvalue().splitlines() == [f"epoch {second}" for second in said]
    assert said[:3] == [10, 20, 30]
    assert len(said) < 30


def test_a_short_run_says_nothing_in_a_log(place, capsys):
    run()
    assert capsys.readouterr().err == ""


def test_a_long_one_says_epoch_loss_score_best_and_time_left(place, capsys, monkeypatch):
    monkeypatch.setattr(progress, "LOG_EVERY", 0.0)

    class Always(Line):
        def __init__(self):
            super().__init__()
            self.started = float("inf")  # so that no time has passed

    monkeypatch.setattr(run_module, "Line", Always)
    run("--name", "x")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    for number, line in enumerate(lines, 1):
        assert line.startswith(f"runs/manual/x/seed_0: epoch {number} of 3, loss ")
        assert "auc_same_different 0." in line
        assert ", best 0." in line
        assert line.endswith(" left")


def verdict(place, capsys, monkeypatch, scores, *flags):
    left = iter(scores)
    monkeypatch.setattr(run_module, "_selected", lambda *_: next(left))
    run("--name", "x", "-e", str(len(scores) - 1), *flags)
    out = capsys.readouterr().out
    return out[out.index("runs/manual/x: ") :].splitlines()


def test_the_verdict_says_score_start_steps_and_that_it_overfits(place, capsys, monkeypatch):
    lines = verdict(place, capsys, monkeypatch, [0.5, 0.6, 0.7, 0.65, 0.6, 0.6, 0.55, 0.5])
    assert lines == [
        "runs/manual/x: 0.700 auc_same_different on the selection part; 0.500 before training",
        "  7 epochs, 35 steps in all; best epoch 2 of 7",
        "  the last 5 epochs brought no better score (overfitting): try --patience 3",
        "  curves: tensorboard --logdir runs/manual/x",
    ]


def test_the_verdict_says_where_more_epochs_may_help(place, capsys, monkeypatch):
    lines = verdict(place, capsys, monkeypatch, [0.5, 0.6, 0.7, 0.8])
    assert lines[2] == "  the best epoch is among the last: more --epochs may be better still"


def test_where_steps_count_progress_and_verdict_say_steps(place, capsys, monkeypatch):
    class Always(Line):
        def say(self, text):
            print(text)

    monkeypatch.setattr(run_module, "Line", Always)
    scores = iter([0.5, 0.6, 0.7, 0.8])
    monkeypatch.setattr(run_module, "_selected", lambda *_: next(scores))
    run("--name", "x", "--steps", "13")
    lines = capsys.readouterr().out.splitlines()
    where = [line.split(", loss")[0] for line in lines if ", loss " in line]
    assert where == [f"runs/manual/x/seed_0: epoch {n}, step {s} of 13" for n, s in ((1, 5), (2, 10), (3, 13))]
    assert lines[-3:-1] == [
        "  3 epochs, 13 steps in all; best epoch 3 of 3",
        "  the best epoch is among the last: more --steps may be better still",
    ]


def test_a_time_left_is_read_as_hours_minutes_and_seconds():
    assert [clock(s) for s in (5, 65, 3665)] == ["0:00:05", "0:01:05", "1:01:05"]


def test_frames_are_counted_with_rate_and_time_left_also_beyond_a_guessed_total(at):
    counter = FrameCounter(1_000, about=True)
    assert counter.line(5.0).strip() == "0 of about 1,000 frames, 0 frames/s, starting"
    counter.done = 250
    assert counter.line(50.0).strip() == "250 of about 1,000 frames, 5 frames/s, 0:02:30 left"
    counter.done = 1_200
    assert counter.line(50.0).strip() == "1,200 of about 1,000 frames, 24 frames/s, 0:00:00 left"
    assert FrameCounter(1_000).line(5.0).startswith("0 of 1,000 frames, ")


def test_one_epoch_is_not_one_epochs(place, capsys):
    run("--name", "x", "-e", "1")
    assert "\n  1 epoch, 5 steps in all; best epoch 1 of 1\n" in capsys.readouterr().out
