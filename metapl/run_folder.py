"""The folder of a run: what is written at its start and at its end, and how it is read again."""

from __future__ import annotations

import json
import platform
import resource
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import metapl
from metapl import checkpoint, tree
from metapl.config import TrainConfig, dump, resolve
from metapl.data.form import Form
from metapl.data.split import to_json
from metapl.errors import InputError, unknown
from metapl.experiment import Result
from metapl.mpl import Network
from metapl.setting import Setting, pick_device, prepare
from metapl.setting import networks as models_of
from metapl.types import Model

CHECKPOINT = Path("checkpoints/final.safetensors")


def environment() -> dict[str, Any]:
    """Versions and machine, for the record."""
    return {
        "metapl": metapl.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, kibibytes elsewhere


def create(path: Path) -> None:
    """Make the folder of a new run.

    Raises:
        InputError: it exists, or cannot be made.
    """
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        raise InputError(f"--out {path} exists already: name a new folder, or remove this one") from None
    except OSError as error:
        raise InputError(f"--out {path} cannot be made ({error.strerror}): name a folder that you may write") from None


def save_start(out: Path, setting: Setting) -> None:
    """Write what is known before training: configuration, environment and split."""
    checkpoint.write_text(out / "config.toml", dump(setting.config))
    checkpoint.write_json(out / "environment.json", environment())
    checkpoint.write_json(out / "split.json", to_json(setting.split))
    checkpoint.write_json(out / "data.json", setting.data.form._asdict())


def save_end(out: Path, setting: Setting, result: Result, started: float) -> dict[str, Any]:
    """Write the networks and `summary.json`, and return the summary. `started` is a `time.perf_counter()`."""
    checkpoint.save_networks(out / CHECKPOINT, result.networks)
    checkpoint.write_json(out / "confusion.json", {name: found.tolist() for name, found in result.confusion.items()})
    summary = {
        "test": result.test,
        "validation": result.validation,
        "config": asdict(setting.config),
        "pseudo_labels": setting.labels,
        "seed": setting.config.seed,
        "steps": setting.config.steps,
        "seconds": time.perf_counter() - started,
        "peak_memory_bytes": _peak_memory(setting.device),
    }
    checkpoint.write_json(out / "summary.json", summary)
    return summary


def config(path: Path, device: str = "auto") -> TrainConfig:
    """A run's configuration.

    Raises:
        InputError: not a run.
    """
    if not (path / "config.toml").is_file():
        raise InputError(f"{path} is not a run: name a folder that `metapl train` wrote")
    return resolve({"device": device}, path / "config.toml")


def _networks(path: Path, device: torch.device) -> dict[str, Network]:
    return tree.to(checkpoint.load_networks(path / CHECKPOINT), device)


def load(path: Path, device: str = "auto") -> tuple[Setting, dict[str, Network]]:
    """A finished run's setting and networks; its data is read again.

    Raises:
        InputError: not a run, or one that is incomplete or damaged.
    """
    found = config(path, device)
    setting = prepare(replace(found, split=str(path / "split.json")))._replace(config=found)
    return setting, _networks(path, setting.device)


class Serving(NamedTuple):
    """A trained network on its own, for new examples."""

    config: TrainConfig
    form: Form
    name: str
    model: Model
    network: Network


BEST = ("finetuned", "ema", "pseudo-labels", "uda", "supervised")
"""The network that is used unless another one is asked for: the first of these that a run has."""


def serve(path: Path, name: str = "", device: str = "auto") -> Serving:
    """A network of a finished run, without the data that it was trained on.

    Raises:
        InputError: not a run, one that is incomplete or damaged, or no network of that name in it.
    """
    found, place = config(path, device), pick_device(device)
    try:
        form = Form(**json.loads((path / "data.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path / 'data.json'} cannot be read ({error!r}): is the run complete?") from None
    form = form._replace(shape=tuple(form.shape), classes=tuple(form.classes))
    networks = _networks(path, place)
    name = name or next(one for one in BEST if one in networks)
    if name not in networks:
        raise unknown("network", name, networks)
    return Serving(found, form, name, models_of(found, form).of(name), networks[name])
