#!/usr/bin/env bash
# PEFT's low-rank updates of timm's BEiT, EVA-02 and Swin v2 learn nothing, and nothing says so
#
# PEFT 0.21.2 puts a layer of its own in the place of the linear layer 'qkv'. These models of timm 1.0.31 do not call that layer:
# they take its weight, 'F.linear(x, self.qkv.weight, ...)', and PEFT's layer hands out the frozen one. So the updates get no
# gradient. A ViT calls the layer, and learns. (Our own updates are of the weight itself, by torch's parametrize.)
# Seen: updates with a gradient: test_vit 6 of 6 blocks, BEiT, EVA-02 and Swin v2 none.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
    peft==0.21.2 timm==1.0.31 torch==2.14.1 torchvision==0.29.1
cd "$folder"
env/bin/python - <<'PYTHON'
import peft
import timm
import torch

torch.manual_seed(0)
small = {"img_size": 32, "depth": 2, "embed_dim": 48, "num_heads": 4}
models = {
    "test_vit": ({}, True),
    "beit_base_patch16_224": (small, False),
    "eva02_tiny_patch14_224": ({"img_size": 28, "depth": 2, "embed_dim": 48, "num_heads": 4}, False),
    "swinv2_tiny_window8_256": ({"img_size": 64, "depths": (1, 1), "embed_dim": 24, "num_heads": (2, 4)}, False),
}
for name, (options, learns) in models.items():
    model = timm.create_model(name, pretrained=False, num_classes=0, **options)
    peft.inject_adapter_in_model(peft.LoraConfig(r=2, target_modules=["qkv"]), model)
    size = options.get("img_size", 160)
    images = torch.randn(2, 3, size, size, requires_grad=True)  # so that there is a gradient where no update has one
    model(images).square().sum().backward()
    ups = [p for key, p in model.named_parameters() if "lora_B" in key]
    count = sum(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in ups)
    print(f"peft {peft.__version__}, timm {timm.__version__}, {name}: {count} of {len(ups)} updates have a gradient")
    assert ups and count == (len(ups) if learns else 0)
PYTHON
