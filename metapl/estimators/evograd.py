"""EvoGrad: a cheap stand-in for the inner step, a weighted mean of random perturbations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from metapl.core import autodiff, rng, tree
from metapl.core.types import Estimator, Instance, Key, MetaGradient, Params, PyTree
from metapl.estimators import instances, one_step


def evograd(*, children: int = 8, sigma: float = 0.01, temperature: float = 0.05) -> Estimator:
    """EvoGrad (Bohdal, Yang and Hospedales, NeurIPS 2021).

    In place of differentiating the inner step: children w_i = w + σ ε_i, with ε_i standard normal in pairs ±ε, are
    weighted by their inner losses,

        a = softmax_i(−mean inner(w_i, targets) / temperature),    meta-gradient = d outer(Σ_i a_i w_i) / dθ.

    The mean of many children with a small σ is w − (σ² / temperature) g, so the meta-gradient tends to that of a step
    of plain gradient descent with the learning rate σ² / temperature; with few it is mostly noise. The parameters take
    their real step. The scale is that of the stand-in, |σ² / temperature · v||g|, with the v that it saw.

    Args:
        children: how many, an even number.
        sigma: how far apart.
        temperature: of the softmax; the paper has 0.05.

    Cost: 1 F a child, 1 F + 1 B for the outer loss of the stand-in, 1 F for the outer loss beyond the inner step.

    Raises:
        ValueError: an odd number of children or none, a sigma or a temperature that is not positive.
    """
    if children < 2 or children % 2:
        raise ValueError(f"evograd(children={children}) must be an even number, at least 2")
    if not sigma > 0.0 or not temperature > 0.0:
        raise ValueError(f"evograd(sigma={sigma}, temperature={temperature}) must both be positive")
    estimate = partial(_estimate, children=children, sigma=sigma, temperature=temperature)
    cost = "1 F a child, 2 F + 1 B (outer)"
    return Estimator(lambda: (), estimate, "approximate", ("soft", "sampled", "argmax"), cost, several=False)


def _estimate(
    instance: Instance, memory: PyTree, *, children: int, sigma: float, temperature: float
) -> tuple[MetaGradient, PyTree]:
    theta, _ = instances.single("evograd()", instance)
    problem, _, state, _, outer_batch, key = instance
    noise = _noise(state.params, instances.own_key(key), children // 2)
    family = [tree.add(state.params, tree.scale(sign * sigma, one)) for one in noise for sign in (1.0, -1.0)]

    step = one_step.step(instance, *instances.targets(instance))
    losses, _, losses_vjp = autodiff.vjp(partial(_losses, instance, family), theta)
    mean, _, mean_vjp = autodiff.vjp(partial(_weighted_mean, family, temperature), losses)
    _, v = one_step.outer_gradient(problem, state._replace(params=mean), outer_batch)
    grad = losses_vjp(mean_vjp(v))
    with torch.no_grad():
        outer = problem.outer(step.state.params, step.state.buffers, outer_batch)
    scale = sigma**2 / temperature * tree.norm(v) * tree.norm(step.grads)
    return MetaGradient((grad,), step.state, outer, step.loss, scale, {}), memory


def _losses(instance: Instance, family: Sequence[Params], theta: PyTree) -> tuple[Tensor, tuple[()]]:
    """The mean inner loss of every child."""
    problem, _, state, (batch,), _, key = instance
    targets = problem.targets.apply(theta, key)
    return torch.stack([problem.inner(one, state.buffers, targets, batch)[0].mean() for one in family]), ()


def _weighted_mean(family: Sequence[Params], temperature: float, losses: Tensor) -> tuple[Params, tuple[()]]:
    weights = torch.softmax(-losses / temperature, dim=0)
    return tree.map(lambda *leaves: sum(a * leaf for a, leaf in zip(weights, leaves, strict=True)), *family), ()


def _noise(params: Params, key: Key, count: int) -> list[Params]:
    return [
        {
            name: rng.normal(k, leaf.shape, leaf.dtype, leaf.device)
            for k, (name, leaf) in zip(rng.split(one, len(params)), params.items(), strict=True)
        }
        for one in rng.split(key, count)
    ]
