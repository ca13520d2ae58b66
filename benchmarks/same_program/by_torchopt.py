"""TorchOpt: a functional optimiser that records every step."""

import torch
import torchopt
from problem import Batch, Params, loss


def gradient(rate: float, steps: int, params: Params, train: Batch, held: Batch) -> float:
    """d held-out loss / d learning rate."""
    theta = torch.tensor(rate, dtype=torch.float64, requires_grad=True)
    optimizer = torchopt.FuncOptimizer(torchopt.sgd(theta, momentum=0.9))
    params = {name: leaf.clone().requires_grad_() for name, leaf in params.items()}
    for _ in range(steps):
        params = optimizer.step(loss(params, train), params)
    (grad,) = torch.autograd.grad(loss(params, held), theta)
    return float(grad)
