"""The JSON files of a run folder, read as data from anywhere: every field is checked before anything uses it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from metapl import methods
from metapl.data.form import Form
from metapl.evaluation.metrics import ADDED
from metapl.files.schema import (
    among,
    any_of,
    by_name,
    listed,
    load,
    load_text,
    measured,
    number,
    parse,
    positive,
    table,
    text,
    whole,
    wrong,
)
from metapl.training.form_details import DETAILS

SUMMARY = "summary.json"
"""The last file that a run writes: where it is, the run is finished."""

NETWORKS = tuple(methods.networks())
"""What the networks of a run are called, in the order of a table."""

LONGEST = 1000
"""The most letters of what is said of a network that was fitted."""

NUMBERS = 2**28
"""The most numbers that one example may have, 1 GiB."""


def _share(value: Any, where: str) -> float:
    """A number from 0 to 1, or NaN where training diverged."""
    found = measured(value, where)
    if not (math.isnan(found) or 0 <= found <= 1):
        wrong(value, where, "a share from 0 to 1")
    return found


def _metrics(value: Any, where: str) -> dict[str, float]:
    shares = {"top1": _share, "ece": _share}
    later = dict.fromkeys(("top5", *ADDED), _share)
    return {**dict.fromkeys(later, math.nan), **table({**shares, "nll": measured}, later)(value, where)}


_by_network = by_name(among(NETWORKS), _metrics)


def _scalar(value: Any, where: str) -> Any:
    if type(value) not in (str, bool) and value is not None:
        measured(value, where)
    return value


_SUMMARY = table(
    {
        "test": _by_network,
        "validation": _by_network,
        "config": by_name(text(100), _scalar),
        "pseudo_labels": text(100),
        "seed": number,
        "steps": whole(),
        "seconds": number,
        "peak_memory_bytes": whole(),
    },
    {
        "weights": table({"sha256": text(64)}),
        "chosen": by_name(among(NETWORKS), text(LONGEST)),
        "compiled": by_name(text(100), number),
        "calibrated": by_name(among(NETWORKS), table({"temperature": positive, "nll": measured, "ece": _share})),
    },
)


def _text_or_none(value: Any, where: str) -> str | None:
    return None if value is None else text()(value, where)


ENVIRONMENT = table(
    {**dict.fromkeys(("metapl", "torch", "numpy", "python", "platform"), text()), "threads": whole(1)},
    {"gpu": _text_or_none},
    others=True,
)
"""The check of `environment.json`."""

LINE = table(
    {
        "phase": text(100),
        "step": whole(),
        "metrics": by_name(text(100), measured),
        "validation": by_name(text(100), table({"top1": measured}, others=True)),
    },
    {"pseudo_labels": by_name(text(100), measured), "seconds": number},
    others=True,
)
"""The check of one line of `metrics.jsonl`."""

FORM = {
    "kind": among(("images", "table", "arrays", "features")),
    "shape": listed(whole(1, NUMBERS), 1, 8),
    "classes": listed(text(), 1),
    "details": any_of,
}
"""The fields of a `Form`; `form` checks what they are together."""


def form(found: dict[str, Any], where: str) -> Form:
    """The form that the checked fields of `FORM` are.

    Raises:
        InputError: fields that do not go together.
    """
    kind, shape, classes = found["kind"], tuple(found["shape"]), tuple(found["classes"])
    if math.prod(shape) > NUMBERS:
        wrong(found["shape"], f"{where}: shape", f"of at most {NUMBERS:,} numbers")
    return Form(kind, shape, classes, DETAILS[kind](found["details"], f"{where}: details", shape))


def data(path: Path) -> Form:
    """`data.json`: what an example is.

    Raises:
        InputError: it cannot be read, or is none.
    """
    return form(load(path, table(FORM)), str(path))


def summary(path: Path) -> dict[str, Any]:
    """`summary.json`; numbers that training brought to NaN are NaN.

    Raises:
        InputError: it cannot be read, or is none.
    """
    return load(path, _SUMMARY)


def environment(path: Path) -> dict[str, Any]:
    """`environment.json`, whose values are there to be shown.

    Raises:
        InputError: it cannot be read, or is none.
    """
    return load(path, ENVIRONMENT)


def confusion(path: Path, classes: int) -> dict[str, list[list[int]]]:
    """`confusion.json`: counts `[classes, classes]` by network.

    Raises:
        InputError: it cannot be read, or is none.
    """
    row = listed(whole(), classes, classes)
    return load(path, by_name(among(NETWORKS), listed(row, classes, classes)))


def split_sizes(path: Path) -> tuple[int, int]:
    """How many examples are labelled and unlabelled by a `split.json`, whose data is not at hand.

    Raises:
        InputError: it cannot be read, or is none.
    """
    index = listed(whole())
    found = load(path, table({"labelled": index, "unlabelled": listed(listed(whole(), 2, 2)), "validation": index}))
    return len(found["labelled"]), sum(max(0, last - first + 1) for first, last in found["unlabelled"])


def log(path: Path) -> list[dict[str, Any]]:
    """`metrics.jsonl`, line by line.

    Raises:
        InputError: it cannot be read, or is none.
    """
    lines = load_text(path).splitlines()
    return [LINE(parse(line, f"{path}, line {place}"), f"{path}, line {place}") for place, line in enumerate(lines, 1)]


def whole_lines(path: Path) -> str:
    """The text of `metrics.jsonl` of a run that goes on, whose last line may be half written.

    Raises:
        InputError: it cannot be read.
    """
    content = load_text(path)
    return content[: content.rfind("\n") + 1]
