"""The blocks of the published networks: their arithmetic, their layers, initial weights, stochastic depth."""

import math

import pytest
import torch
from hollow import CIFAR, CONVOLUTIONAL, TINY, hollow, kinds, noise, numbers
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from metapl.core import rng
from metapl.models import efficientnet, resnet18, resnet50, vit, wrn
from metapl.models.drop import DropPath, dropout
from metapl.models.efficientnet import Block as Mobile
from metapl.models.efficientnet import Excite
from metapl.models.resnet import Residual
from metapl.models.vit import Attention, Positions
from metapl.models.wideresnet import Block as Wide
from metapl.nn import functional


def settled(module, seed=0):
    """Numbers far from any initial value, running statistics too, in float64 and evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        if value.dtype.is_floating_point:
            drawn = torch.randn(value.shape, generator=generator)
            value.data = drawn.abs() + 0.5 if name.endswith("running_var") else 0.3 * drawn
    return module.double().eval()


# ---------------------------------------------------------------- the arithmetic of the blocks


def normalised(x, layer):
    mean, variance = (value[:, None, None] for value in (layer.running_mean, layer.running_var))
    scale, shift = (value[:, None, None] for value in (layer.weight, layer.bias))
    return (x - mean) / (variance + layer.eps).sqrt() * scale + shift


@pytest.mark.parametrize(("grown", "stride"), [(4, 1), (6, 1), (4, 2)])
def test_wide_block(grown, stride):
    block = settled(Wide(4, grown, stride))
    norms, filters, x = kinds(block, nn.BatchNorm2d), [c.weight for c in kinds(block, nn.Conv2d)], noise(2, 4, 6, 6)
    active = F.leaky_relu(normalised(x, norms[0]), 0.2)
    y = F.conv2d(active, filters[0], stride=stride, padding=1)
    y = F.conv2d(F.leaky_relu(normalised(y, norms[1]), 0.2), filters[1], padding=1)
    skip = x if (grown, stride) == (4, 1) else F.conv2d(active, filters[2], stride=stride)
    torch.testing.assert_close(block(x), y + skip)


def test_wrn_ends_with_norm_activation_mean_and_linear():
    module = settled(wrn((1, 4, 4), 3, depth=10, width=1))
    x = noise(2, 1, 4, 4)
    y = module[1:4](F.conv2d(x, module[0].weight, padding=1))
    y = F.leaky_relu(normalised(y, module[4]), 0.2).mean(dim=(2, 3))
    torch.testing.assert_close(module(x), y @ module[-1].weight.T + module[-1].bias)


@pytest.mark.parametrize(("build", "strides"), [(resnet18, (2, 1)), (resnet50, (1, 2, 1))])
def test_residual_block(build, strides):
    blocks = kinds(settled(build((1, 8, 8), 3, width=2)), Residual)
    block = [block for block in blocks if len(block.shortcut)][1 if build is resnet50 else 0]
    convolutions, norms = kinds(block, nn.Conv2d), kinds(block, nn.BatchNorm2d)
    x = noise(2, convolutions[0].in_channels, 6, 6)
    y = x
    for index, stride in enumerate(strides):
        weight = convolutions[index].weight
        y = normalised(F.conv2d(y, weight, stride=stride, padding=weight.shape[-1] // 2), norms[index])
        y = y if index == len(strides) - 1 else y.clamp_min(0)
    skip = normalised(F.conv2d(x, convolutions[-1].weight, stride=2), norms[-1])
    torch.testing.assert_close(block(x), (y + skip).clamp_min(0))


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("build", [resnet18, resnet50])
def test_residual_blocks_start_as_their_shortcuts(build, norm):
    for block in kinds(build(CIFAR, 3, width=8, norm=norm).eval(), Residual):
        x = torch.randn(2, block.branch[0].in_channels, 4, 4)
        torch.testing.assert_close(block(x), block.shortcut(x).clamp_min(0))


@pytest.mark.parametrize("build", [resnet18, resnet50])
def test_group_norm_in_place_of_batch_norm(build):
    grouped = hollow(build, CIFAR, 10, norm="group")
    assert not kinds(grouped, nn.BatchNorm2d)
    assert {layer.num_channels // layer.num_groups for layer in kinds(grouped, nn.GroupNorm)} == {8}
    assert numbers(grouped) == numbers(hollow(build, CIFAR, 10))


@pytest.mark.parametrize(("index", "stays"), [(0, False), (1, False), (2, True)])
def test_mobile_block(index, stays):
    """The first, without expansion, the second, with stride 2, and the third, which adds its input."""
    block = kinds(settled(efficientnet((1, 64, 64), 3, width=0.5, drop_path=0.0)), Mobile)[index]
    convolutions, norms = kinds(block, nn.Conv2d), kinds(block, nn.BatchNorm2d)
    x = y = noise(2, convolutions[0].in_channels, 6, 6)
    for convolution, norm in zip([c for c in convolutions if c.bias is None][:-1], norms[:-1], strict=True):
        weight, hidden = convolution.weight, convolution.out_channels
        depthwise = {"groups": hidden, "stride": 2 if index == 1 else 1} if weight.shape[1] == 1 else {}
        y = normalised(F.conv2d(y, weight, padding=weight.shape[-1] // 2, **depthwise), norm)
        y = y / (1 + (-y).exp())
    squeeze, excite = (c for c in convolutions if c.bias is not None)
    assert squeeze.out_channels == max(1, x.shape[1] // 4)
    gate = y.mean(dim=(2, 3)) @ squeeze.weight[..., 0, 0].T + squeeze.bias
    gate = gate * gate.sigmoid() @ excite.weight[..., 0, 0].T + excite.bias
    y = y * gate.sigmoid()[..., None, None]
    y = normalised(F.conv2d(y, convolutions[-1].weight), norms[-1])
    assert block.stays == stays
    torch.testing.assert_close(block(x), y + x if stays else y)


def test_attention_equals_torchs_own():
    own = settled(Attention(12, heads=3))
    peer = nn.MultiheadAttention(12, 3, batch_first=True, dtype=torch.float64)
    peer.in_proj_weight.data, peer.in_proj_bias.data = own.project.weight.data, own.project.bias.data
    peer.out_proj.weight.data, peer.out_proj.bias.data = own.mix.weight.data, own.mix.bias.data
    x = noise(2, 5, 12)
    torch.testing.assert_close(own(x), peer(x, x, x)[0])


def test_transformer_blocks_equal_torchs_own():
    module = settled(vit((3, 8, 8), 3, width=12, depth=2, heads=3))
    x = noise(2, 3, 8, 8)
    y = F.unfold(x, 4, stride=4).mT @ module[1].weight.T + module[1].bias + module[2].positions
    for block in module[4:6]:
        peer = nn.TransformerEncoderLayer(
            12, 3, 48, 0.0, "gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True, dtype=torch.float64
        )
        own = block.state_dict().values()
        # Torch lists its two norms last.
        order = ["norm1", "self_attn.in_proj_", "self_attn.out_proj.", "norm2", "linear1", "linear2"]
        names = [
            f"{part.rstrip('.')}{'' if part.endswith('_') else '.'}{kind}"
            for part in order
            for kind in ("weight", "bias")
        ]
        peer.load_state_dict(dict(zip(names, own, strict=True)))
        y = peer(y)
    y = F.layer_norm(y, (12,), module[6].weight, module[6].bias, eps=1e-6).mean(dim=1)
    torch.testing.assert_close(module(x), y @ module[-1].weight.T + module[-1].bias)


# ---------------------------------------------------------------- what the layers are


@pytest.mark.parametrize("build", [wrn, efficientnet])
def test_batch_norm_of_the_release(build):
    norms = kinds(hollow(build, CIFAR, 10), nn.BatchNorm2d)
    assert {(layer.eps, layer.momentum) for layer in norms} == {(1e-3, 0.01)}


@pytest.mark.parametrize("build", [resnet18, resnet50])
def test_batch_norm_of_residual_networks(build):
    norms = kinds(hollow(build, CIFAR, 10), nn.BatchNorm2d)
    assert {(layer.eps, layer.momentum) for layer in norms} == {(1e-5, 0.1)}


def test_activations():
    assert {layer.negative_slope for layer in kinds(hollow(wrn, CIFAR, 10), nn.LeakyReLU)} == {0.2}
    assert not kinds(hollow(efficientnet, CIFAR, 10), nn.ReLU)
    assert len(kinds(hollow(vit, CIFAR, 10), nn.GELU)) == 6


@pytest.mark.parametrize("build", TINY)
def test_nothing_is_written_in_place(build):
    assert not [layer for layer in hollow(build, CIFAR, 10, dropout=0.5).modules() if getattr(layer, "inplace", False)]


@pytest.mark.parametrize("build", CONVOLUTIONAL)
@pytest.mark.parametrize("p", [0.0, 0.25])
def test_dropout_comes_before_the_last_layer_only(build, p):
    paths = {"drop_path": 0.0} if build is efficientnet else {}
    module = hollow(build, CIFAR, 10, dropout=p, **paths)
    assert [layer.p for layer in kinds(module, nn.Dropout)] == ([p] if p else [])
    assert isinstance(module[-2], nn.Dropout) == bool(p)
    assert isinstance(module[-1], nn.Linear)


@pytest.mark.parametrize("p", [0.0, 0.25])
def test_dropout_of_a_transformer(p):
    """After the positions, and after three of the four linear layers of a block: q, k and v have none."""
    module = hollow(vit, CIFAR, 10, depth=2, dropout=p)
    assert [layer.p for layer in kinds(module, nn.Dropout)] == [p] * (1 + 3 * 2 if p else 0)
    assert isinstance(module[3], nn.Dropout) == bool(p)


# ---------------------------------------------------------------- initial weights


def spread(values):
    return float(values.detach().double().std())


@pytest.mark.parametrize("build", CONVOLUTIONAL)
def test_convolutions_start_from_a_normal_distribution_of_variance_2_over_fan_out(build):
    torch.manual_seed(0)
    options = {"depth": 16, "width": 4} if build is wrn else {}
    module = build(CIFAR, 10, **options)
    assert kinds(module, nn.Conv2d)
    for layer in kinds(module, nn.Conv2d):
        weight = layer.weight.detach()
        expected = math.sqrt(2 / (weight.shape[0] * weight[0, 0].numel() / layer.groups))
        count = weight.numel()
        # Four standard errors of a sample's mean and standard deviation.
        assert abs(float(weight.mean())) < 4 * expected / math.sqrt(count)
        assert abs(spread(weight) / expected - 1) < 4 / math.sqrt(2 * count)
        assert layer.bias is None or not layer.bias.any()


@pytest.mark.parametrize("build", [wrn, efficientnet])
@pytest.mark.parametrize("classes", [10, 100])
def test_the_last_layer_starts_uniform_within_one_over_the_root_of_the_classes(build, classes):
    torch.manual_seed(0)
    last = build(CIFAR, classes)[-1]
    bound = classes**-0.5
    assert 0.98 * bound < float(last.weight.detach().abs().max()) <= bound
    assert spread(last.weight) == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert not last.bias.any()


def test_a_transformer_starts_from_a_normal_distribution_of_spread_0_02():
    torch.manual_seed(0)
    module = vit((3, 64, 64), 10)
    for value in [*(layer.weight for layer in kinds(module, nn.Linear)), kinds(module, Positions)[0].positions]:
        assert spread(value) == pytest.approx(0.02, rel=0.05)
    assert not any(layer.bias.any() for layer in kinds(module, nn.Linear))


# ---------------------------------------------------------------- stochastic depth


def test_stochastic_depth_drops_whole_examples_and_keeps_the_expectation():
    model = functional.from_module(lambda: DropPath(0.2))
    x = torch.rand(4000, 2, 3, 3) + 1.0
    y, _ = model.apply({}, {}, x, train=True, key=rng.key(0))
    factors = (y / x).flatten(1)
    kept = factors[:, 0] > 0
    torch.testing.assert_close(factors, torch.where(kept, 1.25, 0.0)[:, None].expand_as(factors))
    # Four standard deviations of a binomial frequency.
    assert abs(float(kept.double().mean()) - 0.8) < 4 * math.sqrt(0.8 * 0.2 / 4000)
    assert torch.equal(model.apply({}, {}, x, train=False)[0], x)


def test_stochastic_depth_is_the_same_in_any_number_of_dimensions():
    model = functional.from_module(lambda: DropPath(0.5))
    masks = [
        model.apply({}, {}, torch.ones(64, *rest), train=True, key=rng.key(0))[0].flatten(1)[:, 0]
        for rest in [(1,), (3, 5), (2, 4, 4)]
    ]
    assert torch.equal(masks[0], masks[1])
    assert torch.equal(masks[0], masks[2])


def test_the_rate_of_stochastic_depth_grows_with_the_block():
    blocks = kinds(hollow(efficientnet, CIFAR, 10, drop_path=0.32), Mobile)
    rates = {index: kinds(block, DropPath)[0].drop.p for index, block in enumerate(blocks) if kinds(block, DropPath)}
    assert list(rates) == [2, 4, 6, 7, 9, 10, 12, 13, 14]
    assert rates == {index: pytest.approx(0.32 * index / 16) for index in rates}
    assert all(isinstance(block.branch[-1], DropPath) for block in blocks if block.stays)


def test_no_dropout_is_no_layer():
    assert isinstance(dropout(0.0), nn.Identity)
    assert dropout(0.5).p == 0.5


def test_excitation_is_a_factor_for_each_channel():
    block = settled(Excite(6, 2))
    x = noise(3, 6, 4, 4)
    factor = (block(x) / x).detach()
    torch.testing.assert_close(factor, factor[..., :1, :1].expand_as(factor))
    assert 0 < float(factor.min()) < float(factor.max()) < 1
