"""A trained network on its own, in a folder: its weights, what they belong to, a model card, and if asked a graph.

The weights are named as in the module's own `state_dict`, so that plain PyTorch loads them. A graph (`torch.export` or
ONNX) needs neither metapl nor the code of the network. Its input is what a file holds once it is decoded: grey levels
0 … 255 of images, the numbers of arrays, the encoded features of tables, always float32 and any number of them; its
output are the logits. Standardisation is inside, and so is the temperature that calibrates the probabilities; the
weights alone know nothing of it, and `config.json` has it.
"""

from __future__ import annotations

import importlib
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import metapl
from metapl import methods, models
from metapl.core import rng
from metapl.data import inputs
from metapl.data.form import Form
from metapl.files import checksum
from metapl.models.adapters import merge
from metapl.registry.errors import InputError, unknown
from metapl.serving import model_card
from metapl.serving.silence import quiet
from metapl.training import architectures, checkpoint, run_folder
from metapl.training.run_folder import Serving

INPUTS = {
    "images": "grey levels 0 … 255, white = 255, decoded and fitted as metapl.data.formats.decode describes",
    "table": "encoded features as metapl.data.formats.tables.encode makes them of the columns in `details`",
    "arrays": "numbers as they are in the files, channels first",
    "features": "features as they are in the files, or as the encoder in `details` makes them",
}
"""What a graph takes, by the kind of a form."""


def _field(serving: Serving) -> str:
    """The field of `Models` that a network belongs to."""
    config = serving.config
    known = architectures.networks(config)
    found = {**methods.networks(), **known}[serving.name]
    if found.compose:
        whole = [name for name, one in known.items() if not one.compose]
        whole.sort(key=lambda name: (-known[name].preference, -known[name].row))
        raise InputError(
            f"--network {serving.name} of --method {config.method} is several networks, and no single module: "
            f"export {', '.join(whole)}"
        )
    return found.built_from[""]


def _text(serving: Serving) -> str:
    """How `metapl.models.build` is to be called for a network."""
    return architectures.text(serving.config, _field(serving), _held(serving))


def _held(serving: Serving) -> dict[str, Tensor]:
    return {**serving.network.params, **serving.network.buffers}


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def module(serving: Serving) -> nn.Module:
    """The network as a plain module with its trained weights, in evaluation mode; adapters are merged into them.

    Raises:
        InputError: it is no single module, or one that is made otherwise now than when it was trained.
    """
    trained = _held(serving)
    built = architectures.partly_trained(serving.config, _field(serving))(_build(serving))
    held = _tensors(built)
    if {name: one.shape for name, one in held.items()} != {name: one.shape for name, one in trained.items()}:
        raise InputError(f"model {_text(serving)!r} has other tensors than were trained: restore its code of that time")
    with torch.no_grad():
        for name, tensor in held.items():
            tensor.copy_(trained[name])
    return merge(built).eval()


def _build(serving: Serving) -> nn.Module:
    with rng.seeded(rng.key(0)):
        return models.build(_text(serving), serving.form.shape, len(serving.form.classes))


def weights(serving: Serving) -> dict[str, Tensor]:
    """The tensors by the names of the module's `state_dict`, from which `load_state_dict` restores it, bit for bit.

    Raises:
        InputError: as `module`, or the module keeps tensors out of its `state_dict`.
    """
    trained = module(serving)
    state = {name: value.detach().clone().contiguous() for name, value in trained.state_dict().items()}
    restored = _build(serving)
    restored.load_state_dict(state, strict=True)
    found = _tensors(restored)
    lost = [name for name, value in _tensors(trained).items() if not torch.equal(found[name], value)]
    if lost:
        raise InputError(f"{lost[0]} of model {_text(serving)!r} is not in its state_dict: make it a persistent buffer")
    return state


class _Graph(nn.Module):
    def __init__(self, prepare: Callable[[Tensor], Tensor], network: nn.Module, temperature: float) -> None:
        super().__init__()
        self.prepare, self.network, self.temperature = prepare, network, temperature

    def forward(self, x: Tensor) -> Tensor:
        logits = self.network(self.prepare(x))
        return logits if self.temperature == 1 else logits / self.temperature


def graph(serving: Serving) -> nn.Module:
    """From what a decoded file holds to logits `[batch, classes]`, see the top of this file."""
    return _Graph(_prepare(serving.form), module(serving), serving.temperature)


def _prepare(form: Form) -> Callable[[Tensor], Tensor]:
    if form.kind != "arrays":
        return inputs.prepare(form)

    def prepare(x: Tensor) -> Tensor:
        # In float64, as `metapl.data.formats.arrays` does it: numbers may be far from zero and close to one another.
        mean, std = (torch.tensor(form.details[name], dtype=torch.float64) for name in ("mean", "std"))
        return ((x.double() - mean) / std).float()

    return prepare


def _traced(serving: Serving) -> Any:
    example = (torch.zeros(2, *serving.form.shape),)
    program = torch.export.export(graph(serving), example, dynamic_shapes=({0: torch.export.Dim("batch")},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine, which would be in the file
    return program


def _torch_export(serving: Serving, folder: Path) -> str:
    torch.export.save(_traced(serving), folder / "model.pt2")
    return "model.pt2"


def _onnx(serving: Serving, folder: Path) -> str:
    names: dict[str, Any] = {"input_names": ["x"], "output_names": ["logits"]}
    torch.onnx.export(
        _traced(serving), (), str(folder / "model.onnx"), dynamo=True, external_data=False, verbose=False, **names
    )
    return "model.onnx"


GRAPHS: dict[str, Callable[[Serving, Path], str]] = {"onnx": _onnx, "torch-export": _torch_export}
"""What writes a graph into a folder and gives the name of the file."""

FORMATS = ("safetensors", *GRAPHS)
"""The values of `--format`."""


def _write_graph(serving: Serving, kind: str, folder: Path) -> str:
    try:
        with quiet(), torch.no_grad():
            return GRAPHS[kind](serving, folder)
    except (InputError, OSError):
        raise
    except Exception as error:  # a network of somebody else can stop the tracer in any way
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"model {_text(serving)!r} cannot be written as a graph ({reason}): use --format safetensors"
        ) from error


def _require(kind: str) -> None:
    if kind not in FORMATS:
        raise unknown("format", kind, FORMATS)
    for package in ("onnx", "onnxscript") if kind == "onnx" else ():
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise InputError(f"--format onnx needs a package ({error}): pip install 'metapl[export]'") from None


def export(run: Path, out: Path, kind: str = "safetensors", network: str = "", trust_code: bool = False) -> list[Path]:
    """Write a network of a finished run to a new folder, whole or not at all.

    `model.safetensors`, `config.json` (how to build the network, the form of its inputs, versions), `README.md` (a
    model card), and with another kind than safetensors the graph.

    Args:
        run: the folder of the run.
        out: the new folder.
        kind: one of `FORMATS`.
        network: which one, by default the best.
        trust_code: whether code that the folder of the run names may be imported, see `metapl.registry.trust`.

    Returns:
        The files.

    Raises:
        InputError: an unknown kind or network, a missing package, no finished run, a network that cannot be written so,
            a folder that exists or cannot be made.
    """
    _require(kind)
    if out.exists():
        raise InputError(f"--out {out} exists already: name a new folder, or remove this one")
    serving = run_folder.serve(run, network, "cpu", trust_code)
    state, facts = weights(serving), model_card.facts(run, serving)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as place:
            folder = Path(place) / out.name
            folder.mkdir()
            save_file(state, folder / "model.safetensors")
            file = _write_graph(serving, kind, folder) if kind in GRAPHS else ""
            config = {**_config(serving, file), "sha256": checksum.of(folder / "model.safetensors")}
            checkpoint.write_json(folder / "config.json", config)
            checkpoint.write_text(folder / "README.md", model_card.text(out.name, serving, facts, config))
            folder.rename(out)
    except OSError as error:
        raise InputError(f"--out {out} cannot be written ({error.strerror or error}): name another folder") from None
    return sorted(out.iterdir())


def _config(serving: Serving, file: str) -> dict[str, Any]:
    form = serving.form
    traced = {
        "file": file,
        "input": {"name": "x", "dtype": "float32", "shape": ["batch", *form.shape], "holds": INPUTS[form.kind]},
        "output": {"name": "logits", "dtype": "float32", "shape": ["batch", len(form.classes)]},
    }
    return {
        "metapl": metapl.__version__,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "network": serving.name,
        "model": _text(serving),
        "temperature": serving.temperature,
        **form._asdict(),
        "weights": "model.safetensors",
        "graph": traced if file else None,
    }
