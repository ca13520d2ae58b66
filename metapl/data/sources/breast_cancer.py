"""Breast tumours described by 30 numbers, embedded in scikit-learn: a table that needs no file."""

from __future__ import annotations

import torch

from metapl.core import rng
from metapl.data.augment import presets
from metapl.data.form import Form
from metapl.data.formats import tables
from metapl.data.formats.csv_file import Table
from metapl.data.sources.base import Dataset
from metapl.data.sources.held_out import hold_out


def breast_cancer(*, test: float = 0.3) -> Dataset:
    """The 569 rows of scikit-learn's `load_breast_cancer` (UCI Breast Cancer Wisconsin, Diagnostic).

    Every number is scaled to mean 0 and standard deviation 1 over the training pool.

    Args:
        test: share of either class that is held out for the test, the same for every seed.

    Raises:
        InputError: a share outside (0, 1).
    """
    from sklearn.datasets import load_breast_cancer  # noqa: PLC0415 - a second to import, and only this source needs it

    raw = load_breast_cancer()
    y = torch.as_tensor(raw.target, dtype=torch.int64)
    cells = {str(name): tuple(map(repr, map(float, raw.data[:, at]))) for at, name in enumerate(raw.feature_names)}
    table = Table("breast-cancer", cells, tuple(range(len(y))))
    pool, held = hold_out(y, test, rng.key(0))
    columns = tables.fit(table, "", pool=pool)
    x = tables.encode(columns, table)
    classes = tuple(str(name) for name in raw.target_names)
    form = Form("table", tuple(x.shape[1:]), classes, {"columns": columns, "label": "diagnosis"})
    return Dataset(x[pool], y[pool], x[held], y[held], presets.default(form), form)
