"""Tiny runs of the command line, and how their files are read."""

import json
import subprocess
import sys

from metapl.training import checkpoint

MPL_ALONE = ("--method", "mpl", "--guide", "none")
TINY = (*MPL_ALONE, "--steps", "3", "--finetune-steps", "2", "--batch", "32", "--device", "cpu")
MLP = ("--model", "mlp:width=8,depth=1")
ALONE = (*TINY, *MLP, "--no-baselines")


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


def networks_of(folder):
    return checkpoint.load_networks(folder / "checkpoints" / "final.safetensors")


def python(code, *args):
    return subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=300, check=False)
