"""The programs that docs/guides/coming_from.md shows: one gradient, which central differences confirm."""

import importlib
import re
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks" / "same_program"
RATE, STEPS = 0.05, 4


@pytest.fixture
def problem(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in ("problem", "by_metapl", "by_higher", "by_torchopt", "by_jax"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("problem").problem(examples=12, inputs=5, hidden=7)


def held_out(rate, params, train, held):
    """The loss that is differentiated, by torch.optim and without a graph."""
    leaves = {name: leaf.clone().requires_grad_() for name, leaf in params.items()}

    def loss(batch):
        return cross_entropy(torch.tanh(batch[0] @ leaves["in"]) @ leaves["out"], batch[1])

    optimizer = torch.optim.SGD(leaves.values(), lr=rate, momentum=0.9)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss(train).backward()
        optimizer.step()
    return loss(held).item()


@pytest.mark.parametrize("library", ["metapl", "higher", "torchopt", "jax"])
def test_the_gradient(problem, library):
    if library in ("torchopt", "jax"):
        pytest.importorskip("optax" if library == "jax" else library, reason="not a dependency")
    found = importlib.import_module(f"by_{library}").gradient(RATE, STEPS, *problem)
    h = 1e-4
    by = [held_out(RATE + k * h, *problem) for k in (-2, -1, 1, 2)]
    expected = (by[0] - 8 * by[1] + 8 * by[2] - by[3]) / (12 * h)  # an error of h⁴
    assert found == pytest.approx(expected, rel=1e-8)


def test_the_page_counts_the_lines(problem, monkeypatch):
    monkeypatch.delitem(sys.modules, "run", raising=False)
    run = importlib.import_module("run")
    page = (ROOT / "docs/guides/coming_from.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\w, =]+) \| (\d+) \|", page, flags=re.MULTILINE)
    assert rows == [(way, str(run.lines(way))) for way in run.WAYS]
