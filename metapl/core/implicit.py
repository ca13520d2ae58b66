"""Solutions of equations as differentiable functions of their parameters, whatever finds them.

Examples:
    >>> import torch
    >>> from metapl.core import implicit
    >>> def sqrt(theta):  # w² = θ, by any means
    ...     return implicit.root(lambda w, theta: w * w - theta, lambda theta: theta.sqrt(), theta)
    >>> torch.func.grad(sqrt)(torch.tensor(4.0))
    tensor(0.2500)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from metapl.core import closures, inside, linear, torch_private, tree
from metapl.core.types import PyTree
from metapl.registry.errors import InputError

Equation: TypeAlias = Callable[[PyTree, PyTree], PyTree]
"""`equation(w, theta)`: a tree shaped as w; zero at a root, and w itself at a fixed point."""

_CG = linear.cg()
_NEUMANN = linear.neumann(iterations=100)

FAR = 0.01
"""The least residual, relative to the right side, with which a linear equation counts as not solved."""


def root(
    equation: Equation, solve: Callable[[PyTree], PyTree], theta: PyTree, *, solver: linear.Solver = _CG
) -> PyTree:
    """w = solve(θ), differentiable in θ by the implicit function theorem at equation(w, θ) = 0.

    With F the equation and v a cotangent of w, that of θ is −(∂F/∂θ)ᵀ q, where (∂F/∂w)ᵀ q = v. It does not matter how
    `solve` finds w: it may stop at a tolerance, call another library, or be a training run. It is called once, without
    a graph and on tensors that no `torch.func.grad` has wrapped. What `equation` closes over is differentiated too.

    Args:
        equation: for the minimum of a loss its gradient, `metapl.core.inside.gradient(loss, w, theta)[0]`.
        solve: finds w. The derivative is right where it has found it: an error in w is an error of the same order.
        theta: what the equation depends on.
        solver: of the linear equation, from `metapl.core.linear`; `linear.cg(iterations=50)` unless another is given.
            It is for a symmetric positive definite ∂F/∂w, such as the Hessian at a minimum; take `gmres`, `normal_cg`
            or `dense` for others. All but `dense` stop after their iterations, solved or not.

    Cost: `solve`, and on the way back a vjp of the equation for each product of the solver, one to look at its
    residual, and one to θ.

    Warns:
        UserWarning: on the way back, a residual |(∂F/∂w)ᵀ q − v| above `FAR` |v|. Within a transform of `torch.func`
            and a compiler nobody looks.

    Raises:
        InputError: a solution with a leaf that is no tensor of real or complex numbers; on the way back, an equation
            that is not shaped as w.
    """
    leaves, structure = tree.flatten(theta)
    held = [tensor for _, tensor in closures.captured((equation, solve))]
    call = _Call(equation, solve, solver, structure, held, [])
    found = _Solution.apply(call, *leaves, *held)  # type: ignore[no-untyped-call]
    return tree.unflatten(list(found), call.form[0])


def fixed_point(
    step: Equation, solve: Callable[[PyTree], PyTree], theta: PyTree, *, solver: linear.Solver = _NEUMANN
) -> PyTree:
    """w = solve(θ), differentiable in θ by the implicit function theorem at w = step(w, θ).

    As `root` of w − step(w, θ), with `linear.neumann(iterations=100)` unless another solver is given. The Neumann
    series of 1 − ∂step/∂w is the limit of going back through ever more steps (Grazzi et al., ICML 2020). It converges
    where `step` is a contraction, by its factor an iteration: after 100 of them a factor of 0.99 leaves 37 % out.
    """

    def equation(w: PyTree, theta: PyTree) -> PyTree:
        return tree.sub(w, step(w, theta))

    return root(equation, solve, theta, solver=solver)


@dataclass(frozen=True)
class _Call:
    """What `_Solution` needs beside tensors; `form` takes the structure of the solution out of it."""

    equation: Equation
    solve: Callable[[PyTree], PyTree]
    solver: linear.Solver
    structure: Any
    held: Sequence[Tensor]
    form: list[Any]

    def split(self, leaves: Sequence[Tensor]) -> tuple[PyTree, Equation, Callable[[PyTree], PyTree]]:
        """θ, and the two functions with these tensors in place of those that they hold."""
        size = self.structure.num_leaves
        swap = {id(old): new for old, new in zip(self.held, leaves[size:], strict=True)}
        functions = (self.equation, self.solve)
        equation, solve = closures.swapped(functions, swap) if swap else functions
        return tree.unflatten(list(leaves[:size]), self.structure), equation, solve


class _Solution(torch.autograd.Function):
    """The solution, with the implicit function theorem for its derivative."""

    generate_vmap_rule = True

    @staticmethod
    def forward(call: _Call, *leaves: Tensor) -> tuple[Tensor, ...]:
        theta, _, solve = call.split(leaves)
        solution = solve(theta)
        tree.require_smooth(solution, "the solution of solve()")
        found, form = tree.flatten(solution)
        call.form[:] = [form]
        given = {id(leaf) for leaf in leaves}
        # A copy of an argument that is the solution: autograd wants outputs that are not inputs.
        return tuple(leaf.clone() if id(leaf) in given else leaf.detach() for leaf in found)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.call = inputs[0]
        ctx.save_for_backward(*inputs[1:], *output)

    @staticmethod
    def jvp(*_: Any) -> Any:
        raise InputError(
            "forward mode does not go through an implicit solution: take torch.func.jacrev in place of jacfwd, and "
            "jacrev(grad(…)) in place of hessian"
        )

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        call: _Call = ctx.call
        saved = torch_private.unwrap_dead(ctx.saved_tensors)
        count, form = len(saved) - call.form[0].num_leaves, call.form[0]
        w, arguments = tree.unflatten(saved[count:], form), saved[:count]
        moving = [i for i, need in enumerate(ctx.needs_input_grad[1:]) if need]

        def along(q: PyTree, w: PyTree, values: Sequence[Tensor]) -> Tensor:
            """⟨q, F(w, θ)⟩."""
            full = list(arguments)
            for index, value in zip(moving, values, strict=True):
                full[index] = value
            theta, equation, _ = call.split(full)
            left = equation(w, theta)
            _require_shape(left, w)
            return tree.dot(q, left)

        values = [arguments[index] for index in moving]
        v = tree.unflatten(list(cotangents), form)

        def transposed(q: PyTree) -> PyTree:
            return inside.gradient(lambda w: along(q, w, values), w)[0]

        q = call.solver(transposed, v)
        _look_at_residual(transposed, q, v)
        found = inside.gradient(lambda values: along(q, w, values), values)[0]
        grads: list[Tensor | None] = [None] * count
        for index, grad in zip(moving, found, strict=True):
            grads[index] = -grad
        return (None, *grads)


def _look_at_residual(apply: linear.Linear, q: PyTree, v: PyTree) -> None:
    if torch.compiler.is_compiling() or torch_private.inside_transform() or not tree.norm(v):
        return
    with torch.no_grad():
        left = float(tree.norm(tree.sub(apply(q), v)) / tree.norm(v))
    if not left < FAR:
        warnings.warn(
            f"the linear equation of an implicit derivative is not solved: {left:.2g} of its right side is left. Take "
            "solver=mp.linear.dense(), gmres() or more iterations",
            stacklevel=3,
        )


def _require_shape(left: PyTree, w: PyTree) -> None:
    ours, theirs = (
        (tree.flatten(one)[1], [getattr(leaf, "shape", None) for leaf in tree.leaves(one)]) for one in (left, w)
    )
    if ours != theirs:
        shapes = [tree.map(lambda leaf: list(getattr(leaf, "shape", "?")), one) for one in (left, w)]
        raise InputError(f"the equation must be shaped as its solution, {shapes[1]}: it returned {shapes[0]}")
