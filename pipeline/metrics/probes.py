"""What a simple classifier on frozen embeddings can tell of an emotion: fitted on train, applied to others."""

import warnings

import numpy as np
from threadpoolctl import threadpool_limits

from pipeline.metrics.vectors import BLOCK, evenly


def linear_probe(
    train: np.ndarray, train_labels: np.ndarray, queries: np.ndarray, most: int = 20_000, most_iterations: int = 1000
) -> np.ndarray:
    """Labels (m,) of ``queries`` (m, E) by logistic regression on at most ``most`` evenly spaced rows of ``train``.

    A linear probe (Alain & Bengio 2016, https://arxiv.org/abs/1610.01644) by scikit-learn: multinomial, C = 1, columns
    standardised by train, each class of equal total weight. A constant column becomes 0. With one class in train that
    is the answer to everything. Where ``most_iterations`` do not suffice a line says so.
    """
    from sklearn.exceptions import ConvergenceWarning  # here: scikit-learn takes a second to import
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    chosen = evenly(len(train), most)
    x, y = train[chosen].astype(np.float32), train_labels[chosen]
    if len(np.unique(y)) == 1:
        return np.full(len(queries), y[0])
    if len(queries) == 0:
        return np.zeros(0, dtype=y.dtype)
    probe = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=most_iterations))
    with threadpool_limits(1):  # its products are small: threads that wait for each other made it 60 times slower
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            probe.fit(x, y)
        if probe[-1].n_iter_.max() >= most_iterations:
            print(f"the linear probe did not converge in {most_iterations:,} iterations: its true score may be better")
        blocks = (queries[start : start + BLOCK].astype(np.float32) for start in range(0, len(queries), BLOCK))
        return np.concatenate([probe.predict(block) for block in blocks])
