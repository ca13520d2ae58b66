"""EvoGrad: a cheap stand-in for the learner's step, a weighted mean of random perturbations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from metapl.core import autodiff, rng, tree
from metapl.core.types import Estimator, Key, MetaGradient, Params, Problem, PyTree, TrainState
from metapl.estimators import student


def evograd(*, children: int = 8, sigma: float = 0.01, temperature: float = 0.05) -> Estimator:
    """EvoGrad (Bohdal, Yang and Hospedales, NeurIPS 2021).

    In place of differentiating the learner's step: children θ_i = θ + σ ε_i, with ε_i standard normal in pairs ±ε, are
    weighed by how well they follow the lesson,

        w = softmax_i(−mean inner(θ_i, targets) / temperature),    feedback = d outer(Σ_i w_i θ_i) / d lesson.

    The mean of many children with a small σ is θ − (σ² / temperature) g, so the feedback tends to that of a step of
    plain gradient descent with the learning rate σ² / temperature; with few it is mostly noise. The learner takes its
    real step. The scale is that of the stand-in, |σ² / temperature · v||g|, with the v that it saw.

    Args:
        children: how many, an even number.
        sigma: how far apart.
        temperature: of the softmax; the paper has 0.05.

    Cost: 1 F a child, 1 F + 1 B for the exam of the stand-in, 1 F for the exam beyond the learner's own step.

    Raises:
        ValueError: an odd number of children or none, a sigma or a temperature that is not positive.
    """
    if children < 2 or children % 2:
        raise ValueError(f"evograd(children={children}) must be an even number, at least 2")
    if not sigma > 0.0 or not temperature > 0.0:
        raise ValueError(f"evograd(sigma={sigma}, temperature={temperature}) must both be positive")

    def estimate(
        problem: Problem,
        thetas: Sequence[PyTree],
        state: TrainState,
        inner_batches: Sequence[PyTree],
        outer_batch: PyTree,
        memory: PyTree,
        key: Key,
    ) -> tuple[MetaGradient, PyTree]:
        theta, batch = student.single("evograd()", thetas, inner_batches)
        noise = _noise(state.params, student.own_key(key), children // 2)
        family = [tree.add(state.params, tree.scale(sign * sigma, one)) for one in noise for sign in (1.0, -1.0)]

        def losses(theta: PyTree) -> tuple[Tensor, tuple[()]]:
            taught = problem.targets.apply(theta, key)
            return torch.stack([problem.inner(one, state.buffers, taught, batch)[0].mean() for one in family]), ()

        def blend(losses: Tensor) -> tuple[Params, tuple[()]]:
            weights = torch.softmax(-losses / temperature, dim=0)
            return tree.map(lambda *leaves: sum(w * leaf for w, leaf in zip(weights, leaves, strict=True)), *family), ()

        step = student.step(problem, state, student.targets(problem, [theta], key)[0], batch)
        values, _, to_lesson = autodiff.pullback(losses, theta)
        mean, _, to_losses = autodiff.pullback(blend, values)
        _, v = student.exam_gradient(problem, state._replace(params=mean), outer_batch)
        cotangent = to_lesson(to_losses(v))
        with torch.no_grad():
            outer = problem.outer(step.state.params, step.state.buffers, outer_batch)
        scale = sigma**2 / temperature * tree.norm(v) * tree.norm(step.grads)
        return MetaGradient((cotangent,), step.state, outer, step.loss, scale, {}), memory

    cost = "1 F a child, 2 F + 1 B (exam)"
    return Estimator(lambda: (), estimate, "approximate", ("soft", "sampled", "argmax"), cost, several=False)


def _noise(params: Params, key: Key, count: int) -> list[Params]:
    return [
        {
            name: rng.normal(k, leaf.shape, leaf.dtype, leaf.device)
            for k, (name, leaf) in zip(rng.split(one, len(params)), params.items(), strict=True)
        }
        for one in rng.split(key, count)
    ]
