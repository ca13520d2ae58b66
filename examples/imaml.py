"""iMAML on Omniglot: the meta-gradient at a regularised solution, whatever path led there (Rajeswaran et al., 2019).

Run it as `python examples/imaml.py --data FOLDER`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import maml
import omniglot
from torch import Tensor
from torch.nn.functional import cross_entropy

import metapl as mp


def learn(
    model: mp.Model, steps: int, theta: Any, task: omniglot.Tasks, *, pull: float = 2.0, solver: Any = None
) -> tuple[Tensor, Tensor]:
    """A task at the minimum of its loss + pull / 2 |params − θ|², which `steps` steps from θ come near to.

    By the implicit function theorem the gradient with respect to θ is pull (H + pull)⁻¹ v, where H is the Hessian of
    the task's loss and v the gradient of the queries' loss. It takes no memory of the steps.
    """
    x, y, query_x, query_y = task

    def loss(params: Any, theta: Any) -> Tensor:
        away = mp.tree.sub(params, theta)
        fit = cross_entropy(model.apply(params, {}, x, train=True)[0], y)
        return fit + 0.5 * pull * mp.tree.dot(away, away)

    def equation(params: Any, theta: Any) -> Any:
        return mp.grad_inside(loss, params, theta)[0]

    def solve(theta: Any) -> Any:
        params = theta
        for _ in range(steps):
            params = mp.tree.sub(params, mp.tree.scale(0.1, equation(params, theta)))
        return params

    params = mp.implicit.root(equation, solve, theta, solver=solver or mp.linear.cg(iterations=5))
    return maml.judged(model.apply(params, {}, query_x, train=True)[0], query_y)


def main() -> None:
    """Train on the characters of one split, and test on those of the other."""
    model = mp.from_module(omniglot.network)
    maml.run(partial(learn, model), model.init(mp.key(0))[0], train_steps=16, test_steps=(16,))


if __name__ == "__main__":
    main()
