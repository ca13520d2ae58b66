"""The machine that a run is on, for the record."""

from __future__ import annotations

import platform
import resource
import sys
from typing import Any

import numpy as np
import torch

import metapl


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


def peak_memory(device: torch.device) -> int:
    """The most bytes that this process has had, of the memory of a GPU where it is on one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, kibibytes elsewhere
