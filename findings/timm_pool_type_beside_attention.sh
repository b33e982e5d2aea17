#!/usr/bin/env bash
# A ViT of timm that pools by attention takes 'pool_type' and does not look at it
#
# 'VisionTransformer.pool(tokens, pool_type=...)' of timm 1.0.31 is how one asks for another pooling than the model's own. Where
# the model has 'attn_pool', as SigLIP's do, 'avg' and 'token' both give the attention's result, without a word. Who compares
# poolings that way compares one with itself. (Our store pools tokens by itself and is tested against models without it.)
# Seen: test_vit3 (attention): 'avg' and 'token' equal, 'avg' is not the mean; test_vit (average): 'avg' is the mean.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check timm==1.0.31 torch==2.14.1 torchvision==0.29.1
cd "$folder"
env/bin/python - <<'PYTHON'
import timm
import torch

torch.manual_seed(0)
for name, by_attention in (("test_vit3", True), ("test_vit", False)):
    model = timm.create_model(name, pretrained=False, num_classes=0).eval()
    with torch.no_grad():
        tokens = model.forward_features(torch.randn(1, 3, 160, 160))
        average, token = model.pool(tokens, pool_type="avg"), model.pool(tokens, pool_type="token")
    mean = tokens[:, model.num_prefix_tokens :].mean(1)
    print(f"timm {timm.__version__}, {name}: avg equals token: {average.equal(token)}, is the mean: {average.allclose(mean)}")
    assert (model.attn_pool is not None) == by_attention
    assert average.equal(token) == by_attention
    assert average.allclose(mean, atol=1e-5) != by_attention
PYTHON
