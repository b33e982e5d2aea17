#!/bin/sh
# torch 2.15.0 and tensorboard 2.21.0: SummaryWriter.add_scalar takes no description, though TensorBoard shows one.
#
# What a curve is measured on has its place in the card of a tag (summary_description, in Markdown), but neither add_scalar
# nor any other method of the writer for scalars can say it. A value of the plain kind (simple_value) with metadata keeps its
# description when TensorBoard reads it, and is a scalar like the others. The metadata must name the plugin "scalars": without
# it EventAccumulator warns of every such tag ("oddly not associated with a plugin").
#
# Exits with 1 if this is no longer so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 tensorboard==2.21.0
"$folder/venv/bin/python" - "$folder/events" <<'PYTHON'
import inspect
import logging
import sys
from importlib.metadata import version

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from torch.utils.tensorboard import SummaryWriter

parameters = list(inspect.signature(SummaryWriter.add_scalar).parameters)
plugin = SummaryMetadata.PluginData(plugin_name="scalars")
warned = []
logging.getLogger("tensorboard").addHandler(handler := logging.Handler())
handler.emit = lambda record: warned.append(record.getMessage())
with SummaryWriter(sys.argv[1]) as writer:
    writer.add_scalar("plain", 0.5, 1)
    for tag, of in (("described", {"plugin_data": plugin}), ("without_plugin", {})):
        metadata = SummaryMetadata(summary_description="on 1,000 watched frames", **of)
        value = Summary.Value(tag=tag, simple_value=0.7, metadata=metadata)
        writer._get_file_writer().add_summary(Summary(value=[value]), 1)
events = EventAccumulator(sys.argv[1]).Reload()
told = events.SummaryMetadata("described").summary_description
print("torch", version("torch"), "tensorboard", version("tensorboard"), "add_scalar takes", parameters)
print("scalars:", events.Tags()["scalars"], "description of 'described':", repr(told))
print("warned:", warned)
as_said = "description" not in " ".join(parameters) and told == "on 1,000 watched frames"
as_said = as_said and len(warned) == 1 and "without_plugin" in warned[0]
sys.exit(0 if as_said and set(events.Tags()["scalars"]) == {"plain", "described", "without_plugin"} else 1)
PYTHON
