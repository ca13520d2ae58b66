"""Runs of a few steps, fresh examples for them, and what a perceptron in numpy says of these."""

import csv
import io
import json
import math

import numpy as np
from command import called
from PIL import Image
from safetensors.numpy import load_file

from metapl.cli.predict import predict as verb
from metapl.cli.train import train
from metapl.training import run_folder

TINY = {"method": "mpl", "guide": "none", "steps": 4, "finetune_steps": 2, "baselines": False, "device": "cpu"}
TINY |= {"model": "mlp:width=8,depth=1"}
SPECIES = ("ant", "bee", "cat")


def run_of(folder, **flags):
    train(out=folder, **{**TINY, **flags})
    return folder


def rows_of(count, seed=0):
    """Numbers by which the species can be told apart, and the species."""
    generator = np.random.default_rng(seed)
    species = np.arange(count) % 3
    return generator.normal(size=(count, 2)).round(3) + species[:, None], [SPECIES[one] for one in species]


def saved(folder, count, shape=(8, 8), seed=0):
    """Grey images, and the levels in them."""
    folder.mkdir(parents=True, exist_ok=True)
    levels = np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)
    for number, one in enumerate(levels):
        Image.fromarray(one).save(folder / f"{number:02d}.png")
    return levels


def perceptron(run, x, network="finetuned"):
    """Softmax of a perceptron with one hidden layer, in float64, from the file of the weights alone."""
    tensors = load_file(run / "checkpoints" / "final.safetensors")
    weight = {name: tensors[f"{network}/params/{name}"].astype(np.float64) for name in ("1.weight", "1.bias")}
    last = {name: tensors[f"{network}/params/{name}"].astype(np.float64) for name in ("3.weight", "3.bias")}
    hidden = np.maximum(x.reshape(len(x), -1) @ weight["1.weight"].T + weight["1.bias"], 0)
    calibrated = json.loads((run / "summary.json").read_text())["calibrated"]
    logits = (hidden @ last["3.weight"].T + last["3.bias"]) / calibrated[network]["temperature"]
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def standardised(run, levels):
    form = run_folder.serve(run, device="cpu").form
    return (levels / 255 - form.details["mean"][0]) / form.details["std"][0]


def invoke(*args):
    outcome = called(verb, *args)
    assert outcome.exit_code == 0
    return outcome


def read(text):
    """Header and rows, but for the last column, which says that there is no problem."""
    header, *rows = csv.reader(io.StringIO(text))
    assert header[-1].startswith("problem")
    assert not any(row[-1] for row in rows)
    return header[:-1], [row[:-1] for row in rows]


def problems(text):
    """Rows by their column `problem`, and those of the predictions."""
    return [(row["problem"], row["prediction"], row["confidence"]) for row in csv.DictReader(io.StringIO(text))]


def assert_rows(rows, expected, classes, first=1):
    """Class, confidence and probabilities of each row, from column `first` on, are those of `expected`."""
    assert len(rows) == len(expected)
    for row, values in zip(rows, expected, strict=True):
        found = np.array(row[first + 1 :], dtype=np.float64)
        np.testing.assert_allclose(found, [values.max(), *values], rtol=0, atol=3e-7)
        assert row[first] == classes[values.argmax()]
        assert float(row[first + 1]) == found[1:].max()
        assert math.isclose(found[1:].sum(), 1.0, abs_tol=2**-23)
