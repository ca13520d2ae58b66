"""The changes that `mutants.py` tries: one node of a file's tree at a time.

Arithmetic, a comparison, a condition, a number, an argument dropped or swapped, a statement, a `with`, a `detach` or a
`clone` left out. Strings, docstrings, type hints, and what a `raise` says are not changed: they tell something to
people, and compute nothing.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

SWAPS = (
    (ast.Add, ast.Sub), (ast.Mult, ast.Div), (ast.BitAnd, ast.BitOr), (ast.And, ast.Or), (ast.Lt, ast.LtE),
    (ast.Gt, ast.GtE), (ast.Eq, ast.NotEq), (ast.Is, ast.IsNot), (ast.In, ast.NotIn), (ast.LShift, ast.RShift),
)  # fmt: skip
SWAPPED: dict[type, type] = {ast.Pow: ast.Mult, ast.MatMult: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult}
SWAPPED |= {one: other for a, b in SWAPS for one, other in ((a, b), (b, a))}
TWINS = (("max", "min"), ("maximum", "minimum"), ("all", "any"), ("ones_like", "zeros_like"), ("mean", "sum"))
TWIN = {one: other for a, b in TWINS for one, other in ((a, b), (b, a))}
# torch takes the arguments of `unflatten` in either order.
SYMMETRIC = {"max", "min", "maximum", "minimum", "dot", "add", "promote_types", "unflatten"}
LEFT_OUT = {"detach", "clone", "abs", "contiguous", "reversed"}

Change = Callable[[Any], ast.AST | None]
"""Changes a node in place, or returns what takes its place."""


class Mutant(NamedTuple):
    """A file with one change."""

    path: Path
    place: int
    """Of the node among all `nodes` of the file."""
    change: int
    """Of those that there are for it."""
    lines: range
    around: range
    """The lines of the body of the outermost function that it is in."""


def nodes(node: ast.AST, around: range = range(0)) -> Iterator[tuple[ast.AST, range, ast.AST, str, int | None]]:
    """What may change: the node, the lines around it, its parent, and where it is there."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns") or (isinstance(node, ast.Raise) and field in ("exc", "cause")):
            continue
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(child, ast.AST) or isinstance(child, ast.Import | ast.ImportFrom | ast.JoinedStr):
                continue
            if isinstance(child, ast.AnnAssign) and ast.unparse(child.annotation) == "TypeAlias":
                continue
            outermost = isinstance(child, ast.FunctionDef) and not around
            inside = range(child.body[0].lineno, child.end_lineno + 1) if outermost else around
            yield child, inside, node, field, index
            yield from nodes(child, inside)


def _of_expressions(node: Any) -> Iterator[Change]:
    match node:
        case ast.BinOp() | ast.BoolOp() if type(node.op) in SWAPPED:
            yield lambda n: setattr(n, "op", SWAPPED[type(n.op)]())
        case ast.UnaryOp():
            yield lambda n: n.operand
        case ast.Compare():
            yield lambda n: setattr(n, "ops", [SWAPPED[type(n.ops[0])](), *n.ops[1:]])
        case ast.Constant():
            yield from (lambda _, value=value: ast.Constant(value) for value in _others(node.value))
        case ast.IfExp():
            yield from (lambda n: n.body, lambda n: n.orelse)
        case ast.comprehension() if node.ifs:
            yield lambda n: setattr(n, "ifs", [])
        case ast.Call():
            yield from _of_calls(node)


def _of_statements(node: Any) -> Iterator[Change]:
    match node:
        case ast.If():
            yield lambda n: setattr(n, "test", ast.UnaryOp(ast.Not(), n.test))
        case ast.With() if not any(item.optional_vars for item in node.items):
            yield lambda n: ast.If(ast.Constant(True), n.body, [])
        case ast.Return(value=ast.Tuple(elts=[_, _, *_])):
            yield lambda n: setattr(n.value, "elts", [n.value.elts[1], n.value.elts[0], *n.value.elts[2:]])
        case ast.Raise() | ast.AugAssign() | ast.Expr(value=ast.Call()):
            yield lambda _: ast.Pass()
        case ast.Assign() if _stays(node):
            yield lambda _: ast.Pass()


def _others(value: Any) -> list[Any]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value - 1]
    return [1.1 * value or 0.1] if isinstance(value, float) else []


def _stays(node: ast.Assign) -> bool:
    """Whether a value stays where the assignment is left out, rather than a name without any."""
    used = {name.id for name in ast.walk(node.value) if isinstance(name, ast.Name)}
    return all(isinstance(target, ast.Subscript) or ast.unparse(target) in used for target in node.targets)


def _of_calls(node: ast.Call) -> Iterator[Change]:
    for index in range(len(node.keywords)):
        yield lambda n, i=index: n.keywords.pop(i) and None
    field = "attr" if isinstance(node.func, ast.Attribute) else "id"
    name = getattr(node.func, field, "")
    starred = any(isinstance(one, ast.Starred) for one in node.args[:2])
    if len(node.args) > 1 and not starred and name not in SYMMETRIC:
        yield lambda n: setattr(n, "args", [n.args[1], n.args[0], *n.args[2:]])
    if name in TWIN:
        yield lambda n: setattr(n.func, field, TWIN[name])
    if name in LEFT_OUT:
        yield lambda n: n.args[0] if n.args else n.func.value


def changes(node: ast.AST) -> list[Change]:
    """All that there are for a node."""
    return [*_of_expressions(node), *_of_statements(node)]


def mutants(path: Path) -> Iterator[Mutant]:
    """All of a file."""
    for place, (node, around, *_) in enumerate(nodes(ast.parse(path.read_text(encoding="utf-8")))):
        first = getattr(node, "lineno", around.start)
        last = first if hasattr(node, "body") else getattr(node, "end_lineno", first)
        for change, _ in enumerate(changes(node)):
            yield Mutant(path, place, change, range(first, last + 1), around)


def made(mutant: Mutant) -> tuple[Any, str]:
    """The code that stands for the file, and what is different."""
    tree = ast.parse(mutant.path.read_text(encoding="utf-8"))
    node, _, parent, field, index = list(nodes(tree))[mutant.place]
    before = " ".join(ast.unparse(node).split())
    after = changes(node)[mutant.change](node) or node
    if index is None:
        setattr(parent, field, after)
    else:
        getattr(parent, field)[index] = after
    text = f"{before[:90]}  →  {' '.join(ast.unparse(after).split())[:90]}"
    return compile(ast.fix_missing_locations(tree), str(mutant.path), "exec"), text
