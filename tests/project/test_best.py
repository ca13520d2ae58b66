"""`benchmarks/best.py`: the page shows what the kept accuracies say."""

import importlib.util
import re
from pathlib import Path

import pytest
from scipy import stats

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "results" / "best.md"


LOCATION = importlib.util.spec_from_file_location("best_cells", ROOT / "benchmarks" / "best_cells.py")
best_cells = importlib.util.module_from_spec(LOCATION)
LOCATION.loader.exec_module(best_cells)

PRESETS = ["guided", "none", "exact", "first-order", "fixmatch", "flexmatch", "freematch", "softmatch", "adamatch"]


@pytest.mark.parametrize(
    ("name", "arms"),
    [
        ("best", ["panel", "guided", "auto"]),
        ("best-validation", ["panel", "guided", "auto"]),
        ("best-presets", PRESETS),
    ],
)
def test_the_page_shows_the_accuracies_that_are_kept(name, arms):
    page = PAGE.read_text(encoding="utf-8")
    lines = best_cells.table(best_cells.read(PAGE.with_name(f"{name}.jsonl")), arms)
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) > 10
    assert "\n".join(rows) in page


def short(found):
    """The panel, the guided network and their difference, as the README has them: in bold who is ahead."""
    panel, _, guided = best_cells.line(found, ["panel", "guided"])
    one, other, half = panel.split()[-1], *re.fullmatch(r"(\S+) \((.*)\)", guided).groups()
    mean, spread = (float(text.replace("−", "-")) for text in half.split(" ± "))
    names = [f"**{one}**" if mean < -spread else one, f"**{other}**" if mean > spread else other]
    return f"{', '.join(names)} ({half})"


def test_the_readme_shows_them_too():
    found = best_cells.read(PAGE.with_name("best.jsonl"))
    sets = list(dict.fromkeys(name for name, _, _ in found))
    rows = {
        name: [
            short(best_cells.of(found, name, count)) if (name, count, "panel") in found else ""
            for count in best_cells.COUNTS
        ]
        for name in sets
    }
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, cells in rows.items():
        assert f"| {name} | {' | '.join(cells)} |" in readme


def test_differences_are_those_of_a_paired_t_test():
    ones, others = [70.0, 74.0, 71.5, 80.0], [69.0, 70.0, 72.0, 77.0]
    truth = stats.ttest_rel(ones, others).confidence_interval()
    mean, half = best_cells.difference(ones, others)
    assert (mean - half, mean + half) == pytest.approx((truth.low, truth.high))


def test_cells_are_won_and_lost_by_the_interval():
    def found(guided):
        panel = [{"logistic": at, "self-training": 0.1, "spreading": 0.2, "supervised": 0.3} for at in (0.5, 0.6, 0.7)]
        return {"panel": panel, "guided": [{"consensus": 0.0, "uda": at} for at in guided]}

    ahead = found([0.6, 0.7, 0.81])
    cells = [ahead, ahead, found([0.4, 0.7, 0.7]), found([0.4, 0.5, 0.61]), {"panel": found([])["panel"]}]
    assert best_cells.tally("guided", cells) == "guided against the best of the panel: 2 ahead, 1 level, 1 behind"


def test_of_a_cell_that_is_kept_twice_the_last_counts(tmp_path):
    file = tmp_path / "kept.jsonl"
    file.write_text("".join(f'{{"data": "a", "labels": 1, "arm": "auto", "rows": [{{"x": {at}}}]}}\n' for at in (1, 2)))
    assert best_cells.read(file) == {("a", 1, "auto"): [{"x": 2}]}


def test_a_line_that_was_cut_off_is_named(tmp_path):
    file = tmp_path / "kept.jsonl"
    file.write_text('{"data": "a", "labels": 1, "arm": "auto", "rows": []}\n{"data": "a", "lab')
    with pytest.raises(SystemExit, match=r"kept\.jsonl, line 2: not a whole cell"):
        best_cells.read(file)


def test_an_arm_of_fewer_seeds_says_so():
    panel = [{"logistic": at, "self-training": 0.1, "spreading": 0.2, "supervised": 0.3} for at in (0.5, 0.6, 0.7)]
    guided = [{"consensus": 0.0, "uda": at} for at in (0.6, 0.7, 0.81)]
    found = {"panel": panel, "guided": guided}
    assert best_cells.line(found, ["panel", "guided"]) == ["logistic 60.0", "30.0", "70.3 (+10.3 ± 1.4)"]
    assert best_cells.line({**found, "guided": guided[:2]}, ["guided"])[0].endswith(", 2 seeds)")
