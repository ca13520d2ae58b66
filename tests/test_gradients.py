"""Gradients that nobody differentiates again."""

import pytest
import torch
from asserts import assert_close_tree, assert_pure, finite_differences

from metapl import gradients


def point():
    generator = torch.Generator().manual_seed(0)
    return {"w": torch.randn(3, 2, generator=generator, dtype=torch.float64), "b": torch.tensor([0.3, -2.0]).double()}


def curve(at):
    """Two outputs of different shapes, and an aux."""
    hidden = torch.tanh(at["w"] * at["b"])
    return (hidden.sum(dim=0), hidden.exp()), {"hidden": hidden, "step": torch.tensor(7)}


def scalar(at):
    return (torch.tanh(at["w"] * at["b"]).exp().sum(), {"twice": 2.0 * at["w"]})


def test_value_and_grad_equals_finite_differences():
    value, aux, grads = assert_pure(lambda at: gradients.value_and_grad(scalar, at), point())
    assert_close_tree(value, scalar(point())[0], rtol=0.0)
    assert_close_tree(aux, {"twice": 2.0 * point()["w"]}, rtol=0.0)
    assert_close_tree(grads, finite_differences(lambda at: scalar(at)[0], point()), rtol=1e-8)


def test_pullback_is_the_gradient_of_the_product_with_the_cotangent():
    cotangent = (torch.tensor([1.0, -3.0]).double(), torch.arange(6.0).double().reshape(3, 2))

    def product(at):
        output, _ = curve(at)
        return sum((a * b).sum() for a, b in zip(output, cotangent, strict=True))

    def both(at):
        output, aux, pull = gradients.pullback(curve, at)
        return output, aux, pull(cotangent)

    output, aux, grads = assert_pure(both, point())
    assert_close_tree((output, aux), curve(point()), rtol=0.0)
    assert_close_tree(grads, finite_differences(product, point()), rtol=1e-8)


def test_zeros_where_the_output_does_not_depend_on_a_leaf():
    at = {"used": torch.tensor(3.0), "unused": torch.ones(2)}
    _, _, grads = gradients.value_and_grad(lambda at: (at["used"] ** 2, ()), at)
    assert_close_tree(grads, {"used": torch.tensor(6.0), "unused": torch.zeros(2)}, rtol=0.0)


def test_zeros_where_the_output_is_a_constant():
    value, _, grads = gradients.value_and_grad(lambda at: (torch.tensor(5.0), ()), {"x": torch.ones(2)})
    assert float(value) == 5.0
    assert_close_tree(grads, {"x": torch.zeros(2)}, rtol=0.0)


def test_a_constant_among_the_outputs_is_skipped():
    _, _, pull = gradients.pullback(lambda x: ((torch.ones(2), 3.0 * x), ()), torch.ones(()))
    assert float(pull((torch.ones(2), torch.tensor(2.0)))) == 6.0


def test_integer_leaves_get_zeros():
    """An optimiser's state holds a step count."""
    at = {"x": torch.tensor(2.0), "step": torch.tensor(3)}
    _, _, grads = gradients.value_and_grad(lambda at: (at["x"] ** at["step"], ()), at)
    assert_close_tree(grads, {"x": torch.tensor(12.0), "step": torch.tensor(0)}, rtol=0.0)


def test_leaves_that_belong_to_a_graph_are_cut_from_it():
    outside = torch.tensor(2.0, requires_grad=True)
    value, aux, grad = gradients.value_and_grad(lambda x: (x * outside, x + outside), outside * 3.0)
    assert outside.grad is None
    assert not any(leaf.requires_grad for leaf in (value, aux, grad))
    assert float(grad) == 2.0


def test_works_inside_no_grad():
    with torch.no_grad():
        _, _, grad = gradients.value_and_grad(lambda x: (x**3, ()), torch.tensor(2.0))
        assert not torch.is_grad_enabled()
    assert float(grad) == 12.0


def test_takes_forward_mode_inside():
    """d/dx of the directional derivative of x³ along 5: 30 x."""

    def slope(x):
        return torch.func.jvp(lambda y: y**3, (x,), (torch.tensor(5.0),))[1], ()

    _, _, grad = gradients.value_and_grad(slope, torch.tensor(2.0))
    assert float(grad) == 60.0


def test_aux_may_hold_what_is_not_a_tensor():
    _, aux, _ = gradients.value_and_grad(lambda x: (x, {"name": "a", "count": 3}), torch.tensor(2.0))
    assert aux == {"name": "a", "count": 3}


def test_the_way_back_can_be_taken_once():
    _, _, pull = gradients.pullback(lambda x: (x.exp() * x, ()), torch.tensor(2.0))
    pull(torch.tensor(1.0))
    with pytest.raises(RuntimeError, match="second time"):
        pull(torch.tensor(1.0))
