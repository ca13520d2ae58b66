"""Gradients that nobody differentiates again."""

import subprocess
import sys

import pytest
import torch
from asserts import assert_close_tree, assert_pure, finite_differences

from metapl.core import autodiff, forward_mode, torch_private, tree
from metapl.registry.errors import InputError


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
    value, aux, grads = assert_pure(lambda at: autodiff.value_and_grad(scalar, at), point())
    assert_close_tree(value, scalar(point())[0], rtol=0.0)
    assert_close_tree(aux, {"twice": 2.0 * point()["w"]}, rtol=0.0)
    assert_close_tree(grads, finite_differences(lambda at: scalar(at)[0], point()), rtol=1e-8)


def test_a_scalar_alone_has_no_aux():
    value, aux, grads = autodiff.value_and_grad(lambda at: scalar(at)[0], point())
    assert aux == ()
    assert_close_tree(value, scalar(point())[0], rtol=0.0)
    assert_close_tree(grads, finite_differences(lambda at: scalar(at)[0], point()), rtol=1e-8)


def test_pullback_is_the_gradient_of_the_product_with_the_cotangent():
    cotangent = (torch.tensor([1.0, -3.0]).double(), torch.arange(6.0).double().reshape(3, 2))

    def product(at):
        output, _ = curve(at)
        return sum((a * b).sum() for a, b in zip(output, cotangent, strict=True))

    def both(at):
        output, aux, pull = autodiff.vjp(curve, at)
        return output, aux, pull(cotangent)

    output, aux, grads = assert_pure(both, point())
    assert_close_tree((output, aux), curve(point()), rtol=0.0)
    assert_close_tree(grads, finite_differences(product, point()), rtol=1e-8)


def test_zeros_where_the_output_does_not_depend_on_a_leaf():
    at = {"used": torch.tensor(3.0), "unused": torch.ones(2)}
    _, _, grads = autodiff.value_and_grad(lambda at: (at["used"] ** 2, ()), at)
    assert_close_tree(grads, {"used": torch.tensor(6.0), "unused": torch.zeros(2)}, rtol=0.0)


def test_zeros_where_the_output_is_a_constant():
    value, _, grads = autodiff.value_and_grad(lambda at: (torch.tensor(5.0), ()), {"x": torch.ones(2)})
    assert float(value) == 5.0
    assert_close_tree(grads, {"x": torch.zeros(2)}, rtol=0.0)


def test_a_constant_among_the_outputs_is_skipped():
    _, _, pull = autodiff.vjp(lambda x: ((torch.ones(2), 3.0 * x), ()), torch.ones(()))
    assert float(pull((torch.ones(2), torch.tensor(2.0)))) == 6.0


def test_integer_leaves_get_zeros():
    """An optimiser's state holds a step count."""
    at = {"x": torch.tensor(2.0), "step": torch.tensor(3)}
    _, _, grads = autodiff.value_and_grad(lambda at: (at["x"] ** at["step"], ()), at)
    assert_close_tree(grads, {"x": torch.tensor(12.0), "step": torch.tensor(0)}, rtol=0.0)


def test_leaves_that_belong_to_a_graph_are_cut_from_it():
    outside = torch.tensor(2.0, requires_grad=True)
    value, aux, grad = autodiff.value_and_grad(lambda x: (x * outside, x + outside), outside * 3.0)
    assert outside.grad is None
    assert not any(leaf.requires_grad for leaf in (value, aux, grad))
    assert float(grad) == 2.0


def test_works_inside_no_grad():
    with torch.no_grad():
        _, _, grad = autodiff.value_and_grad(lambda x: (x**3, ()), torch.tensor(2.0))
        assert not torch.is_grad_enabled()
    assert float(grad) == 12.0


def test_takes_forward_mode_inside():
    """d/dx of the directional derivative of x³ along 5: 30 x."""

    def slope(x):
        return torch.func.jvp(lambda y: y**3, (x,), (torch.tensor(5.0),))[1], ()

    _, _, grad = autodiff.value_and_grad(slope, torch.tensor(2.0))
    assert float(grad) == 60.0


def test_aux_may_hold_what_is_not_a_tensor():
    _, aux, _ = autodiff.value_and_grad(lambda x: (x, {"name": "a", "count": 3}), torch.tensor(2.0))
    assert aux == {"name": "a", "count": 3}


def test_the_way_back_can_be_taken_once():
    _, _, pull = autodiff.vjp(lambda x: (x.exp() * x, ()), torch.tensor(2.0))
    pull(torch.tensor(1.0))
    with pytest.raises(RuntimeError, match="second time"):
        pull(torch.tensor(1.0))


def both(at):
    """A pullback, all of it, and `value_and_grad` of a function that closes over what a transform may track."""
    output, aux, pull = autodiff.vjp(curve, at)
    cotangent = tree.map(lambda leaf: torch.full_like(leaf, 3.0), output)
    return output, aux, pull(cotangent), autodiff.value_and_grad(lambda inside: scalar(tree.add(inside, at)), at)


def batch(at):
    return tree.map(lambda leaf: torch.stack([leaf + 1.0, leaf]), at)


def second(value):
    return tree.map(lambda leaf: leaf[1], value)


def all_of(fn):
    """The numbers of `fn`, as a function that torch.func can differentiate."""
    return lambda at: sum(leaf.double().sum() for leaf in [*tree.leaves(fn(at)), *tree.leaves(at)])


TRANSFORMS = {
    "vmap": lambda fn, at: second(torch.vmap(fn)(batch(at))),
    "grad": lambda fn, at: torch.func.grad(lambda at: (at["w"].sum(), fn(at)), has_aux=True)(at)[1],
    "jvp": lambda fn, at: torch.func.jvp(fn, (at,), (at,))[0],
    "vmap-grad": lambda fn, at: TRANSFORMS["vmap"](lambda at: TRANSFORMS["grad"](fn, at), at),
    "grad-vmap": lambda fn, at: TRANSFORMS["grad"](lambda at: TRANSFORMS["vmap"](fn, at), at),
}
every_transform = pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)


@every_transform
def test_inside_of_a_transform_as_outside(transform):
    assert_close_tree(transform(both, point()), both(point()), rtol=1e-15)


def test_inside_of_a_transform_the_results_are_data():
    """In reverse and in forward mode, of one level and of the one around it."""
    ones = tree.map(torch.ones_like, point())
    assert_close_tree(torch.func.grad(all_of(both))(point()), ones, rtol=0.0)
    value, tangent = torch.func.jvp(both, (point(),), (ones,))
    assert not any(leaf.any() for leaf in tree.leaves(tangent) if leaf.is_floating_point())
    assert tree.leaves(value)[0].any()

    def nested(outer):
        return all_of(torch.func.grad(all_of(lambda inner: both(tree.add(inner, outer)))))(outer)

    assert_close_tree(torch.func.grad(nested)(point()), ones, rtol=0.0)


def awkward(at):
    """Integers and a constant among the outputs, an unused leaf, an integer leaf; no tensors in aux."""
    output = {"second": at["x"] ** at["step"], "constant": torch.ones(2).double(), "count": at["step"] + 1}
    return {**output, "first": 2.0 * at["x"]}, {"name": "a", "none": None, "empty": (), "x": at["x"], "count": 3}


@pytest.mark.parametrize("transform", ["none", "vmap", "grad", "jvp"])
def test_awkward_leaves(transform):
    """Zeros for what is unused or an integer. Cotangents go by name, whatever their order."""
    at = {"x": torch.tensor([2.0, 3.0]).double(), "step": torch.tensor(3), "unused": torch.ones(1).double()}

    def pulled(x):
        _, aux, pull = autodiff.vjp(awkward, {**at, "x": x})
        assert (aux["name"], aux["none"], aux["empty"], aux["count"]) == ("a", None, (), 3)
        cotangent = {"first": x, "second": 10.0 * x, "constant": torch.ones(2).double(), "count": torch.tensor(0)}
        return pull(cotangent), aux["x"]

    grads, x = {
        "none": pulled,
        "vmap": lambda x: second(torch.vmap(pulled)(torch.stack([x, x]))),
        "grad": lambda x: torch.func.grad(lambda x: (x.sum(), pulled(x)), has_aux=True)(x)[1],
        "jvp": lambda x: torch.func.jvp(pulled, (x,), (x,))[0],
    }[transform](at["x"])
    expected = 2.0 * at["x"] + 30.0 * at["x"] ** 3
    assert_close_tree(grads, {"x": expected, "step": torch.tensor(0), "unused": torch.zeros(1).double()}, rtol=1e-15)
    assert torch.equal(x, at["x"])


def test_transforming_tells_whether_a_transform_is_running():
    seen = []

    def look(x):
        seen.append(torch_private.inside_transform())
        return (x**2).sum()

    def fail(x):
        raise KeyError(torch_private.inside_transform())

    x = torch.ones(2)
    for transform in (torch.vmap, torch.func.grad, torch.func.jacrev, torch.func.jacfwd, torch.func.hessian):
        assert not torch_private.inside_transform()
        transform(look)(x)
        assert not torch_private.inside_transform()
        with pytest.raises(KeyError, match="True"):
            transform(fail)(x)
        assert not torch_private.inside_transform()
    _, pull = torch.func.vjp(look, x)
    assert not torch_private.inside_transform()
    pull(torch.ones(()))
    torch.func.jvp(look, (x,), (x,))
    assert all(seen)
    seen.clear()
    torch.autograd.grad(look(x.requires_grad_()), x)
    with torch.no_grad():
        look(x)
    assert seen == [False, False]


def test_forward_mode_warns_nobody():
    """In a process of its own, whose first use of it this is."""
    code = (
        "import warnings; warnings.simplefilter('error')\n"
        "import torch; from metapl.core import forward_mode\n"
        "x = torch.tensor([[1.0, 2.0, 4.0]])\n"
        "print(forward_mode.jvp(lambda x: torch.nn.functional.layer_norm(x, (3,)).sum(), (x,), (x,))[1].shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("torch.Size([])", "")


def test_forward_over_reverse_mode_sees_a_hook_that_changes_a_gradient():
    def loss(x):
        y = x**3
        y.register_hook(lambda grad: 2.0 * grad)
        return y.sum()

    at = torch.tensor([1.0, 2.0])
    with pytest.raises(InputError, match="a hook of the network changes a gradient"):
        forward_mode.jvp(torch.func.grad(loss), (at,), (at,))
