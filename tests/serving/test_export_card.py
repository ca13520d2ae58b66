"""The model card of an exported network."""

import json
import os
import re

import numpy as np
import pytest
import torch
from exporting import CONVNET, calibrated, run_of
from PIL import Image

from metapl import methods, models
from metapl.evaluation import metrics
from metapl.serving import export, model_card
from metapl.training import run_folder

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    lines = [f"{n % 7},{'ab'[n % 2]},{'xyz'[n % 3]}" for n in range(60)]
    (folder / "plants.csv").write_text("\n".join(["size,kind,species", *lines]) + "\n")
    return run_of(folder / "run", data=str(folder / "plants.csv"), labels=12, model="mlp:width=8")


# ---------------------------------------------------------------- the model card


def example_file(kind, folder):
    if kind == "images":
        Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(folder / "example.png")
        return
    if kind == "table":
        (folder / "example.csv").write_text("kind,size\na,3\nb,1\n")
        return
    np.save(folder / "example.npy", np.ones((2, 2)))


@pytest.mark.parametrize("run", ["convnet", "table", "moons"], indirect=True)
def test_the_code_of_the_card_runs_where_the_folder_was_moved(run, tmp_path, monkeypatch):
    """Without the run; and it says what `metapl predict` says."""
    serving = run_folder.serve(run, device="cpu")
    export.export(run, tmp_path / "out", "torch-export")
    (tmp_path / "out").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    example_file(serving.form.kind, tmp_path / "moved")
    first, second = re.findall(r"^```python\n(.*?)^```$", (tmp_path / "moved" / "README.md").read_text(), re.M | re.S)
    names = {}
    exec(first, names)
    found = names["probabilities"].detach()
    expected = torch.softmax(calibrated(run, names["x"]), -1)
    assert torch.equal(found, expected)
    raw = torch.arange(64.0).reshape(1, 1, 8, 8) if serving.form.kind == "images" else torch.ones(2, 2)
    given = {"x": names["x"] if serving.form.kind == "table" else raw}
    exec(second, given)
    torch.testing.assert_close(given["logits"].detach().softmax(-1), expected, rtol=0, atol=1e-6)


def front_of(text):
    yaml = pytest.importorskip("yaml", reason="reads the front matter")
    return yaml.safe_load(text.split("---\n")[1])


@pytest.mark.parametrize("network", ["finetuned", "uda"])
def test_the_front_matter(convnet, tmp_path, network):
    export.export(convnet, tmp_path / 'my "model": 1', network=network)
    front = front_of((tmp_path / 'my "model": 1' / "README.md").read_text())
    assert set(front) == {"library_name", "pipeline_tag", "tags", "model-index"}
    (entry,) = front["model-index"]
    (result,) = entry["results"]
    assert [entry["name"], front["pipeline_tag"]] == ['my "model": 1', "image-classification"]
    assert result["dataset"] == {"type": "digits", "name": "digits", "split": "test"}
    measured = json.loads((convnet / "summary.json").read_text())["test"][network]
    assert {one["name"]: one["value"] for one in result["metrics"]} == measured
    assert {one["type"] for one in result["metrics"]} >= {"accuracy"}


def test_the_card_says_what_the_run_knows(convnet, tmp_path):
    export.export(convnet, tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    summary = json.loads((convnet / "summary.json").read_text())["test"]
    for name, row in summary.items():
        (line,) = [line for line in text.splitlines() if line.startswith((f"| {name},", f"| **{name}**,"))]
        shown = f"{100 * row['top1']:.2f} | {100 * row['top5']:.2f} | {row['nll']:.3f} | {100 * row['ece']:.2f} |"
        assert line.endswith(shown)
    assert "| **finetuned**," in text
    assert "on 10 labelled examples of `digits` and 1,097 unlabelled ones (the labelled ones among them)" in text
    for row in ("| estimator of the feedback | `exact` |", "| teacher's model | `mlp:width=8` |", "| seed | `0` |"):
        assert row in text
    top1 = summary["finetuned"]["top1"]
    assert f"On {500} test examples" in text
    assert f"a standard error of {100 * (top1 * (1 - top1) / 500) ** 0.5:.2f} points" in text
    parameters = sum(value.numel() for value in models.build(CONVNET, (1, 8, 8), 10).parameters())
    assert f"It has {parameters:,} parameters" in text


@pytest.mark.parametrize(
    ("network", "method", "unlabelled"),
    [("supervised", "By supervised learning", False), ("uda", "By UDA", True), ("teacher", "By Meta Pseudo", True)],
)
def test_a_baseline_is_described_as_one(convnet, tmp_path, network, method, unlabelled):
    export.export(convnet, tmp_path / "out", network=network)
    text = (tmp_path / "out" / "README.md").read_text()
    assert method in text
    assert ("unlabelled ones" in text) == unlabelled
    assert ("estimator of the feedback" in text) == (network == "teacher")
    assert f"| model | `{'mlp:width=8' if network == 'teacher' else CONVNET}` |" in text


def test_no_folder_of_ones_own_is_told(table, tmp_path):
    export.export(table, tmp_path / "out", "torch-export")
    for path in (tmp_path / "out").iterdir():
        assert os.fsencode(table.parent) not in path.read_bytes()
    assert "examples of `plants.csv`" in (tmp_path / "out" / "README.md").read_text()


def test_every_network_and_metric_has_its_words():
    assert all(network.role and network.title for network in methods.networks().values())
    assert set(model_card.METRICS) == set(metrics.METRICS)
