"""One folder that holds all it takes to use a trained run elsewhere.

python -m pipeline.bundle runs/tcn_supcon -o tcn_supcon

It holds the adapter of each seed with its class centres, the weights of the backbone where their licence lets them be
passed on, bundle.json and a model card. Use it with Embedder.load('tcn_supcon'), or, with --onnx, without torch.
Nothing of the training data is in it: no picture, no name, no example window.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.params import add_flags, build, entry, option


@dataclass(frozen=True)
class BundleConfig:
    run: Path
    output: Path | None = option(None, "-o", help="the new folder; default: one here with the run's name")
    onnx: bool = option(False, help="also write ONNX graphs, for programs without torch")
    with_weights: bool = option(False, help="put the backbone's weights in, whatever their licence: you answer for it")
    weights: Path | None = option(None, help="the file of the backbone's weights; default: where it was in training")
    evaluation: Path | None = option(None, help="the folder of the run's evaluation; default: its usual place")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.bundle", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a trained run")
    add_flags(parser, BundleConfig)
    config = build(BundleConfig, vars(parser.parse_args(argv)), "bundle")

    from pipeline.bundle.write import write_bundle  # here: --help and a wrong flag do not wait for torch

    output = Path(config.run.absolute().name) if config.output is None else config.output
    made = write_bundle(
        config.run, output, onnx=config.onnx, with_weights=config.with_weights, weights=config.weights,
        evaluation=config.evaluation,
    )  # fmt: skip
    for name, size in made.sizes.items():
        print(f"{size / 1e6:10,.3f} MB  {name}")
    print(f"{sum(made.sizes.values()) / 1e6:10,.3f} MB  {made.folder}")
    for note in made.notes:
        print(note)


if __name__ == "__main__":
    entry(main)
