"""Optimisers as pure, differentiable functions of gradients, state and parameters.

Each constructor returns an `Optimizer(init, update)`; `update(grads, state, params)` returns what to *add* to the
parameters, and the next state. The numbers are those of the optimiser of the same name in `torch.optim`, or of the
paper where torch has none. A learning rate may be a number, a tensor or a schedule (a function of the step count);
other hyperparameters may be numbers or tensors, and gradients flow to all of them. Each may also be a dict with a value
for each parameter (`by_leaf`), and be kept in the state (`injected`). A new optimiser is a file here and a line in
`OPTIMIZERS`.

Floor 3: imports `core` and `registry`; estimators, training and everything above may import it.

Examples:
    >>> import torch
    >>> from metapl import optim
    >>> from metapl.core import tree
    >>> optimizer = optim.chain(optim.clip_by_global_norm(1.0), optim.sgd(lr=0.1, momentum=0.9))
    >>> params = {"w": torch.ones(2)}
    >>> state = optimizer.init(params)
    >>> updates, state = optimizer.update({"w": torch.ones(2)}, state, params)
    >>> params = tree.add(params, updates)
"""

from collections.abc import Callable

from metapl.core.types import Optimizer
from metapl.optim.adadelta import adadelta
from metapl.optim.adagrad import adagrad
from metapl.optim.adam import adam, adamw
from metapl.optim.adamax import adamax
from metapl.optim.bridge import from_torch, to_torch
from metapl.optim.by_leaf import by_leaf
from metapl.optim.chain import chain
from metapl.optim.clip import clip_by_global_norm, clip_by_value
from metapl.optim.groups import groups
from metapl.optim.injected import injected
from metapl.optim.lamb import lamb
from metapl.optim.lars import lars
from metapl.optim.lion import lion
from metapl.optim.nadam import nadam
from metapl.optim.radam import radam
from metapl.optim.rmsprop import rmsprop
from metapl.optim.schedule import SCHEDULES, Schedule, constant, cosine, plateau
from metapl.optim.sgd import sgd

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": sgd,
    "adam": adam,
    "adamw": adamw,
    "rmsprop": rmsprop,
    "adagrad": adagrad,
    "adadelta": adadelta,
    "adamax": adamax,
    "nadam": nadam,
    "radam": radam,
    "lamb": lamb,
    "lars": lars,
    "lion": lion,
}
"""The update rules by name, for `--optimizer NAME:key=value,…`."""

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "Schedule",
    "adadelta",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "by_leaf",
    "chain",
    "clip_by_global_norm",
    "clip_by_value",
    "constant",
    "cosine",
    "from_torch",
    "groups",
    "injected",
    "lamb",
    "lars",
    "lion",
    "nadam",
    "plateau",
    "radam",
    "rmsprop",
    "sgd",
    "to_torch",
]
