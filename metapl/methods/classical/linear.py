"""Logistic regression by scikit-learn, as a linear network."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from metapl.core.types import Variables
from metapl.models.fitted import Linear, Scaled

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

STEPS = 200
"""The most steps of L-BFGS."""

NEVER = -100.0
"""The bias of a class that no example has."""


def regression(c: float) -> LogisticRegression:
    """Multinomial logistic regression with an L2 penalty of the weights, 1 / (2 C) · |W|² beside the summed losses."""
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - a second to import

    return LogisticRegression(C=c, max_iter=STEPS)


def weights(found: LogisticRegression, classes: int) -> tuple[Tensor, Tensor]:
    """Weight `[classes, components]` and bias `[classes]` of a fitted one, whose logits give its probabilities."""
    coefficients, intercepts = found.coef_, found.intercept_
    if len(coefficients) == 1:  # of two classes scikit-learn keeps the difference of their logits
        coefficients, intercepts = (np.concatenate([0 * one, one]) for one in (coefficients, intercepts))
    weight = torch.zeros(classes, coefficients.shape[1])
    bias = torch.full((classes,), NEVER)
    weight[found.classes_], bias[found.classes_] = (torch.from_numpy(one).float() for one in (coefficients, intercepts))
    return weight, bias


def fit(z: Tensor, y: Tensor, c: float, classes: int, importance: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Weight and bias for scaled inputs `[examples, components]` and their classes.

    Args:
        z: the inputs.
        y: their classes, int64.
        c: C, the inverse of the penalty.
        classes: how many there are.
        importance: of each example, `[examples]`; 1 by default.
    """
    if len(y.unique()) == 1:  # which scikit-learn refuses
        return torch.zeros(classes, z.shape[1]), torch.full((classes,), NEVER).index_fill(0, y[:1], 0.0)
    with quiet():
        found = regression(c).fit(z.numpy(), y.numpy(), None if importance is None else importance.numpy())
    return weights(found, classes)


def quiet() -> warnings.catch_warnings[None]:
    """Without scikit-learn's warnings that L-BFGS has taken all of its steps, or that there are few labels a class."""
    return warnings.catch_warnings(action="ignore", category=UserWarning)


def network(scaled: Scaled, weight: Tensor, bias: Tensor) -> Variables:
    """A linear network of a scaling, a weight and a bias; see `metapl.models.fitted.Linear`."""
    features, components = scaled.projection.shape
    made = Linear(features, len(bias), components)
    made.scaled = scaled
    made.classifier.weight, made.classifier.bias = (torch.nn.Parameter(one) for one in (weight, bias))
    return Variables({name: value.detach() for name, value in made.named_parameters()}, dict(made.named_buffers()))
