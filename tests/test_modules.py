"""Every kind of module, with every estimator that has a claim: right, or refused in one line; nothing in between.

Right is the gradient that central differences of plain torch training give, in length as well as in direction, and the
learner that `torch.optim.SGD` ends in. See `zoo` and `by_differences`; `benchmarks/modules.py` prints the table.
"""

import re

import by_differences
import pytest
import torch
from zoo import ZOO, held

from metapl.errors import InputError

GRADIENT, LEARNER = 1e-5, 1e-9

ROWS = [(name, way, steps) for name in ZOO for way, steps in held.ROWS]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize(("name", "way", "steps"), ROWS, ids=[f"{n}-{w}-{k}" for n, w, k in ROWS])
def test_right_or_refused(name, way, steps):
    entry = ZOO[name]
    expected = entry.expected(way)
    if way == "fraction" and entry.coupled and expected == "right":
        pytest.skip("a part of a batch whose examples see each other has another feedback, as `exact` says")
    try:
        case = held.case_of(name, steps, held.WAYS[way].labels)
        before = held.copied(case.learner)
        feedback = held.estimate(case, way)
    except InputError as refusal:
        assert expected != "right", f"refused: {refusal}"
        assert "\n" not in str(refusal)
        assert re.search(entry.refused or ".", str(refusal))
        return
    assert expected != "refused", f"{name} was not refused"
    right(name, way, steps, feedback)
    held.assert_the_same(case.learner, before)


def right(name, way, steps, feedback):
    found = torch.stack(list(feedback.lessons))
    wanted = held.truth(name, way, found)
    assert wanted.norm() > 1e-6, "a gradient of zero shows nothing"
    assert (found - wanted).norm() <= GRADIENT * held.size(name, way, wanted)
    ended = held.ended(name, way, steps)
    after = {**feedback.learner.params, **feedback.learner.buffers}
    assert after.keys() == ended.keys()
    for key, value in after.items():
        assert (value - ended[key]).abs().max() <= LEARNER, key


# ---------------------------------------------------------------- the reference


def test_there_are_enough_kinds():
    assert len(ZOO) >= 80
    assert sum(entry.refused is None for entry in ZOO.values()) >= 60


@pytest.mark.parametrize(
    ("name", "steps", "apart"),
    [
        ("mlp", 2, 0.0),
        ("no_grad block", 1, 0.0),
        ("no_grad block", 2, 1e-3),
        ("detach", 2, 1e-3),
        ("codebook", 2, 1e-3),
        ("momentum encoder", 2, 1e-3),
        ("batch norm 1d", 2, 0.0),
        ("batch norm 1d, evaluated", 2, 1e-4),
    ],
)
def test_held_and_moving_constants(name, steps, apart):
    """Differences that let stopped values and buffers move have another derivative, from the second step on."""
    training = held.training_of(name, steps)
    moving = by_differences.feedback(training, hold=False)[0]
    still = held.differences(name, steps)[0]
    found = float((moving - still).norm() / still.norm())
    assert found < 1e-9 if apart == 0.0 else found > apart


def test_what_a_constant_is_worth_by_hand():
    """d/dw of w · sg[w]² at 3 is 9, and with a constant that moves 27."""
    w = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)

    def value(at, stops):
        with stops, torch.no_grad():
            square = at * at
        return float((at * square).detach())

    for hold, wanted in ((True, 9.0), (False, 27.0)):
        written = []
        value(w, by_differences.Held(written, replay=False))

        def moved(offset, hold=hold, written=written):
            replay = by_differences.Held(written if hold else [], replay=hold)
            return value(w + offset, replay)

        assert (moved(1e-4) - moved(-1e-4)) / 2e-4 == pytest.approx(wanted, rel=1e-6)


def test_a_closed_form():
    """One step on one logit vector: the differences against the formula −lr/batch Σ p_i (∇ D_v) written out."""
    training = held.training_of("linear", 1)
    weight, bias = training.state["weight"], training.state["bias"]
    x, lesson = training.passes[0].x, training.lessons[0]
    ones = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    exam = torch.cat([training.exam.x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    theta = torch.cat([weight, bias[:, None]], 1)
    taught = torch.softmax(lesson, -1)
    stepped = theta - by_differences.LR * (torch.softmax(ones @ theta.T, -1) - taught).T @ ones / len(x)
    answers = torch.nn.functional.one_hot(training.answers, 3).double()
    v = (torch.softmax(exam @ stepped.T, -1) - answers).T @ exam / len(x)
    along = by_differences.LR / len(x) * ones @ v.T  # the derivative of the exam in the targets
    wanted = taught * (along - (taught * along).sum(-1, keepdim=True))
    assert (held.differences("linear", 1)[0][0] - wanted).norm() < 1e-8 * wanted.norm()
