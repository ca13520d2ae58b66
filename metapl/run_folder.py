"""The folder of a run: what is written at its start and at its end, and how it is read again."""

from __future__ import annotations

import json
import platform
import resource
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

import metapl
from metapl import checkpoint
from metapl.config import dump, resolve
from metapl.data.split import Split
from metapl.errors import InputError
from metapl.experiment import Result
from metapl.mpl import Network
from metapl.setting import Setting, prepare

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
    checkpoint.write_json(out / "split.json", {name: part.tolist() for name, part in setting.split._asdict().items()})


def save_end(out: Path, setting: Setting, result: Result, started: float) -> dict[str, Any]:
    """Write the networks and `summary.json`, and return the summary. `started` is a `time.perf_counter()`."""
    checkpoint.save_networks(out / CHECKPOINT, result.networks)
    summary = {
        "test": result.test,
        "validation": result.validation,
        "config": asdict(setting.config),
        "pseudo_labels": setting.labels,
        "seed": setting.config.seed,
        "steps": setting.config.steps,
        "seconds": time.perf_counter() - started,
        "peak_memory_bytes": _peak_memory(setting.data.x.device),
    }
    checkpoint.write_json(out / "summary.json", summary)
    return summary


def load(path: Path, device: str = "auto") -> tuple[Setting, dict[str, Network]]:
    """A finished run's setting and networks.

    Raises:
        InputError: not a run, or one that is incomplete or damaged.
    """
    if not (path / "config.toml").is_file():
        raise InputError(f"{path} is not a run: name a folder that `metapl train` wrote")
    config = resolve({"device": device}, path / "config.toml")
    try:
        indices = json.loads((path / "split.json").read_text())
        existing = Split(**{name: torch.tensor(indices[name], dtype=torch.int64) for name in Split._fields})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path / 'split.json'} cannot be read ({error!r}): is the run complete?") from None
    setting = prepare(config, existing)
    networks = checkpoint.load_networks(path / CHECKPOINT)
    place = setting.data.x.device
    moved = {
        name: Network(*({k: v.to(place) for k, v in part.items()} for part in network))
        for name, network in networks.items()
    }
    return setting, moved
