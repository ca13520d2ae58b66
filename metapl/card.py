"""The model card of an exported network, as the Hugging Face Hub reads it: what it is, how it was made, how good it is.

It says what a run knows. What it is meant for, and under which licence, only its owner knows; the card says so.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import metapl
from metapl.config import PAIRED, TrainConfig
from metapl.errors import InputError
from metapl.run_folder import Serving

ROLES = {
    "finetuned": "the student's averaged weights, finetuned on the labelled examples",
    "ema": "the moving average of the student's weights, before finetuning",
    "student": "the student's last weights",
    "teacher": "the teacher's last weights",
    "fixed": "the averaged weights of the fixed teacher, before its calibrator",
    "uda": "trained on labels and on consistency between views (UDA), averaged weights",
    "pseudo-labels": "trained on what a supervised network says of unlabelled examples, averaged weights",
    "supervised": "trained on the labelled examples alone, averaged weights",
}
"""What each network of a run is."""

METHODS = {
    "mpl": "Meta Pseudo Labels ([Pham et al., CVPR 2021](https://arxiv.org/abs/2003.10580))",
    "reduced": "Reduced Meta Pseudo Labels ([Pham et al., CVPR 2021](https://arxiv.org/abs/2003.10580), appendix E)",
    "uda": "UDA ([Xie et al., NeurIPS 2020](https://arxiv.org/abs/1904.12848))",
    "pseudo-labels": "pseudo labels of a supervised network",
    "supervised": "supervised learning",
}

TASKS = {
    "images": ("image-classification", "Image classification"),
    "table": ("tabular-classification", "Tabular classification"),
    "arrays": ("other", "Classification"),
}
"""Identifier and name by the kind of a form."""

METRICS = {"top1": ("accuracy", "top-1 %", 100), "top5": ("accuracy", "top-5 %", 100)}
METRICS |= {"nll": ("nll", "NLL", 1), "ece": ("ece", "ECE %", 100)}
"""The type of each metric on the Hub, its column here, and the factor of the column."""

EXAMPLES = {"images": "example.png", "table": "example.csv", "arrays": "example.npy"}

SHOWN = 20
"""At most so many classes are named; `config.json` has them all."""

LOAD = """\
import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from metapl import models
from metapl.data import inputs
from metapl.data.form import Form

config = json.loads(Path("config.json").read_text())
network = models.build(config["model"], tuple(config["shape"]), len(config["classes"]))
network.load_state_dict(load_file("model.safetensors"))
network.eval()

form = Form(*(config[field] for field in Form._fields))
found = inputs.read(form, [Path("{example}")])
x = inputs.prepare(form)(found.x[torch.arange(len(found.x))])
probabilities = network(x).softmax(-1)
print(dict(zip(config["classes"], probabilities[0].tolist())))
"""

RUN = {
    "model.pt2": 'network = torch.export.load("model.pt2").module()\nlogits = network(x)',
    "model.onnx": 'session = onnxruntime.InferenceSession("model.onnx")\n(logits,) = session.run(None, {"x": x})',
}
"""How each file with a graph is run."""


class Facts(NamedTuple):
    """What a run has written down about itself."""

    test: dict[str, dict[str, float]]
    pseudo_labels: str
    labelled: int
    unlabelled: int
    tested: int


def facts(run: Path) -> Facts:
    """Read them.

    Raises:
        InputError: a run that is incomplete.
    """
    try:
        summary, split, confusion = (
            json.loads((run / f"{name}.json").read_text()) for name in ("summary", "split", "confusion")
        )
        unlabelled = sum(last - first + 1 for first, last in split["unlabelled"])
        tested = sum(map(sum, next(iter(confusion.values()))))
        return Facts(summary["test"], summary["pseudo_labels"], len(split["labelled"]), unlabelled, tested)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{run} cannot be described ({error!r}): is the run complete?") from None


def text(name: str, serving: Serving, facts: Facts, graph: str = "") -> str:
    """The card.

    Args:
        name: of the model.
        serving: the network.
        facts: of its run.
        graph: the file with the graph; empty if there is none.
    """
    parts = [
        _front(name, serving, facts),
        f"# {name}\n\n{_what(serving)}",
        f"## Training\n\n{_training(serving, facts)}",
        f"## Test\n\n{_test(serving, facts)}",
        f"## Use and limits\n\n{_limits(serving, facts)}",
        f"## Load it\n\n{_load(serving, graph)}",
    ]
    return "\n\n".join(parts) + "\n"


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)  # YAML reads it as JSON does


def _data(config: TrainConfig) -> str:
    """The name of the data, without options and without the folders of one's own."""
    return Path(config.data.partition(":")[0]).name or "data"


def _front(name: str, serving: Serving, facts: Facts) -> str:
    task, task_name = TASKS[serving.form.kind]
    data = _quoted(_data(serving.config))
    lines = [
        "---",
        "library_name: metapl",
        f"pipeline_tag: {task}",
        f"tags: [{serving.config.method}, semi-supervised-learning, pytorch]",
        "metrics: [accuracy]",
        "model-index:",
        f"- name: {_quoted(name)}",
        "  results:",
        f"  - task: {{type: {task}, name: {task_name}}}",
        f"    dataset: {{type: {data}, name: {data}, split: test}}",
        "    metrics:",
    ]
    for key, value in facts.test[serving.name].items():
        kind, shown, factor = METRICS[key]
        lines.append(f"    - {{type: {kind}, name: {_quoted(shown.removesuffix(' %'))}, value: {value:.6g}}}")
        del factor
    return "\n".join([*lines, "---"])
