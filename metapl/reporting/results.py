"""Results on the test set, and calibration."""

from __future__ import annotations

import math
from collections.abc import Sequence

from metapl.reporting import figures
from metapl.reporting.facts import Bin, Difference, Facts, hits, means, reliability
from metapl.reporting.figures import Dot
from metapl.reporting.names import NETWORKS
from metapl.reporting.page import (
    Html,
    Section,
    card,
    figure,
    folded,
    grid,
    join,
    note,
    number,
    opening,
    percent,
    plus,
    swatch,
    table,
    tag,
    whole,
)

EXPLAINED = {
    "top-1": "the share of test examples whose class is the most probable one.",
    "top-5": "the share of those whose class is among the five most probable.",
    "NLL": "the mean negative log-likelihood, in nats.",
    "ECE": "the expected calibration error: how far confidence and accuracy are apart, in 15 bins.",
    "± s.e.": "one standard error over the test examples; of a difference, that of paired examples, √(b + c) / n where "
    "b and c count what one network alone has right. What other seeds would give varies too, and is not in it.",
}


def results(facts: Facts) -> Section:
    """The final network beside the baseline, all networks, and what finetuning did."""
    rows = facts.summary["test"]
    names = [name for name in NETWORKS if name in rows]
    several = facts.experiment.data.classes > 5
    listed = [
        [
            NETWORKS[name][0],
            percent(rows[name]["top1"]),
            *([percent(rows[name]["top5"])] if several else []),
            number(rows[name]["nll"]),
            percent(rows[name]["ece"]),
        ]
        for name in names
    ]
    columns = ["network", "top-1 %", *(["top-5 %"] if several else []), "NLL", "ECE %"]
    every = table(columns, listed, "test metrics by network", chosen=names.index(facts.final))
    return Section(
        "Results",
        join(
            _tiles(facts),
            grid(card(tag("h3", "All networks"), every), *([_dots(facts, names)] if len(names) > 1 else [])),
            grid(*([_finetuning(facts)] if facts.final == "finetuned" else []), _explained(facts)),
        ),
    )


def _dots(facts: Facts, names: Sequence[str]) -> Html:
    shares = {name: facts.summary["test"][name]["top1"] for name in names}
    rows = [Dot(*NETWORKS[name], 100 * share, 100 * error(share, len(facts.y))) for name, share in shares.items()]
    label = ", ".join(f"{NETWORKS[name][0]} {percent(share)} %" for name, share in shares.items())
    picture = figures.dots("dots", rows, "top-1, %, ± one standard error")
    return figure("Test accuracy", picture, f"Top-1 accuracy on the test set: {label}")


def _explained(facts: Facts) -> Html:
    several = facts.experiment.data.classes > 5
    told = (join(tag("dt", name), tag("dd", text)) for name, text in EXPLAINED.items() if several or name != "top-5")
    first = note(f"All on the same {whole(len(facts.y))} test examples, with the final weights.")
    return card(tag("h3", "How to read this"), first, tag("dl", *told, class_="words"))


def error(share: float, count: int) -> float:
    """The standard error of a share of `count` examples, √(p (1 − p) / n)."""
    return math.sqrt(share * (1 - share) / count)


def _tile(name: str, big: str, unit: str, below: str) -> Html:
    value = tag("dd", big, tag("span", unit), class_="big")
    return tag("div", tag("dt", name), value, tag("dd", below, class_="small"), class_="card tile")


def _tiles(facts: Facts) -> Html:
    shares = {name: facts.summary["test"][name]["top1"] for name in (facts.final, facts.baseline) if name}
    tiles = [
        _tile(f"{NETWORKS[name][0]}: test top-1", percent(share), " %", f"± {percent(error(share, len(facts.y)))}")
        for name, share in shares.items()
    ]
    if facts.baseline:
        gap = hits(*(facts.judged[name].predicted == facts.y for name in shares))
        tiles.append(_tile("difference", plus(percent(gap.value)), " points", f"± {percent(gap.error)}, paired"))
    return tag("dl", *tiles, class_="tiles")


def _finetuning(facts: Facts) -> Html:
    rows, before, after = facts.summary["test"], facts.judged["ema"], facts.judged["finetuned"]
    five = hits(after.among_five, before.among_five)
    metrics = [
        ("top-1 %", "top1", hits(after.predicted == facts.y, before.predicted == facts.y), percent),
        *([("top-5 %", "top5", five, percent)] if facts.experiment.data.classes > 5 else []),
        ("NLL", "nll", means(after.nll, before.nll), number),
        ("ECE %", "ece", Difference(rows["finetuned"]["ece"] - rows["ema"]["ece"], math.nan), percent),
    ]
    listed = [
        [
            name,
            *(write(rows[network][metric]) for network in ("ema", "finetuned")),
            plus(write(gap.value)),
            write(gap.error),
        ]
        for name, metric, gap, write in metrics
    ]
    columns = ["metric", "before", "after", "difference", "± s.e."]
    told = (
        f"The averaged student, after {whole(facts.experiment.config.finetune_steps)} steps on the labelled examples."
    )
    return card(tag("h3", "Finetuning"), note(told), table(columns, listed, "metrics before and after finetuning"))


def calibration(facts: Facts) -> Section:
    """Reliability diagrams of the final network and of what came before it."""
    told = note(
        "Test examples in 15 bins by the probability of the predicted class. Of a calibrated network every bar reaches "
        "the diagonal: of the examples with a confidence of 80 %, 80 % are right."
    )
    return Section(
        "Calibration", join(told, grid(*(_diagram(facts, one) for one in (facts.before, facts.final) if one)))
    )


def _diagram(facts: Facts, network: str) -> Html:
    bins, name = reliability(facts.judged[network], facts.y), NETWORKS[network][0]
    ece = percent(facts.summary["test"][network]["ece"])
    columns = ("confidence, %", "examples", "mean confidence, %", "accuracy, %")
    numbers = folded("The numbers", table(columns, [_row(one) for one in bins], f"bins of the network {name}"))
    return figure(
        f"{opening(name)}: ECE {ece} %",
        figures.reliability(f"reliability-{network}", bins),
        f"Reliability diagram of the network {name}, expected calibration error {ece} %",
        [swatch(*one) for one in figures.GAPS],
        numbers,
    )


def _row(one: Bin) -> list[str]:
    span = f"{percent(one.low, 1)} – {percent(one.high, 1)}"
    return [span, whole(one.examples), percent(one.confidence), percent(one.accuracy)]
