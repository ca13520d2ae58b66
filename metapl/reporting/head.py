"""The head of a report, and its configuration at the end."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import fields
from string import Formatter
from typing import Any

from metapl import methods
from metapl.data.sources import find
from metapl.files.table import Column, Table, whole
from metapl.reporting.blocks import Card, Code, Folded, Head, Paragraph, Rows, Section, Text
from metapl.reporting.facts import Facts, drifted
from metapl.reporting.names import METHODS, opening
from metapl.training import architectures
from metapl.training.config import TrainConfig

DRIFTED = (
    "The final network has not the test accuracy any more that it had at the end of training: its data has changed "
    "since, or the arithmetic of this device differs. What is said of single test examples and classes is as of now."
)
"""What a page says where the test accuracy is not that of the end of training."""


def title(facts: Facts) -> str:
    """What the page is called."""
    config = facts.experiment.config
    return f"{opening(METHODS[config.method])} on {find.called(config.data)}"


def head(facts: Facts, note: str = "") -> Head:
    """The title, what was trained, and the numbers of the run; a note, if there is one, as a warning."""
    environment, summary = facts.environment, facts.summary
    threads = environment["threads"]
    cpu = f"CPU, {threads} thread{'s' * (threads != 1)}"
    shown = {
        "seed": str(summary["seed"]),
        "steps": whole(summary["steps"]),
        "time": duration(summary["seconds"]),
        "peak memory": size(summary["peak_memory_bytes"]),
        "device": environment["gpu"] if environment.get("gpu") and summary["config"].get("device") != "cpu" else cpu,
        "versions": f"metapl {environment['metapl']}, torch {environment['torch']}, Python {environment['python']}",
    }
    origin = ("Run ", Code(str(facts.run)))
    return Head(title(facts), _lede(facts), shown, origin, note or (DRIFTED if drifted(facts) else ""))


def _lede(facts: Facts) -> Text:
    """One sentence on what was trained, which the method has words for."""
    experiment = facts.experiment
    config, parts = experiment.config, experiment.split
    method = methods.find(config.method)
    examples = f"{whole(len(parts.labelled))} labelled"
    if method.unlabelled:
        examples += f" and {whole(len(parts.unlabelled))} unlabelled"
    filled: dict[str, str | Code] = {
        "learnt": f"learnt {experiment.data.classes} classes from {examples} examples",
        "claim": experiment.estimator.claim,
        "labels": Code(experiment.labels),
        "grad": Code(config.grad),
        **{field: Code(architectures.text(config, field)) for field in ("teacher", "calibrator")},
        "model": Code(config.model),
    }
    lede: list[str | Code] = []
    for text, field, *_ in Formatter().parse(method.summary):
        lede += [text, *([filled[field]] if field else [])]
    return lede


def duration(seconds: float) -> str:
    """Seconds as 16 s, 3 min 5 s or 2 h 40 min."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes else f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min"


def size(count: int) -> str:
    """Bytes as MiB or GiB."""
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.0f} MiB"


def configuration(facts: Facts) -> Section:
    """The options, those that differ from the defaults first, and the environment."""
    given: dict[str, Any] = facts.summary["config"]
    known = {one.name: one for one in fields(TrainConfig)}

    def row(name: str) -> tuple[str, str, str]:
        meaning = known[name].metadata["help"].replace("`", "") if name in known else ""
        return name, value_text(given[name]), meaning

    changed = [row(name) for name in given if name not in known or given[name] != known[name].default]
    columns = [Column("option", look="code"), Column("value", look="code"), Column("meaning")]
    other = Rows(Table(columns, changed, "options that differ from their defaults"))
    every = Rows(Table(columns, [row(name) for name in given], "all options"))
    again = Code(f"metapl train --config {shlex.quote(str(facts.run / 'config.toml'))}")
    different = [
        other if changed else Paragraph("Nothing."),
        Folded(f"All {len(given)} options", [every]),
        Paragraph((again, " trains it again.")),
    ]
    boxes = [Card("Different from the defaults", different), environment(facts.environment)]
    return Section("Configuration", boxes)


def environment(found: Mapping[str, Any]) -> Card:
    """Versions and machine."""
    rows = [(name, str(value)) for name, value in found.items() if value is not None]
    return Card("Environment", [Rows(Table([Column("what"), Column("which")], rows, "environment"))])


def value_text(value: Any) -> str:
    """The value of an option."""
    return str(value).lower() if isinstance(value, bool) else str(value) or "none"
