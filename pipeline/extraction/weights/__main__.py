"""One safetensors file for any backbone, wherever its weights come from, with the facts that go with them.

    python -m pipeline.extraction.weights [--backbone NAME] [--weights auto|random|FILE] [--folder weights]

The file is weights/NAME.safetensors. A backbone that was trained here also has a file under a name of its own.

Code in a file that is read never runs, see ``unpickle``.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.files import whole
from pipeline.core.params import entry, option, parse
from pipeline.core.tables import WEIGHTS, weights_name
from pipeline.extraction.weights.file import read_facts
from pipeline.extraction.weights.prepare import prepare


@dataclass(frozen=True)
class WeightsConfig:
    backbone: str = option("enet_b0_8_best_vgaf", help="an EmotiEffLib name or any model of timm")
    weights: str = option("auto", help="auto, random, or a file")
    folder: Path = option(WEIGHTS, help="where the safetensors file goes")


def main(argv: Sequence[str] | None = None) -> None:
    config = parse(WeightsConfig, argv, sections=[], borrow=["extract"], description=__doc__)
    path = prepare(config.backbone, config.weights, config.folder)
    plain = config.folder / weights_name(config.backbone)  # DVC's stage has one name for its file, whoever trained it
    if path != plain:
        with path.open("rb") as source, whole(plain) as file:
            shutil.copyfileobj(source, file)
    facts = read_facts(path)
    outputs = facts["outputs"]
    print(f"{path}: {facts['architecture']} from {facts['source']}, {len(outputs)} outputs {outputs}")


if __name__ == "__main__":
    entry(main)
