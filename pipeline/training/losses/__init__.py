"""The losses by name. A loss is ``loss(embeddings (B, E), what it takes of the batch ...) -> scalar``.

Each has a file of its own, or shares one with its family; what several share is in ``common``. ``build`` makes the
loss of a run: always a ``WeightedSum`` of terms, also of one. The sum hands over float32 outside of autocast, and only
the rows that have the term's target. What a class says of itself: see ``common.Loss``.

Embeddings need not be normalised: a loss that compares by cosine normalises them itself. A loss does not predict: one
that needs a prediction (of the class, say) names the predictor that it ``trains``, which is part of the adapter, and is
given its outputs instead of the embeddings. A batch without any positive pair gives zero, with a gradient of zeros.

``temperature`` is the *scale* t on cosines everywhere: logits = t · cos. The literature's τ, and
pytorch-metric-learning's ``temperature``, is 1/t.

To add one: a file with a subclass of ``Loss``, and a line here. Arguments of its constructor are the user's options,
but for those that follow from data and head: ``build.GIVEN``.
"""

from pipeline.core.choices import Choices

LOSSES = Choices(
    {
        "contrastive_cross_entropy": "pipeline.training.losses.contrastive_cross_entropy.ContrastiveCrossEntropy",
        "supcon": "pipeline.training.losses.supcon.SupCon",
        "triplet": "pipeline.training.losses.triplet.Triplet",
        "multi_similarity": "pipeline.training.losses.multi_similarity.MultiSimilarity",
        "circle": "pipeline.training.losses.circle.Circle",
        "pair_bce": "pipeline.training.losses.pair_bce.PairBCE",
        "rank_n_contrast": "pipeline.training.losses.rank_n_contrast.RankNContrast",
        "arcface": "pipeline.training.losses.angular.ArcFace",
        "cosface": "pipeline.training.losses.angular.CosFace",
        "proxy_anchor": "pipeline.training.losses.proxy_anchor.ProxyAnchor",
        "cross_entropy": "pipeline.training.losses.cross_entropy.CrossEntropy",
        "ccc": "pipeline.training.losses.ccc.CCC",
        "bce": "pipeline.training.losses.bce.BCE",
        "mse": "pipeline.training.losses.outputs.MSE",
        "pearson": "pipeline.training.losses.outputs.Pearson",
        "simsiam": "pipeline.training.losses.simsiam.SimSiam",
        "vicreg": "pipeline.training.losses.vicreg.VICReg",
        "steadiness": "pipeline.training.losses.steadiness.Steadiness",
    },
)
