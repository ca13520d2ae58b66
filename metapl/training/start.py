"""A run that goes on from another one with more labels: its weights, and its split with the new labels in it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import torch

from metapl import methods
from metapl.core.types import Variables
from metapl.data.examples import subset
from metapl.data.fingerprint import FINGERPRINT, differences, fingerprint
from metapl.data.form import Form
from metapl.data.sources import Dataset
from metapl.data.split import Split, read
from metapl.files import schema
from metapl.registry.errors import InputError
from metapl.training import architectures, checkpoint, fitting
from metapl.training.config import TrainConfig

LOG = logging.getLogger("metapl")
"""Where it is said that a split is drawn anew."""


def weights(config: TrainConfig, form: Form) -> Mapping[str, Variables]:
    """What networks start from, by the field of `metapl.methods.spec.Models`; nothing without `from_`.

    The student, and whatever is built as it is, starts from the preferred network of the other run; the teacher from
    its teacher, if it had one. Networks that were fitted at once start nothing.

    Raises:
        InputError: no finished run, or networks of another architecture.
    """
    if not config.from_:
        return {}
    place = Path(config.from_) / checkpoint.CHECKPOINT
    schema.require_file(place)
    stored = checkpoint.load_networks(place)
    known = {**methods.networks(), **architectures.networks(config)}
    found: dict[str, Variables] = {}
    for field in ("student", "teacher"):
        alike = [name for name in stored if name in known and known[name].built_from == {"": field}]
        if alike:
            name = max(alike, key=lambda one: (known[one].preference, -known[one].row))
            try:
                fitting.require_network(name, stored[name], config, form, str(place))
            except InputError as error:
                raise InputError(
                    f"from_ = {config.from_}: {error}; give the model and the classes of that run", "from_"
                ) from None
            found[field] = stored[name]
    return found


def split(config: TrainConfig, data: Dataset) -> Split | None:
    """The split of the other run, in which more examples are labelled; None where a new one must be drawn.

    Examples that were added behind the pool of the other run are unlabelled. Where its data has changed otherwise its
    split means nothing, and the log `metapl` has a warning.

    Args:
        config: with `from_` or without.
        data: as it is now.

    Raises:
        InputError: no run.
    """
    if not config.from_:
        return None
    folder = Path(config.from_)
    then = schema.load(folder / "fingerprint.json", FINGERPRINT)
    count = then["train"]["shape"][0]
    fewer = data.shown._replace(x=subset(data.shown.x, torch.arange(min(count, len(data.y)))))
    before = data._replace(original=fewer)
    changed = [one for one in differences(then, fingerprint(before)) if not one.startswith("labels of the training")]
    if changed:
        LOG.warning(
            "the data is not what %s was trained on (different %s): the split is drawn anew, and its test and "
            "validation may have examples that these weights have learnt from",
            folder,
            ", ".join(changed),
        )
        return None
    old = read(folder / "split.json", data.y)
    more = data.later[~torch.isin(data.later, torch.cat([old.labelled, old.validation]))]
    unlabelled = torch.cat([old.unlabelled, torch.arange(count, len(data.y))])
    if not config.labelled_in_unlabelled:
        unlabelled = unlabelled[~torch.isin(unlabelled, more)]
    return Split(torch.cat([old.labelled, more]).sort().values, unlabelled, old.validation)
