"""Tiny runs on every kind of data, with what is reported of them; each is trained once."""

import json
from functools import partial
from unittest import mock

import torch
from command import invoke
from markup import parse
from once import once
from scipy import special

from metapl.core import rng
from metapl.data.augment import presets
from metapl.data.form import Form
from metapl.data.sources import Dataset, digits, find, moons
from metapl.data.sources.table import table
from metapl.reporting import report
from metapl.training import phases, run_folder

TINY = (
    *("--method", "mpl", "--guide", "none", "--alignment", "none"),
    *("--steps", "4", "--report-every", "2", "--finetune-steps", "4", "--finetune-lr", "0.05", "--batch", "32"),
    *("--model", "mlp:width=16,depth=1", "--device", "cpu"),
)
ROWS = {
    "logistic": "logistic regression",
    "self-training": "self-training",
    "spreading": "label spreading",
    "consensus": "graph and regression",
    "supervised": "supervised only",
    "pseudo-labels": "pseudo labels",
    "uda": "UDA",
    "fixed": "fixed teacher",
    "teacher": "teacher",
    "student": "student",
    "ema": "student, averaged",
    "finetuned": "finetuned",
}
"""Networks in the order of a table, with what they are called there."""
EVIL = (
    *("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "$\\frac{1}$", "a & b", "&lt;"),
    *("5", "ß", "''", "8", "日"),
)


def named_digits(folder):
    """Real pictures of classes whose names try to break out."""
    data = digits()
    return data._replace(form=data.form._replace(classes=EVIL))


def colours(folder, classes=25, side=6):
    """Colour images in levels, the test without the last class."""
    y = torch.arange(20 * classes) % classes
    x = rng.randint(rng.key(0), (len(y), 3, side, side), 256).to(torch.uint8)
    details = {"mean": [0.5] * 3, "std": [0.3] * 3}
    form = Form("images", (3, side, side), tuple(f"class {i}" for i in range(classes)), details)
    pool = torch.arange(len(y)) % 4 > 0
    test = ~pool & (y < classes - 1)
    return Dataset(x[pool], y[pool], x[test], y[test], presets.default(form), form)


def vectors(folder):
    """Numbers, with examples in the pool whose class nobody knows."""
    y = torch.arange(240) % 3
    x = rng.normal(rng.key(1), (240, 5)) + torch.nn.functional.one_hot(y, 5)
    form = Form("arrays", (5,), ("a", "b", "c"), {"mean": [0.0] * 5, "std": [1.0] * 5})
    pool = torch.where(torch.arange(120) < 60, y[:120], -1)
    return Dataset(x[:120], pool, x[120:], y[120:], presets.default(form), form)


def rows(folder):
    """A table with numbers, a category and gaps, in `table.csv`."""
    lines = ["height,colour <b>,income,label"]
    for i, (one, other) in enumerate(rng.normal(rng.key(2), (200, 2)).tolist()):
        colour = ("red", "green", "blue")[(i * i) % 3]
        income = "" if i % 9 == 4 else f"{2000 + 700 * other:.0f}"
        lines.append(f"{170 + 10 * one:.1f},{colour},{income},{'no' if i % 2 else 'yes'}")
    file = folder / "table.csv"
    file.write_text("\n".join(lines) + "\n")
    return table(file)


RUNS = {
    "mpl": (named_digits, ("--labels", "30", "--seed", "3")),
    "uda": (colours, ("--method", "uda", "--validation", "0", "--labels", "25")),
    "reduced": (
        lambda folder: moons(points=1200),
        ("--method", "reduced", "--labels", "6", "--no-baselines", "--finetune-steps", "0"),
    ),
    "pseudo-labels": (vectors, ("--method", "pseudo-labels", "--labels", "9", "--no-labelled-in-unlabelled")),
    "supervised": (rows, ("--method", "supervised", "--labels", "20")),
}


class Made:
    """A run, the page about it, and what other libraries need to say the same."""

    def __init__(self, folder, data, html):
        self.folder, self.data, self.html = folder, data, html
        self.page = parse(self.html)
        self.summary = json.loads((folder / "summary.json").read_text())
        with reading(data):
            self.experiment, self.networks = run_folder.load(folder, "cpu")
        self.final = next(name for name in run_folder.BEST if name in self.networks)
        self.y = data.y_test.numpy()

    def probabilities(self, name=""):
        name = name or self.final
        logits = phases.predict(self.experiment, name, self.networks[name], "test")
        return special.softmax(logits.double().numpy(), axis=-1)


def reading(data):
    """Whatever data a configuration names, this is read."""
    return mock.patch.object(find, "load", return_value=data)


_finished = {}


def finished(factory, name):
    """One of `RUNS`, in a folder of pytest's `tmp_path_factory`; it is trained and its page made once in a session."""
    if name not in _finished:
        folder = once(factory, f"report of {name}", partial(_train, name))
        _finished[name] = Made(folder / "a & <b>", RUNS[name][0](folder), (folder / "page.html").read_text("utf-8"))
    return _finished[name]


def _train(name, folder):
    source, flags = RUNS[name]
    with reading(source(folder)):
        outcome = invoke("train", *TINY, *flags, "--out", folder / "a & <b>")
        assert (outcome.code, outcome.err) == (0, "")
        (folder / "page.html").write_text(report(folder / "a & <b>", "cpu"), "utf-8")
