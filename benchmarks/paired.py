"""Paired seeds: train several arms on the same splits, initial weights, batches and views, and compare them.

    python benchmarks/paired.py --seeds 16 --out paired.jsonl \
        "none: grad=none" "exact: grad=exact" "first-order: grad=first-order"

An arm is `NAME: key=value key=value`, with the keys of `metapl.config.TrainConfig`; keys given by `--common` go to
all arms. Every arm's difference to the first one is printed, for the final averaged student, with its standard error
and a sign test. Runs that `--out` holds already are not run again. `--part validation` is for choosing
hyperparameters, `--part test` for reporting.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from metapl.config import TrainConfig


def read_arm(text: str) -> tuple[str, dict[str, Any]]:
    """The name and the configuration in `NAME: key=value …`."""
    name, _, rest = text.partition(":")
    return name.strip(), read_keys(rest)


def read_keys(text: str) -> dict[str, Any]:
    """The configuration in `key=value …`, each value as the type of its default."""
    defaults = {field.name: field.default for field in fields(TrainConfig)}
    given = dict(item.split("=", 1) for item in text.split())
    if unknown := set(given) - set(defaults):
        raise SystemExit(f"paired.py: unknown keys {', '.join(sorted(unknown))}: see metapl train --help")
    return {key: _typed(value, defaults[key]) for key, value in given.items()}


def _typed(text: str, default: Any) -> Any:
    return {"true": True, "false": False}[text] if isinstance(default, bool) else type(default)(text)


def one(job: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """Train one arm with one seed."""
    import torch  # noqa: PLC0415 - in the worker

    from metapl import experiment  # noqa: PLC0415
    from metapl.setting import prepare  # noqa: PLC0415

    torch.set_num_threads(1)
    name, given = job
    config = TrainConfig(**{"baselines": False, "finetune_steps": 0, "report_every": 10**9, **given})
    result = experiment.run(prepare(config), lambda _progress: None)
    return {"arm": name, "seed": config.seed, "config": given, "test": result.test, "validation": result.validation}


def main() -> None:
    """Run the arms and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arms", nargs="+")
    parser.add_argument("--common", default="")
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--part", choices=("validation", "test"), default="test")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    arms = [read_arm(text) for text in args.arms]
    common = read_keys(args.common)
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    jobs = [(name, {**common, **given, "seed": seed}) for seed in seeds for name, given in arms]
    done = read_runs(args.out)
    runs = [run for run in done if any(run["arm"] == name and run["config"] == given for name, given in jobs)]
    known = [(run["arm"], run["config"]) for run in runs]
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
        for run in pool.map(one, [job for job in jobs if job not in known]):
            runs.append(run)
            if args.out:
                with args.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(run) + "\n")
    table(sorted(runs, key=lambda run: run["seed"]), [name for name, _ in arms], args.part)


def read_runs(path: Path | None) -> list[dict[str, Any]]:
    """The runs that a file holds already; none where there is no file."""
    if path is None or not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def table(runs: list[dict[str, Any]], arms: list[str], part: str) -> None:
    """Mean top-1 of the averaged student, and the paired difference to the first arm, in points."""
    scores = {arm: [100 * score(run[part]) for run in runs if run["arm"] == arm] for arm in arms}
    print(f"{'arm':28} {'top-1':>6} {'sd':>5} {'difference':>10} {'± se':>5} {'wins':>6} {'sign p':>8}   ({part})")
    for arm in arms:
        values = scores[arm]
        line = f"{arm:28} {statistics.mean(values):6.2f} {statistics.stdev(values):5.2f}"
        if arm != arms[0]:
            gaps = [a - b for a, b in zip(values, scores[arms[0]], strict=True)]
            error = statistics.stdev(gaps) / math.sqrt(len(gaps))
            wins, losses = sum(gap > 0 for gap in gaps), sum(gap < 0 for gap in gaps)
            line += (
                f" {statistics.mean(gaps):+10.2f} {error:5.2f} {wins:3d}/{len(gaps):<2d} {sign_test(wins, losses):8.1e}"
            )
        print(line)


def score(rows: dict[str, dict[str, float]]) -> float:
    """Top-1 of the averaged student, or of a baseline's averaged weights where there is no student."""
    return rows["ema" if "ema" in rows else list(rows)[-1]]["top1"]


def sign_test(wins: int, losses: int) -> float:
    """The two-sided p-value of the sign test; ties are left out."""
    trials = wins + losses
    tail = sum(math.comb(trials, k) for k in range(min(wins, losses) + 1)) / 2**trials
    return min(1.0, 2 * tail)


if __name__ == "__main__":
    main()
