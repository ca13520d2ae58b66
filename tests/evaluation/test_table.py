"""The metrics of networks as a table: means and deviations are numpy's."""

import numpy as np

from metapl.evaluation import metrics
from metapl.evaluation.table import COLUMNS, UNITS, by_network, spread

TITLES = {"ema": "averaged", "teacher": "the teacher", "absent": "not there"}
RUNS = [
    {
        "teacher": {"top1": 0.5, "top5": 0.75, "nll": 1.25, "ece": 0.125},
        "ema": {"top1": 0.25 * seed, "top5": 1.0, "nll": 2.0 + seed, "ece": 0.0625 * seed},
    }
    for seed in (1, 2, 3)
]


def test_every_metric_has_a_unit_and_most_a_column():
    assert list(UNITS) == list(metrics.METRICS)
    assert list(COLUMNS) == [name for name in metrics.METRICS if name not in metrics.ADDED]


def test_one_run():
    found = by_network(RUNS[:1], TITLES, "label", "teacher")
    assert found.titles == ["network", "top-1 %", "top-5 %", "NLL", "ECE %"]
    assert found.cells == [
        ["averaged", "25.00", "100.00", "3.000", "6.25"],
        ["the teacher", "50.00", "75.00", "1.250", "12.50"],
    ]
    assert (found.label, found.chosen) == ("label", 1)


def test_several_runs():
    ema, teacher = by_network(RUNS, TITLES).cells
    for metric, unit, digits, cell in zip(COLUMNS, (100, 100, 1, 100), (2, 2, 3, 2), ema[1:], strict=True):
        values = [unit * run["ema"][metric] for run in RUNS]
        assert (
            cell
            == f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1):.{digits}f}"
            == spread([run["ema"][metric] for run in RUNS], metric)
        )
    assert teacher[1:] == ["50.00 ± 0.00", "75.00 ± 0.00", "1.250 ± 0.000", "12.50 ± 0.00"]


def test_a_single_value_has_no_deviation():
    assert spread([0.5], "top1") == "50.00 ± 0.00"
