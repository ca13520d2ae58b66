"""Modules with values that count as constants, and modules whose derivative is not that of their value."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention
from torch.utils.checkpoint import checkpoint

from zoo.entry import CLASSES, NO_FORWARD, NO_TRANSFORM, Entry, Fn, after, between, linear, numbers, weight

# ---------------------------------------------------------------- values without a gradient


class Scale(nn.Module):
    """x W, in training divided by the norm of W as a constant."""

    def __init__(self, norm):
        super().__init__()
        self.weight, self.norm = weight(4, CLASSES), norm

    def forward(self, x):
        return x @ self.weight / self.norm(self.weight) if self.training else x @ self.weight


def by_block(w):
    with torch.no_grad():
        return w.norm()


@torch.no_grad()
def by_decorator(w):
    return w.norm()


def by_switch(w):
    before = torch.is_grad_enabled()
    torch.set_grad_enabled(False)
    found = w.norm()
    torch.set_grad_enabled(before)
    return found


def by_context(w):
    with torch.set_grad_enabled(mode=False):
        return w.norm()


def by_writing(w):
    """What is written in place is a tensor of the block's own."""
    with torch.no_grad():
        found = torch.zeros((), dtype=w.dtype)
        found.add_(w.norm())
        return found


def again_inside(w):
    """A gradient that is switched on again within the block: of a constant, still."""
    with torch.no_grad():
        length = w.norm()
        with torch.enable_grad():
            return length * 1.5


def scale(norm):
    return Entry(lambda: Scale(norm), numbers(4), evaluated=True)


class Renorm(nn.Module):
    """Batch renormalisation (Ioffe, 2017): the correction towards the running statistics is a constant."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("std", torch.ones(4))

    def forward(self, x):
        if not self.training:
            return self.weight * (x - self.mean) / self.std
        mean, std = x.mean(0), x.std(0, unbiased=False) + 1e-3
        with torch.no_grad():
            r, d = (std / self.std).clamp(0.2, 5.0), ((mean - self.mean) / self.std).clamp(-3.0, 3.0)
            self.mean.lerp_(mean, 0.2)
            self.std.lerp_(std, 0.2)
        return self.weight * ((x - mean) / std * r + d)


class Momentum(nn.Module):
    """A slow copy of the encoder, kept as a buffer, tells the fast one what to look for (He et al., CVPR 2020)."""

    def __init__(self):
        super().__init__()
        self.fast, self.head = nn.Linear(4, 4), linear()
        self.register_buffer("slow", self.fast.weight.detach().clone() + 0.3)

    def forward(self, x):
        hidden = torch.tanh(self.fast(x))
        with torch.no_grad():
            if self.training:
                self.slow.mul_(0.8).add_(self.fast.weight, alpha=0.2)
            keys = torch.tanh(x @ self.slow.T)
        return self.head(hidden * keys)


class Trusting(nn.Module):
    """As SoftMatch weighs: by how sure the module is, as a constant."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, CLASSES)
        self.register_buffer("usual", torch.tensor(0.4))

    def forward(self, x):
        logits = self.body(x)
        if not self.training:
            return logits
        with torch.no_grad():
            sure = torch.softmax(logits, -1).amax(-1)
            self.usual.lerp_(sure.mean(), 0.5)
            weights = torch.exp(-4.0 * (sure - self.usual) ** 2)
        return logits * weights[:, None]


class Codebook(nn.Module):
    """Vector quantisation, straight-through (van den Oord et al., 2017)."""

    def __init__(self):
        super().__init__()
        self.encode, self.codes, self.head = nn.Linear(4, 2), weight(5, 2), linear(2)

    def forward(self, x):
        encoded = self.encode(x)
        code = self.codes[torch.cdist(encoded, self.codes).argmin(-1)]
        return self.head(encoded + (code - encoded).detach() + 0.3 * code)


def detached(x):
    return x.detach()


def by_data(m, x):
    return m.head(torch.tanh(m.first(x)) / m.first.weight.data.norm())


def by_item(m, x):
    return m.head(torch.tanh(m.first(x)) / m.first.weight.norm().item())


def stop_half(h):
    return torch.cat([h[:, :2], h[:, 2:].detach()], 1)


def attention_to_itself(h):
    """Self-distillation: a constant target on the way."""
    with torch.no_grad():
        scores = torch.softmax(h @ h.T, -1)
    return scores @ h


STOPPED = {
    "no_grad block": scale(by_block),
    "no_grad decorator": scale(by_decorator),
    "grad switched off": scale(by_switch),
    "grad off, context": scale(by_context),
    "no_grad, writing in place": scale(by_writing),
    "no_grad, grad again inside": scale(again_inside),
    "detach": scale(lambda w: w.norm().detach()),
    "data of a tensor": Entry(lambda: Fn(by_data, first=nn.Linear(4, 4), head=linear()), numbers(4)),
    ".item()": Entry(lambda: Fn(by_item, first=nn.Linear(4, 4), head=linear()), numbers(4), either=NO_TRANSFORM),
    "half detached": Entry(after(stop_half), numbers(4)),
    "constant attention": Entry(after(attention_to_itself), numbers(4), coupled=True),
    "batch renorm": Entry(between(Renorm), numbers(4), evaluated=True, coupled=True),
    "momentum encoder": Entry(Momentum, numbers(4)),
    "weights of trust": Entry(Trusting, numbers(4), evaluated=True, coupled=True),
    "codebook": Entry(Codebook, numbers(4), either=NO_FORWARD),
}

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
    "function": Entry(after(Cube.apply), numbers(4), either=NO_FORWARD),
    "function with jvp": Entry(after(CubeForward.apply), numbers(4)),
    "function of the old form": Entry(after(Old.apply), numbers(4), either=NO_TRANSFORM),
    "function, once differentiable": Entry(
        after(Once.apply), numbers(4), refused="once|twice|second", either=("first-order",)
    ),
    "straight-through by detach": Entry(after(straight), numbers(4)),
    "fake quantised": Entry(after(fake_quantised), numbers(4), twin=after(quantised), either=NO_FORWARD),
    "straight-through function": Entry(after(Straight.apply), numbers(4), twin=after(straight), either=NO_FORWARD),
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
    "checkpoint": Entry(**recomputed(use_reentrant=False), x=numbers(4)),
    "checkpoint, reentrant": Entry(**recomputed(use_reentrant=True), x=numbers(4), refused="reentrant"),
    "checkpoint with dropout": Entry(
        **recomputed(lambda: nn.Dropout(0.4), use_reentrant=False), x=numbers(4), random=True
    ),
    "checkpoint with F.dropout": Entry(
        **recomputed(lambda: Fn(lambda m, x: F.dropout(x, 0.4, m.training)), use_reentrant=False),
        x=numbers(4),
        random=True,
    ),
    "checkpoint with batch norm": Entry(
        # The statistics are updated once for the pass and once more for the recomputation, in torch as well.
        **(recomputed(lambda: nn.BatchNorm1d(4, track_running_stats=False), use_reentrant=False)),
        x=numbers(4),
        coupled=True,
    ),
}

ENTRIES = {**STOPPED, **FUNCTIONS, **HOOKS, **CHECKPOINTS}
