"""Runs that are stopped and go on, and what they are compared by."""

import json

from command import invoke

TINY = (
    "--method",
    "mpl",
    "--grad",
    "exact",
    "--steps",
    4,
    "--finetune-steps",
    3,
    "--batch",
    12,
    "--labels",
    20,
    "--validation",
    30,
    "--device",
    "cpu",
)
MLP = (*TINY, "--method", "mpl", "--guide", "none", "--report-every", 2, "--model", "mlp:width=6,depth=1")
ALONE = (*MLP, "--no-baselines")
EVERY = ("--checkpoint-every", 1)
VARYING = {"images_per_second", "seconds", "peak_memory_bytes"}


def contents(folder):
    """Every file below a folder, without times, rates and memory."""
    return {str(path.relative_to(folder)): content(path) for path in folder.rglob("*") if path.is_file()}


def content(path):
    if path.name not in ("metrics.jsonl", "summary.json"):
        return path.read_bytes()
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    return [{key: value for key, value in json.loads(line).items() if key not in VARYING} for line in lines]


def interrupt():
    raise KeyboardInterrupt


def resumed(folder, *args):
    outcome = invoke("train", "--resume", folder, *args)
    assert (outcome.code, outcome.err) == (0, "")
    return contents(folder)
