"""Logits of a small batch, as numpy and as torch have them, for tests of the consistency loss."""

import numpy as np
import torch

from metapl.methods.consistency.predictions import Pool, Predictions

CLASSES = 4
BATCH = 9
EXAMPLES = 30
"""In the training pool."""
UNLABELLED = 25
"""Of these, in the unlabelled set."""

PRIOR = np.array([0.4, 0.3, 0.2, 0.1])
POOL = Pool(torch.from_numpy(PRIOR), EXAMPLES, UNLABELLED)
LIKE = torch.zeros((), dtype=torch.float64)


def logits(seed, rows=BATCH):
    """Logits `[rows, classes]`, float64; some rows are sure and some are not."""
    generator = np.random.default_rng(seed)
    return generator.normal(size=(rows, CLASSES)) * np.linspace(0.3, 4.0, rows)[:, None]


def softmax(values):
    """Of every row."""
    powers = np.exp(values - values.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def cross_entropy(values, targets):
    """Of logits and distributions, one a row."""
    return -(targets * np.log(softmax(values))).sum(-1)


def one_hot(classes):
    """Of class indices."""
    return np.eye(CLASSES)[classes]


def given(seed, positions=None):
    """The predictions of a step, and the same as arrays: labelled and weak."""
    labelled, weak = logits(seed + 100, 5), logits(seed)
    where = None if positions is None else torch.tensor(positions)
    return Predictions(torch.from_numpy(labelled), torch.from_numpy(weak), where), labelled, weak
