"""Which training windows stand for a run."""

import numpy as np
import pytest

from pipeline.adapter.examples import from_folder, to_path
from pipeline.training.references import spread


def test_examples_are_evenly_spread_over_videos_and_within_each():
    video = np.repeat([2, 5, 9], [4, 1, 40])
    assert spread(video, 9).tolist() == [0, 2, 3, 4, 11, 25, 38]  # 3 a video, the middles of as many parts
    assert spread(video, 100).tolist() == list(range(5)) + [5 + (2 * k + 1) * 40 // 66 for k in range(33)]
    assert spread(video, 2).tolist() == [2, 25]  # fewer than videos: the first and the last
    assert spread(np.empty(0, int), 9).tolist() == []


@pytest.mark.parametrize(("lengths", "most"), [([7] * 300, 2000), ([1] * 5000, 2000), ([100_000], 2000), ([3], 1)])
def test_examples_are_never_more_than_wanted_and_each_once(lengths, most):
    video = np.repeat(np.arange(len(lengths)), lengths)
    chosen = spread(video, most)
    assert len(np.unique(chosen)) == len(chosen) <= most
    assert len(np.unique(video[chosen])) == min(len(lengths), most)


def test_a_place_is_found_again_when_run_and_place_move_together(tmp_path):
    for root in (tmp_path / "here", tmp_path / "elsewhere/deeper"):
        written = from_folder(root / "weights/x.safetensors", root / "runs/a/seed_0")
        assert written == "../../../weights/x.safetensors"
        assert to_path(written, root / "runs/a/seed_0") == root / "weights/x.safetensors"
