"""Methods of training: Meta Pseudo Labels, its reduced form, and the baselines that they are compared with.

    base.py             what a method is to the training loop, and the parts that methods share
    spec.py             what the rest of the library knows of a method: its phases, its networks and its needs
    seen.py             what a method that is fitted at once is given, and what it leaves
    single.py           one network trained on its own, which is what the baselines are
    classical/          the panel: what a user would take instead, of scikit-learn
    teacher_pass.py     the first half of a step of Meta Pseudo Labels
    exams.py            what the student of Meta Pseudo Labels is tested on
    feedback_scale.py   rules for the length of the feedback
    consistency/        rules of the consistency loss: alignment, threshold and target
    imbalance.py        weights and shifts for classes that are not equally many
    the other files     one method each, except `finetune.py`, a phase that methods may end with

A new method is one file and one line in `METHODS`; the guide `docs/guides/write_a_method.md` goes through one.
Importing this package does not import torch.

Floor 4: imports `nn`, `optim`, `data`, `evaluation` and what is below them, but no estimator: that is an argument.
Training and everything above may import it.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection
from functools import cache
from typing import TYPE_CHECKING, Any

from metapl.registry.errors import unknown

if TYPE_CHECKING:
    from metapl.methods.spec import MethodSpec, NetworkSpec, PhaseSpec

METHODS: dict[str, str] = {
    "mpl": "metapl.methods.mpl:METHOD",
    "reduced": "metapl.methods.reduced:METHOD",
    "uda": "metapl.methods.uda:METHOD",
    "pseudo-labels": "metapl.methods.pseudo_labels:METHOD",
    "supervised": "metapl.methods.supervised:METHOD",
    "logistic": "metapl.methods.classical.logistic:METHOD",
    "self-training": "metapl.methods.classical.self_training:METHOD",
    "spreading": "metapl.methods.classical.spreading:METHOD",
    "consensus": "metapl.methods.classical.consensus:METHOD",
}
"""The place of each method's record, `module:attribute`. It is imported when somebody asks for it."""


PANEL = ("logistic", "self-training", "spreading")
"""The classical methods that every method is compared with, in the order of a table."""


def find(name: str) -> MethodSpec:
    """The record of a method.

    Raises:
        InputError: an unknown name.
    """
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    return _load(METHODS[name])


@cache
def _load(place: str) -> MethodSpec:
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


def plan(config: Any) -> list[PhaseSpec]:
    """The phases of a run with a configuration, a `TrainConfig`, in order: what each needs comes before it."""
    own = find(config.method)
    others = [name for name in (*PANEL, *own.baselines) if name != config.method]  # its own phases come last
    compared = [find(name) for name in others] if config.baselines else []
    if guide := guide_of(config):
        compared.append(find(guide))
    usable = [method for method in compared if not method.lacks(config)]
    found = {phase.name: phase for method in (*usable, own) for phase in method.phases}
    return [phase for phase in found.values() if getattr(config, phase.steps)]


def lengths(config: Any) -> dict[str, int]:
    """The steps of each phase of a run with a configuration, in order; none of those that are fitted at once."""
    return {phase.name: 0 if phase.fit else getattr(config, phase.steps) for phase in plan(config)}


def guides() -> list[str]:
    """The methods that can guide a consistency loss: those that are fitted at once."""
    return [name for name in METHODS if all(phase.fit for phase in find(name).phases)]


def guide_of(config: Any) -> str:
    """The method that guides the consistency loss of a configuration; empty without one.

    Raises:
        InputError: an unknown name, or that of a method which cannot guide.
    """
    if config.guide not in ("none", *guides()):
        raise unknown("guide", config.guide, ["none", *guides()])
    return config.guide if config.guide != "none" and find(config.method).guided and config.uda_weight else ""


def phases() -> dict[str, PhaseSpec]:
    """The phases of all methods by name; a phase that several methods share is there once."""
    found: dict[str, PhaseSpec] = {}
    for name in METHODS:
        for phase in find(name).phases:
            found.setdefault(phase.name, phase)
    return found


def networks() -> dict[str, NetworkSpec]:
    """The networks of all methods by name, in the order of a table."""
    found: dict[str, NetworkSpec] = {}
    for phase in phases().values():
        for name, network in phase.networks.items():
            found.setdefault(name, network)
    return dict(sorted(found.items(), key=lambda item: item[1].row))


def preferred(method: str = "") -> tuple[str, ...]:
    """The networks that may be used for new examples, the most preferred first; before all others those of a method."""
    known = {name: network.preference for name, network in networks().items() if network.preference}
    own = {name for phase in find(method).phases for name in phase.networks} if method in METHODS else ()
    return tuple(sorted(known, key=lambda name: (name not in own, -known[name])))


def best(names: Collection[str], method: str = "") -> str:
    """The most preferred of these networks, before all those of a method; empty if none is to be preferred."""
    return next((name for name in preferred(method) if name in names), "")
