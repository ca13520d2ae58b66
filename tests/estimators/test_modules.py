"""Every kind of module, with every estimator that has a claim: right, or refused in one line; nothing in between.

Right is the gradient that central differences of plain torch training give, in length as well as in direction, and the
state that `torch.optim.SGD` ends in. See `zoo` and `by_differences`; `benchmarks/modules.py` prints the table.
"""

import by_differences
import pytest
import torch
from paced import quick_and_slow
from stops import Held
from zoo import ZOO, held

CASES = [(name, steps) for name in ZOO for steps in (1, 2)]
QUICK = [(name, 1 + place % 2) for place, name in enumerate(ZOO)]
"""One step of every other kind, and two of the rest; the slow tests have the others."""


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    ("name", "steps"), quick_and_slow(CASES, QUICK), ids=[f"{name}-{steps}" for name, steps in CASES]
)
def test_right_or_refused(name, steps):
    """All ways in one test, so that the reference is found once wherever the tests are run."""
    if ZOO[name].needs:
        pytest.importorskip(ZOO[name].needs, reason="an optional package of the zoo")
    found = {way: held.outcome(name, way, steps) for way in held.ways_of(name, steps)}
    wrong = {way: one.text for way, one in found.items() if not one.accepted(ZOO[name], way)}
    assert not wrong, "\n".join(f"{name}, {way}: {text}" for way, text in wrong.items())


# ---------------------------------------------------------------- the reference


def test_there_are_enough_kinds():
    assert len(ZOO) >= 80
    assert sum(entry.refused is None for entry in ZOO.values()) >= 60


@pytest.mark.parametrize(
    ("name", "steps", "apart"),
    [
        ("mlp", 2, 0.0),
        ("no_grad block", 1, 0.0),
        ("no_grad block", 2, 1e-4),
        ("detach", 2, 1e-4),
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
        value(w, Held(written, replay=False))

        def moved(offset, hold=hold, written=written):
            replay = Held(written if hold else [], replay=hold)
            return value(w + offset, replay)

        assert (moved(1e-4) - moved(-1e-4)) / 2e-4 == pytest.approx(wanted, rel=1e-6)


def test_a_closed_form():
    """One step on one logit vector: the differences against the formula −lr/batch Σ p_i (∇ D_v) written out."""
    training = held.training_of("linear", 1)
    weight, bias = training.state["weight"], training.state["bias"]
    x, theta = training.passes[0].x, training.thetas[0]
    ones = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    outer_batch = torch.cat([training.outer_batch.x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    w = torch.cat([weight, bias[:, None]], 1)
    soft = torch.softmax(theta, -1)
    stepped = w - by_differences.LR * (torch.softmax(ones @ w.T, -1) - soft).T @ ones / len(x)
    answers = torch.nn.functional.one_hot(training.answers, 3).double()
    v = (torch.softmax(outer_batch @ stepped.T, -1) - answers).T @ outer_batch / len(x)
    along = by_differences.LR / len(x) * ones @ v.T  # the derivative of the outer loss in the targets
    wanted = soft * (along - (soft * along).sum(-1, keepdim=True))
    assert (held.differences("linear", 1)[0][0] - wanted).norm() < 1e-8 * wanted.norm()
