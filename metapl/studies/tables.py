"""What a study shows: means over seeds, and differences to the arm that the others are compared with."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from metapl.files import storage
from metapl.files.escape import in_table
from metapl.registry.errors import InputError
from metapl.studies import paired, specification
from metapl.studies.execution import Run
from metapl.studies.paired import Difference
from metapl.studies.specification import Study
from metapl.training.run_files import NETWORKS
from metapl.training.run_folder import BEST, environment

JUDGED = ("auto", *BEST, *(name for name in NETWORKS if name not in BEST))
"""The networks that a table may be about; "auto" takes the first of `run_folder.BEST` that a run has."""


RUNS = Path("runs")
"""Below the folder of a study: a file a run."""


def start(out: Path, about: Study) -> dict[str, Any]:
    """Make the folder of a study, or go on in one that holds the same, be it with more seeds or other pairs.

    Returns:
        The environment that the study was begun in.

    Raises:
        InputError: it holds another study, or something else, or a damaged file.
    """
    path = out / "study.toml"
    if path.exists():
        before = specification.read(path)
        if specification.dump(before._replace(seeds=about.seeds, pairs=about.pairs)) != specification.dump(about):
            raise InputError(f"--out {out} holds another study: name another folder, or remove this one")
    elif out.exists() and (not out.is_dir() or any(not one.name.startswith(".") for one in out.iterdir())):
        raise InputError(f"--out {out} exists and holds no study: name a new folder")
    storage.write_text(path, specification.dump(about))
    record = out / "environment.json"
    if not record.exists():
        storage.write_json(record, environment())
    try:
        found = storage.read_json(record)
        if not isinstance(found, dict):
            raise ValueError("no table")
    except (OSError, ValueError) as error:
        raise InputError(f"{record} cannot be read ({error}): remove it, and it is made again") from None
    return found


def finish(out: Path, about: Study, runs: Sequence[Run]) -> None:
    """Write what is made of the runs: `runs.jsonl`, `table.md`, and `validation.md` if all have that part."""
    storage.write_text(out / "runs.jsonl", lines(runs))
    storage.write_text(out / "table.md", markdown(about, runs))
    if all(run["validation"] for run in runs):
        storage.write_text(out / "validation.md", markdown(about, runs, "validation"))


class Row(NamedTuple):
    """One arm in one setting."""

    condition: Mapping[str, Any]
    arm: str
    network: str
    """That is judged."""
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    """Of the metric, one a seed."""
    diverged: int
    """Runs whose weights are not finite at the end; they count as what they predict."""
    difference: Difference | None
    """To the arm that is compared with, on the seeds that both have; None for itself, or without common seeds."""

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float:
        """The sample standard deviation over the seeds; 0 for a single one."""
        return paired.deviation(self.values)

    @property
    def interval(self) -> float:
        """Half of the 95 % confidence interval of the mean."""
        return paired.half_interval(self.values)


def rows(
    about: Study, runs: Sequence[Run], part: str = "test", network: str = "auto", metric: str = "top1"
) -> list[Row]:
    """The table of a study, setting by setting, arm by arm; arms without a finished run are left out.

    Args:
        about: the study.
        runs: those that are finished.
        part: "test", or "validation" for choosing.
        network: one of `JUDGED`; a run that lacks it is judged by "auto".
        metric: of `metapl.evaluation.metrics.METRICS`.

    Raises:
        InputError: a part without examples.
    """
    if not all(run[part] for run in runs):
        raise InputError(f"there are runs without a {part} part: give validation in [common], such as 100")
    found = []
    for condition in specification.conditions(about):
        here = [run for run in runs if run["setting"] == condition]
        scores = {arm: _scores([run for run in here if run["arm"] == arm], part, network, metric) for arm in about.arms}
        for arm, by_seed in scores.items():
            if not by_seed:
                continue
            mine = [run for run in here if run["arm"] == arm]
            difference = None if arm == about.against else _difference(by_seed, scores[about.against])
            diverged = sum(not run["finite"] for run in mine)
            judged = _judged(mine[0], network)
            found.append(Row(condition, arm, judged, tuple(by_seed), tuple(by_seed.values()), diverged, difference))
    return found


def _judged(run: Run, network: str) -> str:
    found = [name for name in (network, *BEST) if name in run["test"]]
    if not found:
        raise InputError(f"the run of {run['arm']}, seed {run['seed']}, has none of {', '.join(BEST)}: remove its file")
    return found[0]


def _scores(runs: Sequence[Run], part: str, network: str, metric: str) -> dict[int, float]:
    found = {run["seed"]: run[part][_judged(run, network)][metric] for run in runs}
    return {seed: value for seed, value in found.items() if value is not None}  # no likelihood of what diverged


def _difference(scores: Mapping[int, float], reference: Mapping[int, float]) -> Difference | None:
    both = sorted(set(scores) & set(reference))
    return paired.compare([scores[seed] for seed in both], [reference[seed] for seed in both]) if both else None


class Pair(NamedTuple):
    """Two arms in one setting."""

    condition: Mapping[str, Any]
    arm: str
    minus: str
    difference: Difference


def pairs(about: Study, runs: Sequence[Run], part: str = "test") -> list[Pair]:
    """The further comparisons of a study, setting by setting, where both arms have a run of one seed; see `rows`."""
    found = []
    for arm, minus in about.pairs:
        both = about._replace(against=minus, arms={name: about.arms[name] for name in (minus, arm)})
        compared = [row for row in rows(both, runs, part) if row.arm == arm]
        found += [Pair(row.condition, arm, minus, row.difference) for row in compared if row.difference]
    return sorted(found, key=lambda pair: specification.conditions(about).index(pair.condition))


def lines(runs: Sequence[Run]) -> str:
    """The runs as JSON lines, small enough to keep: without logs, and without configurations, which the study gives."""
    kept = ("setting", "arm", "seed", "finite", "validation", "test")
    return "".join(json.dumps({name: _rounded(run[name]) for name in kept}) + "\n" for run in runs)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items() if key != "top5"}
    return round(value, 6) if isinstance(value, float) else value


def columns(about: Study) -> list[str]:
    """The headings of a study's table, in per cent and points."""
    reach = [f"≥ {100 * about.reach:g} %"] if about.reach else []
    return ["arm", "top-1 %", "sd", *reach, f"− {about.against}", "better on", "sign p", "t p"]


def cells(about: Study, row: Row) -> list[str]:
    """A row of it: the difference has half of its 95 % interval, "better on" counts the seeds that differ."""
    found = row.difference
    reach = [f"{sum(value >= about.reach for value in row.values)} of {len(row.values)}"] if about.reach else []
    name = f"{row.arm} ({row.diverged} diverged)" if row.diverged else row.arm
    told = [name, f"{100 * row.mean:.2f}", f"{100 * row.deviation:.2f}", *reach]
    if found is None:
        return [*told, "", "", "", ""]
    return [*told, *compared(found)]


def compared(found: Difference) -> list[str]:
    """The last four of these columns."""
    return [points(found), f"{found.wins} of {found.wins + found.losses}", f"{found.sign_p:.2g}", f"{found.t_p:.2g}"]


def points(found: Difference) -> str:
    """A difference in percentage points, with half of its 95 % interval."""
    return f"{100 * found.mean:+.2f} ± {100 * found.interval:.2f}".replace("-", "−")


def markdown(about: Study, runs: Sequence[Run], part: str = "test") -> str:
    """The tables for the docs; `part` as in `rows`.

    For each setting: the arms, the further pairs, teachers and students, and every network of every arm.
    """
    text = []
    for condition in specification.conditions(about):
        here = [run for run in runs if run["setting"] == condition]
        text += [f"**{in_table(specification.label(condition))}**", ""] if condition else []
        text += _lines(
            columns(about), [cells(about, row) for row in rows(about, here, part) if row.condition == condition]
        )
        others = [[pair.arm, pair.minus, *compared(pair.difference)] for pair in pairs(about, here, part)]
        text += _lines(["arm", "minus", "difference", "better on", "sign p", "t p"], others)
        text += _lines(
            ["arm", "teacher", "student", "student − teacher", "pseudo labels right"], _teachers(about, here, part)
        )
        text += _lines(["arm", "network", "top-1 %", "NLL", "ECE %"], _networks(about, here, part))
    return "\n".join(text)


def _lines(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """A table, or nothing where it would be empty."""
    if not body:
        return []
    lines = [head, ["---"] * len(head), *body]
    return [*(f"| {' | '.join(map(in_table, line))} |" for line in lines), ""]


def _teachers(about: Study, runs: Sequence[Run], part: str) -> list[list[str]]:
    """Top-1 in per cent of the teacher and of the student that is judged, and the labels that were taught."""
    taught = [run for run in runs if "teacher" in run[part]]
    students, teachers = rows(about, taught, part), rows(about, taught, part, network="teacher")
    found = []
    for student, teacher in zip(students, teachers, strict=True):
        shares = [f"{100 * row.mean:.2f}" for row in (teacher, student)]
        mine = [run for run in taught if run["arm"] == student.arm]
        found.append([student.arm, *shares, points(paired.compare(student.values, teacher.values)), _course(mine)])
    return found


def _course(runs: Sequence[Run]) -> str:
    """Share of right pseudo labels after a fifth, a half and all of the steps, as far as anybody looked."""
    logs = [[line for line in run["log"] if line.get("pseudo_labels")] for run in runs]
    looks = min(map(len, logs))
    places = sorted({looks * part // 10 - 1 for part in (2, 5, 10)} - {-1})
    told = [
        f"{100 * statistics.fmean(log[place]['pseudo_labels']['accuracy'] for log in logs):.1f} % after "
        f"{logs[0][place]['step']}"
        for place in places
    ]
    return ", ".join(told) or "–"


def _networks(about: Study, runs: Sequence[Run], part: str) -> list[list[str]]:
    """Mean ± standard deviation of every network of every arm; a run that diverged has no likelihood."""
    found = []
    for arm in about.arms:
        mine = [run[part] for run in runs if run["arm"] == arm]
        for name in mine[0] if mine else ():
            told = [[one[name][metric] for one in mine] for metric in ("top1", "nll", "ece")]
            found.append([arm, name, *(_spread(*one) for one in zip(told, (100, 1, 100), (2, 3, 2), strict=True))])
    return found


def _spread(values: Sequence[float | None], unit: float, digits: int) -> str:
    known = [unit * value for value in values if value is not None]
    if not known:
        return "–"
    deviation = statistics.stdev(known) if len(known) > 1 else 0.0
    return f"{statistics.fmean(known):.{digits}f} ± {deviation:.{digits}f}"


NOTE = (
    "top-1 on the test set after the last step, mean and standard deviation over seeds; differences are paired, "
    "with their 95 % interval"
)
