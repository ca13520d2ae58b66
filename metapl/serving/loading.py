"""How an exported network is loaded, for its model card: with metapl, and by its graph without."""

from __future__ import annotations

from typing import Any

EXAMPLES = {"images": "example.png", "table": "example.csv", "arrays": "example.npy", "features": "example.npy"}
"""The file that the example of a card predicts, by the kind of data."""

LOAD = """\
from pathlib import Path

import torch

from metapl.data import inputs
from metapl.embedding import applied
from metapl.serving import exported

network, form, temperature = exported.load(Path("."){trust})
found = applied.read(form, [Path("{example}")], torch.device("cpu"))
x = inputs.prepare(form)(found.x[torch.arange(len(found.x))])
probabilities = (network(x) / temperature).softmax(-1)
"""
"""The program that loads the exported model."""

RUN = {
    "model.pt2": "import torch\n\n# torch unpickles parts of such a file, so trust who made it\n"
    'logits = torch.export.load("model.pt2").module()(x)\n',
    "model.onnx": 'import onnxruntime\n\n(logits,) = onnxruntime.InferenceSession("model.onnx").run(None, {"x": x})\n',
}
"""How each file with a graph is run."""


def text(config: dict[str, Any]) -> str:
    """The part of the card; `config` is what `config.json` holds."""
    kind = config["model"].partition(":")[0]
    needed = {"timm": " and timm", "module": " and the code of the network"}.get(kind, "")
    trusted = ", trust_code=True" if needed else ""
    read = config["details"]["before"]["kind"] if "before" in config["details"] else config["kind"]
    loading = LOAD.replace("{example}", EXAMPLES[read]).replace("{trust}", trusted)
    weights = f"With metapl{needed}, in this folder, for a file of one's own:\n\n```python\n{loading}```"
    if not config["graph"]:
        return weights
    run = RUN[config["graph"]["file"]]
    return f"{weights}\n\nWithout, for an `x` as `graph` in `config.json` describes it:\n\n```python\n{run}```"
