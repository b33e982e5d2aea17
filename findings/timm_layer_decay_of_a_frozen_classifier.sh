#!/usr/bin/env bash
# timm's layer decay counts a classifier that is not trained
#
# 'param_groups_layer_decay' of timm 1.0.31 gives the rate 1 to the last layer of the model and 'layer_decay' times as much to
# each layer before it. Parameters without a gradient get no group, but their layer is counted: who freezes the classifier, as
# metric learning does, trains the last layer that learns at 'layer_decay' of the rate that was asked for, and all others too.
# Without a classifier (num_classes=0) the same layers have the rate 1.
# Seen: with layer_decay .5 and all frozen but the last convolution: scale 0.5 with a classifier of 1,000, 1.0 without.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check timm==1.0.31 torch==2.14.1 torchvision==0.29.1
cd "$folder"
env/bin/python - <<'PYTHON'
import timm
from timm.optim import param_groups_layer_decay

for num_classes, expected in ((1000, 0.5), (0, 1.0)):
    model = timm.create_model("test_efficientnet", pretrained=False, num_classes=num_classes).requires_grad_(False)
    model.conv_head.requires_grad_(True)
    groups = param_groups_layer_decay(model, weight_decay=0, layer_decay=0.5)
    scales = {group["lr_scale"] for group in groups}
    print(f"timm {timm.__version__}, {num_classes} classes, only conv_head trained: scale {scales}")
    assert scales == {expected}
PYTHON
