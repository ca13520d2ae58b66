"""The model card of an exported network, as the Hugging Face Hub reads it: what it is, how it was made, how good it is.

It says what a run knows. What it is meant for, and under which licence, only its owner knows; the card says so.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from metapl import methods
from metapl.data.form import Form, embedded_from
from metapl.evaluation.table import by_network
from metapl.files.escape import code, plain, visible
from metapl.files.table import markdown
from metapl.methods.spec import PhaseSpec
from metapl.models.adapters import is_adapter
from metapl.registry.errors import InputError
from metapl.serving import loading
from metapl.training import run_files
from metapl.training.config import TrainConfig
from metapl.training.run_folder import Serving

TASKS = {
    "images": ("image-classification", "Image Classification"),
    "table": ("tabular-classification", "Tabular Classification"),
    "arrays": ("other", "Classification"),
    "features": ("other", "Classification"),
}
"""The Hub's identifier and name, by the kind of a form."""

METRICS = {
    "top1": "accuracy",
    "top5": "top_5_accuracy",
    "nll": "nll",
    "ece": "ece",
    "balanced": "balanced_accuracy",
    "macro_f1": "f1",
}
"""The type of each metric in the front matter."""

SHOWN = 20
"""At most so many classes are named; `config.json` has them all."""


class Facts(NamedTuple):
    """What a run has written down about itself."""

    test: dict[str, dict[str, float]]
    pseudo_labels: str
    labelled: int
    unlabelled: int
    tested: int
    chosen: str
    """Its settings, if it was fitted at once."""


def facts(run: Path, serving: Serving) -> Facts:
    """Read them.

    Raises:
        InputError: a run that is incomplete, or that says nothing of this network.
    """
    summary = run_files.summary(run / "summary.json")
    confusion = run_files.confusion(run / "confusion.json", len(serving.form.classes))
    labelled, unlabelled = run_files.split_sizes(run / "split.json")
    for place, found in (("summary.json", summary["test"]), ("confusion.json", confusion)):
        if serving.name not in found:
            raise InputError(f"{run / place} says nothing of the network {serving.name}: is the run complete?")
    tested = sum(map(sum, confusion[serving.name]))
    if not tested:
        raise InputError(f"{run / 'confusion.json'} has no test example: is the run complete?")
    chosen = summary.get("chosen", {}).get(serving.name, "")
    return Facts(summary["test"], summary["pseudo_labels"], labelled, unlabelled, tested, chosen)


def text(name: str, serving: Serving, facts: Facts, config: dict[str, Any]) -> str:
    """The card.

    Args:
        name: of the model.
        serving: the network.
        facts: of its run.
        config: what `config.json` says of it.
    """
    parts = [
        _front(name, serving, facts),
        f"# {plain(name)}",
        _what(serving),
        "## Training",
        _training(serving, facts, config["model"]),
        "## Test",
        _test(serving, facts),
        "## Use and limits",
        _limits(serving, facts),
        "## Load it",
        loading.text(config),
    ]
    return "\n\n".join(parts) + "\n"


def _quoted(value: str) -> str:
    return json.dumps(visible(value), ensure_ascii=False)  # YAML reads it as JSON does


def _data(config: TrainConfig) -> str:
    """The name of the data, without its options and without the folders that lead to one's own."""
    return Path(config.data.partition(":")[0]).name or "data"


def _method(serving: Serving) -> str:
    """The method that trained this network, which for a baseline is another one than that of its run."""
    config, phase = serving.config, _phase(serving)
    name = phase.method or phase.name
    if name not in methods.METHODS:
        return config.method
    method = methods.find(name)
    return method.otherwise if method.lacks(config) else name


def _phase(serving: Serving) -> PhaseSpec:
    """The phase that the network comes from."""
    known = (*methods.plan(serving.config), *methods.phases().values())
    return next(phase for phase in known if serving.name in phase.networks)


def _front(name: str, serving: Serving, facts: Facts) -> str:
    task, called = TASKS[_read(serving.form).kind]
    data = _quoted(_data(serving.config))
    measured = facts.test[serving.name]
    return "\n".join(
        [
            "---",
            "library_name: metapl",
            f"pipeline_tag: {task}",
            f"tags: [pytorch, semi-supervised-learning, {_method(serving)}]",
            "model-index:",
            f"- name: {_quoted(name)}",
            "  results:",
            f"  - task: {{type: {task}, name: {called}}}",
            f"    dataset: {{type: {data}, name: {data}, split: test}}",
            "    metrics:",
            *(
                f"    - {{type: {name}, name: {key}, value: {measured[key]!r}}}"
                for key, name in METRICS.items()
                if math.isfinite(measured[key])
            ),
            "---",
        ]
    )


def _read(form: Form) -> Form:
    """The form of the examples as they are read."""
    return embedded_from(form) or form


def _what(serving: Serving) -> str:
    form, read = serving.form, _read(serving.form)
    through = f" through the features of `{form.details['encoder']}`" if read is not form else ""
    trained = sum(value.numel() for value in serving.network.params.values())
    frozen = sum(serving.network.buffers[name].numel() for name in serving.model.frozen)
    added = sum(value.numel() for name, value in serving.network.params.items() if is_adapter(name))
    some = f", {trained:,} of them trained" if frozen else ""
    if added:
        some = f"; {trained:,} numbers were trained, {added:,} of them in adapters that are merged into it"
    more = f" and {len(form.classes) - SHOWN:,} more" if len(form.classes) > SHOWN else ""
    return (
        f"A classifier of {read.kind}{through}, inputs of shape `{list(form.shape)}`, trained with metapl. "
        f"It has {trained + frozen - added:,} parameters{some}. "
        f"Of the networks of its run it is `{serving.name}`: {methods.networks()[serving.name].role}.\n\n"
        f"Its {len(form.classes):,} classes: {', '.join(map(code, form.classes[:SHOWN]))}{more}."
    )


def _training(serving: Serving, facts: Facts, model: str) -> str:
    config, spec = serving.config, methods.find(_method(serving))
    in_steps = ["steps", "batch", "labelled_batch", "optimizer", "lr", "ema"]
    rows = {"model": model, **{field: getattr(config, field) for field in in_steps}, "seed": config.seed}
    if _phase(serving).fit:
        rows = {"model": model, "settings": facts.chosen, "seed": config.seed}
    if spec.paired:
        rows |= {
            "student's model": config.model,
            "teacher's model": config.teacher_model or config.model,
            "teacher_lr": config.teacher_lr,
            "estimator of the feedback": config.grad,
            "pseudo labels": facts.pseudo_labels,
            "feedback_weight": config.feedback_weight,
            "uda_weight": config.uda_weight,
        }
    if _phase(serving).continues:
        rows |= {"finetune_steps": config.finetune_steps, "finetune_lr": config.finetune_lr}
    shared = "the labelled ones among them" if config.labelled_in_unlabelled else "the labelled ones apart"
    unlabelled = "" if not spec.unlabelled else f" and {facts.unlabelled:,} unlabelled ones ({shared})"
    return (
        f"By {spec.source or spec.title}, on {facts.labelled:,} labelled examples of {code(_data(config))}"
        f"{unlabelled}.\n\n"
        "| setting | value |\n| --- | --- |\n"
        + "\n".join(f"| {name} | {code(str(value))} |" for name, value in rows.items())
    )


def _test(serving: Serving, facts: Facts) -> str:
    known = methods.networks()
    titles = {name: f"{f'**{name}**' if name == serving.name else name}, {known[name].role}" for name in facts.test}
    return (
        f"On {facts.tested:,} test examples, last weights; this model is in bold, and `ema` and `finetuned` are the "
        "student before and after finetuning. NLL is the mean negative log-likelihood in nats, ECE the expected "
        f"calibration error over 15 bins.\n\n{markdown(by_network([facts.test], titles))}"
    )


def _limits(serving: Serving, facts: Facts) -> str:
    top1, ece = (facts.test[serving.name][name] for name in ("top1", "ece"))
    error = 100 * math.sqrt(top1 * (1 - top1) / facts.tested)
    return "\n".join(
        [
            "This text was written by a program, which knows the run and nothing else.",
            "",
            "- What the model is meant for, and under which licence it and its data stand, its owner has to say.",
            f"- The figures are of one run with one seed. The test set alone gives the top-1 a standard error of "
            f"{error:.2f} points.",
            "- They hold for examples like those of the test. Whatever else it is shown, it answers with one of its "
            "classes.",
            f"- Its confidence is {100 * ece:.1f} points from its accuracy on average (ECE).",
            "- Nobody has looked at whether it errs more for some groups of examples or people than for others.",
        ]
    )
