"""Mistakes in a call of an estimator, each one line that says what to do."""

import pytest
from students import feedback, given
from torch import nn

from metapl import estimators
from metapl.registry.errors import InputError


class Attention(nn.Module):
    """Torch's fused kernel, which has neither a second derivative nor a forward mode on a CPU."""

    def __init__(self):
        super().__init__()
        self.inside, self.last = nn.Linear(4, 8), nn.Linear(2, 3)

    def forward(self, x):
        x = self.inside(x).reshape(len(x), 1, 4, 2)
        return self.last(nn.functional.scaled_dot_product_attention(x, x, x).mean((1, 2)))


@pytest.mark.parametrize(
    "estimator", [estimators.exact(), estimators.exact(route="reverse"), estimators.unroll(), estimators.implicit()]
)
def test_attention_without_a_second_derivative(estimator):
    with pytest.raises(InputError, match=r"difference\(\) or first_order\(\); or attention within .*MATH") as found:
        feedback(estimator, given(Attention))
    assert "\n" not in str(found.value)


def test_what_needs_no_second_derivative_takes_it():
    assert feedback(estimators.difference(), given(Attention)).abs().sum() > 0


@pytest.mark.parametrize("name", ["exact", "unroll", "difference", "sama", "implicit", "forward", "none"])
def test_lessons_and_batches_are_lists_of_steps(name):
    problem, thetas, state, inner_batches, *rest = given(lambda: nn.Linear(4, 3))
    estimator = getattr(estimators, name)()
    with pytest.raises(ValueError, match=r"lessons is a Tensor: it must be a list of one entry a step, \[lessons\]"):
        estimator.estimate(problem, thetas[0], state, inner_batches, *rest)
    with pytest.raises(ValueError, match="1 lessons and 2 batches"):
        estimator.estimate(problem, thetas, state, inner_batches * 2, *rest)


def test_a_learner_without_parameters():
    problem, thetas, state, inner_batches, *rest = given(lambda: nn.Linear(4, 3))
    with pytest.raises(InputError, match="no parameters: there is nothing to train"):
        estimators.truncated().estimate(problem, thetas, state._replace(params={}), inner_batches, *rest)
