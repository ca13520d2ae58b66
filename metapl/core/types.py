"""The nouns of metapl, on one page.

Everything is a value: networks, optimisers and estimators are small named tuples of pure functions, and all state is
a pytree of tensors that goes in and comes out.

A bilevel problem has an *inner* level, parameters that take steps on an inner loss, and an *outer* level,
*meta-parameters* θ that the inner loss depends on. The outer loss is that of the parameters after their steps; its
gradient with respect to θ is the *meta-gradient* (hypergradient), and an *estimator* computes it. Nothing
here depends on what θ is: logits that become labels, example weights, synthetic data, hyperparameters. In few-shot
learning the inner batch is called the support set, and the outer batch the query set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

from torch import Tensor

PyTree: TypeAlias = Any
"""Nested dicts, lists, tuples and named tuples with tensors at the leaves."""

Params: TypeAlias = dict[str, Tensor]
"""Trainable tensors by qualified name."""

Buffers: TypeAlias = dict[str, Tensor]
"""Tensors that a network carries but nobody differentiates: BatchNorm's running statistics, frozen parameters."""

Key: TypeAlias = Tensor
"""Randomness as a value: an int64 scalar, see `metapl.core.rng`."""

Claim: TypeAlias = Literal["exact", "unbiased", "approximate", "zero", "wrong"]
"""What an estimator promises of its meta-gradient; the tests hold each to its claim. Wrong ones serve comparisons."""


class Model(NamedTuple):
    """A network as two pure functions; `metapl.nn.functional.from_module` makes one of any `nn.Module`."""

    init: Callable[[Key], tuple[Params, Buffers]]
    """`init(key)`: fresh parameters and buffers."""
    apply: Callable[..., tuple[Tensor, Buffers]]
    """`apply(params, buffers, x, *, train, key=None)`: logits `[batch, classes]` and the buffers after the pass."""
    scales: frozenset[str] = frozenset()
    """The parameters of normalisation layers, by name, which weight decay leaves alone."""
    coupled: bool = False
    """Whether the examples of a batch see each other in training, as they do through BatchNorm."""
    frozen: frozenset[str] = frozenset()
    """The parameters that are not trained, by name: they are among the buffers."""
    start: Callable[[Tensor], Params] | None = None
    """`start(means)`: parameters to start from, given the mean of each class's examples `[classes, *shape]`; None for
    a network that starts without having seen any."""


class Rule(NamedTuple):
    """How an optimiser was made, for whoever must say it in other terms (`metapl.optim.bridge`)."""

    name: str
    """The constructor's name in `metapl.optim`."""
    options: dict[str, Any]
    """All of its arguments by name."""


class Optimizer(NamedTuple):
    """An update rule as two pure functions, differentiable in every argument."""

    init: Callable[[Params], PyTree]
    """`init(params)`: the state before the first step."""
    update: Callable[[Params, PyTree, Params], tuple[Params, PyTree]]
    """`update(grads, state, params)`: what to *add* to the parameters, and the next state."""
    rule: Rule | None = None
    """How it was made; None where nobody can say."""


class Variables(NamedTuple):
    """Parameters and buffers, ready to be evaluated."""

    params: Params
    buffers: Buffers


class TrainState(NamedTuple):
    """Everything about a network in training that changes from step to step."""

    params: Params
    buffers: Buffers
    opt_state: PyTree


class TargetTransform(NamedTuple):
    """How meta-parameters become the targets of the inner loss, as logits become labels; see `metapl.core.targets`."""

    apply: Callable[[PyTree, Key], PyTree]
    """`apply(theta, key)`: targets, differentiable in θ as their expectation over the key is."""
    log_prob: Callable[[PyTree, PyTree], Tensor] | None
    """`log_prob(theta, targets)`: log-probability `[batch]` of drawn targets; None where nothing is drawn."""


class Problem(NamedTuple):
    """A bilevel problem: the inner loss, the outer loss, and how the parameters step.

    `inner` returns one loss per example because per-example credit is what makes low-variance estimators possible;
    a step minimises the mean.
    """

    inner: Callable[[Params, Buffers, PyTree, PyTree], tuple[Tensor, Buffers]]
    """`inner(params, buffers, targets, batch)`: losses `[batch]` and the buffers after the pass."""
    outer: Callable[[Params, Buffers, PyTree], Tensor]
    """`outer(params, buffers, batch)`: the outer loss, a scalar. A probe: it returns no buffers."""
    optimizer: Optimizer
    targets: TargetTransform


class Instance(NamedTuple):
    """A bilevel problem with everything that an estimate of its meta-gradient is a function of."""

    problem: Problem
    thetas: Sequence[PyTree]
    """The meta-parameters of each inner step."""
    state: TrainState
    """Before the first step."""
    inner_batches: Sequence[PyTree]
    """One for each inner step."""
    outer_batch: PyTree
    key: Key
    """Draws the targets, and whatever else the estimator draws."""


class MetaGradient(NamedTuple):
    """What an estimator returns."""

    grads: Sequence[PyTree]
    """One cotangent for each inner step, shaped as its θ: (an estimate of) d outer / d θ."""
    state: TrainState
    """After the inner steps."""
    outer: Tensor
    """The outer loss after the inner steps, a scalar."""
    inner: Tensor
    """The mean inner loss before the step; the mean over steps if there are several."""
    scale: Tensor
    """Σ |u||g| over the steps: g is the inner gradient, u the outer loss's gradient with respect to g. A meta-gradient
    divided by it is the paper's cosine normalisation: none can change the outer loss by more, to first order."""
    info: dict[str, Tensor]
    """Scalars worth logging."""


class Estimate(Protocol):
    """How an estimator is called. A type checker holds an estimator of your own to it."""

    def __call__(self, instance: Instance, memory: Any, /) -> tuple[MetaGradient, PyTree]:
        """The meta-gradient of an instance, and the memory for the next estimate; a pure function."""


class InitMemory(Protocol):
    """How the memory of an estimator begins."""

    def __call__(self) -> PyTree:
        """The memory before the first estimate, such as a moving baseline; `()` for most."""


class Accepts(Protocol):
    """How an estimator says which inner optimisers it takes."""

    def __call__(self, optimizer: Optimizer, /) -> object:
        """An `InputError` for an inner optimiser that it refuses, before anything is trained."""


class Estimator(NamedTuple):
    """A meta-gradient estimator: a value made by a constructor with its hyperparameters, such as `exact()`."""

    init: InitMemory
    """`init()`: the memory before the first estimate."""
    estimate: Estimate
    """`estimate(instance, memory)`: the meta-gradient and the next memory."""
    claim: Claim
    targets: tuple[str, ...]
    """The kinds of targets (keys of `metapl.core.targets.TARGETS`) that it can use; the first is its default."""
    cost: str
    """Cost beyond the inner step itself, in passes of the network: F forward, B backward; K steps."""
    several: bool = True
    """Whether it takes more than one inner step."""
    accepts: Accepts = lambda optimizer: None  # noqa: ARG005
    """`accepts(optimizer)`: refuses an inner optimiser that it cannot take."""
