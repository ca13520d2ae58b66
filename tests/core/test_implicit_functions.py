"""`implicit.root` and `implicit.fixed_point` against closed forms: ridge regression, a contraction, a square root."""

import functools

import numpy as np
import pytest
import torch
from asserts import finite_differences, relative_error

from metapl.core import implicit, inside, linear, rng, tree
from metapl.registry.errors import InputError

f64 = functools.partial(torch.tensor, dtype=torch.float64)
SIZE = 4


def normal(seed, *shape):
    return rng.normal(rng.key(seed), shape, torch.float64)


X, Y, HELD_X, HELD_Y = normal(1, 12, SIZE), normal(2, 12), normal(3, 9, SIZE), normal(4, 9)
PENALTY = f64([-1.0, 0.0, 0.5, 1.0])
SOLVERS = {
    "cg": linear.cg(iterations=SIZE + 1),
    "neumann": linear.neumann(iterations=150, rate=0.3),
    "gmres": linear.gmres(iterations=SIZE),
    "normal-cg": linear.normal_cg(iterations=2 * SIZE),
    "dense": linear.dense(),
}


def system(penalty, x):
    return x.T @ x / len(x) + torch.diag(penalty.exp()), x.T @ Y / len(x)


def ridge(params, penalty, x):
    return ((x @ params["w"] - Y) ** 2).mean() / 2 + (penalty.exp() * params["w"] ** 2).sum() / 2


def outer(w):
    return ((HELD_X @ w - HELD_Y) ** 2).mean()


def by_root(penalty, x, solver):
    def equation(params, penalty):
        return inside.gradient(ridge, params, penalty, x)[0]

    def solve(penalty):  # by another library
        return {"w": torch.as_tensor(np.linalg.solve(*(one.detach().numpy() for one in system(penalty, x))))}

    return outer(implicit.root(equation, solve, penalty, solver=solver)["w"])


def in_closed_form(penalty, x):
    return outer(torch.linalg.solve(*system(penalty, x)))


@pytest.mark.parametrize("name", SOLVERS)
def test_the_penalties_of_ridge_regression(name):
    """One for each weight; the examples are closed over, and their derivative is as right."""
    leaves = [PENALTY.clone().requires_grad_(), X.clone().requires_grad_()]
    truth = torch.autograd.grad(in_closed_form(*leaves), leaves)
    found = torch.autograd.grad(by_root(*leaves, SOLVERS[name]), leaves)
    assert relative_error(found, truth) <= 1e-10
    assert relative_error(torch.func.grad(by_root)(PENALTY, X, SOLVERS[name]), truth[0]) <= 1e-10


@pytest.mark.parametrize("name", SOLVERS)
def test_many_problems_at_once(name):
    """Of other penalties and other examples, by a solver in torch."""

    def one(penalty, x):
        return outer(
            implicit.root(
                lambda w, penalty: inside.gradient(ridge, {"w": w}, penalty, x)[0]["w"],
                lambda penalty: torch.linalg.solve(*system(penalty, x)),
                penalty,
                solver=SOLVERS[name],
            )
        )

    penalties, xs = torch.stack([PENALTY, PENALTY + 0.3]), torch.stack([X, 0.9 * X])
    found = torch.vmap(torch.func.grad(one))(penalties, xs)
    truth = torch.stack([torch.func.grad(in_closed_form)(penalties[i], xs[i]) for i in range(2)])
    assert relative_error(found, truth) <= 1e-10


A = 0.3 * normal(7, SIZE, SIZE)


def contraction(w, theta):
    return (A @ w + theta).tanh()


def iterated(theta):
    w = torch.zeros_like(theta)
    for _ in range(300):
        w = contraction(w, theta)
    return w


@pytest.mark.parametrize("name", ["default", "gmres", "normal-cg", "dense"])
def test_a_fixed_point_that_is_not_symmetric(name):
    solver = {} if name == "default" else {"solver": SOLVERS[name]}
    theta = normal(8, SIZE)
    found = torch.func.grad(lambda theta: implicit.fixed_point(contraction, iterated, theta, **solver).exp().sum())
    assert relative_error(found(theta), finite_differences(lambda theta: iterated(theta).exp().sum(), theta)) <= 1e-8


def test_second_derivatives():
    """d²√θ/dθ² = −θ^(−3/2)/4, by way of the solver's own derivative."""

    def sqrt(theta):
        return implicit.root(lambda w, t: w * w - t, torch.sqrt, theta, solver=linear.dense())

    theta = f64(3.0).requires_grad_()
    (first,) = torch.autograd.grad(sqrt(theta), theta, create_graph=True)
    assert abs(torch.autograd.grad(first, theta)[0].item() + 0.25 * 3.0**-1.5) <= 1e-14
    assert abs(torch.func.grad(torch.func.grad(sqrt))(f64(3.0)).item() + 0.25 * 3.0**-1.5) <= 1e-14


def test_an_equation_of_another_shape_is_named():
    theta = f64([1.0, 4.0]).requires_grad_()
    found = implicit.root(lambda w, t: (w * w - t).sum(), torch.sqrt, theta)
    with pytest.raises(InputError, match=r"^the equation must be shaped as its solution, \[2\]: it returned \[\]$"):
        found.sum().backward()


@pytest.mark.parametrize("name", [name for name in SOLVERS if name != "neumann"])
@pytest.mark.parametrize("damping", [0.0, 0.7])
def test_a_solver_and_its_damping(name, damping):
    """Of a symmetric positive definite matrix over a tree; more iterations than numbers change nothing."""
    matrix = system(PENALTY, X)[0]

    def apply(q):
        found = matrix @ torch.cat([q["a"], q["b"].reshape(-1)])
        return {"a": found[:1], "b": found[1:].reshape(1, 3)}

    v = normal(9, SIZE)
    options = {} if name == "dense" else {"iterations": 2 * SIZE}
    q = linear.SOLVERS[name](damping=damping, **options)(apply, {"a": v[:1], "b": v[1:].reshape(1, 3)})
    truth = torch.linalg.solve(matrix + damping * torch.eye(SIZE, dtype=torch.float64), v)
    assert relative_error(torch.cat(tree.leaves(tree.map(lambda leaf: leaf.reshape(-1), q))), truth) <= 1e-10


@pytest.mark.parametrize("name", SOLVERS)
def test_nothing_to_solve(name):
    zero = torch.zeros(SIZE, dtype=torch.float64)
    assert torch.equal(SOLVERS[name](lambda q: 0.5 * q, zero), zero)


UNSOLVED = {
    "no symmetric matrix": (
        lambda: (f64([[0.0, 1.0], [-1.0, 0.1]]), f64([1.0, 1.0])),
        lambda matrix: implicit.root(
            lambda w, t: matrix[0] @ w - t, lambda t: torch.linalg.solve(matrix[0], t), matrix[1]
        ),
    ),
    "a slow contraction": (
        lambda: (f64(0.99), f64(1.0)),
        lambda of: implicit.fixed_point(lambda w, t: of[0] * w + t, lambda t: t / (1 - of[0]), of[1]),
    ),
}


@pytest.mark.parametrize("case", UNSOLVED)
def test_an_equation_that_is_not_solved_is_warned_of(case):
    make, solve = UNSOLVED[case]
    constant, theta = make()
    theta.requires_grad_()
    found = solve((constant, theta))
    with pytest.warns(UserWarning, match=r"is not solved: [\d.e+]+ of its right side is left\. Take solver=mp\.linear"):
        found.sum().backward()


def test_an_equation_that_is_solved_is_not_warned_of():
    matrix, theta = UNSOLVED["no symmetric matrix"][0]()
    theta.requires_grad_()
    solver = linear.dense()
    implicit.root(
        lambda w, t: matrix @ w - t, lambda t: torch.linalg.solve(matrix, t), theta, solver=solver
    ).sum().backward()
    np.testing.assert_allclose(theta.grad, torch.linalg.solve(matrix.T, torch.ones_like(theta)), rtol=1e-12)


def test_forward_mode_is_refused_in_one_line():
    def root(theta):
        return implicit.root(lambda w, theta: w * w - theta, lambda theta: theta.sqrt(), theta)

    with pytest.raises(InputError, match=r"^forward mode does not go through an implicit solution: take torch\.func"):
        torch.func.jvp(root, (f64(4.0),), (f64(1.0),))
    assert torch.func.jacrev(torch.func.grad(root))(f64(4.0)) == pytest.approx(-1 / 32, rel=1e-12)
