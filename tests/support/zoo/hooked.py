"""Modules whose derivative is said by hand: autograd functions, hooks, recomputation."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention
from torch.utils.checkpoint import checkpoint

from zoo.entry import NO_FORWARD, NO_TRANSFORM, Entry, Fn, after, between, linear, numbers

# ---------------------------------------------------------------- derivatives of one's own


class Straight(torch.autograd.Function):
    """Rounded; the derivative is that of the identity."""

    @staticmethod
    def forward(x):
        return torch.round(4.0 * x) / 4.0

    @staticmethod
    def setup_context(*_args):
        pass

    @staticmethod
    def backward(_ctx, cotangent):
        return cotangent


class Cube(torch.autograd.Function):
    """x³ + x with its derivative by hand, twice differentiable, without forward mode."""

    @staticmethod
    def forward(x):
        with torch._C.DisableTorchFunction():  # the reference must not take this for a constant
            return x**3 + x

    @staticmethod
    def setup_context(ctx, inputs, _output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, cotangent):
        (x,) = ctx.saved_tensors
        return cotangent * (3.0 * x**2 + 1.0)


class CubeForward(Cube):
    """With forward mode."""

    @staticmethod
    def setup_context(ctx, inputs, _output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def jvp(ctx, tangent):
        (x,) = ctx.saved_tensors
        return tangent * (3.0 * x**2 + 1.0)


class Old(torch.autograd.Function):
    """Written as before torch 2.0, with the context in `forward`: torch.func refuses it."""

    @staticmethod
    def forward(ctx, x):
        with torch._C.DisableTorchFunction():
            ctx.save_for_backward(x)
            return x**3 + x

    @staticmethod
    def backward(ctx, cotangent):
        (x,) = ctx.saved_tensors
        return cotangent * (3.0 * x**2 + 1.0)


class Once(torch.autograd.Function):
    """A derivative that cannot be differentiated in turn."""

    @staticmethod
    def forward(x):
        with torch._C.DisableTorchFunction():
            return x**3 + x

    @staticmethod
    def setup_context(ctx, inputs, _output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, cotangent):
        (x,) = ctx.saved_tensors
        return cotangent * (3.0 * x**2 + 1.0)


def fake_quantised(h):
    return torch.fake_quantize_per_tensor_affine(h, 0.05, 0, -128, 127)


def quantised(h):
    return h + (fake_quantised(h) - h).detach()


def straight(h):
    return h + (torch.round(4.0 * h) / 4.0 - h).detach()


FUNCTIONS = {
    "function": Entry(after(Cube.apply), numbers(4), either=(*NO_FORWARD, "fraction")),
    "function with jvp": Entry(after(CubeForward.apply), numbers(4), either=(*NO_FORWARD, "fraction")),
    "function of the old form": Entry(after(Old.apply), numbers(4), either=(*NO_TRANSFORM, "fraction")),
    "function, once differentiable": Entry(
        after(Once.apply), numbers(4), refused="once|second|autograd function", either=("first-order",)
    ),
    "straight-through by detach": Entry(after(straight), numbers(4)),
    "fake quantised": Entry(after(fake_quantised), numbers(4), twin=after(quantised), either=(*NO_FORWARD, "fraction")),
    "straight-through function": Entry(
        after(Straight.apply), numbers(4), twin=after(straight), either=(*NO_FORWARD, "fraction")
    ),
}

# ---------------------------------------------------------------- hooks


def in_training(hook):
    """A hook on the hidden layer's gradient, in training only, so that the exam's derivative is that of its value."""

    def forward(m, x):
        hidden = torch.tanh(m.first(x))
        if m.training:
            hidden = hidden * 1.0
            if hidden.requires_grad:
                hidden.register_hook(hook)
        return m.head(hidden)

    return lambda: Fn(forward, first=nn.Linear(4, 4), head=linear())


def forward_hook():
    module = between(nn.Identity)()
    module[0].register_forward_hook(lambda layer, inputs, output: output * torch.sigmoid(output))
    return module


def pre_hook():
    module = between(nn.Identity)()
    module[0].register_forward_pre_hook(lambda layer, inputs: (inputs[0] * 1.5,))
    return module


def closing_hook():
    """The hook looks at another layer of the module that it was made for."""
    module = between(nn.Identity)()
    module[0].register_forward_hook(lambda layer, inputs, output: output * module[4].weight.square().mean())
    return module


def closing_function():
    first, head = nn.Linear(4, 4), linear()
    return Fn(lambda m, x: head(torch.tanh(first(x))), first=first, head=head)


def backward_hook():
    module = between(nn.Identity)()
    module[2].register_full_backward_hook(lambda layer, before, arriving: (before[0] * 0.5,))
    return module


def parameter_hook():
    module = between(nn.Identity)()
    module[0].weight.register_hook(lambda gradient: gradient * 0.5)
    return module


HOOKS = {
    "gradient scaled": Entry(in_training(lambda g: 0.5 * g), numbers(4), evaluated=True, refused="hook"),
    "gradient reversed": Entry(in_training(lambda g: -0.3 * g), numbers(4), evaluated=True, refused="hook"),
    "gradient bent": Entry(in_training(torch.tanh), numbers(4), evaluated=True, refused="hook"),
    "forward hook": Entry(forward_hook, numbers(4)),
    "forward pre-hook": Entry(pre_hook, numbers(4)),
    "hook that closes over the module": Entry(closing_hook, numbers(4)),
    "forward that closes over its layers": Entry(closing_function, numbers(4)),
    "full backward hook": Entry(backward_hook, numbers(4), refused="hook"),
    "hook on a parameter": Entry(parameter_hook, numbers(4), refused="hook"),
}

# ---------------------------------------------------------------- recomputation


def recomputed(layer=nn.Identity, **options):
    """A checkpointed block, and the same without."""

    def block():
        return nn.Sequential(nn.Linear(4, 4), nn.Tanh(), layer())

    def build():
        def forward(m, x):
            return m.head(checkpoint(m.block, m.first(x), **options))

        return Fn(forward, first=nn.Linear(4, 4), block=block(), head=linear())

    def plain():
        return Fn(lambda m, x: m.head(m.block(m.first(x))), first=nn.Linear(4, 4), block=block(), head=linear())

    return {"build": build, "twin": plain}


CHECKPOINTS = {
    "checkpoint": Entry(**recomputed(use_reentrant=False), x=numbers(4), either=NO_FORWARD),
    "checkpoint, reentrant": Entry(**recomputed(use_reentrant=True), x=numbers(4), refused="reentrant"),
    "checkpoint with dropout": Entry(
        **recomputed(lambda: nn.Dropout(0.4), use_reentrant=False), x=numbers(4), random=True, either=NO_FORWARD
    ),
    "checkpoint with F.dropout": Entry(
        **recomputed(lambda: Fn(lambda m, x: F.dropout(x, 0.4, m.training)), use_reentrant=False),
        x=numbers(4),
        random=True,
        either=NO_FORWARD,
    ),
    "checkpoint with batch norm": Entry(
        # The statistics are updated once for the pass and once more for the recomputation, in torch as well.
        **(recomputed(lambda: nn.BatchNorm1d(4, track_running_stats=False), use_reentrant=False)),
        x=numbers(4),
        coupled=True,
        either=NO_FORWARD,
    ),
}

ENTRIES = {**FUNCTIONS, **HOOKS, **CHECKPOINTS}
