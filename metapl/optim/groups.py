"""Different rules for different parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from metapl.core.types import Optimizer, Params, PyTree, Rule
from metapl.registry.errors import InputError


def groups(assign: Callable[[str], str], rules: Mapping[str, Optimizer]) -> Optimizer:
    """Each parameter goes to the rule that `assign(name)` names: `torch.optim`'s parameter groups.

    The state is a dict, one entry for each label that has a parameter. A rule sees its own parameters only, so that
    a clipping link inside of it takes the norm over its group.

    Raises:
        InputError: a label, given for the parameter that is named, that `rules` does not have.

    Examples:
        >>> from metapl import optim
        >>> def kind(name):
        ...     return "bias" if name.endswith("bias") else "weight"
        >>> rules = {"weight": optim.sgd(0.1, weight_decay=5e-4), "bias": optim.sgd(0.2)}
        >>> optimizer = optim.groups(kind, rules)
    """
    rules = dict(rules)

    def split(tensors: Params) -> dict[str, Params]:
        members: dict[str, Params] = {}
        for name, tensor in tensors.items():
            label = assign(name)
            if label not in rules:
                known = ", ".join(map(repr, rules))
                raise InputError(f"groups: parameter {name!r} is assigned to {label!r}, which is not among {known}")
            members.setdefault(label, {})[name] = tensor
        return members

    def init(params: Params) -> dict[str, PyTree]:
        return {label: rules[label].init(members) for label, members in split(params).items()}

    def update(grads: Params, state: dict[str, PyTree], params: Params) -> tuple[Params, dict[str, PyTree]]:
        updates, states, own = {}, {}, split(params)
        for label, members in split(grads).items():
            found, states[label] = rules[label].update(members, state[label], own[label])
            updates.update(found)
        # In the order of the gradients, so that the pairs of a caller who zips stay pairs.
        return {name: updates[name] for name in grads}, {label: states[label] for label in state}

    return Optimizer(init, update, Rule("groups", {"assign": assign, "rules": rules}))
