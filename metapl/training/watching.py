"""A run on its way, as a line of its log."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch

from metapl.core.types import Variables
from metapl.data.examples import subset
from metapl.evaluation import metrics
from metapl.nn.shared_out import evaluated_by
from metapl.registry.errors import InputError
from metapl.training import loop, phases
from metapl.training.experiment import Experiment

WATCHED = 1000
"""At most so many unlabelled examples are looked at for the quality of their pseudo labels."""


def look(experiment: Experiment, event: loop.Reported) -> dict[str, Any]:
    """A run on its way, as a line of its log: means of the metrics, the validation part, the pseudo labels."""
    line = {
        "phase": event.phase,
        "step": event.step,
        "metrics": event.metrics,
        "validation": phases.evaluate(experiment, event.networks, "validation"),
    }
    if "teacher" in event.networks:
        with suppress(*([InputError] if experiment.data.skip_bad else [])):  # of a file that can be done without
            line["pseudo_labels"] = pseudo_label_quality(experiment, event.networks["teacher"])
    return line


def pseudo_label_quality(experiment: Experiment, teacher: Variables) -> dict[str, float]:
    """How right and how sure the teacher is on unlabelled examples, evenly spaced; see `metrics.pseudo_labels`.

    It uses classes that the training does not see, where the data has them. Nothing but the log is made of it.
    """
    data, unlabelled = experiment.data, experiment.split.unlabelled
    some = unlabelled[torch.linspace(0, len(unlabelled) - 1, min(WATCHED, len(unlabelled))).long()]
    ready = phases.ready(experiment, subset(data.x, some), teacher)
    model = evaluated_by(experiment.models.of("teacher"), experiment.processes)
    logits = metrics.predict(model, *teacher, ready)
    return metrics.pseudo_labels(logits, data.y[some.to(data.y.device)], experiment.config.uda_threshold)
