"""`higher`: a module and an optimiser of torch are patched, and record every step."""

import higher
import torch
from problem import Batch, Network, Params, loss


def gradient(rate: float, steps: int, params: Params, train: Batch, held: Batch) -> float:
    """d held-out loss / d learning rate."""
    network = Network(params)
    optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9)
    theta = torch.tensor(rate, dtype=torch.float64, requires_grad=True)
    with higher.innerloop_ctx(network, optimizer, override={"lr": [theta]}) as (patched, steps_of):
        for _ in range(steps):
            steps_of.step(loss(dict(patched.named_parameters()), train))
        outer = loss(dict(patched.named_parameters()), held)
        (grad,) = torch.autograd.grad(outer, theta)
    return float(grad)
