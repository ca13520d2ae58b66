"""What to label next: the unlabelled examples of a finished run, and the given labels that it doubts.

    run ─► Pool: examples that may be labelled ─► strategy ─► Suggested ─► CSV, page
       └─► labelled examples ─► doubts ────────────────────┘

The rows of the CSV file can be filled in and given to `metapl train --more-labels`.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from metapl.data import inputs
from metapl.data.examples import Examples, Inputs, subset, take
from metapl.data.form import Form
from metapl.embedding import applied
from metapl.files.escape import cell
from metapl.registry import notation
from metapl.registry.errors import InputError, unknown
from metapl.serving import doubts
from metapl.serving.answers import Answers
from metapl.serving.predict import Writable
from metapl.serving.strategies import STRATEGIES, Asked
from metapl.training import run_folder
from metapl.training.experiment import Experiment

HEADER = ("name", "label", "prediction", "confidence", "why", "score")
"""The columns of the CSV file."""


class Row(NamedTuple):
    """An example that somebody should look at."""

    name: str
    label: str
    """That it has; empty where there is none."""
    prediction: str
    confidence: float
    """The probability of the prediction; where there is a label, as the neighbours have it."""
    second: str
    """The next most probable class."""
    of_second: float
    score: float


class Suggested(NamedTuple):
    """What to look at in a run."""

    form: Form
    network: str
    by: str
    asked: int
    """How many unlabelled examples there are."""
    rows: tuple[Row, ...]
    x: Tensor
    """The examples of the rows as they were read, stored, `[rows, ...]`; `form` is that of these."""
    doubtful: tuple[Row, ...]
    """Examples whose label the network doubts, the most doubtful first."""
    x_doubtful: Tensor


class Wanted(NamedTuple):
    """What is asked for."""

    by: str = "margin"
    """One of `metapl.serving.strategies.STRATEGIES`, in the notation NAME:key=value,…."""
    most: int = 40
    """Examples of either list, at most."""
    network: str = ""
    """Which network predicts; the best of the run if empty."""
    batch: int = 256
    """Examples that are predicted at a time."""


def suggest(
    run: Path, wanted: Wanted, places: Sequence[Path] = (), device: str = "auto", trust_code: bool = False
) -> Suggested:
    """The examples to label next, and the labels to look at again.

    Args:
        run: the folder of a finished run, whose data is read again.
        wanted: by what strategy, and how many.
        places: of fresh examples without labels, in place of those of the run's own pool.
        device: cpu, cuda or auto.
        trust_code: whether code that the folder names may be imported, see `metapl.registry.trust`.

    Raises:
        InputError: no finished run, data that cannot be read, a strategy or network that is none, nothing to label, a
            strategy that the network does not fit.
    """
    strategy = notation.build(wanted.by, STRATEGIES, "by")
    experiment, networks = run_folder.load(run, device, trust_code)
    name = wanted.network or run_folder.best(networks, experiment.config.method)
    if name not in networks:
        raise unknown("network", name, networks)
    found = Answers(experiment, networks, name, wanted.batch)
    shown = inputs.read(experiment.data.shown.form, places) if places else _pool(experiment, experiment.data.shown.x)
    pool = applied.of(experiment.data.form, shown, experiment.device) if places else _pool(experiment)
    if not len(pool.x):
        raise InputError(f"{run} has no unlabelled examples: give some with --data")
    logits = found.logits(pool.x) / run_folder.temperature(run, name)
    x = pool.x
    asked = Asked(logits, partial(found.all, x), partial(found.features, x), partial(found.slopes, x))
    picked = strategy(asked, wanted.most)
    form = experiment.data.shown.form
    rows = _rows(form, pool.names, torch.softmax(logits, -1), *picked)
    examples = take(shown.x, picked.examples, torch.device("cpu"))
    return Suggested(form, name, wanted.by, len(pool.x), rows, examples, *_doubtful(found, wanted.most))


def _pool(experiment: Experiment, x: Examples | None = None) -> Inputs:
    """The examples of the run whose labels it has not seen; of the training pool, or of `x` in its order."""
    split, data = experiment.split, experiment.data
    index = split.unlabelled[~torch.isin(split.unlabelled, split.labelled)]
    return Inputs([data.name(place) for place in index.tolist()], subset(data.x if x is None else x, index))


def _rows(
    form: Form, names: Sequence[str], said: Tensor, index: Tensor, score: Tensor, labels: Sequence[str] = ()
) -> tuple[Row, ...]:
    best = said[index].topk(2, dim=-1)
    values = zip(index.tolist(), score.tolist(), best.values.tolist(), best.indices.tolist(), strict=True)
    return tuple(
        Row(
            names[place],
            labels[place] if labels else "",
            form.classes[first],
            confidence,
            form.classes[second],
            of_second,
            found,
        )
        for place, found, (confidence, of_second), (first, second) in values
    )


def _doubtful(run: Answers, count: int) -> tuple[tuple[Row, ...], Tensor]:
    """Labelled and validation examples whose neighbours are of another class, see `metapl.serving.doubts`."""
    data, known = run.experiment.data, run.known
    y, x, pool = data.y.cpu()[known], subset(data.x, known), _pool(run.experiment).x
    if len(pool):
        said = torch.softmax(run.logits(pool), -1)
        probabilities = doubts.of_neighbours(run.features(x), run.features(pool), said)
    else:
        probabilities = torch.softmax(run.logits(x), -1)
    score = doubts.score(probabilities, y)
    order = torch.argsort(score, descending=True, stable=True)[:count]
    order = order[score[order] > 0]
    names = [data.name(place) for place in known.tolist()]
    given = [data.form.classes[label] for label in y.tolist()]
    rows = _rows(data.form, names, probabilities, order, score[order], given)
    return rows, take(data.shown.x, known[order], torch.device("cpu"))


def write(file: Writable, found: Suggested) -> None:
    """Write both lists as CSV: `HEADER`, whose `why` is `unlabelled` or `doubtful`; labels are to be filled in.

    A text that a spreadsheet would run as a formula has an apostrophe before it, see `metapl.files.escape.cell`.
    """
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(HEADER)
    for why, rows in (("unlabelled", found.rows), ("doubtful", found.doubtful)):
        for row in rows:
            texts = map(cell, (row.name, row.label, row.prediction))
            writer.writerow([*texts, f"{row.confidence:.6g}", why, f"{row.score:.6g}"])
