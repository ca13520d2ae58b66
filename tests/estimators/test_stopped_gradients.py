"""Networks that stop gradients, hook them, or have no forward mode: against differences, or refused."""

import pytest
import torch
from asserts import assert_close_tree, finite_differences
from students import Conv, f64, feedback, given
from torch import nn
from torch.autograd.function import once_differentiable

from metapl import estimators
from metapl.core import forward_mode
from metapl.nn import functional
from metapl.registry.errors import InputError


class NoForward(torch.autograd.Function):
    """tanh without a forward mode."""

    @staticmethod
    def forward(ctx, x):
        y = torch.tanh(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, grad):
        (y,) = ctx.saved_tensors
        return grad * (1.0 - y * y)


class Odd(nn.Module):
    """A convolution and something that forward mode cannot, or must not, go through as reverse mode does."""

    def __init__(self, odd):
        super().__init__()
        self.first, self.odd, self.last = Conv(), odd, nn.Linear(5, 3)

    def forward(self, x):
        x = self.first(x)
        # As plain in evaluation, so that differences of the outer loss see nothing that is stopped.
        return self.last(self.odd(x) if self.training else x.tanh())


def no_forward(x):
    return NoForward.apply(x)


def hooked(x):
    y = x.tanh()
    if y.requires_grad:
        y.register_hook(lambda grad: -0.5 * grad)
    return y


def written_data(x):
    y = x.tanh()
    y.data = y.data * 2.0
    return y


def stopped(x):
    with torch.no_grad():
        scale = x.norm(dim=1, keepdim=True)
    return x / scale


@torch.no_grad()
def _norm(x):
    return x.norm(dim=1, keepdim=True)


def decorated(x):
    return x / _norm(x)


def switched(x):
    before = torch.is_grad_enabled()
    torch.set_grad_enabled(False)
    scale = x.norm(dim=1, keepdim=True)
    torch.set_grad_enabled(before)
    return x / scale


def written_in_place(x):
    y = 3.0 * x
    with torch.no_grad():
        y.mul_(2.0)
    return y * x


def through_data(x):
    return x / x.data.norm(dim=1, keepdim=True)


def nested(x):
    with torch.no_grad():
        scale = x.norm(dim=1, keepdim=True)
        with torch.enable_grad():
            shift = x.sum(1, keepdim=True)
    return x / scale + shift


def gathered(x):
    with torch.no_grad():
        low, high = torch.stack([x, x * x]).unbind(0), x.max(dim=1, keepdim=True)
    return x * low[1] + x.abs() / (1.0 + high.values.abs())


ODD = [
    no_forward, written_data, stopped, decorated, switched, written_in_place, through_data, nested, gathered,
]  # fmt: skip


def by_differences(at, width=1e-5):
    """Central differences of plain training in which what is stopped is stopped: one step, so nothing of it moves."""
    problem, (theta,), state, (batch,), outer_batch, _ = at

    def value(theta):
        leaves = {name: p.clone().requires_grad_() for name, p in state.params.items()}
        loss = problem.inner(leaves, state.buffers, torch.softmax(theta, -1), batch)[0].mean()
        grads = torch.autograd.grad(loss, list(leaves.values()))
        moved = {name: p.detach() - 0.3 * (g + 0.9 * 0.0) for (name, p), g in zip(leaves.items(), grads, strict=True)}
        return float(problem.outer(moved, state.buffers, outer_batch))

    return finite_differences(value, theta, width)


@pytest.mark.parametrize("odd", ODD)
def test_what_is_stopped_hooked_or_without_forward_mode(odd):
    at = given(lambda: Odd(odd))
    expected = by_differences(at)
    for estimator in (estimators.exact(), estimators.exact(route="reverse"), estimators.unroll()):
        assert_close_tree(feedback(estimator, at), expected, rtol=1e-6)
    if odd in (no_forward, written_data):
        with pytest.raises(InputError):
            feedback(estimators.exact(route="forward"), at)
    else:
        assert_close_tree(feedback(estimators.exact(route="forward"), at), expected, rtol=1e-6)


def _two_steps(instance):
    (theta,), (batch,) = instance.thetas, instance.inner_batches
    return instance._replace(thetas=[theta, theta.flip(0)], inner_batches=[batch, batch.flip(1)])


@pytest.mark.parametrize("odd", [stopped, decorated, switched, through_data, nested, gathered])
def test_a_stopped_value_is_a_constant_in_every_mode(odd):
    """`jvp` and `unroll(method="mixed")` against reverse mode, which stops by itself."""
    at, along = f64(3, 4), f64(3, 4, seed=1)
    leaf = at.clone().requires_grad_()
    value = odd(leaf).sin().sum()
    expected = (torch.autograd.grad(value, leaf)[0] * along).sum()
    for ambient in (torch.enable_grad, torch.no_grad):
        with ambient():
            found, slope = forward_mode.jvp(lambda x: odd(x).sin().sum(), (at,), (along,))
        assert_close_tree((found, slope), (value, expected), rtol=1e-12)
    several = _two_steps(given(lambda: Odd(odd)))
    one, *others = (e.estimate(several, e.init())[0].grads for e in (
        estimators.unroll(), estimators.exact(), estimators.exact(method="mixed"), estimators.exact(method="reverse")
    ))  # fmt: skip
    for other in others:
        assert_close_tree(other, one, rtol=1e-11)


class Straight(torch.autograd.Function):
    """A sign whose derivative is taken for 1, in forward mode for 0."""

    @staticmethod
    def forward(x):
        return x.sign()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(_ctx, grad):
        return grad

    @staticmethod
    def jvp(_ctx, tangent):
        return 0.0 * tangent


def straight(x):
    return x + Straight.apply(x)


def straight_and_stopped(x):
    with torch.no_grad():
        sign = Straight.apply(x * x)
    return x * sign


class Hooked(nn.Module):
    """A module whose gradient is turned round by a full backward hook."""

    def __init__(self):
        super().__init__()
        self.inside = nn.Tanh()
        self.inside.register_full_backward_hook(lambda module, grads, _: (-2.0 * grads[0],))

    def forward(self, x):
        return self.inside(x)


@pytest.mark.parametrize("odd", [straight, straight_and_stopped])
def test_gradients_that_are_not_the_derivative(odd):
    at = given(lambda: Odd(odd))
    expected = by_differences(at)
    for estimator in (estimators.exact(), estimators.exact(route="reverse"), estimators.unroll()):
        assert_close_tree(feedback(estimator, at), expected, rtol=1e-6)


@pytest.mark.parametrize("how", [{"route": "forward"}, {"fraction": 0.5}])
def test_forward_mode_is_refused_where_it_is_not_right(how):
    with pytest.raises(InputError, match="does not see what this network's autograd functions"):
        feedback(estimators.exact(**how), given(lambda: Odd(straight)))


ALL = [estimators.exact(), estimators.exact(route="forward"), estimators.unroll(), estimators.implicit()]
ALL += [estimators.difference(), estimators.truncated(), estimators.exact(fraction=0.5), estimators.unadapted()]


@pytest.mark.parametrize("estimator", ALL)
def test_a_hooked_gradient_is_refused(estimator):
    """Whoever goes back through it twice would run the hook twice, and forward mode would pass it by."""
    with pytest.raises(InputError, match="changes a gradient, which is no derivative then"):
        feedback(estimator, given(lambda: Odd(hooked)))


@pytest.mark.parametrize("estimator", ALL)
def test_a_hook_that_looks_on_is_none_of_our_business(estimator):
    seen = []

    def watched(x):
        y = x.tanh()
        if y.requires_grad:
            y.register_hook(lambda grad: seen.append(grad.shape))
        return y

    found = feedback(estimator, given(lambda: Odd(watched)))
    assert_close_tree(found, feedback(estimator, given(lambda: Odd(torch.tanh))), rtol=1e-12)
    assert seen


def test_a_hook_of_a_module_or_a_parameter_is_refused_when_it_is_made():
    with pytest.raises(InputError, match=r"inside \(Tanh\) has a backward hook"):
        functional.from_module(Hooked)

    def on_parameter():
        module = nn.Linear(4, 3)
        module.weight.register_hook(lambda grad: grad)
        return module

    with pytest.raises(InputError, match="Linear has a hook on the parameter weight"):
        functional.from_module(on_parameter)


class Once(torch.autograd.Function):
    """A cube that can be differentiated once."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return 3.0 * grad * ctx.saved_tensors[0] ** 2


@pytest.mark.parametrize("first", [Conv, lambda: nn.Linear(4, 5)])
def test_a_function_of_one_derivative_is_refused(first):
    """Torch leaves an error where nobody comes by, and cuts the gradient off: it would be wrong in silence."""

    class Cubed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = first(), nn.Linear(5, 3)

        def forward(self, x):
            return self.last(Once.apply(self.first(x)))

    for estimator in (estimators.exact(), estimators.unroll(), estimators.higher()):
        with pytest.raises(InputError, match="once_differentiable"):
            feedback(estimator, given(Cubed))
    assert feedback(estimators.difference(), given(Cubed)).abs().sum() > 0


def test_forward_over_reverse_mode_refuses_what_has_no_symmetric_second_derivative():
    several = _two_steps(given(lambda: Odd(straight)))
    with pytest.raises(InputError, match=r"take exact\(\), or method='replay'"):
        feedback(estimators.exact(method="mixed"), several)
    one, other = (feedback(estimator, several) for estimator in (estimators.unroll(), estimators.exact()))
    assert_close_tree(one, other, rtol=1e-11)
