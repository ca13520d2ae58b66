"""The head of a report, and its configuration at the end."""

from __future__ import annotations

import shlex
from dataclasses import fields
from pathlib import Path
from string import Formatter
from typing import Any

from metapl import methods
from metapl.reporting.facts import Facts, drifted
from metapl.reporting.names import METHODS
from metapl.reporting.page import Html, Section, card, folded, join, note, opening, table, tag, whole
from metapl.training import architectures
from metapl.training.config import TrainConfig

DRIFTED = (
    "The final network has not the test accuracy any more that it had at the end of training: its data has changed "
    "since, or the arithmetic of this device differs. What is said of single test examples and classes is as of now."
)


def title(facts: Facts) -> str:
    """What the page is called."""
    config = facts.experiment.config
    return f"{opening(METHODS[config.method])} on {Path(config.data).name or config.data}"


def head(facts: Facts) -> Html:
    """The title, what was trained, and the numbers of the run."""
    environment, summary = facts.environment, facts.summary
    threads = environment["threads"]
    cpu = f"CPU, {threads} thread{'s' * (threads != 1)}"
    told = {
        "seed": str(summary["seed"]),
        "steps": whole(summary["steps"]),
        "time": duration(summary["seconds"]),
        "peak memory": size(summary["peak_memory_bytes"]),
        "device": environment["gpu"] if environment.get("gpu") and summary["config"].get("device") != "cpu" else cpu,
        "versions": f"metapl {environment['metapl']}, torch {environment['torch']}, Python {environment['python']}",
    }
    return join(
        tag("p", "Run ", tag("code", str(facts.run)), class_="run"),
        tag("h1", title(facts)),
        tag("p", *_told(facts), class_="lede"),
        *([tag("p", DRIFTED, class_="warning")] if drifted(facts) else []),
        tag("dl", *(tag("div", tag("dt", name), tag("dd", text)) for name, text in told.items()), class_="facts"),
    )


def _told(facts: Facts) -> list[str]:
    """One sentence on what was trained, which the method has words for."""
    experiment = facts.experiment
    config, parts = experiment.config, experiment.split
    method = methods.find(config.method)
    examples = f"{whole(len(parts.labelled))} labelled"
    if method.unlabelled:
        examples += f" and {whole(len(parts.unlabelled))} unlabelled"
    filled = {
        "learnt": f"learnt {experiment.data.classes} classes from {examples} examples",
        "claim": experiment.estimator.claim,
        "labels": tag("code", experiment.labels),
        "grad": tag("code", config.grad),
        **{field: tag("code", architectures.text(config, field)) for field in ("teacher", "calibrator")},
        "model": tag("code", config.model),
    }
    told = []
    for text, field, *_ in Formatter().parse(method.summary):
        told += [text, *([filled[field]] if field else [])]
    return told


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

    def row(name: str) -> list[str]:
        meaning = known[name].metadata["help"].replace("`", "") if name in known else ""
        return [tag("code", name), tag("code", _value(given[name])), meaning]

    changed = [row(name) for name in given if name not in known or given[name] != known[name].default]
    columns, words = ("option", "value", "meaning"), range(3)
    other = table(columns, changed, "options that differ from their defaults", words)
    every = table(columns, [row(name) for name in given], "all options", words)
    environment = [[name, str(value)] for name, value in facts.environment.items() if value is not None]
    again = tag("code", f"metapl train --config {shlex.quote(str(facts.run / 'config.toml'))}")
    boxes = [
        card(
            tag("h3", "Different from the defaults"),
            other if changed else note("Nothing."),
            folded(f"All {len(given)} options", every),
            note(again, " trains it again."),
        ),
        card(tag("h3", "Environment"), table(("what", "which"), environment, "environment", range(2))),
    ]
    return Section("Configuration", join(*boxes))


def _value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value) or "none"
