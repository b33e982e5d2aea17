"""The aligner: five points of a face by a stacked hourglass, for 'python -m pipeline.faces --points FILE'.

    python -m pipeline.faces.aligner train                              on the drawn faces, whose points are known
    python -m pipeline.faces.aligner train --data /data/celeba          on CelebA's, or on any table: docs/aligner.md
    python -m pipeline.faces.aligner table --points weights/aligner/best.safetensors
                                                                        its errors beside those of the detector

'train' writes best.safetensors, of the epoch with the least error on held-out groups, and last.safetensors. After a
kill, the same command goes on, to the same weights. Each command has --help.
"""

import sys
import time
from collections.abc import Sequence

from pipeline.core.alone import alone
from pipeline.core.params import entry, one_of, parse
from pipeline.faces.aligner import table, training
from pipeline.faces.aligner.config import AlignerConfig
from pipeline.faces.aligner.examples import gather, split


def main(argv: Sequence[str] | None = None) -> int:
    command, *rest = [*(sys.argv[1:] if argv is None else argv), ""]
    if command in ("", "-h", "--help"):
        print(__doc__)
        return 0
    return COMMANDS[one_of("aligner: command", command, COMMANDS)](rest[:-1])


def train(argv: Sequence[str]) -> int:
    config = parse(AlignerConfig, argv, sections=["aligner"], description=__doc__.split("\n\n")[0])
    started = time.perf_counter()
    examples, problems = gather(config.data)
    for problem in problems:
        print(problem)
    train_part, val_part = split(examples, config.val_fraction, config.seed)
    print(f"{len(train_part):,} pictures of {len(set(train_part.groups)):,} groups to train on, {len(val_part):,} of "
          f"{len(set(val_part.groups)):,} others held out")  # fmt: skip
    held = f"aligner: another training is writing to {config.output}; wait for it, or name another --output"
    with alone(config.output / "lock", lambda: held, "aligner: "):
        result = training.train(config, train_part, val_part)
    print(f"best: epoch {result['best']['epoch']}, NME {100 * result['best']['nme']:.2f} %, in "
          f"{time.perf_counter() - started:.0f} s: {config.output / training.BEST}")  # fmt: skip
    return 0


COMMANDS = {"train": train, "table": table.main}


if __name__ == "__main__":
    entry(main)
