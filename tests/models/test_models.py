"""Networks: shapes, sizes by closed form, and their life as pure functions."""

import itertools

import pytest
import torch
from asserts import assert_close_tree, assert_pure
from torch import nn

from metapl.core import rng
from metapl.models import MODELS, convnet, mlp
from metapl.nn import functional
from metapl.registry import notation

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

IMAGE, PLANE = (1, 8, 8), (2,)


def numbers(module):
    return sum(value.numel() for value in module.parameters())


def kinds(module, kind):
    return [layer for layer in module.modules() if isinstance(layer, kind)]


def mlp_size(features, width, depth, classes):
    return features * width + width + (depth - 1) * (width * width + width) + width * classes + classes


def convnet_size(channels, width, depth, classes):
    grown = [channels, *(width * 2**index for index in range(depth))]
    convolutions = sum(9 * a * b for a, b in itertools.pairwise(grown))
    return convolutions + 2 * sum(grown[1:]) + grown[-1] * classes + classes


@pytest.mark.parametrize("shape", [PLANE, IMAGE, (3, 5, 7)])
@pytest.mark.parametrize(("width", "depth"), [(4, 1), (6, 2), (3, 4)])
def test_mlp(shape, width, depth):
    module = mlp(shape, 10, width=width, depth=depth)
    assert module(torch.zeros(5, *shape)).shape == (5, 10)
    assert numbers(module) == mlp_size(torch.Size(shape).numel(), width, depth, 10)
    assert len(kinds(module, nn.ReLU)) == depth


@pytest.mark.parametrize("shape", [IMAGE, (3, 5, 7), (1, 1, 1)])
@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("downsample", ["stride", "max"])
@pytest.mark.parametrize(("width", "depth"), [(4, 1), (8, 3), (16, 2)])
def test_convnet(shape, norm, downsample, width, depth):
    module = convnet(shape, 7, width=width, depth=depth, norm=norm, downsample=downsample).eval()
    assert module(torch.zeros(5, *shape)).shape == (5, 7)
    assert numbers(module) == convnet_size(shape[0], width, depth, 7)


def test_default_sizes():
    assert numbers(mlp(IMAGE, 10)) == mlp_size(64, 128, 2, 10)
    assert numbers(convnet(IMAGE, 10)) == convnet_size(1, 32, 3, 10)


@pytest.mark.parametrize(
    ("activation", "kind"), [("relu", nn.ReLU), ("tanh", nn.Tanh), ("sigmoid", nn.Sigmoid), ("gelu", nn.GELU)]
)
def test_mlp_activation(activation, kind):
    assert len(kinds(mlp(PLANE, 2, activation=activation), kind)) == 2


def test_mlp_starts_where_it_is_told():
    weights = torch.cat([value.flatten() for value in mlp(IMAGE, 10, init=0.1).parameters()]).detach()
    assert 0.0995 < weights.abs().max() < 0.1
    assert weights.std().item() == pytest.approx(0.2 / 12**0.5, rel=0.01)  # of a uniform distribution


@pytest.mark.parametrize(
    ("norm", "kind", "other"),
    [
        ("batch", nn.BatchNorm2d, nn.GroupNorm),
        ("group", nn.GroupNorm, nn.BatchNorm2d),
    ],
)
def test_convnet_norm(norm, kind, other):
    module = convnet(IMAGE, 10, width=16, depth=3, norm=norm)
    assert len(kinds(module, kind)) == 3
    assert not kinds(module, other)


def test_group_norm_takes_eight_channels_a_group():
    module = convnet(IMAGE, 10, width=16, depth=3, norm="group")
    assert [layer.num_channels // layer.num_groups for layer in kinds(module, nn.GroupNorm)] == [8, 8, 8]
    assert [layer.num_groups for layer in kinds(convnet(IMAGE, 10, width=4, depth=1, norm="group"), nn.GroupNorm)] == [
        1
    ]


def test_a_convnet_that_shrinks_sees_means_over_squares():
    torch.manual_seed(0)
    small = convnet((3, 4, 3), 5, width=4, depth=2).eval()
    large = convnet((3, 12, 9), 5, width=4, depth=2, shrink=3).eval()
    for one, other in zip(large.parameters(), small.parameters(), strict=True):
        one.data.copy_(other.data)
    x = torch.randn(2, 3, 12, 9)
    means = torch.stack([x[..., 3 * i : 3 * i + 3, 3 * j : 3 * j + 3].mean((2, 3)) for i in range(4) for j in range(3)])
    torch.testing.assert_close(large(x), small(means.reshape(4, 3, 2, 3).permute(2, 3, 0, 1)))


@pytest.mark.parametrize("side", [8, 9])
@pytest.mark.parametrize(("downsample", "poolings"), [("stride", 0), ("max", 2)])
def test_every_block_but_the_first_halves_the_image(side, downsample, poolings):
    module = convnet((1, side, side), 10, width=2, depth=3, downsample=downsample)
    assert len(kinds(module, nn.MaxPool2d)) == poolings
    x, sides = torch.zeros(2, 1, side, side), []
    for layer in module:
        x = layer(x)
        if isinstance(layer, nn.Conv2d):
            sides.append(x.shape[-1])
    assert sides == [side, (side + 1) // 2, ((side + 1) // 2 + 1) // 2]


def test_channels_last_is_another_layout_of_the_same_network():
    plain, last = (convnet((3, 8, 8), 10, width=4, channels_last=value).double() for value in (False, True))
    last.load_state_dict(dict(zip(last.state_dict(), plain.state_dict().values(), strict=True)))
    x = torch.randn(6, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(last(x), plain(x))
    assert last[:3](x).is_contiguous(memory_format=torch.channels_last)
    together = torch.vmap(last[:2])(torch.stack([x, -x]))
    torch.testing.assert_close(together, torch.stack([plain[:1](x), plain[:1](-x)]))


@pytest.mark.parametrize("build", [mlp, convnet])
@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_dropout_comes_before_the_last_layer(build, dropout):
    module = build(IMAGE, 10, dropout=dropout)
    assert [layer.p for layer in kinds(module, nn.Dropout)] == ([dropout] if dropout else [])
    assert isinstance(module[-1], nn.Linear)
    assert isinstance(module[-2], nn.Dropout) == bool(dropout)


@pytest.mark.parametrize(
    ("build", "shape", "options", "message"),
    [
        (mlp, PLANE, {"activation": "swish"}, "swish.*relu, tanh, sigmoid, gelu"),
        (mlp, PLANE, {"init": -0.1}, r"init=-0\.1"),
        (mlp, PLANE, {"width": 0}, "width=0.*at least 1"),
        (mlp, PLANE, {"depth": 0}, "depth=0.*at least 1"),
        (mlp, PLANE, {"dropout": 1.5}, "between 0 and 1"),
        (convnet, PLANE, {}, r"needs images.*\[2\]: use mlp"),
        (convnet, (1, 9, 8), {"shrink": 9}, r"shrink=9.*within 1 … 8, the shorter side"),
        (convnet, IMAGE, {"downsample": "mean"}, "downsample='mean'.*'stride' or 'max'"),
        (convnet, IMAGE, {"norm": "layer"}, "norm='layer'.*'batch' or 'group'"),
        (convnet, IMAGE, {"width": -1}, "width=-1.*at least 1"),
        (convnet, IMAGE, {"depth": 0}, "depth=0.*at least 1"),
        (convnet, IMAGE, {"dropout": -0.5}, "between 0 and 1"),
    ],
)
def test_options_that_make_no_network(build, shape, options, message):
    with pytest.raises(ValueError, match=message):
        build(shape, 10, **options)


# ---------------------------------------------------------------- as pure functions

SMALL = {
    "mlp": {"width": 6},
    "convnet": {"width": 4, "depth": 2},
    "wrn": {"depth": 10, "width": 1},
    "resnet18": {"width": 2},
    "resnet50": {"width": 2},
    "vit": {"width": 8, "depth": 1, "heads": 2},
    "efficientnet": {"width": 0.1, "depth": 0.1, "dropout": 0.0, "drop_path": 0.0},
}
VARIANTS = [
    *[(name, SMALL.get(name, {})) for name in MODELS],
    ("mlp", {"width": 6, "activation": "tanh", "dropout": 0.5}),
    ("convnet", {"width": 8, "depth": 2, "norm": "group", "dropout": 0.5}),
]
variants = pytest.mark.parametrize(("name", "options"), VARIANTS)


def pure(name, options):
    model = functional.cast(functional.from_module(lambda: MODELS[name](IMAGE, 10, **options)), torch.float64)
    x = torch.randn(6, *IMAGE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    params, buffers = model.init(rng.key(0))
    # Away from the initial point: there a norm of weight zero leaves the ReLU behind it at its kink.
    generator = torch.Generator().manual_seed(2)
    params = {k: v + 0.05 * torch.randn(v.shape, generator=generator, dtype=v.dtype) for k, v in params.items()}
    return model, params, buffers, x


@variants
def test_evaluation_equals_the_module(name, options):
    model, params, buffers, x = pure(name, options)
    module = MODELS[name](IMAGE, 10, **options).double().eval()
    module.load_state_dict({**params, **buffers})
    logits, after = model.apply(params, buffers, x, train=False)
    torch.testing.assert_close(logits, module(x).detach(), rtol=1e-12, atol=1e-14)
    assert_close_tree(after, buffers, rtol=0)


@variants
def test_training_equals_the_module_with_its_statistics(name, options):
    options = {**options, **({"dropout": 0.0} if "dropout" in notation.options(MODELS[name]) else {})}
    model, params, buffers, x = pure(name, options)
    module = MODELS[name](IMAGE, 10, **options).double().train()
    module.load_state_dict({**params, **buffers})
    logits, after = model.apply(params, buffers, x, train=True)
    torch.testing.assert_close(logits, module(x).detach(), rtol=1e-12, atol=1e-14)
    assert_close_tree(after, dict(module.named_buffers()), rtol=1e-12)


@variants
@pytest.mark.parametrize("train", [True, False])
def test_applying_is_pure(name, options, train):
    model, params, buffers, x = pure(name, options)
    logits, _ = assert_pure(lambda *args: model.apply(*args, train=train, key=rng.key(1)), params, buffers, x)
    assert logits.shape == (6, 10)


@variants
@pytest.mark.parametrize("train", [True, False])
def test_forward_and_reverse_mode_agree_with_finite_differences(name, options, train):
    """⟨gradient, direction⟩ = directional derivative = central difference."""
    model, params, buffers, x = pure(name, options)
    generator = torch.Generator().manual_seed(1)
    draw = {k: torch.randn(v.shape, generator=generator, dtype=torch.float64) for k, v in params.items()}
    norm = sum(v.square().sum() for v in draw.values()).sqrt()
    draw = {k: v / norm for k, v in draw.items()}

    def loss(params):
        logits, _ = model.apply(params, buffers, x, train=train, key=rng.key(1))
        return torch.logsumexp(logits, dim=-1).mean()

    _, forward = torch.func.jvp(loss, (params,), (draw,))
    gradient = torch.func.grad(loss)(params)
    reverse = sum((gradient[k] * draw[k]).sum() for k in params)
    near, far = ({k: params[k] + step * draw[k] for k in params} for step in (1e-6, -1e-6))
    torch.testing.assert_close(forward, reverse, rtol=1e-10, atol=0)
    torch.testing.assert_close(forward, (loss(near) - loss(far)) / 2e-6, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", SMALL)
def test_dropout_is_drawn_from_the_key_in_training_only(name):
    model, params, buffers, x = pure(name, {**SMALL[name], "dropout": 0.5})
    one, same, other = (model.apply(params, buffers, x, train=True, key=rng.key(k))[0] for k in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    calm = [model.apply(params, buffers, x, train=False, key=rng.key(k))[0] for k in (1, 2)]
    assert torch.equal(*calm)
