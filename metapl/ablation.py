"""What a study shows: means over seeds, and differences to the arm that the others are compared with."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from metapl import checkpoint, paired, study
from metapl.errors import InputError
from metapl.paired import Difference
from metapl.run_folder import BEST, environment
from metapl.study import Study
from metapl.sweep import Run

JUDGED = ("auto", *BEST, "teacher", "student")
"""The networks that a table may be about; "auto" takes the first of `run_folder.BEST` that a run has."""


RUNS = Path("runs")
"""Below the folder of a study: a file a run."""


def start(out: Path, about: Study) -> None:
    """Make the folder of a study, or go on in one that holds the same.

    Raises:
        InputError: it holds another study, or something else.
    """
    text, path = study.dump(about), out / "study.toml"
    if path.exists():
        if path.read_text() != text:
            raise InputError(f"--out {out} holds another study: name another folder, or remove this one")
        return
    if out.exists() and (not out.is_dir() or any(not one.name.startswith(".") for one in out.iterdir())):
        raise InputError(f"--out {out} exists and holds no study: name a new folder")
    checkpoint.write_text(path, text)
    checkpoint.write_json(out / "environment.json", environment())


def finish(out: Path, about: Study, runs: Sequence[Run]) -> None:
    """Write what is made of the runs: `runs.jsonl` and `table.md`."""
    checkpoint.write_text(out / "runs.jsonl", lines(runs))
    checkpoint.write_text(out / "table.md", markdown(rows(about, runs)))


class Row(NamedTuple):
    """One arm in one setting."""

    setting: Mapping[str, Any]
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
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0

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
        metric: of `metapl.metrics.METRICS`.
    """
    found = []
    for setting in study.settings(about):
        here = [run for run in runs if run["setting"] == setting]
        scores = {arm: _scores([run for run in here if run["arm"] == arm], part, network, metric) for arm in about.arms}
        for arm, by_seed in scores.items():
            if not by_seed:
                continue
            mine = [run for run in here if run["arm"] == arm]
            difference = None if arm == about.against else _difference(by_seed, scores[about.against])
            diverged = sum(not run["finite"] for run in mine)
            judged = _judged(mine[0], network)
            found.append(Row(setting, arm, judged, tuple(by_seed), tuple(by_seed.values()), diverged, difference))
    return found


def _judged(run: Run, network: str) -> str:
    return network if network in run["test"] else next(name for name in BEST if name in run["test"])


def _scores(runs: Sequence[Run], part: str, network: str, metric: str) -> dict[int, float]:
    found = {run["seed"]: run[part][_judged(run, network)][metric] for run in runs}
    return {seed: value for seed, value in found.items() if value is not None}  # no likelihood of what diverged


def _difference(scores: Mapping[int, float], reference: Mapping[int, float]) -> Difference | None:
    both = sorted(set(scores) & set(reference))
    return paired.compare([scores[seed] for seed in both], [reference[seed] for seed in both]) if both else None


def lines(runs: Sequence[Run]) -> str:
    """The runs as JSON lines, small enough to keep: without logs, and without configurations, which the study gives."""
    kept = ("setting", "arm", "seed", "finite", "validation", "test")
    return "".join(json.dumps({name: _rounded(run[name]) for name in kept}) + "\n" for run in runs)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items() if key != "top5"}
    return round(value, 6) if isinstance(value, float) else value


def markdown(table: Sequence[Row]) -> str:
    """The table as it stands in the docs, in per cent and points; see `metapl.cli.ablate` for what the columns are."""
    settings = list(dict.fromkeys(study.label(row.setting) for row in table))
    text = []
    for setting in settings:
        text += [*([f"**{setting}**", ""] if setting else []), HEAD, RULE]
        text += [_line(row) for row in table if study.label(row.setting) == setting]
        text.append("")
    return "\n".join(text)


NOTE = (
    "top-1 on the test set after the last step, mean and standard deviation over seeds; differences are paired, "
    "with their 95 % interval"
)

HEAD = "| arm | top-1, % | sd | difference | better on | sign test, p | t-test, p |"
RULE = "| --- | --- | --- | --- | --- | --- | --- |"


def _line(row: Row) -> str:
    cells = [row.arm, f"{100 * row.mean:.2f}", f"{100 * row.deviation:.2f}", *difference_cells(row.difference)]
    return f"| {' | '.join(cells)} |"


def difference_cells(found: Difference | None) -> list[str]:
    """A difference in points with half of its 95 % interval, seeds that are better, and the two p-values."""
    if found is None:
        return ["", "", "", ""]
    interval = f"{100 * found.mean:+.2f} ± {100 * found.interval:.2f}".replace("-", "−")
    pairs = f"{found.wins} of {found.wins + found.losses}"
    return [interval, pairs, f"{found.sign_p:.1g}", f"{found.t_p:.1g}"]
