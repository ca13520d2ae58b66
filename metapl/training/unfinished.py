"""A run that still goes on, or was stopped, as if it ended with its last stored state."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from metapl import methods
from metapl.registry.errors import InputError
from metapl.training import loop, phases, run_files, run_folder, seen, state_files, stored
from metapl.training.experiment import prepare


def end_now(run: Path, into: Path, device: str = "auto", trust_code: bool = False) -> str:
    """Write the folder that a run would have left, had it ended with its last stored state; the run stays as it is.

    Args:
        run: a folder that `metapl train` wrote, without a `summary.json`.
        into: the folder to make.
        device: cpu, cuda or auto.
        trust_code: whether code that the folder names may be imported, see `metapl.registry.trust`.

    Returns:
        The step of that state, in words.

    Raises:
        InputError: not a run, or one that has stored no state of its own.
    """
    config = run_folder.config(run, device, trust_code)
    found = state_files.newest(run)
    if found is None or len(found.seeds) > 1:
        raise InputError(f"{run} is not finished, and has stored no state of its own yet: wait for one, or for its end")
    experiment = prepare(config, run / "split.json")
    networks, fits, fit = dict(found.networks), [], seen.fitting(experiment)
    for spec in stored.remaining(methods.plan(config), found):
        if not spec.fit:
            break
        fits.append(fit(spec.name, spec.fit))
        experiment = phases.guided(experiment, spec, fits[-1].networks)
    phase = phases.prepare_phase(
        experiment, spec, {**networks, **{k: v for one in fits for k, v in one.networks.items()}}
    )
    at = stored.enter(loop.start(phase), found)
    networks.update(spec.keep(phase.method.networks(at.state)))
    into.mkdir(parents=True)
    for path in run.iterdir():
        if path.suffix in (".toml", ".json") and path.is_file():
            shutil.copyfile(path, into / path.name)
    (into / "metrics.jsonl").write_text(run_files.whole_lines(run / "metrics.jsonl"), encoding="utf-8")
    result = phases.judge(experiment, networks, fits)
    run_folder.save_end(into, experiment, result, time.perf_counter() - found.seconds)
    return f"step {found.step} of {at.steps} of {found.phase}"
