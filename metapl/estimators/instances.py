"""What estimators ask of the instance they are given: as many steps as they take, targets, keys."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from metapl.core import rng, tree
from metapl.core.types import Instance, Key, Problem, PyTree, TrainState
from metapl.registry.errors import InputError


def single(estimator: str, instance: Instance) -> tuple[PyTree, PyTree]:
    """The only θ and inner batch, or a `ValueError` that says which estimator takes one step at a time."""
    require_steps(instance)
    count = len(instance.thetas)
    if count != 1:
        raise ValueError(f"{estimator} takes one inner step, got {count}: use exact() for more")
    return instance.thetas[0], instance.inner_batches[0]


def require_steps(instance: Instance) -> None:
    """A `ValueError` unless meta-parameters and inner batches are lists with one entry for each step."""
    for name in ("thetas", "inner_batches"):
        given = getattr(instance, name)
        if not isinstance(given, list | tuple):
            kind = type(given).__name__
            raise ValueError(f"{name} is a {kind}: it must be a list of one entry a step, [{name}] for one step")
    thetas, batches = len(instance.thetas), len(instance.inner_batches)
    if thetas != batches or not thetas:
        raise ValueError(f"{thetas} thetas and {batches} inner batches: every step needs one of each")


def apart(instance: Instance) -> list[Instance]:
    """Every inner step as an instance of one step, with the key that draws its targets; all in the first state."""
    keys = target_keys(instance.key, len(instance.thetas))
    return [
        instance._replace(thetas=[theta], inner_batches=[batch], key=key)
        for theta, batch, key in zip(instance.thetas, instance.inner_batches, keys, strict=True)
    ]


def drawn(estimator: str, problem: Problem) -> Callable[[PyTree, PyTree], Tensor]:
    """The log-probability of the problem's targets, or a `ValueError` if they are not drawn."""
    if problem.targets.log_prob is None:
        raise ValueError(f"{estimator} needs labels that are drawn (sampled), these have no log-probability")
    return problem.targets.log_prob


def zero(state: TrainState) -> Tensor:
    """A real scalar zero as precise as the parameters; an `InputError` if there are none."""
    first = next(iter(state.params.values()), None)
    if first is None:
        raise InputError("the train state has no parameters: there is nothing to train")
    return first.new_zeros(()).real


def target_keys(key: Key, count: int) -> list[Key]:
    """The key that draws the targets of each step, the same for every estimator."""
    return [key] if count == 1 else [rng.fold_in(key, index) for index in range(count)]


def own_key(key: Key) -> Key:
    """A key for an estimator's own randomness, apart from those that draw the targets."""
    return rng.fold_in(key, -1)


def targets(instance: Instance) -> list[PyTree]:
    """The targets of the inner loss at each step, detached."""
    keys = target_keys(instance.key, len(instance.thetas))
    apply = instance.problem.targets.apply
    return [tree.detach(apply(theta, key)) for theta, key in zip(instance.thetas, keys, strict=True)]
