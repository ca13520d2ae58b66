"""What the networks of a finished run say of examples, and of the loss on the labelled ones."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from metapl.core import autodiff, losses, tree
from metapl.core.forward_mode import jvp
from metapl.core.types import Params, Variables
from metapl.data.examples import Examples, subset
from metapl.data.loader import in_order
from metapl.evaluation import metrics
from metapl.registry.errors import InputError
from metapl.serving import last_layer
from metapl.training.experiment import Experiment
from metapl.training.run_folder import Serving


class Answers(NamedTuple):
    """A run that can be asked."""

    experiment: Experiment
    networks: dict[str, Variables]
    name: str
    """Of the network that the run is about."""
    batch: int
    """Examples that are predicted at a time."""

    @property
    def known(self) -> Tensor:
        """Positions in the pool of the labelled and the validation examples."""
        return torch.cat([self.experiment.split.labelled, self.experiment.split.validation])

    def ready(self, x: Examples) -> Iterator[Tensor]:
        """Stored examples as a network sees them, in batches."""
        return in_order(x, self.experiment.device, self.experiment.data.augment.prepare, self.batch)

    def logits(self, x: Examples, name: str = "") -> Tensor:
        """`[examples, classes]`, float64 on the CPU, of the run's network or another one."""
        network, model = self.networks[name or self.name], self.experiment.models.of(name or self.name)
        return metrics.predict(model, *network, self.ready(x)).double().cpu()

    def all(self, x: Examples) -> list[Tensor]:
        """The logits of every network."""
        return [self.logits(x, name) for name in self.networks]

    def features(self, x: Examples) -> Tensor:
        """See `metapl.serving.last_layer.features`; the logits where several networks are one."""
        experiment, model = self.experiment, self.experiment.models.of(self.name)
        found = experiment.models.networks.get(self.name)
        if found and found.compose:
            return self.logits(x)
        serving = Serving(experiment.config, experiment.data.form, self.name, model, self.networks[self.name])
        return last_layer.features(serving, self.ready(x))

    def slopes(self, x: Examples) -> Tensor:
        """See `metapl.serving.strategies.Asked.slopes`; the loss is the mean over labelled and validation examples.

        Raises:
            InputError: a network without trained weights, or one that forward mode cannot take.
        """
        model, network = self.experiment.models.of(self.name), self.networks[self.name]
        if not tree.size(network.params):
            raise InputError(f"--by effect needs trained weights, and {self.name} has none: name another --network")

        def logits(params: Params, part: Tensor) -> Tensor:
            return model.apply(params, network.buffers, part, train=False)[0]

        gradient = self._gradient()
        return torch.cat(
            [jvp(partial(logits, part=part), (network.params,), (gradient,))[1].cpu() for part in self.ready(x)]
        )

    def _gradient(self) -> Params:
        """Of the loss, with respect to the parameters of the network."""
        data, model, network = self.experiment.data, self.experiment.models.of(self.name), self.networks[self.name]
        y = data.y[self.known.to(data.y.device)]
        total = tree.zeros_like(network.params)
        for part, truth in zip(self.ready(subset(data.x, self.known)), y.split(self.batch), strict=True):

            def loss(params: Params, part: Tensor = part, truth: Tensor = truth) -> tuple[Tensor, None]:
                said = model.apply(params, network.buffers, part, train=False)[0]
                return losses.cross_entropy(said, truth).sum() / len(y), None

            total = tree.add(total, autodiff.value_and_grad(loss, network.params)[2])
        return total
