"""Stage two: trains a temporal adapter on the stored features. params.yaml says all that no flag says.

    python train.py -e 150 -t 15                     150 epochs at temperature 15, into runs/manual/
    python train.py --steps 2000                     2,000 steps of the optimiser, however many epochs that takes
    python train.py --model tcn --loss supcon -r 3   another head and loss, three seeds
    python train.py --loss '{arcface: 1, triplet: {weight: 0.5, mining: semi_hard}}'
    python train.py -d faces.zarr context.zarr audio.zarr --modality-dropout 0.3     several stores side by side
    python train.py --unit clip --loss cross_entropy --select-by uar          clips have a label, not frames
    python train.py --unfreeze 2                     trains the backbone's last two stages too: docs/unfreeze.md
    python train.py --lora 8                         low-rank updates of a transformer's attention instead
    python train.py --run tcn_supcon                 one of the runs of params.yaml, with any flag on top
    python train.py --backbone NAME                  one of its backbones, which are trained too
    python train.py --resume runs/manual/NAME        goes on with a run that was killed, to the same weights
    python train.py --search space.yaml -n 40        40 trials of what the file names; the best five in full
    python train.py --all                            prints every metric at the end, not just the main ones
    python train.py --list                           the heads, losses and samplers there are
    python train.py --cpu                            the same as --device cpu; --gpu as --device cuda

The temperature is the scale on cosines: logits = t * cos. (The literature's tau is 1/t.)

If the label table is cut into folds, every seed is trained on each fold, into RUN/fold_0/seed_0 and so on.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.adapter.heads import HEADS
from pipeline.core import children
from pipeline.core.choices import listed
from pipeline.core.join import frame_table, open_labelled, with_files
from pipeline.core.params import UserError, entry, given_params
from pipeline.core.stores import each_store
from pipeline.training.config import TrainConfig, from_flags, new_folder
from pipeline.training.losses import LOSSES
from pipeline.training.samplers import SAMPLERS


def main(argv: Sequence[str] | None = None) -> int | None:
    """Trains a run, or goes on with one, and evaluates it."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if any(word.split("=")[0] == "--search" for word in argv):  # what a search is made of makes no run again
        return children.run([sys.executable, "-m", "pipeline.training.search", *argv])
    if "--list" in argv:
        return print(listed({"heads": HEADS, "losses": LOSSES, "samplers": SAMPLERS}))
    config, begun = from_flags(argv, __doc__)
    config = with_files(config, config.data, *config.tables)
    folder = begun or new_folder(config)
    store, labels = open_labelled(config.data, config, config.frames, config.unit)
    if labels.folds and config.test_split is not None:
        table = config.clips if config.unit == "clip" else config.labels
        raise UserError(f"{table} is cut into {len(labels.folds)} folds: leave --test-split out")
    if labels.folds and any(word.split("=")[0] == "--backbone" for word in argv):
        raise UserError(
            f"backbones: the labels are cut into {len(labels.folds)} folds, and each would need a backbone and a store "
            "of its own. Leave --backbone out: a run with unfreeze or lora trains a backbone in each fold"
        )

    from pipeline.training import checkpoints, messages, run  # here: a wrong flag is told without waiting for these

    folds = labels.folds or [None]
    results = [result for fold in folds for result in run.train_fold(config, folder, store, labels, fold)]
    checkpoints.write_summary(folder, results)
    print(messages.verdict(config, folder, results, len(labels.folds)))
    if config.evaluate:
        evaluate(config, folder, given_params(argv))


def evaluate(config: TrainConfig, folder: Path, params: list[str]) -> None:
    """In a process of its own: training that imported the evaluation would be trained again whenever that is edited."""
    command = [sys.executable, "-m", "pipeline.evaluation.evaluate", "--run", str(folder)]
    if not config.trains_backbone:  # else it has features of its own
        command += ["--data", *map(str, each_store(config.data))]
    command += ["--output", str(folder), "--device", config.device]
    command += ["--clips", str(config.clips)] if config.unit == "clip" else ["--labels", str(config.labels)]
    command += ["--alike", *config.alike] if config.alike else []
    frames = config.frames or (frame_table(config.data, None) if config.trains_backbone else None)
    command += ["--top-k", *map(str, config.top_k)] + (["--frames", str(frames)] if frames else [])
    command += ["--fps", str(config.fps)] if config.fps is not None else []
    command += [*(["--all"] if config.all else []), *params]
    if children.run(command):
        raise UserError(f"the run is trained, but could not be evaluated: {' '.join(command[1:])}")


if __name__ == "__main__":
    entry(main)
