"""Torch's private names: each is where it was, and one file alone uses them."""

import importlib
import re
from pathlib import Path

import pytest
import torch

import metapl
from metapl import cli, models
from metapl.core import torch_private


def found(name):
    """The object of a dotted name, or None: the longest part that is a module, and attributes of it."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:length]))
        except ImportError:
            continue
        for part in parts[length:]:
            value = getattr(value, part, None)
        return value
    return None


def moved(names):
    return [name for name in names if found(name) is None]


def test_every_private_name_is_where_it_was():
    gone = moved(torch_private.NAMES)
    assert not gone, f"torch {torch.__version__} has moved {', '.join(gone)}"


def test_a_name_that_has_moved_is_named():
    assert moved(["torch._C._functorch.no_such_name", *torch_private.NAMES]) == ["torch._C._functorch.no_such_name"]
    assert moved(["torch._no_such_module.name"]) == ["torch._no_such_module.name"]


PRIVATE = re.compile(r"torch(?:\.\w+)*\._[a-z]\w*|BackwardCFunction|custom_function_call|\b_pytree\b|_functorch")
"""What is private to torch; the public functions that begin with `_foreach_` do not occur."""


@pytest.mark.parametrize("package", [metapl, cli, models], ids=["metapl", "cli", "models"])
def test_no_other_file_uses_a_private_name(package):
    for path in sorted(Path(package.__file__).parent.rglob("*.py")):
        if path.name == "torch_private.py" or (package is metapl and path.parent.name in ("cli", "models")):
            continue
        prose = r'""".*?"""|#[^\n]*|torch_private\.\w+'
        used = PRIVATE.findall(re.sub(prose, "", path.read_text(encoding="utf-8"), flags=re.DOTALL))
        assert not used, f"{path} uses {', '.join(used)}: put it into core/torch_private.py"


def test_the_list_holds_all_that_is_used():
    source = Path(torch_private.__file__).read_text(encoding="utf-8")
    listed = {name.rpartition(".")[2] for name in torch_private.NAMES}
    used = {*re.findall(r"(?<!\.)\b_functorch\.(\w+)", source), *re.findall(r"kind\.(\w+)", source)} - {"TransformType"}
    assert len(used) > 8
    assert used <= listed


def test_what_a_tensor_is_wrapped_in():
    plain = torch.ones(2)
    seen = {}

    def look(x):
        seen["grad"] = torch_private.is_wrapped(x), torch_private.is_batched(x), torch_private.unwrap(x) is plain
        return x.sum()

    def rows(x):
        seen["vmap"] = torch_private.is_wrapped(x), torch_private.is_batched(x), torch_private.unwrap(x).shape
        return torch.func.grad(inner)(x)

    def inner(x):
        seen["both"] = torch_private.is_wrapped(x), torch_private.is_batched(x), torch_private.unwrap(x).shape
        return x.sum()

    assert not torch_private.is_wrapped(plain)
    assert torch_private.unwrap(plain) is plain
    torch.func.grad(look)(plain)
    torch.vmap(rows)(torch.ones(3, 2))
    assert seen["grad"][:2] == (True, False)
    assert seen["vmap"] == seen["both"] == (True, True, (3, 2))


def test_wrappers_of_a_transform_that_has_ended_are_taken_off():
    kept = []
    torch.func.vjp(lambda x: (kept.append(x), x.sum())[1], torch.ones(2))
    assert torch_private.is_wrapped(kept[0])
    (bare, text) = torch_private.unwrap_dead([kept[0], "text"])
    assert not torch_private.is_wrapped(bare)
    assert text == "text"


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(_ctx, x):
        return 2.0 * x

    @staticmethod
    def backward(_ctx, grad):
        return 2.0 * grad


def test_nodes_of_autograd_functions():
    x = torch.ones(2, requires_grad=True)
    assert torch_private.is_function(Doubled.apply(x).grad_fn)
    assert not torch_private.is_function((2.0 * x).grad_fn)
