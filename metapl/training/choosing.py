"""Which method to train, for `--method auto`: candidates compared on the labels that there are.

    labelled examples ─► folds, or the validation part if there is one
    each fold: the panel, the consensus, a network on labels alone, a guided network with and without alignment
    right answers on what the fold left out ─► the preferred candidate, unless another is clearly better

The preferred candidate is the guided network with the alignment that fits the number of classes. Another one takes its
place if it has over `AHEAD` more right answers. With one label a class nothing can be left out, and the preferred
candidate is trained. The guide itself is no candidate: it is as good as the network that it guides, and keeps all
examples in place of weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from metapl.data.split import Split
from metapl.methods.classical import choice
from metapl.methods.seen import Fitted
from metapl.training import experiment, phases, population
from metapl.training.automatic import photographs
from metapl.training.config import TrainConfig
from metapl.training.experiment import Experiment

OTHER = {"uniform": "none", "none": "uniform"}
"""The alignment that the preferred one is compared with."""


class Score(NamedTuple):
    """How a candidate did."""

    name: str
    right: int
    asked: int


class Choice(NamedTuple):
    """A configuration, and why it is this one."""

    config: TrainConfig
    name: str
    how: str
    """On what the candidates were compared."""
    scores: tuple[Score, ...] = ()
    """The preferred candidate first."""
    fitted: Mapping[str, Fitted] = MappingProxyType({})
    """What the run that was chosen need not fit again, by the phase: it was fitted to the same examples."""

    @property
    def hurts(self) -> bool:
        """Whether learning from unlabelled examples was clearly worse than learning from labels alone."""
        return self.name in LABELS_ALONE


AHEAD = 8
"""How many right answers more another candidate must have than the preferred one.

It stands for what is known beforehand. Let another candidate be the right one in a share p of the examples on which the
two differ. With the prior Beta(8, 16), so that p is one third, it is expected to be the better one as soon as it has
over 16 − 8 more right answers, however many are asked for.
"""

FOLDS = 3
"""Of the labelled examples; fewer where no class has as many labels."""

SHORTER = 3
"""The candidates are trained for so much fewer steps."""

LABELS_ALONE = ("supervised", "logistic")
"""Candidates that see no unlabelled example."""


def choose(given: Sequence[Experiment], aligned: bool = False) -> list[Choice]:
    """Compare the candidates for each of some experiments that are `alike`, prepared with the method `uda`.

    Args:
        given: differ in their seeds.
        aligned: whether the alignment is settled, so that no other one is a candidate.

    Cost: of each experiment two trainings of the network for each fold and one on labels alone, for a third of the
    steps, all of them as one population; and the panel for each fold. Nothing where they cannot be one population, and
    on photographs.
    """
    splits = [_splits(one) for one in given]
    config = given[0].config
    if not splits[0]:
        return [Choice(one.config, "uda", "one label a class leaves nothing to compare on") for one in given]
    if photographs(given[0].data.form):
        why = "on photographs nothing is compared, since it would take as long as the training"
        return [Choice(one.config, "uda", why) for one in given]
    rounds = [one._replace(split=split) for one, of in zip(given, splits, strict=True) for split in of]
    if why := population.refuses(rounds):
        return [Choice(one.config, "uda", f"nothing is compared, since {why}") for one in given]
    alignments = [config.alignment] if aligned else [config.alignment, OTHER.get(config.alignment, "none")]
    candidates: dict[str, TrainConfig] = {}
    hits: list[dict[str, Tensor]] = [{} for _ in given]
    fits: dict[str, list[Fits]] = {}
    whole = len(given[0].split.validation) > 0  # folds are fitted to a part of the examples
    for alignment in alignments:
        tried = _tried(config, alignment, compared=alignment == config.alignment)
        answers, found = _answers([experiment.assemble(tried(one), one.data, one.split) for one in rounds])
        if whole:
            fits[alignment] = found
        for name in (name for name in answers[0] if name != config.guide):
            label = name if alignment == config.alignment else f"{name}, {alignment} alignment"
            candidates[label] = replace(config, method=name, alignment=alignment)
            for index, own in enumerate(hits):
                count = len(splits[0])
                own[label] = torch.cat([one[name] for one in answers[index * count : (index + 1) * count]])
    choices = [_best(one.config, own, candidates, _how(splits[0], one)) for one, own in zip(given, hits, strict=True)]
    if whole:
        first = fits[config.alignment]
        choices = [
            one._replace(fitted={**first[index], **fits[one.config.alignment][index]})
            for index, one in enumerate(choices)
        ]
    return choices


def _best(config: TrainConfig, hits: Mapping[str, Tensor], candidates: Mapping[str, TrainConfig], how: str) -> Choice:
    names = sorted(hits, key=lambda name: name != "uda")
    best = names[choice.best([hits[name] for name in names], AHEAD)]
    scores = tuple(Score(name, int(hits[name].sum()), len(hits[name])) for name in names)
    return Choice(replace(candidates[best], seed=config.seed), best, how, scores)


def _how(splits: Sequence[Split], given: Experiment) -> str:
    if len(given.split.validation):
        return f"{len(given.split.validation)} validation examples"
    return f"{len(splits)} folds of {len(given.split.labelled)} labelled examples"


def _splits(given: Experiment) -> list[Split]:
    """Splits whose validation part the candidates are asked for."""
    split = given.split
    if len(split.validation):
        return [split]
    y = given.data.y[split.labelled.to(given.device)].cpu()
    folds = choice.folds(split.labelled, y, given.keys.of("choice"), FOLDS)
    # New examples are what a network is for, so those that are asked for are not among the unlabelled ones either.
    return [Split(one.shown, _without(split.unlabelled, one.asked), one.asked) for one in folds]


def _without(index: Tensor, taken: Tensor) -> Tensor:
    return index[~torch.isin(index, taken)]


def _tried(config: TrainConfig, alignment: str, compared: bool) -> Callable[[Experiment], TrainConfig]:
    """The configuration in which a candidate is tried; the panel is fitted where it is `compared`."""
    steps = max(config.steps // SHORTER, 1)
    tried = replace(
        config, compile=False, alignment=alignment, baselines=compared, steps=steps, warmup=config.warmup // SHORTER
    )
    return lambda one: replace(tried, seed=one.config.seed)


Fits: TypeAlias = dict[str, Fitted]
"""By the phase."""


def _answers(rounds: Sequence[Experiment]) -> tuple[list[dict[str, Tensor]], list[Fits]]:
    """Whether each example of the validation part is answered right, `[examples]`, bool, by network, of each round.

    And what was fitted at once in each.
    """
    found: list[dict[str, Tensor]] = [{} for _ in rounds]
    fits: list[Fits] = [{} for _ in rounds]
    for index, event in population.train_all(rounds):
        if index is not None and isinstance(event, phases.Chosen):
            fits[index][event.phase] = event.fitted
        if index is not None and isinstance(event, phases.Finished):
            one = rounds[index]
            y = one.data.y[one.split.validation.to(one.device)]
            networks = event.result.networks.items()
            found[index] = {
                name: phases.predict(one, name, network, "validation").argmax(1) == y for name, network in networks
            }
    return found, fits
