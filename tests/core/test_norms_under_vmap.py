"""Second derivatives of normalisation layers whose steps are taken under `vmap`, held to a loop over the tasks.

torch itself differentiates `vmap` of a gradient of batch_norm and layer_norm wrongly in the affine weights; whoever
goes by `unroll` or `inner.gradient` must get what the loop gets, or a refusal. The loop is held to differences.
"""

import re

import pytest
import torch
from asserts import finite_differences, relative_error
from torch import nn

from metapl.core import inside, rng
from metapl.core.losses import cross_entropy
from metapl.core.unrolling import unroll
from metapl.nn import functional
from metapl.registry.errors import InputError

TASKS, BATCH, STEPS, RATE = 2, 4, 2, 0.3

METHODS = ("reverse", "replay", "mixed")

NORMS = {
    "batch norm": lambda: nn.BatchNorm2d(2, track_running_stats=False),
    "batch norm, tracked": lambda: nn.BatchNorm2d(2),
    "layer norm": lambda: nn.LayerNorm([2, 2, 2]),
    "instance norm": lambda: nn.InstanceNorm2d(2, affine=True),
    "group norm": lambda: nn.GroupNorm(2, 2),
    "rms norm": lambda: nn.RMSNorm([2, 2, 2]),
    "batch norm, without weights": lambda: nn.BatchNorm2d(2, affine=False, track_running_stats=False),
}


def network(norm):
    def build():
        conv = nn.Conv2d(1, 2, 3)
        return nn.Sequential(conv, NORMS[norm](), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)).double()

    return build


class Task:
    """Inner steps and the outer loss, as a function of one number and of a task's data."""

    def __init__(self, norm, method):
        self.model, self.method = functional.from_module(network(norm)), method
        self.params, self.buffers = self.model.init(rng.key(2))
        generator = torch.Generator().manual_seed(4)
        for name, value in self.params.items():  # affine weights away from 1 and 0, where errors could hide
            self.params[name] = value + 0.3 * torch.randn(value.shape, generator=generator, dtype=value.dtype)
        self.x = torch.randn(TASKS, STEPS + 1, BATCH, 1, 4, 4, generator=generator, dtype=torch.float64)
        self.y = torch.randint(3, (TASKS, STEPS + 1, BATCH), generator=generator)

    def loss(self, params, buffers, scale, x, y):
        logits, buffers = self.model.apply(params, buffers, x + scale * x**2, train=True)
        return cross_entropy(logits, y).mean(), buffers

    def outer(self, scale, x, y, buffers):
        def step(carry, given):
            params, buffers = carry
            grads, after = inside.gradient(self.loss, params, buffers, *given)
            return {name: params[name] - RATE * grads[name] for name in params}, after

        inputs = [(scale, x[k], y[k]) for k in range(STEPS)]
        params, buffers = unroll(step, (self.params, buffers), inputs, method=self.method)
        return self.loss(params, buffers, scale, x[-1], y[-1])[0]

    def length(self, scale, x, y, buffers):
        """|∇|² of one bare `inner.gradient`, with no `unroll` around it."""
        grads, _ = inside.gradient(self.loss, self.params, buffers, scale, x[0], y[0])
        return sum(grad.square().sum() for grad in grads.values())

    def closed_over(self, scale, x, y, buffers):
        """As `length`, of a loss that holds the scale and the data."""
        grads, _ = inside.gradient(lambda params: self.loss(params, buffers, scale, x[0], y[0])[0], self.params)
        return sum(grad.square().sum() for grad in grads.values())

    def steps(self, scale, x, y, buffers):
        """As `outer`, by a loop without `unroll`."""
        params = self.params
        for k in range(STEPS):
            grads, buffers = inside.gradient(self.loss, params, buffers, scale, x[k], y[k])
            params = {name: params[name] - RATE * grads[name] for name in params}
        return self.loss(params, buffers, scale, x[-1], y[-1])[0]

    def data(self):
        """The inputs, the labels and the buffers of every task, along the first axis."""
        return self.x, self.y, {name: value.expand(TASKS, *value.shape) for name, value in self.buffers.items()}

    def tasks(self):
        return [(self.x[k], self.y[k], self.buffers) for k in range(TASKS)]


SCALE = torch.tensor(0.3, dtype=torch.float64)


def in_a_loop(fn, task):
    scale = SCALE.clone().requires_grad_()
    return torch.autograd.grad(sum(fn(scale, *one) for one in task.tasks()), scale)[0]


def by_grad(fn, task):
    return torch.func.grad(lambda scale: torch.vmap(fn, (None, 0, 0, 0))(scale, *task.data()).sum())(SCALE)


def by_backward(fn, task):
    scale = SCALE.clone().requires_grad_()
    torch.vmap(fn, (None, 0, 0, 0))(scale, *task.data()).sum().backward()
    return scale.grad


def by_vmap_of_grad(fn, task):
    return torch.vmap(torch.func.grad(fn), (None, 0, 0, 0))(SCALE, *task.data()).sum()


THROUGH = {"grad(vmap)": by_grad, "backward through vmap": by_backward, "vmap(grad)": by_vmap_of_grad}


@pytest.mark.parametrize("norm", NORMS)
def test_the_loop_is_what_differences_give(norm):
    task = Task(norm, "reverse")
    for fn in (task.outer, task.length):
        wanted = finite_differences(
            lambda scale, fn=fn: float(sum(fn(scale, *one) for one in task.tasks())), SCALE, width=2e-4
        )
        assert abs(wanted) > 1e-3
        assert relative_error(in_a_loop(fn, task), wanted) < 1e-6


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("through", THROUGH)
@pytest.mark.parametrize("method", METHODS)
def test_unroll_under_vmap(method, through, norm):
    held_to_the_loop(Task(norm, method), "outer", through)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("through", THROUGH)
@pytest.mark.parametrize("what", ["length", "closed_over", "steps"])
def test_a_bare_gradient_under_vmap(what, through, norm):
    task = Task(norm, "reverse")
    assert relative_error(THROUGH[through](getattr(task, what), task), in_a_loop(getattr(task, what), task)) < 1e-10


@pytest.mark.parametrize("norm", NORMS)
def test_forward_mode_through_a_vmap(norm):
    task = Task(norm, "reverse")
    _, found = torch.func.jvp(
        lambda scale: torch.vmap(task.length, (None, 0, 0, 0))(scale, *task.data()).sum(), (SCALE,), (SCALE,)
    )
    assert relative_error(found, SCALE * in_a_loop(task.length, task)) < 1e-10


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("method", METHODS)
def test_a_scale_of_its_own_for_each_task(method, norm):
    """What is batched is differentiated too."""
    task = Task(norm, method)
    scales = torch.tensor([0.3, -0.2], dtype=torch.float64)
    together = torch.func.grad(lambda s: torch.vmap(task.outer)(s, *task.data()).sum())
    alone = torch.stack([torch.func.grad(task.outer)(s, *one) for s, one in zip(scales, task.tasks(), strict=True)])
    found = right_or_refused(together, scales, may_refuse=method == "reverse")
    assert found is None or relative_error(found, alone) < 1e-10


def held_to_the_loop(task, what, through):
    fn = getattr(task, what)
    wanted = in_a_loop(fn, task)
    found = right_or_refused(THROUGH[through], fn, task, may_refuse=task.method == "reverse")
    assert found is None or relative_error(found, wanted) < 1e-10


def right_or_refused(fn, *args, may_refuse):
    """None for a refusal that names vmap and what to do, where recording the steps leaves no right way."""
    said = ""
    try:
        return fn(*args)
    except InputError as refusal:
        said = str(refusal)
    assert may_refuse, said
    assert re.fullmatch("[^\n]*vmap[^\n]*replay[^\n]*", said)
    return None
