"""The inner steps and the outer loss of a case by torch alone: `nn.Module`, `torch.optim`, `torch.nn.functional`.

Nothing of metapl is on the way: this is what the tests differentiate numerically.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from problems import CLASSES, Case
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from metapl.core.types import Params

HELD = {
    "momentum": {"SgdState": "momentum_buffer", "RmspropState": "momentum_buffer"},
    "mean": {"AdamState": "exp_avg", "RmspropState": "grad_avg"},
    "square": {"AdamState": "exp_avg_sq", "RmspropState": "square_avg"},
}
"""What torch calls our fields, by the kind of state; not by way of the bridge, on which the truth must not rest."""


def load_torch(case: Case) -> tuple[nn.Module, torch.optim.Optimizer, int]:
    """The module and the torch optimiser in the train state, and the steps that it has taken."""
    module = case.network.build().train()
    module.load_state_dict({**case.state.params, **case.state.buffers}, strict=False)
    optimizer = case.rule.theirs(list(module.parameters()))
    state = case.state.opt_state[-1] if type(case.state.opt_state) is tuple else case.state.opt_state
    for name, parameter in module.named_parameters() if state.step > 0 else ():
        held = {
            theirs[type(state).__name__]: getattr(state, field)[name].clone()
            for field, theirs in HELD.items()
            if getattr(state, field, ()) != ()
        }
        if held:
            optimizer.state[parameter] = {"step": state.step.double(), **held}
    return module, optimizer, int(state.step)


def loss_torch(case: Case, module: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    if case.network.squared:
        return 0.5 * F.mse_loss(module(x), target, reduction="sum") / len(x)
    return F.cross_entropy(module(x), target)


def outer_torch(case: Case, module: nn.Module) -> Tensor:
    """A probe: what BatchNorm counts on the way is dropped."""
    if case.network.outer_batch == "linear":
        return sum((case.outer_batch[name] * value).sum() for name, value in module.named_parameters())
    x, y = case.outer_batch
    buffers = {name: value.clone() for name, value in module.named_buffers()}
    return F.cross_entropy(
        torch.func.functional_call(module.train(case.network.outer_batch == "train"), buffers, (x,)), y
    )


def run_torch(
    case: Case,
    targets: Sequence[Tensor],
    nudges: Sequence[Params] | None = None,
    gradients: Sequence[Params] | None = None,
) -> tuple[Tensor, nn.Module, torch.optim.Optimizer]:
    """The outer loss after torch's own steps on these targets.

    `nudges` are added to the gradients of each step; `gradients` are taken in their place, whatever the targets.
    """
    module, optimizer, step = load_torch(case)
    for index, (target, x) in enumerate(zip(targets, case.inner_batches, strict=True)):
        optimizer.zero_grad()
        loss_torch(case, module, x, target).backward()
        for name, parameter in module.named_parameters() if gradients else ():
            parameter.grad = gradients[index][name].clone()
        for name, parameter in module.named_parameters() if nudges else ():
            parameter.grad += nudges[index][name]
        if math.isfinite(case.rule.max_norm):
            nn.utils.clip_grad_norm_(module.parameters(), case.rule.max_norm)
        if case.rule.rate:
            optimizer.param_groups[0]["lr"] = case.rule.rate(step + index)
        optimizer.step()
    with torch.no_grad():
        return outer_torch(case, module), module, optimizer


def soft_outer(case: Case, thetas: Sequence[Tensor]) -> Tensor:
    """The outer loss as a function of θ, with soft labels."""
    return run_torch(case, [torch.softmax(theta, dim=-1) for theta in thetas])[0]


def tuples(count: int, classes: int = CLASSES) -> list[Tensor]:
    """Every assignment of labels to `count` examples, as one-hot targets."""
    return [F.one_hot(torch.tensor(y), classes).double() for y in itertools.product(range(classes), repeat=count)]


def gradients_of(loss: Tensor, module: nn.Module) -> Params:
    names, parameters = zip(*module.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


def inner_gradient(case: Case, target: Tensor) -> Params:
    """g, the inner gradient on these targets, by torch."""
    module, _, _ = load_torch(case)
    return gradients_of(loss_torch(case, module, case.inner_batches[0], target), module)


def outer_gradient(case: Case, target: Tensor) -> Params:
    """v, the outer gradient after torch's own step on these targets."""
    _, module, _ = run_torch(case, [target])
    return gradients_of(outer_torch(case, module), module)


def inner_product(a: Params, b: Params) -> Tensor:
    return sum((a[name] * b[name]).sum() for name in b)
