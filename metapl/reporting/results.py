"""Results on the test set, and calibration."""

from __future__ import annotations

import math
from collections.abc import Sequence

from metapl.evaluation.table import COLUMNS, by_network
from metapl.files.table import Column, Table, percent, plus, whole
from metapl.reporting import figures
from metapl.reporting.blocks import Card, Figure, Folded, Grid, Paragraph, Rows, Section, Tile, Tiles, Words
from metapl.reporting.facts import Bin, Difference, Facts, hits, means, reliability
from metapl.reporting.figures import Dot, swatch
from metapl.reporting.names import NETWORKS, opening

EXPLAINED = {
    "top-1": "the share of test examples whose class is the most probable one.",
    "top-5": "the share of those whose class is among the five most probable.",
    "NLL": "the mean negative log-likelihood, in nats.",
    "ECE": "the expected calibration error: how far confidence and accuracy are apart, in 15 bins.",
    "± s.e.": "one standard error over the test examples; of a difference, that of paired examples, √(b + c) / n where "
    "b and c count what one network alone has right. What other seeds would give varies too, and is not in it.",
}
"""What each column means."""


def results(facts: Facts) -> Section:
    """The final network beside the baseline, all networks, and what finetuning did."""
    names = [name for name in NETWORKS if name in facts.summary["test"]]
    every = Card("All networks", [Rows(_metrics(facts))])
    below = [_finetuning(facts)] if facts.final == "finetuned" else []
    below += [_chosen(facts)] if facts.summary.get("chosen") else []
    dots = [_dots(facts, names)] if len(names) > 1 else []
    return Section("Results", [_tiles(facts), Grid([every, *dots]), Grid([*below, _explained(facts)])])


def _metrics(facts: Facts) -> Table:
    titles = {name: title for name, (title, _) in NETWORKS.items()}
    found = by_network([facts.summary["test"]], titles, "test metrics by network", facts.final)
    several = facts.experiment.data.classes > 5
    return found if several else found.without("top-5 %")


def _dots(facts: Facts, names: Sequence[str]) -> Figure:
    shares = {name: facts.summary["test"][name]["top1"] for name in names}
    rows = [Dot(*NETWORKS[name], 100 * share, 100 * error(share, len(facts.y))) for name, share in shares.items()]
    label = ", ".join(f"{NETWORKS[name][0]} {percent(share)} %" for name, share in shares.items())
    picture = figures.dots("dots", rows, "top-1, %, ± one standard error")
    return Figure("Test accuracy", picture, f"Top-1 accuracy on the test set: {label}")


def _chosen(facts: Facts) -> Card:
    """The settings of the networks that were fitted at once."""
    texts = {NETWORKS[name][0]: text for name, text in facts.summary["chosen"].items()}
    return Card("What the classical methods chose", [Words(texts)])


def _explained(facts: Facts) -> Card:
    several = facts.experiment.data.classes > 5
    meanings = {name: text for name, text in EXPLAINED.items() if several or name != "top-5"}
    first = Paragraph(f"All on the same {whole(len(facts.y))} test examples, with the final weights.")
    return Card("How to read this", [first, Words(meanings)])


def error(share: float, count: int) -> float:
    """The standard error of a share of `count` examples, √(p (1 − p) / n)."""
    return math.sqrt(share * (1 - share) / count)


def _tiles(facts: Facts) -> Tiles:
    shares = {name: facts.summary["test"][name]["top1"] for name in (facts.final, facts.baseline) if name}
    tiles = [
        Tile(f"{NETWORKS[name][0]}: test top-1", percent(share), " %", f"± {percent(error(share, len(facts.y)))}")
        for name, share in shares.items()
    ]
    if facts.baseline:
        gap = hits(*(facts.judged[name].predicted == facts.y for name in shares))
        tiles.append(Tile("difference", plus(percent(gap.value)), " points", f"± {percent(gap.error)}, paired"))
    return Tiles(tiles)


def _finetuning(facts: Facts) -> Card:
    rows, before, after = facts.summary["test"], facts.judged["ema"], facts.judged["finetuned"]
    five = hits(after.among_five, before.among_five)
    gaps = {
        "top1": hits(after.predicted == facts.y, before.predicted == facts.y),
        **({"top5": five} if facts.experiment.data.classes > 5 else {}),
        "nll": means(after.nll, before.nll),
        "ece": Difference(rows["finetuned"]["ece"] - rows["ema"]["ece"], math.nan),
    }
    columns = [
        Column("metric"),
        *(Column(title, look="figure") for title in ("before", "after", "difference", "± s.e.")),
    ]
    listed = []
    for metric, gap in gaps.items():
        title, write, _ = COLUMNS[metric]
        both = (write(rows[network][metric]) for network in ("ema", "finetuned"))
        listed.append((title, *both, plus(write(gap.value)), write(gap.error)))
    steps = whole(facts.experiment.config.finetune_steps)
    note = Paragraph(f"The averaged student, after {steps} steps on the labelled examples.")
    return Card("Finetuning", [note, Rows(Table(columns, listed, "metrics before and after finetuning"))])


def calibration(facts: Facts) -> Section:
    """Reliability diagrams of the final network and of what came before it."""
    note = Paragraph(
        "Test examples in 15 bins by the probability of the predicted class. Of a calibrated network every bar reaches "
        "the diagonal: of the examples with a confidence of 80 %, 80 % are right."
    )
    return Section("Calibration", [note, Grid([_diagram(facts, one) for one in (facts.before, facts.final) if one])])


def _diagram(facts: Facts, network: str) -> Figure:
    bins, name = reliability(facts.judged[network], facts.y), NETWORKS[network][0]
    ece = percent(facts.summary["test"][network]["ece"])
    return Figure(
        f"{opening(name)}: ECE {ece} %",
        figures.reliability(f"reliability-{network}", bins),
        f"Reliability diagram of the network {name}, expected calibration error {ece} %",
        [swatch(*one) for one in figures.GAPS],
        [Folded("The numbers", [Rows(_bins(bins, name))])],
    )


def _bins(bins: Sequence[Bin], name: str) -> Table:
    columns = [
        Column("confidence, %"),
        Column("examples", whole, "figure"),
        Column("mean confidence, %", percent, "figure"),
        Column("accuracy, %", percent, "figure"),
    ]
    rows = [
        (f"{percent(one.low, 1)} – {percent(one.high, 1)}", one.examples, one.confidence, one.accuracy) for one in bins
    ]
    return Table(columns, rows, f"bins of the network {name}")
