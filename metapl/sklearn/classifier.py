"""A classifier with the interface of scikit-learn, some of whose labels may be missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from metapl.core import tree
from metapl.data import inputs
from metapl.data.augment import presets
from metapl.data.form import Form
from metapl.data.formats import arrays
from metapl.data.sources import Dataset
from metapl.data.split import Split
from metapl.evaluation import metrics
from metapl.registry.errors import InputError
from metapl.training import phases, run_folder
from metapl.training.architectures import architectures
from metapl.training.config import TrainConfig
from metapl.training.experiment import Experiment, assemble, pick_device

BATCH = 1024
"""Examples that are predicted at a time."""

OWN = ("method", "model", "steps", "seed", "device", "data", "labels", "validation", "balanced", "baselines")
"""Fields of the configuration that `options` must not have: they are arguments, or follow from the data."""


class MetaplClassifier(ClassifierMixin, BaseEstimator):
    """Meta Pseudo Labels, or another method of `metapl train`, as an estimator of scikit-learn.

    Numbers are brought to mean 0 and standard deviation 1 over all examples given to `fit`, with labels or without;
    the views are `metapl.data.augment.presets.jitter`. All labels are learnt from, and none is held out. Labels −1 and
    1, as some have them for two classes, need `unlabelled=None`.

    Args:
        method: as `metapl train --method`.
        model: as `--model`.
        steps: as `--steps`.
        unlabelled: the label of examples without one, −1 as elsewhere in scikit-learn; NaN and None are that too.
        device: as `--device`.
        random_state: a seed, a generator of numpy or None for another result each time.
        options: more fields of `metapl.training.config.TrainConfig` by name, such as `{"grad": "first-order"}`.

    Attributes:
        classes_: the classes, sorted.
        n_features_in_: how many numbers an example has.
        network_: which network of the method predicts, the one that `metapl.training.run_folder.best` takes.
    """

    def __init__(
        self,
        *,
        method: str = "mpl",
        model: str = "mlp",
        steps: int = 1500,
        unlabelled: Any = -1,
        device: str = "auto",
        random_state: Any = 0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.method = method
        self.model = model
        self.steps = steps
        self.unlabelled = unlabelled
        self.device = device
        self.random_state = random_state
        self.options = options

    def fit(self, X: Any, y: Any) -> MetaplClassifier:  # noqa: N803 - scikit-learn's name
        """Learn from examples `[examples, features]` and their labels `[examples]`.

        Raises:
            InputError: no two classes, or options that are none.
            ValueError: arrays that scikit-learn refuses.
        """
        x, y = validate_data(self, X, _without_gaps(y, self.unlabelled), dtype=np.float64, ensure_min_samples=2)
        known = np.array([not _same(label, self.unlabelled) for label in y.tolist()], dtype=bool)
        labels = _plain(y[known])
        check_classification_targets(labels)
        self.classes_, index = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise InputError(f"{len(self.classes_)} class in y: give labels of two classes at least")
        classes = np.full(len(y), -1)
        classes[known] = index
        experiment = self._experiment(x, torch.from_numpy(classes))
        networks = phases.finish(phases.run(experiment)).networks
        self.network_ = run_folder.best(networks, experiment.config.method)
        self._config, self._form = experiment.config, experiment.data.form
        self._variables = tree.to(networks[self.network_], experiment.device)
        return self

    def _experiment(self, x: np.ndarray, y: Tensor) -> Experiment:
        wrong = [name for name in self.options or {} if name in OWN]
        if wrong:
            raise InputError(f"options: {wrong[0]} is an argument of its own, or follows from the data: leave it out")
        given = self.random_state
        seed = given if isinstance(given, (int, np.integer)) else check_random_state(given).randint(2**31 - 1)
        config = TrainConfig(
            **{"finetune_steps": min(200, self.steps), "report_every": self.steps, **(self.options or {})},
            method=self.method,
            model=self.model,
            steps=self.steps,
            seed=int(seed),
            device=self.device,
            labels=int((y >= 0).sum()),
            validation=0,
            balanced=False,
            baselines=False,
        )
        data = _dataset(x, y, [str(name) for name in range(len(self.classes_))], pick_device(config.device))
        labelled = (y >= 0).nonzero()[:, 0]
        return assemble(config, data, Split(labelled, torch.arange(len(y)), labelled[:0]))

    def _logits(self, X: Any) -> Iterator[Tensor]:  # noqa: N803 - scikit-learn's name
        check_is_fitted(self)
        found = validate_data(self, X, dtype=np.float64, reset=False)
        details = self._form.details
        x = arrays.standardised(found, details["mean"], details["std"])
        # Built again, since the functions of a network cannot be pickled.
        model = architectures(self._config, self._form).of(self.network_)
        params, buffers = self._variables
        ready, device = inputs.prepare(self._form), next(iter(params.values())).device
        for part in x.split(BATCH):
            yield metrics.predict(model, params, buffers, [ready(part.to(device))]).double().cpu()

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803 - scikit-learn's name
        """The probability of each class, `[examples, classes]`, float64."""
        return torch.softmax(torch.cat(list(self._logits(X))), -1).numpy()

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803 - scikit-learn's name
        """The most probable class of each example, `[examples]`."""
        best = torch.cat(list(self._logits(X))).argmax(-1)
        return np.asarray(self.classes_[best.numpy()])


def _same(label: Any, mark: Any) -> bool:
    """Whether a label is the mark for none, or a gap."""
    return label is None or label != label or bool(label == mark)  # noqa: PLR0124 - NaN


def _without_gaps(y: Any, mark: Any) -> Any:
    """Labels whose gaps, which scikit-learn refuses, are the mark."""
    found = np.asarray(y)
    if found.dtype.kind not in "fO" or found.ndim != 1:
        return y
    gaps = np.array([label is None or label != label for label in found.tolist()], dtype=bool)  # noqa: PLR0124 - NaN
    if not gaps.any():
        return y
    filled = found.astype(object)
    filled[gaps] = mark
    return filled


def _plain(y: np.ndarray) -> np.ndarray:
    """Labels in one type, where numpy holds them as objects."""
    return np.array(y.tolist()) if y.dtype == object else y


def _dataset(x: np.ndarray, y: Tensor, classes: list[str], device: torch.device) -> Dataset:
    """All examples to learn from; the test set, which nobody looks at, is one of them."""
    mean, std = arrays.scale(x, "X")
    form = Form("arrays", x.shape[1:], tuple(classes), {"mean": mean.tolist(), "std": std.tolist()})
    scaled, y = arrays.standardised(x, mean, std, "X").to(device), y.to(device)
    first = (y >= 0).nonzero()[:1, 0]
    return Dataset(scaled, y, scaled[first], y[first], presets.default(form), form)
