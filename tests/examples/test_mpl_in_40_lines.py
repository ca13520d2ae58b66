"""examples/mpl_in_40_lines.py: the teacher's gradient against plain autograd, its length, and its run."""

import io
import tokenize
from pathlib import Path

import mpl_in_40_lines as mpl
import torch
from asserts import relative_error
from torch.nn import functional as F  # noqa: N812 - torch's own convention

import metapl as mp


def outputs(values, x):
    w1, b1, w2, b2 = values
    return torch.relu(x @ w1.T + b1) @ w2.T + b2


def test_the_gradient_of_the_teacher_is_that_of_plain_autograd():
    """The student is warm: its momentum has a part in the step."""
    draw = lambda seed, *shape: mp.rng.normal(mp.key(seed), shape, torch.float64)  # noqa: E731
    teacher, student = (mp.tree.to(mpl.model.init(mp.key(seed))[0], torch.float64) for seed in (0, 1))
    momentum = mp.tree.map(lambda leaf: 0.1 * leaf.sin(), student)
    state = mpl.rule.init(student)._replace(momentum=momentum, step=torch.tensor(3))
    labelled, unlabelled = (draw(2, 5, 64), torch.arange(5)), draw(3, 7, 64)
    found, (after, _) = mpl.teach(teacher, student, state, labelled, unlabelled)

    ours = [value.clone().requires_grad_() for value in teacher.values()]
    theirs = [value.clone().requires_grad_() for value in student.values()]
    loss = F.cross_entropy(outputs(theirs, unlabelled), outputs(ours, unlabelled).softmax(-1))
    grads = torch.autograd.grad(loss, theirs, create_graph=True)
    moved = [p - 0.1 * (0.9 * m + g) for p, m, g in zip(theirs, momentum.values(), grads, strict=True)]
    total = F.cross_entropy(outputs(moved, labelled[0]), labelled[1]) + F.cross_entropy(
        outputs(ours, labelled[0]), labelled[1]
    )
    expected = dict(zip(teacher, torch.autograd.grad(total, ours), strict=True))
    assert relative_error(found, expected) < 1e-10
    assert relative_error(list(after.values()), [value.detach() for value in moved]) < 1e-12


def test_it_has_40_lines():
    """Of code: without blank lines, comments and docstrings."""
    text = Path(mpl.__file__).read_text(encoding="utf-8")
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    code = [token for token in tokens if token.type not in silent and not token.string.startswith('"""')]
    assert len({token.start[0] for token in code}) <= 40


def test_the_program_runs(capsys):
    mpl.main(steps=30)
    assert all(float(line.split()[-1]) > 0.3 for line in capsys.readouterr().out.splitlines())
