#!/usr/bin/env bash
# TensorBoard drops the empty bins at both ends of a histogram
#
# A writer that gives the same bin limits in every run and step, as 'add_histogram' with 'bins' and 'max_bins' does, does not
# get the same axis: TensorBoard 2.21.0 takes the empty bins at both ends away when it reads the event. So histograms of two
# runs have other axes. They stay as written where they are tensors (k, 3) with the metadata of the histogram plugin.
# Seen: six bins from -1 to 1, values in two of them: two bins are left.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 tensorboard==2.21.0 "setuptools<82"
cd "$folder"
env/bin/python - <<'PYTHON' 2> /dev/null
import numpy as np
import tensorboard
from tensorboard import data_compat
from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary
from tensorboard.plugins.histogram import metadata
from tensorboard.util import tensor_util

counts = [0, 0, 3, 2, 0, 0]
limits = [-0.67, -0.33, 0, 0.33, 0.67, 1]
old = HistogramProto(min=-0.2, max=0.2, num=5, sum=0, sum_squares=0.2, bucket_limit=limits, bucket=counts)
read = data_compat.migrate_value(Summary.Value(tag="cosines", histo=old))
bins = np.column_stack([[-1, *limits[:-1]], limits, counts])
new = Summary.Value(
    tag="cosines",
    tensor=tensor_util.make_tensor_proto(bins),
    metadata=metadata.create_summary_metadata(display_name=None, description=None),
)
kept = [len(tensor_util.make_ndarray(value.tensor)) for value in (read, data_compat.migrate_value(new))]
print(f"TensorBoard {tensorboard.__version__}: of 6 bins {kept[0]} are left of a histogram, {kept[1]} of a tensor")
assert kept == [2, 6]
PYTHON
