"""The backbones by name: those of EmotiEffLib (HSEmotion) are described here, all others by timm."""

import difflib
from dataclasses import dataclass
from typing import Any

import timm
import torch

from pipeline.core.params import UserError

AFFECTNET = ("Anger", "Contempt", "Disgust", "Fear", "Happiness", "Neutral", "Sadness", "Surprise")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Published:
    """A backbone of EmotiEffLib (HSEmotion). ``blobs`` are git's object ids of the files that hold these weights."""

    architecture: str
    input_size: int
    outputs: tuple[str, ...]
    blobs: tuple[str, ...]


HSEMOTION = {
    "enet_b0_8_best_vgaf": Published(
        "tf_efficientnet_b0",
        224,
        AFFECTNET,
        (
            "7219cfb037209b253ea8b81cf969e60a00e9181c",  # 2023-09-16
            "1e676ed557cfe69745abcc240a9c0ea5b993d9e7",  # the same weights, older files
            "084bd0afda64a3ce62cb69430bd1d83286680659",
        ),
    ),
    "enet_b0_8_best_afew": Published(
        "tf_efficientnet_b0", 224, AFFECTNET, ("9540c8beff661f1c2fca16de63b530cce24bb17d",)
    ),
    "enet_b0_8_va_mtl": Published(
        "tf_efficientnet_b0", 224, (*AFFECTNET, "valence", "arousal"), ("b7223bd1ab092a1b5a42bc04a5f4fbfe4d9f8b9b",)
    ),
    "enet_b2_8": Published("tf_efficientnet_b2", 260, AFFECTNET, ("eed81e6368877e89f8a99cfabadae7c3ddc3a949",)),
}


def outputs_of(backbone: str) -> tuple[str, ...]:
    """What the classifier's outputs mean; none where they have no meaning here, such as ImageNet's 1000."""
    return HSEMOTION[backbone].outputs if backbone in HSEMOTION else ()


def architecture_of(backbone: str) -> str:
    """timm's name for what a backbone is. Raises ``UserError`` for an unknown one, with the nearest names."""
    if backbone in HSEMOTION:
        return HSEMOTION[backbone].architecture
    name, _, tag = backbone.partition(".")
    if timm.is_model(name):
        if tag and tag not in (
            tags := [known.partition(".")[2] for known in timm.list_models(f"{name}.*", pretrained=True)]
        ):
            raise UserError(f"backbone '{backbone}': timm has '{name}' with pretrained weights {tags}, not '{tag}'")
        return backbone
    near = difflib.get_close_matches(backbone, [*HSEMOTION, *timm.list_models()], n=3)
    hint = f" (nearest: {', '.join(near)})" if near else ""
    raise UserError(f"backbone '{backbone}' is neither one of {list(HSEMOTION)} nor a model of timm{hint}")


def preprocessing(backbone: str, model: torch.nn.Module) -> dict[str, Any]:
    """How images are prepared for a backbone; for all but EmotiEffLib's as timm says of ``model``."""
    if backbone in HSEMOTION:
        size = HSEMOTION[backbone].input_size
        own = {"interpolation": "bilinear", "crop_mode": "squash", "crop_pct": 1.0}
        return {"input_size": size, "mean": IMAGENET_MEAN, "std": IMAGENET_STD, **own}
    config = timm.data.resolve_model_data_config(model)
    own = {key: config[key] for key in ("mean", "std", "interpolation", "crop_mode", "crop_pct")}
    return {"input_size": config["input_size"][-1], **own}
