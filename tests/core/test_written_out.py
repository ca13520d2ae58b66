"""The formulas of normalisation layers, held to torch's own kernels."""

import pytest
import torch
from asserts import relative_error
from torch import nn
from torch.nn import functional as F  # noqa: N812

from metapl.core import autodiff, rng
from metapl.core.written_out import norms_written_out
from metapl.registry.errors import InputError

FOUR, RISING = torch.arange(4.0), torch.arange(1.0, 5.0)
FORMULAS = {
    "layer": lambda x: F.layer_norm(x, [2, 3], torch.arange(6.0).reshape(2, 3), torch.ones(2, 3), eps=0.1),
    "layer of torch": lambda x: torch.layer_norm(x, [3], torch.arange(3.0), None, 0.1, False),
    "rms": lambda x: F.rms_norm(x, [3], torch.arange(3.0)),
    "rms of torch": lambda x: torch.rms_norm(x, [3], None, 0.1),
    "group": lambda x: F.group_norm(x, 2, FOUR, torch.ones(4), 0.1),
    "group of torch": lambda x: torch.group_norm(x, 2, None, RISING),
    "batch": lambda x: F.batch_norm(x, None, None, FOUR, None, training=True),
    "batch of torch": lambda x: torch.batch_norm(x, FOUR, RISING, None, None, True, 0.1, 0.1, False),
    "batch, evaluated": lambda x: F.batch_norm(x, FOUR, RISING),
    "batch, evaluated, of torch": lambda x: torch.batch_norm(x, None, FOUR, FOUR, RISING, False, 0.1, 0.1, False),
    "instance": lambda x: F.instance_norm(x, weight=FOUR, bias=RISING, eps=0.1),
    "instance of torch": lambda x: torch.instance_norm(x, FOUR, RISING, None, None, True, 0.1, 0.1, False),
    "instance, evaluated": lambda x: F.instance_norm(x, FOUR, RISING, FOUR, None, use_input_stats=False),
}


def points():
    return rng.normal(rng.key(0), (5, 4, 2, 3))


@pytest.mark.parametrize("name", FORMULAS)
def test_a_formula_has_the_values_of_the_kernel(name):
    with norms_written_out():
        found = FORMULAS[name](points())
    torch.testing.assert_close(found, FORMULAS[name](points()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", FORMULAS)
def test_no_kernel_is_left_in_its_derivative(name):
    with norms_written_out():
        found = FORMULAS[name](points().requires_grad_())
    assert not any("Norm" in type(node).__name__ for node in autodiff.nodes([found]))


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, nn.InstanceNorm2d])
def test_running_statistics_are_kept(kind):
    ours, theirs = (kind(4, momentum=0.3, affine=True, track_running_stats=True) for _ in range(2))
    with norms_written_out():
        ours(points())
    theirs(points())
    assert not torch.equal(ours.running_mean, torch.zeros(4))
    for a, b in zip(ours.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["layer", "rms", "group", "batch", "batch, evaluated", "instance"])
def test_half_the_digits_are_reckoned_in_float32(name, dtype):
    """Far from zero the squares of x would have no digits left; the result is as good as the kernel's."""
    x = (points() + 30.0).to(dtype)
    exact = FORMULAS[name](x.float())
    with norms_written_out():
        found = FORMULAS[name](x)
    assert found.dtype == dtype
    assert relative_error(found.float(), exact) < 2 * torch.finfo(dtype).eps


def test_one_value_a_channel_is_refused_as_torch_does():
    for one in (
        lambda: F.batch_norm(torch.ones(1, 4), None, None, training=True),
        lambda: F.instance_norm(FOUR.reshape(2, 2, 1)),
    ):
        with pytest.raises(ValueError, match="more than 1"):
            one()
        with pytest.raises(ValueError, match="needs more than one value a channel"), norms_written_out():
            one()


def test_kernels_that_have_no_formula_here_are_refused():
    with (
        pytest.raises(InputError, match=r"native_layer_norm is wrong under vmap: call torch\.nn\.functional"),
        norms_written_out(),
    ):
        torch.native_layer_norm(points(), [3], None, None, 0.1)
