"""The guide for photographs with few labels, command by command, at small size."""

import csv
import re
from pathlib import Path

import pytest
from command import invoke
from markup import parse
from pictures import random_levels, save

GUIDE = Path(__file__).parents[2] / "docs" / "labelling.md"
SMALL = ("--steps", "2", "--report-every", "2", "--finetune-steps", "0", "--no-baselines", "--method", "supervised")
SMALL += ("--model", "mlp:width=4,depth=1", "--device", "cpu")
COUNT, KNOWN = 30, 16


def commands():
    """The words of each command of the guide, as they stand there."""
    block = re.search(r"```bash\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    return [line.split()[1:] for line in block.group(1).splitlines() if line.startswith("metapl ")]


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Bright and dark pictures in a flat folder, with a file that names some of them."""
    monkeypatch.chdir(tmp_path)
    for number in range(COUNT):
        levels = random_levels(8, 8, 3, seed=number) // 2 + 127 * (number % 2)
        save(tmp_path / "photos" / f"IMG_{number:04d}.png", levels.astype("uint8"))
    lines = ["filename,label", *(f"IMG_{number:04d}.png,{['dark', 'bright'][number % 2]}" for number in range(KNOWN))]
    (tmp_path / "photos" / "labels.csv").write_text("\n".join(lines))
    return tmp_path


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_from_photographs_to_predictions_and_suggestions_in_four_commands(photos):
    train, predict, suggest, again = commands()
    done = invoke(*train, *SMALL)
    assert done.code == 0, done.err
    assert "column 'filename' names the images" in done.out
    assert "14 images that labels.csv does not name have none" in done.out
    assert all(command in done.out for command in ("metapl predict run", "metapl suggest run", "metapl report run"))
    done = invoke(*predict)
    assert done.code == 0
    assert f"of the {KNOWN} that came with a label, from some of which the run has learnt" in done.err
    found = rows(photos / "predictions.csv")
    assert len(found) == COUNT
    assert {row["prediction"] for row in found} <= {"dark", "bright"}
    done = invoke(*suggest)
    assert done.code == 0
    listed = [row for row in rows(photos / "run" / "suggestions.csv") if row["why"] == "unlabelled"]
    assert {row["name"] for row in listed} == {f"IMG_{number:04d}.png" for number in range(KNOWN, COUNT)}
    page = parse((photos / "run" / "suggestions.html").read_text("utf-8"))
    assert len(list(page.one("section", id="to-label").all("img"))) == COUNT - KNOWN
    for row in listed[:5]:
        row["label"] = ["dark", "bright"][int(row["name"][4:8]) % 2]
    with (photos / "run" / "suggestions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, listed[0])
        writer.writeheader()
        writer.writerows(listed)
    done = invoke(*again)
    assert done.code == 0, done.err
    assert "5 more from suggestions.csv" in done.out
