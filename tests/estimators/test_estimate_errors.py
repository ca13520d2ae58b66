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
    with pytest.raises(InputError, match=r"difference\(\) or first_order\(\), .*or attention within .*MATH") as found:
        feedback(estimator, given(Attention))
    assert "\n" not in str(found.value)


def test_what_needs_no_second_derivative_takes_it():
    assert feedback(estimators.difference(), given(Attention)).abs().sum() > 0


@pytest.mark.parametrize("name", ["exact", "unroll", "difference", "sama", "implicit", "forward", "none"])
def test_thetas_and_inner_batches_are_lists_of_steps(name):
    instance = given(lambda: nn.Linear(4, 3))
    estimator = getattr(estimators, name)()
    for field in ("thetas", "inner_batches"):
        (one,) = getattr(instance, field)
        message = rf"{field} is a Tensor: it must be a list of one entry a step, \[{field}\] for one step"
        with pytest.raises(ValueError, match=message):
            estimator.estimate(instance._replace(**{field: one}), estimator.init())
    with pytest.raises(ValueError, match="1 thetas and 2 inner batches: every step needs one of each"):
        estimator.estimate(instance._replace(inner_batches=list(instance.inner_batches) * 2), estimator.init())


def test_a_train_state_without_parameters():
    instance = given(lambda: nn.Linear(4, 3))
    with pytest.raises(InputError, match="no parameters: there is nothing to train"):
        estimators.truncated().estimate(instance._replace(state=instance.state._replace(params={})), ())
