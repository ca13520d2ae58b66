"""The penalty of ridge regression by its hypergradient: implicitly, through training, and in closed form.

    python examples/ridge.py

The penalty is exp(θ), one number. The outer loss is that of held-out patients, and its derivative in θ is known: for
w = A⁻¹ Xᵀy / n with A = XᵀX / n + exp(θ), it is −exp(θ) ⟨∇ outer(w), A⁻¹ w⟩.
"""

import torch
from sklearn.datasets import load_diabetes

import metapl as mp


def data():
    """Ten standardised features and a target of 442 patients: every other one to fit, the rest to judge by."""
    x, y = (torch.tensor(array, dtype=torch.float64) for array in load_diabetes(return_X_y=True))
    x, y = x / x.std(0), (y - y.mean()) / y.std()
    return (x[::2], y[::2]), (x[1::2], y[1::2])


def error(w, batch):
    """Half the mean square."""
    x, y = batch
    return 0.5 * ((x @ w - y) ** 2).mean()


def inner(w, theta, batch):
    """What w minimises."""
    return error(w, batch) + 0.5 * theta.exp() * (w**2).sum()


def solve(theta, batch):
    """A, and the w of least inner loss."""
    x, y = batch
    a = x.T @ x / len(y) + theta.exp() * torch.eye(x.shape[1], dtype=x.dtype)
    return a, torch.linalg.solve(a, x.T @ y / len(y))


def closed_form(theta, fit, held_out):
    """The outer loss and its derivative by hand."""
    a, w = solve(theta, fit)
    x, y = held_out
    return error(w, held_out), -theta.exp() * (x.T @ (x @ w - y) / len(y)) @ torch.linalg.solve(a, w)


def implicit(theta, fit, held_out):
    """By the implicit function theorem: w is where the gradient of the inner loss is zero, whatever finds it."""

    def outer(theta):
        w = mp.implicit.root(
            lambda w, theta: mp.grad_inside(inner, w, theta, fit)[0], lambda theta: solve(theta, fit)[1], theta
        )
        return error(w, held_out)

    gradient, value = torch.func.grad_and_value(outer)(theta)
    return value, gradient


def unrolled(theta, fit, held_out, steps=400):
    """Through gradient descent with momentum, which converges to w: all of it is differentiated."""
    optimizer, start = mp.sgd(0.4, momentum=0.8), torch.zeros_like(fit[0][0])
    found = mp.hypergradient(inner, lambda w, _theta: error(w, held_out), optimizer, theta, start, [fit] * steps)
    return found.value, found.grads


def main():
    """Compare the three routes, then descend by the implicit one."""
    fit, held_out = data()
    theta = torch.tensor(0.0, dtype=torch.float64)
    for route in (closed_form, implicit, unrolled):
        value, gradient = route(theta, fit, held_out)
        print(f"{route.__name__:12} held-out loss {value:.6f}, hypergradient {gradient:.15f}")
    for _ in range(30):
        theta = theta - 50.0 * implicit(theta, fit, held_out)[1]
    print(f"learned penalty {theta.exp():.4f}: held-out loss {closed_form(theta, fit, held_out)[0]:.6f}")


if __name__ == "__main__":
    main()
