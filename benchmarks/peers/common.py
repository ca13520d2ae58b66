"""What the scripts of this folder share: three small problems, finite differences, and the line of JSON.

The first problem has one meta-parameter, φ, so that a meta-gradient is one number: φ scales the labels that three
weights are fitted to, and the outer loss, called the exam, judges the weights after a few steps. Everything is float64.
"""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Callable
from importlib.metadata import version
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from metapl import estimators, optim
from metapl.core import losses, rng, targets, tree
from metapl.core.types import Instance, Optimizer, Problem, TargetTransform, TrainState
from metapl.nn import functional

PHI = 0.7
STEPS = 3
X = torch.sin(torch.arange(12.0, dtype=torch.float64)).reshape(4, 3)
Y = torch.cos(torch.arange(4.0, dtype=torch.float64))
DEAD = X * torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
"""`X` with a dead input, as the border pixels of many images are: the second weight's gradient is exactly zero."""


# Another problem, for solvers that are exact on quadratics: minimise ½ zᵀAz − φ bᵀz over z, whose solution is φ A⁻¹b.
A = torch.diag(torch.arange(1.0, 7.0, dtype=torch.float64)) + 0.1
B = torch.ones(6, dtype=torch.float64)
TARGET = torch.linspace(-1.0, 1.0, 6, dtype=torch.float64)


def quadratic(z: Tensor, phi: Tensor) -> Tensor:
    """What z minimises, given φ."""
    return 0.5 * z @ A @ z - phi * B @ z


def miss(z: Tensor) -> Tensor:
    """What is asked of the solution."""
    return 0.5 * (z - TARGET).square().sum()


def hypergradient() -> float:
    """d miss / d φ at the solution, in closed form: (φ A⁻¹b − target)ᵀ A⁻¹b."""
    direction = torch.linalg.solve(A, B)
    return ((PHI * direction - TARGET) @ direction).item()


def metapl_hypergradient(**options: Any) -> float:
    """The same by metapl: θ is φ, and the parameters stand at the solution and stay there."""

    def loss(params: Any, buffers: Any, phi: Tensor, _batch: Any) -> tuple[Tensor, Any]:
        return quadratic(params["z"], phi[0])[None], buffers

    stay, params = optim.sgd(0.0), {"z": PHI * torch.linalg.solve(A, B)}
    plain = TargetTransform(apply=lambda theta, _key: theta, log_prob=None)
    problem = Problem(loss, lambda params, _buffers, _exam: miss(params["z"]), stay, plain)
    theta = torch.full((1,), PHI, dtype=torch.float64)
    implicit = estimators.implicit(damping=0.0, **options)
    instance = Instance(problem, [theta], TrainState(params, {}, stay.init(params)), [()], (), rng.key(0))
    return implicit.estimate(instance, implicit.init())[0].grads[0].item()


def start() -> Tensor:
    """The weights before the first step."""
    return torch.tensor([0.5, -0.3, 0.8], dtype=torch.float64)


def inner(w: Tensor, phi: float | Tensor, x: Tensor = X) -> Tensor:
    """What the weights minimise."""
    return (torch.tanh(x @ w) - phi * Y).square().mean()


def outer(w: Tensor) -> Tensor:
    """The exam, which does not see φ."""
    return (torch.tanh(X.flip(0) @ w) + 0.1 * Y).square().mean()


def difference(function: Callable[[float], float], at: float, h: float = 1e-5) -> float:
    """The derivative of a function of one number, by a central finite difference."""
    return (function(at + h) - function(at - h)) / (2 * h)


def torch_exam(make: Callable[..., torch.optim.Optimizer], phi: float, x: Tensor = X) -> float:
    """The exam after a few steps of torch.optim. It records no graph: this is what finite differences are taken of."""
    w = start().requires_grad_()
    optimizer = make([w])
    for _ in range(STEPS):
        optimizer.zero_grad()
        inner(w, phi, x).backward()
        optimizer.step()
    return outer(w).item()


def metapl_exam(optimizer: Optimizer, phi: float | Tensor, x: Tensor = X) -> Tensor:
    """The same steps by metapl: a function that can be differentiated."""
    params = {"w": start()}
    state = optimizer.init(params)
    for _ in range(STEPS):
        grads = torch.func.grad(lambda params: inner(params["w"], phi, x))(params)
        updates, state = optimizer.update(grads, state, params)
        params = tree.add(params, updates)
    return outer(params["w"])


class Student(nn.Module):
    """The weights, for peers that want a module."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(start())


def higher_exam(
    make: Callable[..., torch.optim.Optimizer],
    phi: float | Tensor,
    x: Tensor = X,
    override: dict[str, list[Any]] | None = None,
) -> Tensor:
    """The same steps by `higher`, of the optimiser that torch.optim was asked for."""
    student = Student()
    optimizer = make(student.parameters())
    higher = load("higher", "higher")
    with higher.innerloop_ctx(student, optimizer, override=override) as (patched, steps):
        for _ in range(STEPS):
            steps.step(inner(patched.w, phi, x))
        return outer(patched.w)


def differentiable_exam(make: Callable[..., torch.optim.Optimizer], phi: float | Tensor) -> Tensor:
    """The same steps by an optimiser of torch.optim that was made with `differentiable=True`."""
    w = start().requires_grad_().clone()
    optimizer = make([w])
    for _ in range(STEPS):
        grad = torch.autograd.grad(inner(w, phi), w, create_graph=True)[0]
        # The step writes into the weights, which the backward pass needs as they were: give it a copy.
        state, w = optimizer.state.pop(w, {}), w.clone()
        optimizer.param_groups[0]["params"], optimizer.state[w] = [w], state
        w.grad = grad
        optimizer.step()
    return outer(w)


def slope(outer_batch: Callable[[Tensor], Tensor], at: float = PHI) -> float:
    """The derivative of an exam by reverse mode, which is what the peers are asked for."""
    value = torch.tensor(at, dtype=torch.float64, requires_grad=True)
    return torch.autograd.grad(outer_batch(value), value)[0].item()


# A third one, for Meta Pseudo Labels: a linear student of one unlabelled example with three classes. Its exam is minus
# the logit of the right class, linear in the weights, so that the exam of the mean step is the mean of the exams.
LESSON = torch.tensor([0.4, -0.2, 0.9], dtype=torch.float64)
UNLABELLED = torch.tensor([1.0, -0.5], dtype=torch.float64)
LABELLED, LABEL = torch.tensor([0.8, 0.3], dtype=torch.float64), 2
STUDENT = torch.tensor([[0.1, 0.2, -0.3], [0.0, -0.4, 0.5]], dtype=torch.float64)
RATE = 0.5


def taught(target: Tensor) -> Tensor:
    """The student after one step on a target, which is a distribution over the classes."""
    student = STUDENT.clone().requires_grad_()
    loss = nn.functional.cross_entropy(UNLABELLED @ student, target)
    return STUDENT - RATE * torch.autograd.grad(loss, student)[0]


def examined(student: Tensor) -> Tensor:
    """What the student is examined on."""
    return -(LABELLED @ student)[LABEL]


def metapl_feedback() -> float:
    """The derivative of the exam with respect to the teacher's first logit, by metapl."""
    model = functional.from_module(lambda: nn.Linear(2, 3, bias=False, dtype=torch.float64))

    def loss(params: Any, buffers: Any, targets: Tensor, x: Tensor) -> tuple[Tensor, Any]:
        return losses.cross_entropy(model.apply(params, buffers, x, train=True)[0], targets), buffers

    def outer_batch(params: Any, _buffers: Any, _exam: Any) -> Tensor:
        return examined(params["weight"].T)

    sgd, params = optim.sgd(RATE), {"weight": STUDENT.T.contiguous()}
    problem, train_state = Problem(loss, outer_batch, sgd, targets.SOFT), TrainState(params, {}, sgd.init(params))
    exact = estimators.exact()
    instance = Instance(problem, [LESSON[None]], train_state, [UNLABELLED[None]], (), rng.key(0))
    return exact.estimate(instance, exact.init())[0].grads[0][0, 0].item()


def load(module: str, package: str) -> ModuleType:
    """Import a peer, or end with exit code 2 and one line that names the package."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        remedy = "pip install --no-deps -r benchmarks/peers/requirements.txt"
        print(f"{package} cannot be imported ({error}): {remedy}", file=sys.stderr)
        raise SystemExit(2) from error


def row(
    peer: str,
    what: str,
    quantity: str,
    *,
    found: float | Exception,
    expected: float,
    metapl: float | None = None,
    of: str | None = None,
) -> dict[str, Any]:
    """One record. The verdict is computed here, never written down.

    Args:
        peer: the name of a package, or of a repository.
        what: what is wrong, in a few words.
        quantity: what the numbers are.
        found: the peer's number, or what it raised.
        expected: the right number, by a finite difference, a closed form or enumeration.
        metapl: the same quantity by metapl, if metapl has it.
        of: the version of a peer that is not a package.
    """
    record = {"peer": peer, "version": of or version(peer), "what": what, "quantity": quantity}
    numbers = {"found": found, "expected": expected, "metapl": metapl}
    if isinstance(found, Exception):
        line = (str(found).splitlines() or [""])[0]
        return record | numbers | {"found": None, "verdict": "raises", "error": f"{type(found).__name__}: {line}"}
    return record | numbers | {"verdict": "right" if close(found, expected) else "wrong"}


def close(one: float, other: float) -> bool:
    """Equal up to the error of a central difference in float64, which is near 1e-10; NaN is equal to nothing."""
    return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-9)


def show(record: dict[str, Any]) -> None:
    """Print a record as one line of JSON, which has no word for NaN: it becomes a string."""
    for key, value in record.items():
        if isinstance(value, float) and math.isnan(value):
            record[key] = "NaN"
    print(json.dumps(record, allow_nan=False, ensure_ascii=False))
