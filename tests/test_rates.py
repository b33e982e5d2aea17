import numpy as np
import pandas as pd
import pytest

from pipeline.core.params import UserError
from pipeline.core.rates import frame_rates, seconds


@pytest.mark.parametrize(
    ("text", "length"), [("3.4s", 3.4), ("2 s", 2.0), ("0.04s", 0.04), ("3.4", None), ("-2s", None), ("s", None)]
)
def test_seconds_are_a_number_with_its_unit(text, length):
    assert seconds(text) == length


def test_frame_rates_are_a_number_or_come_from_a_table(tmp_path):
    video = np.array([0, 0, 1, 1, 2])  # the last of one frame
    assert frame_rates(None, ["a", "b", "7"], video) is None
    assert frame_rates(25.0, ["a", "b", "7"], video).tolist() == [25] * 3
    table = pd.DataFrame({"video": ["b", "a", "a", "7"], "frame": range(4), "fps": [60, 29.97, 29.97, 15]})
    table.to_csv(tmp_path / "fps.csv", index=False)
    table.to_parquet(tmp_path / "faces.parquet")
    for name in ("fps.csv", "faces.parquet"):
        assert frame_rates(tmp_path / name, ["a", "b", "7"], video).tolist() == [29.97, 60, 15]
    found = frame_rates(tmp_path / "fps.csv", ["a", "b", "still"], video)
    np.testing.assert_array_equal(found, [29.97, 60, np.nan])
    with pytest.raises(UserError, match=r"fps\.csv has no rate for 1 of the videos, such as still"):
        frame_rates(tmp_path / "fps.csv", ["a", "still", "b"], video)
    table.assign(fps=[60, 29.97, 30, 15]).to_csv(tmp_path / "fps.csv", index=False)
    with pytest.raises(UserError, match=r"fps\.csv has several rates for one video, a"):
        frame_rates(tmp_path / "fps.csv", ["a", "b"], video)
    for name in ("fps.csv", "faces.parquet"):
        table.rename(columns={"fps": "rate"}).to_csv(tmp_path / "fps.csv")
        table.drop(columns="fps").to_parquet(tmp_path / "faces.parquet")
        with pytest.raises(UserError, match="is no table with the columns video and fps"):
            frame_rates(tmp_path / name, ["a"], video)
    with pytest.raises(UserError, match="is no table with the columns video and fps"):
        frame_rates(tmp_path / "none.csv", ["a"], video)
