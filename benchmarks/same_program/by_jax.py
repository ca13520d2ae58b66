"""JAX and optax: `scan`, whose steps `checkpoint` replays on the way back."""

from functools import partial

import jax
import optax
from problem import Batch, Params

jax.config.update("jax_enable_x64", True)


def loss(params, batch):
    """As `problem.loss`."""
    x, y = batch
    logits = jax.nn.tanh(x @ params["in"]) @ params["out"]
    return -jax.numpy.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1).mean()


@partial(jax.jit, static_argnums=1)
@jax.grad
def derivative(rate, steps, params, train, held):
    """d held-out loss / d learning rate, compiled once."""
    optimizer = optax.sgd(rate, momentum=0.9)

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params, train), state, params)
        return (optax.apply_updates(params, updates), state), None

    carry = params, optimizer.init(params)
    (params, _), _ = jax.lax.scan(jax.checkpoint(step), carry, None, length=steps)
    return loss(params, held)


def gradient(rate: float, steps: int, params: Params, train: Batch, held: Batch) -> float:
    """d held-out loss / d learning rate."""
    arrays = jax.tree.map(lambda leaf: jax.numpy.asarray(leaf.numpy()), (params, train, held))
    return float(derivative(rate, steps, *arrays))
