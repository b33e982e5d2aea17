"""One run of three tracks beside three runs of one: P_MTL and its parts, over several seeds, on the multi-task lists.

    python benchmarks/multitask.py                     the default run mlp_mtl, 3 seeds; after 'dvc repro'
    python benchmarks/multitask.py --seeds 5 --joint --loss-weights learned

The runs of one track are the same but for the loss, the sampler and what the best epoch is chosen by. Each is trained
on the frames that have its label, and all are scored on the validation list, each part on all frames with its label.
Action units are called active from thresholds that are fitted as in training; those of 0.5 stand beside. What comes
after --joint are flags of train.py for the run of three tracks.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import torch

from pipeline.core.join import open_both, with_files
from pipeline.metrics.protocol import action_units, expression, valence_arousal
from pipeline.training.config import TrainConfig, from_flags
from pipeline.training.data import TrainingData, load_data
from pipeline.training.fitting import fit_out_of_fold
from pipeline.training.start import first

SINGLE = {
    "classes": ["--loss", "cross_entropy", "--sampler", "balanced", "--select-by", "macro_f1"],
    "va": ["--loss", "ccc", "--sampler", "uniform", "--select-by", "ccc"],
    "aus": ["--loss", "bce", "--sampler", "uniform", "--select-by", "au_f1"],
}
PARTS = {"classes": "macro_f1", "va": "ccc", "aus": "au_f1"}
Numbers = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="mlp_mtl")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--joint", nargs=argparse.REMAINDER, default=[])
    given = parser.parse_args()
    torch.set_num_threads(1)
    plain = ["--run", given.run, "--sampler-options", "{}"]
    runs = {what: of_seeds([*plain, *flags], given.seeds) for what, flags in SINGLE.items()}
    runs["joint"] = of_seeds(["--run", given.run, *given.joint], given.seeds)
    parts = {name: [of_seed[name] for of_seed in runs[what]] for what, name in PARTS.items()}
    parts["au_f1_at_half"] = [of_seed["au_f1_at_half"] for of_seed in runs["aus"]]
    parts["p_mtl"] = np.sum([parts[name] for name in PARTS.values()], axis=0).tolist()
    print("| | three runs | one run |\n| --- | --- | --- |")
    for name, alone in parts.items():
        print(f"| {name} | {worded(alone)} | {worded([of_seed[name] for of_seed in runs['joint']])} |")


def of_seeds(flags: list[str], num_seeds: int) -> list[Numbers]:
    """The validation numbers of seeds 0, 1, ... of a run with these flags of train.py."""
    config, _ = from_flags(flags, __doc__)
    config = with_files(config, config.data, "labels", "projection")
    store, labels = open_both(config.data, config.labels, config.frames)
    data = load_data(config, store, labels, None)
    return [of_seed(config, data, seed) for seed in range(num_seeds)]


def of_seed(config: TrainConfig, data: TrainingData, seed: int) -> Numbers:
    """Trains as train.py does, without writing anything, and scores the best epoch on the validation part."""
    adapter, trainer = first(data, seed)
    best, kept, at = -np.inf, {}, 0
    for epoch in range(config.epochs):
        trainer.epoch(epoch)
        score = data.watched["select"].select(adapter, data.source, data.facts["select_by"])
        if score > best:
            best, at = score, epoch + 1
            kept = {name: value.clone() for name, value in adapter.modules().state_dict().items()}
    adapter.modules().load_state_dict(kept)
    frames = data.frames
    val = frames.centres("val")
    z = adapter.embed(data.source, torch.from_numpy(data.windows.centred(val)).to(data.device))
    groups, found = np.zeros(len(val), dtype=int), {}
    said = {what: adapter.predict(what, z).detach().double().cpu() for what in adapter.predicts}
    if "classes" in said:
        measures = [expression(frames.label[val], said["classes"].argmax(1).numpy(), groups, frames.classes)]
        found |= numbers(measures[0])
    if "va" in said:
        found |= numbers(valence_arousal(frames.va[val], said["va"].numpy(), groups))
    if "aus" in said:
        thresholds, _ = fit_out_of_fold(data, adapter.predicts, seed, at, lambda words: None).thresholds
        units = (frames.aus[val], said["aus"].sigmoid().numpy(), groups, frames.au_names)
        found |= numbers(action_units(*units, thresholds))
        found["au_f1_at_half"] = numbers(action_units(*units))["au_f1"]
    if len(said) == 3:
        found["p_mtl"] = sum(found[name] for name in PARTS.values())
    print(f"{config.loss}, seed {seed}, epoch {at}: " + ", ".join(f"{k} {v:.3f}" for k, v in found.items()))
    return found


def numbers(measure) -> Numbers:
    return {name: float(value[0]) for name, value in measure(np.ones((1, 1))).items() if not name.startswith("f1_")}


def worded(values: list[float]) -> str:
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else f"{values[0]:.3f}"


if __name__ == "__main__":
    main()
