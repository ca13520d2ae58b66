"""How the training went, step by step."""

from __future__ import annotations

import math
from collections.abc import Sequence

from metapl import methods
from metapl.files.table import whole
from metapl.reporting import figures
from metapl.reporting.blocks import Figure, Grid, Section
from metapl.reporting.facts import Facts
from metapl.reporting.figures import Line, Style, key
from metapl.reporting.log import Curve, curves, phases, validation
from metapl.reporting.names import BLUE, LOSSES, METHODS, NETWORKS, OWNERS, PINK, QUALITY


def training(facts: Facts) -> Section:
    """Losses, validation accuracy, the quality of pseudo labels and the size of the feedback over the steps."""
    main = phases(facts.log)[-1]
    shown = [_losses(facts, main), _validation(facts), _quality(facts, main), _feedback(facts, main)]
    return Section("Training", [Grid([one for one in shown if one])])


def _figure(
    name: str, title: str, lines: Sequence[Line], unit: str, caption: str = "", shade: tuple[int, int] | None = None
) -> Figure:
    last = ", ".join(f"{line.name} {line.curve[-1][1]:.4g}" for line in lines)
    keys = [key(line.name, line.style) for line in lines] if len(lines) > 1 else []
    label = f"{title} over the steps, {unit}; at the end: {last}"
    return Figure(title, figures.curves(name, lines, unit, shade), label, keys, [caption] if caption else [])


def _percent(curve: Curve) -> Curve:
    return [(step, 100 * value) for step, value in curve]


def _losses(facts: Facts, main: str) -> Figure:
    found = curves(facts.log, main, "metrics")
    lines, paired = [], main in METHODS and methods.find(main).paired
    for name in [name for name in found if name != "feedback"]:
        text, style = LOSSES.get(name, (name, Style(PINK)))
        lines.append(Line(OWNERS.get(name, "") * paired + text, style, found[name]))
    text = f"Of {METHODS.get(main, main)}; each point is a mean since the point before."
    return _figure("losses", "Losses", lines, "nats", text)


def _validation(facts: Facts) -> Figure | None:
    found = validation(facts.log)
    if not found:
        return None
    lines = [Line(*NETWORKS[name], _percent(found[name])) for name in NETWORKS if name in found]
    text = f"On {whole(len(facts.experiment.split.validation))} labelled examples that are held out."
    if "finetuned" not in found:
        return _figure("validation", "Validation accuracy", lines, "top-1, %", text)
    first, last = found["finetuned"][0][0], found["finetuned"][-1][0]
    return _figure("validation", "Validation accuracy", lines, "top-1, %", f"{text} Shaded: finetuning.", (first, last))


def _quality(facts: Facts, main: str) -> Figure | None:
    found = curves(facts.log, main, "pseudo_labels")
    lines = [
        Line(*QUALITY[name], _percent(found[name]))
        for name in QUALITY
        if name in found and not all(math.isnan(value) for _, value in found[name])
    ]
    if not lines:
        return None
    least = facts.experiment.config.uda_threshold
    text = f"The teacher's, of unlabelled examples. Confident: with a probability of {least:g} or more."
    return _figure("quality", "Pseudo labels", lines, "%", text)


def _feedback(facts: Facts, main: str) -> Figure | None:
    found = curves(facts.log, main, "metrics")
    if "feedback" not in found:
        return None
    text = "Norm of the weighted feedback: the gradient with respect to the teacher's logits."
    return _figure("feedback", "Size of the feedback", [Line("feedback", Style(BLUE), found["feedback"])], "norm", text)
