"""Steps of our optimisers beside steps of torch's, and of papers that torch has not followed."""

import contextlib
import itertools
import math

import torch
from torch import nn

from metapl import optim
from metapl.core import tree

STEPS = 5
LONG = {"radam": 8}
"""RAdam's first five steps are never rectified."""


def grid(**options):
    """Every combination, as one dictionary of keyword arguments each."""
    return [dict(zip(options, values, strict=True)) for values in itertools.product(*options.values())]


def start():
    generator = torch.Generator().manual_seed(0)
    shapes = {"w": (3, 2), "b": (4,), "scalar": ()}
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


def gradient(params, step):
    """Nowhere zero, curved in the parameters, and shrinking, so that AMSGrad's maximum is at work."""
    return {name: 0.4**step * (torch.cos(2.0 * p + step) + 0.3 * p) for name, p in params.items()}


def score(params):
    return sum(torch.sin(value + index).sum() for index, value in enumerate(params.values()))


def run_ours(optimizer, params, noise=None, steps=STEPS):
    """The parameters after some steps; `noise[i]` is added to the gradient of step i."""
    return go_on(optimizer, params, optimizer.init(params), noise, range(steps))[0]


def go_on(optimizer, params, state, noise=None, steps=range(STEPS)):
    """The same from a state, which comes back too."""
    for step in steps:
        grads = gradient(params, step)
        updates, state = optimizer.update(tree.add(grads, noise[step]) if noise else grads, state, params)
        params = tree.add(params, updates)
    return params, state


@contextlib.contextmanager
def double_precision():
    """torch keeps its step counts, and NAdam's product of momenta, in the default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def run_torch(build, params, noise=None, steps=STEPS, before_step=lambda optimizer, step: None):
    named = {name: nn.Parameter(value.clone()) for name, value in params.items()}
    with double_precision():
        go_on_torch(build(list(named.values())), named, noise, range(steps), before_step)
    return {name: p.detach() for name, p in named.items()}


def go_on_torch(optimizer, named, noise=None, steps=range(STEPS), before_step=lambda optimizer, step: None):
    for step in steps:
        with torch.no_grad():
            for name, grad in gradient(named, step).items():
                named[name].grad = grad + noise[step][name] if noise else grad
        before_step(optimizer, step)
        optimizer.step()


def lamb(x, g, memory, t, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, weight_decay=1e-2, maximize=False):
    """Algorithm 2 of You et al., ICLR 2020, with φ(z) = z and its authors' 1 where a norm is zero."""
    m, v = memory or ([0.0] * len(x), [0.0] * len(x))
    r = []
    for i in range(len(x)):
        slope = -g[i] if maximize else g[i]
        m[i] = betas[0] * m[i] + (1 - betas[0]) * slope
        v[i] = betas[1] * v[i] + (1 - betas[1]) * slope**2
        r.append(m[i] / (1 - betas[0] ** t) / (math.sqrt(v[i] / (1 - betas[1] ** t)) + eps) + weight_decay * x[i])
    trust = math.hypot(*x) / math.hypot(*r) if math.hypot(*x) and math.hypot(*r) else 1.0
    return [x[i] - lr * trust * r[i] for i in range(len(x))], (m, v)


def lars(
    w,
    g,
    memory,
    t,
    *,
    lr,
    momentum=0.9,
    weight_decay=0.0,
    trust_coefficient=1e-3,
    nesterov=False,
    maximize=False,
):
    """Algorithm 1 of You, Gitman and Ginsburg, 2017; Nesterov's look-ahead as in optax, which the paper has not."""
    v, g = memory or [0.0] * len(w), [-slope if maximize else slope for slope in g]
    bottom = math.hypot(*g) + weight_decay * math.hypot(*w)
    rate = lr * (trust_coefficient * math.hypot(*w) / bottom if math.hypot(*w) and bottom else 1.0)
    s = [rate * (g[i] + weight_decay * w[i]) for i in range(len(w))]
    v = [momentum * v[i] + s[i] for i in range(len(w))]
    return [w[i] - (s[i] + momentum * v[i] if nesterov else v[i]) for i in range(len(w))], v


def lion(theta, g, memory, t, *, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0, maximize=False):
    """Algorithm 2 of Chen et al., 2023."""
    m, after = memory or [0.0] * len(theta), []
    for i in range(len(theta)):
        slope = -g[i] if maximize else g[i]
        c = betas[0] * m[i] + (1 - betas[0]) * slope
        sign = (c > 0) - (c < 0)
        after.append(theta[i] - lr * (sign + weight_decay * theta[i]))
        m[i] = betas[1] * m[i] + (1 - betas[1]) * slope
    return after, m


class Transcript:
    """A paper's pseudocode, in plain numbers and one tensor after another, as an object that steps like torch's."""

    def __init__(self, one, params, lr=None, **options):
        self.one, self.params, self.options = one, list(params), options if lr is None else {"lr": lr, **options}
        self.memory, self.t = [None] * len(self.params), 0

    def step(self):
        self.t += 1
        for index, p in enumerate(self.params):
            numbers = p.detach().reshape(-1).tolist(), p.grad.reshape(-1).tolist()
            after, self.memory[index] = self.one(*numbers, self.memory[index], self.t, **self.options)
            p.data = torch.tensor(after, dtype=p.dtype).reshape(p.shape)


def transcript(one):
    return lambda params, *args, **options: Transcript(one, params, *args, **options)


TORCHS = {
    "sgd": (optim.sgd, torch.optim.SGD),
    "adam": (optim.adam, torch.optim.Adam),
    "adamw": (optim.adamw, torch.optim.AdamW),
    "rmsprop": (optim.rmsprop, torch.optim.RMSprop),
    "adagrad": (optim.adagrad, torch.optim.Adagrad),
    "adadelta": (optim.adadelta, torch.optim.Adadelta),
    "adamax": (optim.adamax, torch.optim.Adamax),
    "nadam": (optim.nadam, torch.optim.NAdam),
    "radam": (optim.radam, torch.optim.RAdam),
}
PAPERS = {
    "lamb": (optim.lamb, transcript(lamb)),
    "lars": (optim.lars, transcript(lars)),
    "lion": (optim.lion, transcript(lion)),
}
METHODS = {**TORCHS, **PAPERS}
"""Ours and theirs, by name."""

BETAS = {"betas": [(0.9, 0.999), (0.0, 0.9), (0.5, 0.8)]}
COMMON = {"weight_decay": [0.0, 0.1], "maximize": [False, True]}
EPS = {"eps": [1e-8, 1e-3]}
GRIDS = {
    "sgd": [
        options
        for options in grid(momentum=[0.0, 0.9], dampening=[0.0, 0.3], nesterov=[False, True], **COMMON)
        if not options["nesterov"] or (options["momentum"] and not options["dampening"])
    ],
    "adam": grid(amsgrad=[False, True], **BETAS, **EPS, **COMMON),
    "adamw": grid(amsgrad=[False, True], **BETAS, **EPS, **COMMON),
    "rmsprop": grid(alpha=[0.99, 0.5], momentum=[0.0, 0.9], centered=[False, True], **EPS, **COMMON),
    "adagrad": grid(lr_decay=[0.0, 0.3], initial_accumulator_value=[0.0, 0.2], **EPS, **COMMON),
    "adadelta": grid(rho=[0.9, 0.5], eps=[1e-6, 1e-2], **COMMON),
    "adamax": grid(**BETAS, **EPS, **COMMON),
    "nadam": grid(momentum_decay=[4e-3, 0.5], decoupled_weight_decay=[False, True], **BETAS, **EPS, **COMMON),
    # With β₂ = 0.6 no step is ever rectified, and ρ∞ = 4, where the factor would be a division by zero.
    "radam": grid(betas=[(0.9, 0.999), (0.0, 0.9), (0.5, 0.6)], decoupled_weight_decay=[False, True], **EPS, **COMMON),
    "lamb": grid(**BETAS, **EPS, **COMMON),
    "lars": grid(momentum=[0.0, 0.9], trust_coefficient=[1e-3, 0.5], nesterov=[False, True], **COMMON),
    "lion": grid(betas=[(0.9, 0.99), (0.0, 0.9), (0.5, 0.2)], **COMMON),
}
"""All options of each method."""
