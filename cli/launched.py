"""What becomes of a command in several processes. Importing this file does not import torch."""

from __future__ import annotations

from pathlib import Path

from metapl.registry import launch


def follows(seeds: int, resume: Path | None) -> bool:
    """Whether this process trains a run that process 0 writes."""
    return is_shared(seeds, resume) and launch.rank() > 0


def is_shared(seeds: int, resume: Path | None) -> bool:
    """Whether several processes train one run; runs with several seeds are dealt out among them."""
    if launch.processes() == 1 or seeds > 1:
        return False
    from metapl.training import several  # noqa: PLC0415 - imports torch

    return resume is None or not (resume / several.SEEDS).is_file()


def has_begun(out: Path | None) -> bool:
    """Whether torchrun has started a command again (`--max-restarts`), after its run had begun in a folder."""
    return launch.restarts() > 0 and out is not None and (out / "config.toml").is_file()
