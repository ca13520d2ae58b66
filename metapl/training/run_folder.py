"""The folder of a run: what is written at its start and at its end, and how it is read again."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from metapl import methods
from metapl.core import tree
from metapl.core.types import Model, Variables
from metapl.data import prior
from metapl.data.fingerprint import FINGERPRINT, differences, fingerprint
from metapl.data.form import Form
from metapl.data.sources import SOURCES
from metapl.data.split import to_json
from metapl.files import checksum, schema
from metapl.registry.errors import InputError, unknown
from metapl.training import checkpoint, fitting, machine, run_files
from metapl.training.architectures import architectures
from metapl.training.automatic import older
from metapl.training.checkpoint import CHECKPOINT
from metapl.training.config import TrainConfig, dump, resolve
from metapl.training.experiment import Experiment, pick_device, prepare
from metapl.training.phases import Result

LOG = logging.getLogger("metapl")
"""Where warnings of a run go."""


def create(out: Path) -> None:
    """Make the folder of a new run.

    Raises:
        InputError: it exists, or cannot be made.
    """
    try:
        out.mkdir(parents=True)
    except FileExistsError:
        raise InputError(f"out = {out} exists already: name a new folder, or remove this one", "out") from None
    except OSError as error:
        message = f"out = {out} cannot be made ({error.strerror}): name a folder that you may write"
        raise InputError(message, "out") from None


def save_start(out: Path, experiment: Experiment, known: dict[str, Any] | None = None) -> None:
    """Write what is known before training: configuration, environment, split, the data's form and its fingerprint.

    Args:
        out: the folder.
        experiment: what will be trained.
        known: the fingerprint, if it is computed already; it takes a pass over the data.
    """
    checkpoint.write_text(out / "config.toml", dump(_from_anywhere(experiment.config)))
    checkpoint.write_json(out / "environment.json", machine.environment())
    checkpoint.write_json(out / "split.json", to_json(experiment.split))
    checkpoint.write_json(out / "data.json", experiment.data.form._asdict())
    checkpoint.write_json(out / "fingerprint.json", known or fingerprint(experiment.data))


def _from_anywhere(config: TrainConfig) -> TrainConfig:
    """The configuration with absolute paths, so that it means the same in another directory."""
    paths = {name: getattr(config, name) for name in ("unlabelled", "split", "from_")}
    paths |= {name: path for name in ("data", "data_dir") if not (path := getattr(config, name)).startswith("~")}
    if config.data.partition(":")[0] in SOURCES:
        del paths["data"]
    if config.prior not in prior.NAMED:
        paths["prior"] = config.prior
    try:
        # Not `abspath`: behind the path of data stand options, which may have slashes of their own.
        found: dict[str, Any] = {name: path and os.path.join(os.getcwd(), path) for name, path in paths.items()}
        files = [os.path.join(os.getcwd(), one) for one in config.more_labels.split(os.pathsep) if one]
        return replace(config, **found, more_labels=os.pathsep.join(files))
    except (OSError, InputError):  # a directory that is gone, or whose name no TOML file can hold
        return config


def save_end(
    out: Path, experiment: Experiment, result: Result, started: float, draw: Callable[[], object] = lambda: None
) -> dict[str, Any]:
    """Write the networks, call `draw`, write `summary.json`, and return it. `started` is a `time.perf_counter()`."""
    checkpoint.save_networks(out / CHECKPOINT, result.networks)
    checkpoint.write_json(out / "confusion.json", {name: found.tolist() for name, found in result.confusion.items()})
    draw()  # the summary is the last file: where it is, all are
    summary = {
        "test": result.test,
        "validation": result.validation,
        "chosen": dict(result.chosen),
        "calibrated": {name: dict(found) for name, found in result.calibrated.items()},
        "compiled": dict(result.compiled),
        "config": asdict(_from_anywhere(experiment.config)),
        "pseudo_labels": experiment.labels,
        "seed": experiment.config.seed,
        "steps": experiment.config.steps,
        "seconds": time.perf_counter() - started,
        "peak_memory_bytes": machine.peak_memory(experiment.device),
        "weights": {"sha256": checksum.of(out / CHECKPOINT)},
    }
    checkpoint.write_json(out / run_files.SUMMARY, summary)
    return summary


def config(path: Path, device: str = "auto", trust_code: bool = False) -> TrainConfig:
    """A run's configuration.

    Raises:
        InputError: not a run, or one that needs code which is not trusted, see `metapl.registry.trust`.
    """
    if not (path / "config.toml").is_file():
        raise InputError(f"{path} is not a run: name a folder that `metapl train` wrote")
    return older(resolve({"device": device}, path / "config.toml", trust_code=trust_code))


def _networks(path: Path, config: TrainConfig, form: Form) -> dict[str, Variables]:
    """The networks on the CPU, checked against their checksum and against the configuration."""
    place = path / CHECKPOINT
    schema.require_file(place)
    if (record := path / run_files.SUMMARY).exists():
        checksum.require(place, run_files.summary(record).get("weights", {"sha256": ""})["sha256"], record)
    networks = checkpoint.load_networks(place)
    for name, network in networks.items():
        if name not in run_files.NETWORKS:
            raise unknown(f"network in {place}", name, run_files.NETWORKS)
        fitting.require_network(name, network, config, form, str(place))
    return networks


def load(path: Path, device: str = "auto", trust_code: bool = False) -> tuple[Experiment, dict[str, Variables]]:
    """A finished run's experiment and networks; its data is read again.

    Where the data is not what the run was trained on, the log `metapl` has a warning that says in what it differs.

    Args:
        path: the folder of the run.
        device: cpu, cuda or auto.
        trust_code: whether code that the folder names may be imported, see `metapl.registry.trust`.

    Raises:
        InputError: not a run, one that is incomplete or damaged, one that needs code which is not trusted, or one
            whose data cannot be read any more or has another form.
    """
    found = config(path, device, trust_code)
    networks: dict[str, Variables] = {}

    def check(form: Form) -> None:
        _require_form(path, found, form)
        networks.update(_networks(path, found, form))

    experiment = prepare(found, path / "split.json", check)
    if changed := changes(path, experiment):
        LOG.warning("%s is not what %s was trained on: different %s", found.data, path, changed)
    return experiment, tree.to(networks, experiment.device)


def _require_form(path: Path, config: TrainConfig, now: Form) -> None:
    if not (path / "data.json").exists():  # runs of early versions have none
        return
    then = run_files.data(path / "data.json")
    if now.shape != then.shape or len(now.classes) != len(then.classes):
        raise InputError(
            f"data = {config.data} has {len(now.classes)} classes of examples of shape {list(now.shape)} now, and "
            f"{path} was trained on {len(then.classes)} of shape {list(then.shape)}: restore that data",
            "data",
        )


def changes(path: Path, experiment: Experiment) -> str:
    """How the data of a run differs from what it was trained on, in words; empty if it does not, or if that is unknown.

    Raises:
        InputError: a fingerprint that is none.
    """
    place = path / "fingerprint.json"
    if not place.exists():
        return ""
    return ", ".join(differences(schema.load(place, FINGERPRINT), fingerprint(experiment.data)))


class Serving(NamedTuple):
    """A trained network on its own, for new examples."""

    config: TrainConfig
    form: Form
    name: str
    model: Model
    network: Variables
    temperature: float = 1.0
    """What its logits are divided by for probabilities, see `metapl.evaluation.temperature`."""

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(iter(self.network.params.values())).device


BEST = methods.preferred()
"""The networks that may be used unless another one is asked for, see `best`."""


def serve(path: Path, name: str = "", device: str = "auto", trust_code: bool = False) -> Serving:
    """A network of a finished run, without the data that it was trained on.

    Args:
        path: the folder of the run.
        name: of the network; the `best` that the run has, if empty.
        device: cpu, cuda or auto.
        trust_code: whether code that the folder names may be imported, see `metapl.registry.trust`.

    Raises:
        InputError: not a run, one that is incomplete or damaged, one that needs code which is not trusted, or no
            network of that name in it.
    """
    found, place = config(path, device, trust_code), pick_device(device)
    form = run_files.data(path / "data.json")
    networks = _networks(path, found, form)
    name = name or best(networks, found.method)
    if name not in networks:
        raise unknown("network", name, networks)
    return Serving(
        found, form, name, architectures(found, form).of(name), tree.to(networks[name], place), temperature(path, name)
    )


def temperature(path: Path, name: str) -> float:
    """The temperature of a network of a finished run; 1 where none was fitted.

    Raises:
        InputError: a summary that is damaged.
    """
    record = path / run_files.SUMMARY
    found = run_files.summary(record).get("calibrated", {}) if record.exists() else {}
    return float(found[name]["temperature"]) if name in found else 1.0


def best(networks: Collection[str], method: str) -> str:
    """The first of `BEST` among the networks of a run of some method, those of that method first.

    Raises:
        InputError: there is none.
    """
    if name := methods.best(networks, method):
        return name
    raise InputError(f"the run holds none of {', '.join(BEST)}: is it complete?")
