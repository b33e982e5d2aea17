"""Heads, or adapters: features of windows (B, T, D), ``valid`` (B, T) -> embeddings.

A head gives one embedding for each frame (B, T, E), or, where it ``pools``, one for each window (B, E). A frame where
``valid`` is False never influences anything. Its own embedding is zero, and so is that of a window without any valid
frame. Embeddings are not normalised: a loss or metric that compares them does that. To add a head: a subclass of
``common.Head`` in a file of its own, a line here, a test.
"""

from pipeline.core.choices import Choices

HEADS = Choices(
    {
        "identity": "pipeline.adapter.heads.identity.Identity",
        "peterson": "pipeline.adapter.heads.peterson.Peterson",
        "original": "pipeline.adapter.heads.original.Original",
        "mlp": "pipeline.adapter.heads.mlp.MLP",
        "tcn": "pipeline.adapter.heads.tcn.TCN",
        "gru": "pipeline.adapter.heads.gru.GRU",
        "transformer": "pipeline.adapter.heads.transformer.Transformer",
        "attention_pool": "pipeline.adapter.heads.attention_pool.AttentionPool",
        "pair_gate": "pipeline.adapter.heads.pair_gate.PairGate",
    },
)
