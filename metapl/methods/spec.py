"""What the rest of the library knows of a method: one record, which its file builds and `METHODS` names.

The command line, the phases of a run, tables, plots, reports and model cards read these records. Nothing outside a
method's own file asks which method it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from metapl.core.types import Estimator, Model, TargetTransform
from metapl.data.augment.base import Augment
from metapl.data.examples import Examples
from metapl.methods.base import Method, Networks, Recipe, Trainable
from metapl.methods.seen import Fitted, Seen


class NetworkSpec(NamedTuple):
    """A network that a phase leaves."""

    title: str
    """What tables and legends call it."""
    role: str
    """What it is, in a few words, for a model card."""
    row: int
    """Its place in tables; smaller numbers stand above."""
    source: str = ""
    """Its name in `Method.networks`, where that is another one."""
    preference: int = 0
    """Of several networks of a run the one with the largest number is used; 0: only if somebody asks for it."""
    reference: bool = False
    """Whether a report compares the final network with it."""
    built_from: Mapping[str, str] = MappingProxyType({"": "student"})
    """The fields of `Models` that it consists of, by the prefix of the names of their tensors."""
    compose: Callable[..., Model] | None = None
    """How several models become this one."""
    colour: str = "pink"
    """Of its line: vermillion, blue, green, pink, orange, sky, grey or ink."""
    dash: tuple[float, ...] = ()
    """Lengths on and off, in widths of the line; a full line without any."""
    width: float = 2.0

    def model(self, models: Models) -> Model:
        """The model that its weights belong to."""
        parts = [getattr(models, field) for field in self.built_from.values()]
        return self.compose(*parts) if self.compose else parts[0]


class Models(NamedTuple):
    """The networks of a configuration, without their weights."""

    student: Model
    teacher: Model
    calibrator: Model
    """What may correct a fixed teacher."""
    networks: Mapping[str, NetworkSpec]
    """The networks that a run leaves, by name."""
    classical: Model
    """What a network that was fitted at once belongs to."""

    def of(self, name: str) -> Model:
        """The model that a network of a run belongs to, by the network's name; of other names the student's."""
        found = self.networks.get(name)
        return found.model(self) if found else self.student


class TrainableFactory(Protocol):
    """Puts a model and the optimiser of the configuration together."""

    def __call__(self, model: Model, rate: str, *, wait: int = 0, pace: int = 1) -> Trainable:
        """A model with the configuration's optimiser and schedule.

        Args:
            model: to be trained.
            rate: the field of the configuration that holds the learning rate, such as "lr".
            wait: steps, in those of the configuration, before the network starts to move.
            pace: optimiser steps for each step of the configuration.
        """


class Given(NamedTuple):
    """What a method is built from: a configuration turned into objects."""

    models: Models
    augment: Augment
    x: Examples
    """The training pool."""
    recipe: Recipe
    estimator: Estimator
    targets: TargetTransform
    """How the teacher's logits become pseudo labels."""
    number: Callable[[str], Any]
    """`number(field)`: a number of the configuration, which is a scalar tensor where it varies in a population."""
    trainable: TrainableFactory
    finetuning: Callable[[Model], Trainable]
    """`finetuning(model)`: the model with the optimiser and the constant learning rate of finetuning."""


def _fitted(given: Given, networks: Networks) -> Method:
    raise NotImplementedError("the phase is fitted at once, see PhaseSpec.fit: it has no steps")


class PhaseSpec(NamedTuple):
    """One phase of a run: a network, or a pair, that is trained for some steps, or fitted at once."""

    name: str
    """In the log; the randomness of the phase follows from it."""
    build: Callable[[Given, Networks], Method] = _fitted
    """`build(given, networks)`: the method, given the networks of the phases before."""
    networks: Mapping[str, NetworkSpec] = MappingProxyType({})
    """What is kept at the end, by its name in the run's files."""
    fit: Callable[[Seen], Fitted] | None = None
    """`fit(seen)`: the networks at once, in place of `build`."""
    steps: str = "steps"
    """The field of the configuration with the number of steps; at 0 the phase is left out."""
    labelled_batch: str = "labelled_batch"
    """The field with the labelled examples a step; where it is 0, `labelled_batch` counts."""
    unrolled: bool = False
    """Whether a step sees as many unlabelled batches as the configuration's `unroll` says."""
    continues: str = ""
    """The network whose training it goes on with."""
    method: str = ""
    """The method whose training it is, where that has another name."""

    def keep(self, networks: Networks) -> Networks:
        """What is kept of the networks at the end, by the names of the run's files."""
        return {name: networks[self.source(name)] for name in self.networks}

    def source(self, name: str) -> str:
        """The name in `Method.networks` of a network that is kept under this name."""
        return self.networks[name].source or name


class MethodSpec(NamedTuple):
    """A training method, as everything else in the library knows it."""

    title: str
    summary: str
    """A sentence for the report. {model}, {teacher}, {calibrator}, {labels}, {grad} and {claim} are filled in, and
    {learnt}: "learnt 10 classes from 40 labelled examples", or from unlabelled ones too."""
    phases: tuple[PhaseSpec, ...]
    """In order; what a phase needs comes before it."""
    source: str = ""
    """The title with the paper's reference, for a model card."""
    baselines: tuple[str, ...] = ()
    """Methods that are trained first, for the table, if the configuration asks for baselines."""
    models: Mapping[str, str] = MappingProxyType({"network": "student"})
    """The fields of `Models` that are trained, by their roles."""
    paired: bool = False
    """Whether a teacher learns from how its student does, so that there is an estimator of the feedback."""
    unlabelled: bool = True
    """Whether it sees unlabelled examples."""
    needs: tuple[str, ...] = ()
    """Fields of the configuration that must not be 0."""
    otherwise: str = ""
    """The method that it is where one of them is 0."""
    guided: bool = False
    """Whether it has a consistency loss, which a classical method may guide."""
    alone: str = ""
    """Why runs cannot be vectorised over seeds; empty if they can."""

    def lacks(self, config: Any) -> str:
        """The first field among `needs` that a configuration has set to 0; empty if there is none."""
        return next((name for name in self.needs if not getattr(config, name)), "")
