"""The most confident mistakes, as whatever the examples are: pictures, rows of a table, points, numbers."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from metapl.data.examples import take
from metapl.data.form import Form
from metapl.data.formats.tables import Columns, layout
from metapl.data.loader import in_order
from metapl.evaluation import metrics
from metapl.files.table import Column, Table, percent, whole
from metapl.reporting import figures
from metapl.reporting.blocks import Block, Card, Figure, Gallery, Grid, Paragraph, Rows, Section, Thumbnail
from metapl.reporting.facts import Facts, Mistake
from metapl.reporting.facts import mistakes as found
from metapl.reporting.figures import Plane, class_colour, swatch
from metapl.reporting.render import data_uri

MOST = 24
"""How many are shown."""

THUMBNAIL = 128
"""Pixels of the longer side beyond which a picture is made smaller."""

CRISP = 64
"""Pixels of the longer side up to which its pixels are shown as squares."""

UNUSUAL = 3
"""Features that are named of a row."""

BESIDE = 12
"""How many are listed beside a picture of the plane."""

GRID = 160
"""Points along each side where a network in the plane is asked."""


def share(value: float) -> str:
    """A share in per cent, with one decimal."""
    return percent(value, 1)


COLUMNS = (
    Column("example"),
    Column("true"),
    Column("predicted"),
    Column("confidence, %", share, "figure"),
    Column("of the truth, %", share, "figure"),
)
"""The columns of the table of mistakes."""


def mistakes(facts: Facts) -> Section:
    """The wrong test examples that the final network was surest of."""
    judged = facts.judged[facts.final]
    form = facts.experiment.data.form
    flat = form.kind == "arrays" and form.shape == (2,)
    shown, wrong = found(judged, facts.y, BESIDE if flat else MOST), int((judged.predicted != facts.y).sum())
    if not shown:
        return Section("Mistakes", [Paragraph(f"None of the {whole(len(facts.y))} test examples is wrong.")])
    text = f"{whole(wrong)} of {whole(len(facts.y))} test examples {'is' if wrong == 1 else 'are'} wrong"
    text += f"; these are the {len(shown)} that the network was surest of." if wrong > len(shown) else ", surest first."
    return Section("Mistakes", [Paragraph(text), _shown(facts, shown, flat)])


def _shown(facts: Facts, shown: Sequence[Mistake], flat: bool) -> Block:
    form = facts.experiment.data.form
    if drawable(facts.experiment.data.shown.form):
        return Card("", [_pictures(facts, shown)])
    if form.kind == "table":
        return Card("", [Rows(_rows(facts, shown))])
    listed = Card("", [Rows(Table(COLUMNS, [_row(one, form.classes) for one in shown], "mistakes"))])
    return Grid([_plane(facts), listed]) if flat else listed


def drawable(form: Form) -> bool:
    """Whether examples can be shown as pictures."""
    return form.kind == "images" and form.shape[0] in (1, 3)


def _row(one: Mistake, names: Sequence[str]) -> tuple[str, str, str, float, float]:
    return str(one.example), names[one.truth], names[one.predicted], one.confidence, one.of_truth


def levels(x: Tensor, form: Form) -> Tensor:
    """Stored images `[images, channels, height, width]` as uint8, be they levels already or standardised."""
    if x.dtype == torch.uint8:
        return x
    if "scale" in form.details:
        return x.round().clamp(0, 255).to(torch.uint8)
    mean, std = (torch.tensor(form.details[name]).view(-1, 1, 1) for name in ("mean", "std"))
    return (255 * (x * std + mean)).round().clamp(0, 255).to(torch.uint8)


def png(image: Tensor) -> str:
    """Grey levels `[channels, height, width]`, uint8, as a PNG in a data URI; see `THUMBNAIL`."""
    pixels = image.permute(1, 2, 0).numpy()
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, format="png", optimize=True)
    return data_uri(file.getvalue(), "png")


def _pictures(facts: Facts, shown: Sequence[Mistake]) -> Gallery:
    form, _, x = facts.experiment.data.shown
    height, width = form.shape[1:]
    crisp = max(height, width) <= CRISP
    found = []
    wrong = take(x, torch.tensor([one.example for one in shown]), torch.device("cpu"))
    for one, image in zip(shown, levels(wrong, form), strict=True):
        truth, predicted = form.classes[one.truth], form.classes[one.predicted]
        alt = f"test example {one.example}: {truth}, taken for {predicted}"
        sure = f"{share(one.confidence)} % sure"
        found.append(Thumbnail(png(image), (width, height), crisp, alt, truth, predicted, sure))
    return Gallery(found)


def _rows(facts: Facts, shown: Sequence[Mistake]) -> Table:
    form, x = facts.experiment.data.form, facts.experiment.data.x_test
    every = take(x, torch.arange(len(x)), torch.device("cpu")).double()
    mean, std = every.mean(0), every.std(0, correction=0)
    rows = [
        (*_row(one, form.classes), deviations(form.details["columns"], every[one.example], mean, std)) for one in shown
    ]
    return Table([*COLUMNS, Column("most unusual", look="list")], rows, "mistakes")


def deviations(columns: Columns, row: Tensor, mean: Tensor, std: Tensor) -> list[str]:
    """The features of a row that are farthest from the mean, in standard deviations, as text.

    Behind a number stands by how many standard deviations, behind a category how much of the test set has it.

    Args:
        columns: of the table, see `metapl.data.formats.tables`.
        row: encoded, `[features]`; of features that are 1 or 0 those that are 1 count.
        mean: of the test set, `[features]`.
        std: likewise.
    """
    numbers = layout(columns).numbers
    far = torch.where(std > 0, (row - mean) / std, 0.0)
    counts = torch.tensor(numbers) | (row > 0.5)
    order = torch.argsort(far.abs() * counts, descending=True, stable=True)[:UNUSUAL].tolist()
    return [_feature(columns, place, row, mean, far) for place in order if counts[place] and far[place]]


def _feature(columns: Columns, place: int, row: Tensor, mean: Tensor, far: Tensor) -> str:
    owners = layout(columns).columns
    column, share = columns[owners[place]], f"{percent(float(mean[place]), 0)} %"
    inside = place - owners.index(owners[place])
    if column["kind"] == "category":
        return f"{column['name']} = {column['categories'][inside] or 'missing'} ({share})"
    if not column["std"] or inside:
        return f"{column['name']} missing ({share})"
    value = float(row[place]) * column["std"] + column["mean"]
    sign = "−" if far[place] < 0 else "+"
    return f"{column['name']} {value:.4g} ({sign}{abs(float(far[place])):.1f} σ)"


def _plane(facts: Facts) -> Figure:
    experiment, judged = facts.experiment, facts.judged[facts.final]
    form = experiment.data.form
    mean, std = (torch.as_tensor(form.details[name], dtype=torch.float32) for name in ("mean", "std"))
    x = take(experiment.data.x_test, torch.arange(len(facts.y)), torch.device("cpu"))
    low, high = x.amin(0) - 0.2, x.amax(0) + 0.2
    across, up = (torch.linspace(float(low[axis]), float(high[axis]), GRID) for axis in (0, 1))
    places = torch.cartesian_prod(up, across).flip(-1).to(experiment.device)
    model = experiment.models.of(facts.final)
    ready = in_order(places, experiment.device, experiment.data.augment.prepare)
    logits = metrics.predict(model, *facts.networks[facts.final], ready)
    corners = torch.stack([across, up], 1) * std + mean
    seen = Plane(
        (x * std + mean).numpy(),
        facts.y.numpy(),
        np.array([one.example for one in found(judged, facts.y, len(facts.y))]),
        (corners[:, 0].numpy(), corners[:, 1].numpy()),
        logits.argmax(-1).cpu().reshape(GRID, GRID).numpy(),
    )
    keys = [swatch(name, class_colour(label)) for label, name in enumerate(form.classes)]
    text = (
        "Ground: what the network says. Dots: right test examples, by class. Crosses: wrong ones, by their true class."
    )
    label = f"The test examples in the plane, {len(seen.wrong)} of {len(seen.y)} wrong"
    return Figure("Where they are", figures.plane("plane", seen), label, keys, [text])
