#!/bin/sh
# xarray 2026.9.0 and zarr 3.1.6, Python 3.11 or newer: what consolidated metadata does to a group that grows.
#
# 1. xarray.open_zarr of a Zarr v3 group without it succeeds and, in the same warning, advises zarr.consolidate_metadata().
# 2. The copy does not follow a later resize. A plain zarr.open_group reads it, so it shows the rows of that day: no
#    error, no warning. A writer that opens the group so and appends at array.shape[0] writes over what came after.
# 3. zarr.open_group(use_consolidated=False) holds for the group that is opened. A sub-group with a copy of its own is
#    trusted again as soon as it is reached through group["views"]; group["views/original"] is read afresh.
# 4. tensorstore 0.1.86 opens float16 arrays with crc32c, and refuses Zarr's 'string' data type.
#
# Exits with 1 if any of this is no longer so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check zarr==3.1.6 xarray==2026.9.0 tensorstore==0.1.86
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import warnings

import numpy as np
import tensorstore
import xarray
import zarr

group = zarr.create_group("s.zarr")
views = group.create_group("views")
views.create_array("original", shape=(4, 2), chunks=(4, 2), dtype="float16", dimension_names=["row", "feature"])
group.create_array("video", shape=(4,), chunks=(4,), dtype=str, dimension_names=["row"])

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    xarray.open_zarr("s.zarr")
advice = [str(w.message) for w in caught if "zarr.consolidate_metadata()" in str(w.message)]
print("xarray", xarray.__version__, "advises:", advice[0].splitlines()[1] if advice else "nothing")

warnings.simplefilter("ignore")
zarr.consolidate_metadata("s.zarr")
zarr.consolidate_metadata("s.zarr", path="views")
zarr.open_group("s.zarr", mode="r+", use_consolidated=False)["views/original"].resize((8, 2))  # another process
plain = zarr.open_group("s.zarr", mode="r")["views/original"].shape[0]
fresh = zarr.open_group("s.zarr", mode="r", use_consolidated=False)
print("zarr", zarr.__version__, "rows: 8 written; plain", plain, "| use_consolidated=False", end=" ")
print(fresh["views/original"].shape[0], "by path,", fresh["views"]["original"].shape[0], "through the sub-group")
found = plain, fresh["views/original"].shape[0], fresh["views"]["original"].shape[0]


def opens(array):
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"s.zarr/{array}/"}}
    try:
        return str(tensorstore.open(spec, read=True).result().dtype.name)
    except ValueError as error:
        return "refused" if "string data type is not one of the supported" in str(error) else str(error)


kinds = [opens("views/original"), opens("video")]
print("tensorstore: views/original", kinds[0], "| video", kinds[1])
sys.exit(0 if advice and found == (4, 8, 4) and kinds == ["float16", "refused"] else 1)
PYTHON
