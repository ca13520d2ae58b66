"""From and to `torch.optim`: the same rule with the same state, as a value or as an object.

What torch calls `foreach`, `fused`, `capturable` and `differentiable` is left behind on purpose: they say how torch
computes a step, not which step.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from metapl.core.types import Optimizer, PyTree, Rule
from metapl.optim import schedule
from metapl.optim.adadelta import adadelta
from metapl.optim.adagrad import adagrad
from metapl.optim.adam import adam, adamw
from metapl.optim.adamax import adamax
from metapl.optim.groups import groups
from metapl.optim.nadam import nadam
from metapl.optim.radam import radam
from metapl.optim.rmsprop import rmsprop
from metapl.optim.sgd import sgd
from metapl.registry.errors import InputError


class Counterpart(NamedTuple):
    """A method here and in torch. The options have the same names in both."""

    ours: Callable[..., Optimizer]
    theirs: type[torch.optim.Optimizer]
    tensors: dict[str, str]
    """Our field of the state, a dict of tensors: torch's key."""
    scalars: dict[str, str]
    """Our field of the state, one number for all parameters: torch's key, of which each parameter has its own."""


_STEP = {"step": "step"}
_ADAM = {"mean": "exp_avg", "square": "exp_avg_sq"}
COUNTERPARTS = {
    "sgd": Counterpart(sgd, torch.optim.SGD, {"momentum": "momentum_buffer"}, {}),
    "adam": Counterpart(adam, torch.optim.Adam, {**_ADAM, "largest": "max_exp_avg_sq"}, _STEP),
    "adamw": Counterpart(adamw, torch.optim.AdamW, {**_ADAM, "largest": "max_exp_avg_sq"}, _STEP),
    "rmsprop": Counterpart(
        rmsprop,
        torch.optim.RMSprop,
        {"square": "square_avg", "mean": "grad_avg", "momentum": "momentum_buffer"},
        _STEP,
    ),
    "adagrad": Counterpart(adagrad, torch.optim.Adagrad, {"total": "sum"}, _STEP),
    "adadelta": Counterpart(adadelta, torch.optim.Adadelta, {"square": "square_avg", "change": "acc_delta"}, _STEP),
    "adamax": Counterpart(adamax, torch.optim.Adamax, {"mean": "exp_avg", "largest": "exp_inf"}, _STEP),
    "nadam": Counterpart(nadam, torch.optim.NAdam, _ADAM, {**_STEP, "product": "mu_product"}),
    "radam": Counterpart(radam, torch.optim.RAdam, _ADAM, _STEP),
}
"""The one table of the correspondence, by the constructor's name."""


def _number(value: Any) -> Any:
    """A hyperparameter as torch takes it and gives it: floats in the place of tensors; switches stay switches."""
    if isinstance(value, tuple | list):
        return tuple(map(_number, value))
    if isinstance(value, bool):
        return value
    return float(value.detach() if isinstance(value, Tensor) else value)


def _scalar(value: float | Tensor) -> Tensor:
    """A count as torch keeps it: on the CPU, float64 only where that is the default dtype."""
    wide = torch.get_default_dtype() == torch.float64
    return torch.tensor(float(value), dtype=torch.float64 if wide else torch.float32)


def _name(optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> str:
    """Which method a group of torch's is; `type`, because a subclass may step as it likes."""
    found = [name for name, method in COUNTERPARTS.items() if type(optimizer) is method.theirs]
    if not found:
        known = ", ".join(sorted(method.theirs.__name__ for method in COUNTERPARTS.values()))
        raise InputError(f"torch's {type(optimizer).__name__} has no counterpart in metapl.optim: choose from {known}")
    return "adamw" if group.get("decoupled_weight_decay") and found == ["adam"] else found[0]


def _clock(name: str, held: Mapping[str, Any]) -> tuple[float, ...]:
    """The numbers that torch keeps for each parameter, and we for all: equal in parameters that may share a state."""
    if name == "sgd":
        # It counts nothing. All that its rule asks is whether there was a step before, which left a momentum.
        return (float(held.get("momentum_buffer") is not None),)
    return tuple(_number(held[key]) for key in COUNTERPARTS[name].scalars.values()) if held else ()


def _take(name: str, fresh: Any, held: Mapping[str, Mapping[str, Any]]) -> Any:
    """The state that torch holds by parameter, as one of ours; what it has not made yet stays as in `fresh`."""
    any_held = next(iter(held.values()))
    clock = _clock(name, any_held)
    fields: dict[str, Any] = {"step": torch.tensor(int(clock[0]), device=fresh.step.device)} if clock else {}
    if name == "nadam":
        # In torch's dtype, fresh or warm: to go on as torch does includes its rounding.
        fields["product"] = any_held.get("mu_product", _scalar(1.0)).detach().clone().to(fresh.product.device)
    for field, key in COUNTERPARTS[name].tensors.items():
        before = getattr(fresh, field)
        if before != ():
            found = {member: state.get(key) for member, state in held.items()}
            fields[field] = {
                member: before[member] if value is None else value.detach().clone() for member, value in found.items()
            }
    return fresh._replace(**fields)


def _give(method: str, state: Any, names: list[str]) -> dict[str, dict[str, Tensor]]:
    """A state of ours as torch keeps it: by parameter."""
    if method == "sgd" and int(state.step) == 0:
        # Its first momentum is the gradient itself; a buffer of zeros would be dampened.
        return {}
    tensors = {key: getattr(state, field) for field, key in COUNTERPARTS[method].tensors.items()}
    tensors = {key: value for key, value in tensors.items() if value != ()}
    for value in tensors.values():
        if set(value) != set(names):
            raise InputError(f"to_torch: the state is that of {', '.join(value)}, `params` has {', '.join(names)}")
    scalars = {key: getattr(state, field) for field, key in COUNTERPARTS[method].scalars.items()}
    return {
        name: {
            **{
                key: _scalar(value) if key == "step" else value.detach().clone().cpu() for key, value in scalars.items()
            },
            **{key: value[name].detach().clone() for key, value in tensors.items()},
        }
        for name in names
    }


def _names(optimizer: torch.optim.Optimizer, named: Mapping[str, nn.Parameter]) -> dict[int, str]:
    """The names by `id`, once it is certain that they are of all that the optimiser steps, and of nothing else."""
    names = {id(parameter): name for name, parameter in named.items()}
    stepped = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if missing := stepped - names.keys():
        raise InputError(f"from_torch: the optimiser steps {len(missing)} parameters that `named` lacks: name them all")
    if idle := [name for name, parameter in named.items() if id(parameter) not in stepped]:
        raise InputError(f"from_torch: the optimiser does not step {', '.join(idle)}: leave that out of `named`")
    return names


def from_torch(optimizer: torch.optim.Optimizer, named: Mapping[str, nn.Parameter]) -> tuple[Optimizer, PyTree]:
    """The rule and the state of a torch optimiser, fresh or running, by the names of its parameters.

    `named` is what it was made of, such as `dict(module.named_parameters())`. Several groups become `groups`, as do
    parameters of one group that have not taken the same number of steps. The numbers are copied: stepping the torch
    optimiser afterwards changes nothing here, and what a scheduler does to its learning rate later is not seen.

    Raises:
        InputError: a method that is not in `metapl.optim`, or `named` is not what the optimiser steps.
    """
    names = _names(optimizer, named)
    rules: dict[str, Optimizer] = {}
    states: dict[str, PyTree] = {}
    labels: dict[str, str] = {}
    for index, group in enumerate(optimizer.param_groups):
        name = _name(optimizer, group)
        options = inspect.signature(COUNTERPARTS[name].ours).parameters
        rule = COUNTERPARTS[name].ours(**{option: _number(group[option]) for option in options})
        together: dict[tuple[float, ...], dict[str, Tensor]] = {}
        for parameter in group["params"]:
            clock = _clock(name, optimizer.state.get(parameter, {}))
            together.setdefault(clock, {})[names[id(parameter)]] = parameter
        for part, members in enumerate(together.values()):
            label = f"{index}.{part}" if len(together) > 1 else str(index)
            held = {member: optimizer.state.get(parameter, {}) for member, parameter in members.items()}
            rules[label], states[label] = rule, _take(name, rule.init(members), held)
            labels.update(dict.fromkeys(members, label))
    if len(rules) == 1:
        return next(iter(rules.values())), next(iter(states.values()))
    return groups(lambda name: labels.get(name, "no group"), rules), states


def _flat(optimizer: Optimizer, names: list[str], state: PyTree) -> list[tuple[Rule, list[str], Any]]:
    """The rules that torch's groups are to be made of, each with its parameters and its state."""
    rule = optimizer.rule
    if rule is None:
        raise InputError("to_torch: an optimiser without a `rule` does not say how it was made: use metapl.optim's")
    if rule.name == "groups":
        assign, rules = rule.options["assign"], rule.options["rules"]
        if strange := [name for name in names if assign(name) not in state]:
            raise InputError(f"to_torch: the state has no group {assign(strange[0])!r}, that of {strange[0]!r}")
        members = {label: [name for name in names if assign(name) == label] for label in state}
        return [flat for label in state for flat in _flat(rules[label], members[label], state[label])]
    if rule.name == "chain" and len(rule.options["links"]) == 1:
        return _flat(rule.options["links"][0], names, state[0])
    if rule.name == "chain":
        links = ", ".join(link.rule.name if link.rule else "?" for link in rule.options["links"])
        raise InputError(
            f"to_torch: chain({links}) is not one torch optimiser: hand over the last link and its state, and do the "
            "rest before `step()`, as torch.nn.utils.clip_grad_norm_ does"
        )
    if rule.name not in COUNTERPARTS:
        raise InputError(f"to_torch: torch.optim has no {rule.name}: choose from {', '.join(sorted(COUNTERPARTS))}")
    return [(rule, names, state)]


def to_torch(optimizer: Optimizer, params: Mapping[str, nn.Parameter], state: PyTree) -> torch.optim.Optimizer:
    """The torch optimiser that goes on where `state` is: for a training loop, or a library, that asks for one.

    Its hyperparameters are numbers: a tensor is cut from its graph, and a schedule becomes its value at `state.step`.

    Raises:
        InputError: a method, or a chain of links, that torch.optim does not have; groups of several methods; `params`
            that are not those of the state.
    """
    flat = _flat(optimizer, list(params), state)
    methods = {rule.name for rule, _, _ in flat}
    # torch's AdamW is an Adam whose groups say so.
    mixed = methods == {"adam", "adamw"}
    method = "adam" if mixed else min(methods)
    if len(methods) > 1 and not mixed:
        raise InputError(f"to_torch: groups of {', '.join(sorted(methods))}: torch takes one method for all groups")
    described: list[dict[str, Any]] = []
    states: dict[Tensor, dict[str, Tensor]] = {}
    for rule, names, held in flat:
        options = {name: _number(value) for name, value in rule.options.items() if name != "lr"}
        options["lr"] = _number(schedule.at(rule.options["lr"], held.step))
        if method == "adam":
            options["decoupled_weight_decay"] = rule.name == "adamw"
        described.append({"params": [params[name] for name in names], **options})
        states.update({params[name]: given for name, given in _give(rule.name, held, names).items()})
    # The first group's numbers are also the defaults, so that torch checks them.
    defaults = {option: value for option, value in described[0].items() if option != "params"}
    found = COUNTERPARTS[method].theirs(described, **defaults)
    found.state.update(states)
    return found
