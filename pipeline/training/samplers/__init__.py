"""The samplers by name. A sampler says which windows make up the batches of an epoch: a pure function of (seed, epoch).

A constructor gets those that it names of ``labels`` (W,), ``videos`` (W,) and ``groups`` (W,), integers of any value,
``frames`` (W,), the frame number of each window's centre, ``known``, which windows (W,) have a label of each track that
the losses look at, ``batch_size``, ``seed``, ``positives``, ``opposites``, and options of its own.
``epoch(n)`` gives ``num_batches`` arrays of window numbers, one a batch. Every sampler has as many batches as one pass
over the windows, so that an epoch costs the same with each. Windows that must not be drawn (without any label that the
losses look at, of other splits) are left out before.

Where the losses look at several kinds of labels, a window without a class has the label -1. To the samplers by class
these are one class more, drawn as often as any other; ``tracks`` draws by kinds of labels.

``positives`` says which windows of a class may stand together as anchor and positive: see
``pipeline.training.positives``. A class without two such windows still gives negatives; what else it does is in each
docstring. Where no class has two, a sampler raises ``ValueError``.

To add one: a file with a subclass of ``common.Sampler``, a line here, a test.
"""

from pipeline.core.choices import Choices

SAMPLERS = Choices(
    {
        "uniform": "pipeline.training.samplers.uniform.Uniform",
        "balanced": "pipeline.training.samplers.balanced.Balanced",
        "per_class_negatives": "pipeline.training.samplers.per_class_negatives.PerClassNegatives",
        "hard_negative": "pipeline.training.samplers.hard_negative.HardNegative",
        "semi_hard": "pipeline.training.samplers.hard_negative.SemiHard",
        "opposite": "pipeline.training.samplers.opposite.Opposite",
        "tracks": "pipeline.training.samplers.tracks.Tracks",
        "temporal": "pipeline.training.samplers.temporal.Temporal",
        "views": "pipeline.training.samplers.views.Views",
        "pairs": "pipeline.training.samplers.pairs.Pairs",
    },
)
