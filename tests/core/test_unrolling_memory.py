"""What `unroll` keeps, counted tensor by tensor; and its options in closed form."""

import contextlib
import functools
import gc
import math
import weakref

import pytest
import torch
from asserts import assert_close_tree
from torch.utils._python_dispatch import TorchDispatchMode

from metapl.core import hvp, inside, rng
from metapl.core.unrolling import METHODS, scan, unroll

f64 = functools.partial(torch.tensor, dtype=torch.float64)
WIDTH = 1013
"""Numbers in a carry; nothing else has this length."""
HIDDEN = 8 * WIDTH
"""Numbers in an activation."""


class Storages(TorchDispatchMode):
    """Every storage that an operation makes, until it is freed; the most at once, in bytes and in carries."""

    def __init__(self, *known):
        super().__init__()
        self.known = {tensor.untyped_storage()._cdata for tensor in known}
        self.live, self.bytes, self.carries, self.most_bytes, self.most_carries = set(), 0, 0, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in out if isinstance(out, (tuple, list)) else [out]:
            storage = leaf.untyped_storage() if isinstance(leaf, torch.Tensor) else None
            if storage is not None and storage._cdata not in self.live and storage._cdata not in self.known:
                self.live.add(storage._cdata)
                self.change(storage.nbytes(), 1)
                weakref.finalize(storage, self.freed, storage._cdata, storage.nbytes()).atexit = False
        self.most_bytes, self.most_carries = max(self.bytes, self.most_bytes), max(self.carries, self.most_carries)
        return out

    def freed(self, address, size):
        self.live.remove(address)
        self.change(size, -1)

    def change(self, size, sign):
        self.bytes += sign * size
        self.carries += sign * (size == 8 * WIDTH)


@contextlib.contextmanager
def counted(*known):
    """Without the collector of cycles: what only it could free counts as kept."""
    gc.collect()
    gc.disable()
    try:
        with Storages(*known) as storages:
            yield storages
    finally:
        gc.enable()


def loss(w, scale):
    hidden = (scale * w.repeat(HIDDEN // WIDTH)).tanh()
    return (hidden**2).sum() / HIDDEN, ()


def step(w, scale):
    return w - 0.1 * inside.gradient(loss, w, scale)[0]


def peaks(steps, **how):
    """The most at once, above what the caller holds: bytes and carries; and the carries left before and after."""
    w = rng.normal(rng.key(1), (WIDTH,), torch.float64).requires_grad_()
    inputs = [f64(1.0 + 0.01 * k).requires_grad_() for k in range(steps)]
    with counted(w, *inputs) as storages:
        last = unroll(step, w, inputs, **how)
        between = storages.carries
        last.sum().backward()
        del last
        w.grad = None
    return storages.most_bytes, storages.most_carries, between, storages.carries


EXTRA = 10
"""Tensors as large as a carry within one step: gradients, cotangents, updates."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("steps", "method"), [(64, "replay"), (64, "mixed"), (28, "mixed"), (28, "difference"), (28, "stopped")]
)
def test_carries_alive_at_once(method, steps):
    """All K without checkpoints; with them √K of the whole and √K of one segment, whatever the method."""
    peaks(1, method=method)  # what torch makes once only
    size = math.ceil(math.sqrt(steps))
    segments = math.ceil(steps / size)
    _, most, between, left = peaks(steps, method=method)
    assert (between, left) == (steps, 0)
    assert steps <= most <= steps + EXTRA
    _, most, between, left = peaks(steps, method=method, checkpoints=True)
    assert (between, left) == (segments, 0)
    assert segments <= most <= segments + size + EXTRA


@pytest.mark.slow
@pytest.mark.parametrize("method", ["replay", "mixed"])
def test_activations_are_those_of_one_step(method):
    """63 more steps cost 63 carries, and with checkpoints 14."""
    carry = 8 * WIDTH
    one, many = peaks(1, method=method)[0], peaks(64, method=method)[0]
    assert one > 2 * 8 * HIDDEN, "activations must be what counts"
    assert many - one <= 1.2 * 64 * carry
    assert peaks(64, method=method, checkpoints=True)[0] - one <= (2 * 8 + 2) * carry
    assert peaks(64, method="reverse")[0] > 15 * one


@pytest.mark.slow
@pytest.mark.parametrize("checkpoints", [False, True])
def test_the_losses_of_all_steps_cost_no_carries(checkpoints):
    """What a step puts out is kept, and nothing else for its sake."""

    def measured(w, scale):
        value, _, grads = inside.value_and_gradient(loss, w, scale)
        return w - 0.1 * grads, value

    w, steps = rng.normal(rng.key(1), (WIDTH,), torch.float64).requires_grad_(), 64
    scales = torch.linspace(1.0, 1.6, steps, dtype=torch.float64)
    with counted(w, scales) as storages:
        scan(measured, w, scales, checkpoints=checkpoints)[1].sum().backward()
    assert storages.most_carries <= (8 + 8 if checkpoints else steps) + EXTRA


A = torch.diag(f64([0.5, 1.0, 3.0]))
LR, STEPS = 0.2, 12
HOWS = [{"method": method} for method in METHODS] + [{"method": "mixed", "checkpoints": True}]
every_how = pytest.mark.parametrize("how", HOWS)


def quadratic(w, phi):
    """Strongly convex, with a linear gradient: differences are exact too, and first order is not."""
    return w - LR * inside.gradient(lambda w, phi: (0.5 * w @ A @ w - phi @ w, ()), w, phi)[0]


def cotangents(how, **options):
    """Of e_1 · w_K, with every φ a leaf of its own."""
    w = f64([1.0, -2.0, 0.5]).requires_grad_()
    phis = [f64([0.1 * k, 1.0, -0.3]).requires_grad_() for k in range(STEPS)]
    last = unroll(quadratic, w, phis, **how, **options)
    last[0].backward()
    return last.detach(), [w.grad, *(phi.grad for phi in phis)]


EXACT = [how for how in HOWS if how["method"] != "stopped"]


@pytest.mark.parametrize("how", EXACT)
@pytest.mark.parametrize("last", [1, 5, STEPS - 1])
def test_the_last_steps_in_closed_form(last, how):
    """∂w_K / ∂φ_(K − 1 − j) = lr (I − lr A)^j for j < last; nothing before, and nothing for the first carry."""
    value, (to_w, *to_phis) = cotangents(how, last=last)
    assert torch.equal(value, cotangents(how)[0])
    assert to_w is None
    assert to_phis[: STEPS - last] == [None] * (STEPS - last)
    for j in range(last):
        expected = f64([LR * (1.0 - LR * 0.5) ** j, 0.0, 0.0])
        assert_close_tree(to_phis[STEPS - 1 - j], expected, rtol=1e-11, atol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("how", EXACT)
def test_truncation_decays_geometrically(how):
    """A shared φ: the error after n steps is lr (ρⁿ − ρᴷ) / (1 − ρ), ρ = 1 − lr λ for the smallest λ."""

    def total(phi, last):
        return unroll(quadratic, torch.ones(3, dtype=torch.float64), [phi] * STEPS, **how, last=last)[0]

    phi, rho = f64([0.3, 1.0, -0.3]), 1.0 - LR * 0.5
    whole = torch.func.grad(total)(phi, None)
    for last in range(1, STEPS + 2):
        error = (whole - torch.func.grad(total)(phi, last)).norm()
        expected = LR * (rho ** min(last, STEPS) - rho**STEPS) / (1.0 - rho)
        assert float(error) == pytest.approx(expected, rel=1e-10, abs=1e-12)
        assert float(error) <= rho**last * LR / (1.0 - rho) + 1e-12


@every_how
def test_as_many_steps_as_there_are_change_nothing(how):
    for last in (STEPS, STEPS + 1, 10**9):
        value, found = cotangents(how, last=last)
        before, expected = cotangents(how)
        assert torch.equal(value, before)
        assert all(torch.equal(a, b) if b is not None else a is None for a, b in zip(found, expected, strict=True))


@every_how
def test_truncation_is_a_start_from_the_detached_carry(how):
    """By autograd and by torch.func, where what came before counts as zero; in the values nothing changes."""
    w, phis = torch.ones(3, dtype=torch.float64), [f64([0.1 * k] * 3) for k in range(5)]

    def total(w, phis, **options):
        return unroll(quadratic, w, phis, **how, **options).sin().sum()

    middle = w
    for phi in phis[:3]:
        middle = middle - LR * (A @ middle - phi)
    expected = torch.func.grad(total, argnums=1)(middle, phis[3:])
    to_w, to_phis = torch.func.grad(total, argnums=(0, 1))(w, phis, last=2)
    assert_close_tree(to_phis[3:], expected, rtol=1e-14)
    assert not any(leaf.any() for leaf in (to_w, *to_phis[:3]))
    batch = torch.vmap(torch.func.grad(lambda w: total(w, phis, last=2)))(torch.stack([w, 2.0 * w]))
    assert not batch.any()


@every_how
@pytest.mark.parametrize("last", [1, 2])
def test_what_passes_through_the_carry_is_cut_off_too(last, how):
    """w ← (1 − r s) w with r in the carry, s in the inputs: ∂w₃ / ∂sₖ = −r w₃ / (1 − r sₖ), and nothing for r.

    A tensor that every step hands on is not computed, so leaving out the graph of the first steps is not enough.
    """

    def step(carry, s):
        w, r = carry["w"], carry["r"]
        return {"w": w - r * s * w, "r": r}

    def after(w, r, gains):
        return unroll(step, {"w": w, "r": r}, gains, **how, last=last)["w"]

    w, r, gains = f64(2.0), f64(0.3), [f64(gain) for gain in (0.5, 1.0, 2.0)]
    end = 2.0 * 0.85 * 0.7 * 0.4
    slopes = [-0.3 * end / (1.0 - 0.3 * gain) for gain in (0.5, 1.0, 2.0)]
    leaves = [one.clone().requires_grad_() for one in (w, r, *gains)]
    value = after(leaves[0], leaves[1], leaves[2:])
    value.backward()
    assert value.item() == pytest.approx(end, rel=1e-14)
    assert [one.grad for one in leaves[: 5 - last]] == [None] * (5 - last)
    assert [one.grad.item() for one in leaves[5 - last :]] == pytest.approx(slopes[3 - last :], rel=1e-14)
    to_w, to_r, to_gains = torch.func.grad(after, argnums=(0, 1, 2))(w, r, gains)
    assert not any((to_w, to_r, *to_gains[: 3 - last]))
    assert [one.item() for one in to_gains[3 - last :]] == pytest.approx(slopes[3 - last :], rel=1e-14)


@pytest.mark.parametrize("last", [0, -1])
def test_no_last_steps_are_refused(last):
    with pytest.raises(ValueError, match=f"last={last}.*at least 1"):
        unroll(quadratic, torch.ones(3, dtype=torch.float64), [torch.ones(3, dtype=torch.float64)], last=last)


@pytest.mark.parametrize("checkpoints", [False, True])
def test_first_order_of_gradient_descent_is_the_identity(checkpoints):
    """First-order MAML: ∂w_K / ∂w_0 counts as 1, and what enters the gradient only counts as nothing."""
    how = {"method": "stopped", "checkpoints": checkpoints}
    _, (to_w, *to_phis) = cotangents(how)
    assert torch.equal(to_w, f64([1.0, 0.0, 0.0]))
    assert to_phis == [None] * STEPS
    found = torch.func.grad(lambda phi: unroll(quadratic, phi, [phi] * 3, **how)[0])(torch.ones(3, dtype=torch.float64))
    assert torch.equal(found, f64([1.0, 0.0, 0.0]))


@pytest.mark.parametrize("checkpoints", [False, True])
def test_a_product_is_a_value(checkpoints):
    """Twice the derivative of every gradient: ∂w_K / ∂w_0 = (I − 2 lr A)^K, and 2 lr for the last φ."""

    def double(gradient, at, along):
        return [2.0 * one for one in hvp.forward_over_reverse(gradient, at, along)]

    _, (to_w, *to_phis) = cotangents({"method": double, "checkpoints": checkpoints})
    assert_close_tree(to_w, f64([(1.0 - 2.0 * LR * 0.5) ** STEPS, 0.0, 0.0]), rtol=1e-14)
    assert_close_tree(to_phis[-1], f64([2.0 * LR, 0.0, 0.0]), rtol=1e-14)


@every_how
def test_only_mixed_mode_takes_forward_mode(how, monkeypatch):
    calls, forward = [], torch.func.jvp
    monkeypatch.setattr(torch.func, "jvp", lambda *args, **kwargs: (calls.append(1), forward(*args, **kwargs))[1])
    cotangents(how)
    assert len(calls) == (STEPS if how["method"] == "mixed" else 0)


@pytest.mark.parametrize("method", METHODS)
def test_linear_recurrence_in_closed_form(method):
    """w ← w − r w: the product of 1 − r_k, and its derivatives. No gradient inside, so all methods are exact."""
    w, rates = f64(3.0), [f64(rate) for rate in (0.5, 0.2, -0.25)]

    def last(w, rates):
        return unroll(lambda w, rate: w - rate * w, w, rates, method=method)

    assert last(w, rates).item() == pytest.approx(3.0 * 0.5 * 0.8 * 1.25, rel=1e-15)
    to_w, to_rates = torch.func.grad(last, argnums=(0, 1))(w, rates)
    assert to_w.item() == pytest.approx(0.5 * 0.8 * 1.25, rel=1e-15)
    expected = [-3.0 * 0.8 * 1.25, -3.0 * 0.5 * 1.25, -3.0 * 0.5 * 0.8]
    assert [rate.item() for rate in to_rates] == pytest.approx(expected, rel=1e-15)
