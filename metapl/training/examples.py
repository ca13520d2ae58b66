"""The data that a configuration names, and its parts."""

from __future__ import annotations

from pathlib import Path

import torch

from metapl.core.types import Key
from metapl.data import inputs, more_labels
from metapl.data.augment.presets import VIEWS
from metapl.data.sources import Dataset, find
from metapl.data.split import Split, Wanted, read, split
from metapl.embedding import applied
from metapl.registry import notation
from metapl.training import automatic, start
from metapl.training.config import TrainConfig


def load(config: TrainConfig, device: torch.device) -> Dataset:
    """The data set, with the views, the unlabelled examples and the later labels that the configuration names.

    Args:
        config: which, and what is made of it.
        device: where examples are embedded, if they are; the data itself stays where it was read.

    Raises:
        InputError: any of them is wrong.
    """
    data = find.load(config.data, config.data_dir)
    if config.augment != "auto":
        data = data._replace(augment=notation.build(config.augment, VIEWS, "augment", data.form))
    data = inputs.with_unlabelled(data, config.unlabelled) if config.unlabelled else data
    data = more_labels.apply(data, config.more_labels) if config.more_labels else data
    name = automatic.encoder(config, data.form)
    return data if name == automatic.NONE else applied.embedded(data, name, device)


def divide(config: TrainConfig, data: Dataset, key: Key, file: Path | None = None) -> Split:
    """The parts of the training pool: of a file, of the run that this one starts from, or drawn by the key.

    Raises:
        InputError: a file or a run that does not fit the data, or more of something than there is.
    """
    if file or config.split:
        return read(file or Path(config.split), data.y)
    if (found := start.split(config, data)) is not None:
        return found
    known = data.validation, data.groups
    wanted = Wanted(config.labels, config.validation, config.balanced, config.labelled_in_unlabelled, *known)
    return split(data.y, data.form.classes, wanted, key)
