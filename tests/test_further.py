"""What DVC looks at of the stores that a run names itself."""

from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from test_stores import write

from pipeline import further
from pipeline.core import tables


def lines():
    further.main([])
    return {path.name: path.read_text().splitlines() for path in Path("data/stores").iterdir()}


def test_a_run_has_a_line_for_each_store_that_it_names_which_changes_with_what_is_in_it(workplace):
    runs = {"plain": None, "own": {"data": "audio.zarr"}, "both": {"data": ["data/features.zarr", "audio.zarr"]}}
    Path("params.yaml").write_text(yaml.safe_dump({"train": {"model": "mlp"}, "runs": runs}))
    assert further.lines_of({"maps": "m.maps.zarr"}) == ["not there  m.maps.zarr"]
    assert lines()["both"] == ["not there  audio.zarr", "not there  audio.projection.safetensors"]
    keys, values = pd.DataFrame({"video": "a", "frame": range(6)}), np.ones((6, 3), np.float16)
    write(Path("audio.zarr"), keys, values, {"backbone": "x"})
    first = lines()
    assert first["plain"] == ["nothing but data/features.zarr"]
    assert first["own"] == first["both"]
    assert first["both"][0].endswith("  audio.zarr")
    assert first == lines()
    write(Path("audio.zarr"), keys.assign(frame=range(6, 12)), values, {"backbone": "x"})  # it grows
    second = lines()
    assert second["both"][0] != first["both"][0]
    Path("audio.projection.safetensors").write_bytes(b"p")
    assert [a == b for a, b in zip(lines()["both"], second["both"], strict=True)] == [True, False]
    other = values.copy()
    other[0, 0] = 2  # the same sizes
    write(Path("other.zarr"), keys, values, {"backbone": "x"})
    write(Path("changed.zarr"), keys, other, {"backbone": "x"})
    assert further.digest(Path("other.zarr")) != further.digest(Path("changed.zarr"))
    write(Path("again.zarr"), keys, values, {"backbone": "x"})
    assert further.digest(Path("other.zarr")) == further.digest(Path("again.zarr"))


def test_what_no_stage_makes_is_looked_at_apart(workplace):
    runs = {
        "plain": None,
        "both": {"data": ["data/trained/mine.zarr", "audio.zarr"]},
        "mapped": {"maps": "m.maps.zarr"},
    }
    Path("params.yaml").write_text(yaml.safe_dump({"train": {"model": "mlp"}, "runs": runs}))
    seen = []
    for size in (0, 6, 12):
        keys = pd.DataFrame({"video": "a", "frame": range(size)})
        if size:
            write(Path("audio.zarr"), keys, np.ones((size, 3), np.float16), {"backbone": "x"})
        further.main(["--outside"])
        seen.append(Path("data/outside.txt").read_text())
    paths = ["audio.projection.safetensors", "audio.zarr", "m.maps.zarr"]
    assert [line.split("  ")[1] for line in seen[0].splitlines()] == paths
    assert len(set(seen)) == 3
    assert not Path("data/stores").exists()
    Path("params.yaml").write_text(yaml.safe_dump({"train": {"model": "mlp"}, "runs": {"plain": None}}))
    further.main(["--outside"])
    assert Path("data/outside.txt").read_text()  # DVC warns of an empty file


def test_the_default_store_is_that_of_the_tables():
    assert further.STORE == tables.STORE
