"""`metapl predict`: against a network written out in numpy."""

import io
from collections import Counter

import numpy as np
import pytest
import torch
from predicting import assert_rows, invoke, perceptron, read, saved, standardised

from metapl.data.examples import Inputs, Problems
from metapl.data.formats import images
from metapl.serving import predict
from metapl.training import run_folder

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


@pytest.mark.parametrize("batch", [1, 3, 7, 100])
def test_images_are_predicted_in_order(digits, tmp_path, batch):
    levels = saved(tmp_path / "some", 7)
    outcome = invoke(digits, tmp_path / "some", "--batch", batch)
    header, rows = read(outcome.stdout)
    assert header == ["name", "prediction", "confidence", *(f"p({digit})" for digit in range(10))]
    assert [row[0] for row in rows] == [str(tmp_path / "some" / f"{number:02d}.png") for number in range(7)]
    assert_rows(rows, perceptron(digits, standardised(digits, levels)), [str(digit) for digit in range(10)])
    assert outcome.stderr == f"predicted  7 examples with finetuned of {digits}\n"


def test_the_order_is_that_of_the_arguments(digits, tmp_path):
    saved(tmp_path, 3)
    given = [tmp_path / "02.png", tmp_path / "00.png"]
    assert [row[0] for row in read(invoke(digits, *given).stdout)[1]] == list(map(str, given))


@pytest.mark.parametrize("network", ["ema", "student", "teacher"])
def test_another_network(digits, tmp_path, network):
    levels = saved(tmp_path, 5)
    outcome = invoke(digits, tmp_path, "--network", network)
    expected = perceptron(digits, standardised(digits, levels), network)
    assert_rows(read(outcome.stdout)[1], expected, [str(digit) for digit in range(10)])
    assert f"with {network} of" in outcome.stderr


def test_arrays(moons, tmp_path):
    """In the units of the file; the run standardises them as its training data."""
    x = np.random.default_rng(0).normal(size=(9, 2))
    np.save(tmp_path / "x.npy", x)
    header, rows = read(invoke(moons, tmp_path / "x.npy", "--batch", 4).stdout)
    assert header == ["name", "prediction", "confidence", "p(upper)", "p(lower)"]
    form = run_folder.serve(moons, device="cpu").form
    expected = perceptron(moons, (x - form.details["mean"]) / form.details["std"])
    assert_rows(rows, expected, ("upper", "lower"))


def test_a_float32_is_written_so_that_it_comes_back(digits, tmp_path):
    saved(tmp_path, 4)
    serving = run_folder.serve(digits, device="cpu")
    x = images.read(serving.form, [tmp_path]).x
    (found,) = predict.probabilities(serving, x)
    rows = read(invoke(digits, tmp_path).stdout)[1]
    written = torch.tensor([[float(value) for value in row[3:]] for row in rows], dtype=torch.float64)
    assert torch.equal(written.float(), found)
    assert (written.sum(1) - 1).abs().max() <= 2**-24 + 1e-9


def test_probabilities_are_rounded_once(table):
    """Of many classes, whose sum would leave 1 if they were computed in float32."""
    logits = 10 * torch.randn(50, 1000, generator=torch.Generator().manual_seed(0))
    serving = run_folder.serve(table, device="cpu")._replace(temperature=1.0)
    echo = serving.model._replace(apply=lambda params, buffers, x, train: (x, buffers))
    found = torch.cat(list(predict.probabilities(serving._replace(model=echo), logits, batch=20)))
    powers = np.exp(logits.double().numpy())
    expected = powers / powers.sum(1, keepdims=True)
    np.testing.assert_allclose(found.numpy(), expected, rtol=2**-24 + 1e-12, atol=0)
    assert (found.double().sum(1) - 1).abs().max() <= 2**-24


class Store:
    """Ten images that are not in memory; notes how many are asked for, and how much was written by then."""

    shape, dtype = torch.Size([10, 1, 8, 8]), torch.uint8

    def __init__(self, written):
        self.asked, self.written = [], written

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, index):
        self.asked.append((len(index), self.written()))
        return torch.zeros(len(index), *self.shape[1:], dtype=self.dtype)


def test_only_one_batch_is_asked_for_at_a_time(digits, monkeypatch):
    """Rows are written before the next examples are read."""
    file = io.StringIO()
    store = Store(lambda: file.getvalue().count("\n"))
    monkeypatch.setattr("metapl.data.inputs.read", lambda *_: Inputs(list(map(str, range(10))), store))
    count = predict.write(file, run_folder.serve(digits, device="cpu"), [], batch=4)
    assert store.asked == [(4, 1), (4, 5), (2, 9)]
    assert count == (10, 0, 0, Counter(), Problems({}, {}))


@pytest.mark.parametrize("out", ["-", "found.csv"])
def test_the_size_of_a_batch(digits, tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    for given, wanted in (((), [10]), (("--batch", 7), [7, 3])):
        store = Store(lambda: 0)
        monkeypatch.setattr("metapl.data.inputs.read", lambda *_, x=store: Inputs(["x"] * 10, x))
        invoke(digits, "x.png", "--out", out, *given)
        assert [size for size, _ in store.asked] == wanted
