"""A small valid example of everything that metapl reads, and how it is read: what `bad_files` spoils."""

import functools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from pictures import members_of, random_levels, save, shard
from PIL import Image
from published import write_cifar10, write_cifar100, write_mnist
from scipy.io import savemat

from metapl.core.types import Variables
from metapl.data import inputs, split
from metapl.data.form import Form
from metapl.data.formats import arrays, images, tables
from metapl.data.sources import find
from metapl.reporting import facts
from metapl.serving import model_card
from metapl.studies import execution, search_space, specification
from metapl.training import checkpoint, experiment, loop, phases, run_folder, watching
from metapl.training.config import TrainConfig, resolve


class Kind(NamedTuple):
    """Something that is read."""

    make: Callable[[Path], None]
    """Write a valid example into an empty folder."""
    read: Callable[[Path], object]
    """Read it."""
    command: Callable[[Path], list[str]] | None = None
    """The command line that reads it."""


def _numbers(rows=24, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, 3)).astype(np.float32)


def _table(delimiter, name):
    def make(folder):
        rows = [f"{x:.3f}{delimiter}{'abc'[i % 3]}{delimiter}c{i % 2}" for i, (x, *_) in enumerate(_numbers())]
        (folder / name).write_text("\n".join([delimiter.join(("size", "kind", "label")), *rows, ""]))

    return make


def _npz(folder):
    held = {"x": _numbers(), "y": np.arange(24) % 2, "x_test": _numbers(6, 1), "y_test": np.arange(6) % 2}
    np.savez_compressed(folder / "d.npz", **held, classes=np.array(["a", "b"]))


def _npz_images(folder):
    np.savez(folder / "d.npz", x=random_levels(24, 4, 4), y=np.array(["a", "b"])[np.arange(24) % 2])


def _npy(folder):
    np.save(folder / "x.npy", _numbers())
    np.save(folder / "y.npy", np.arange(24) % 2)


def _idx(end):
    def make(folder):
        part = random_levels(8, 5, 5), np.arange(8, dtype=np.uint8) % 2
        write_mnist(folder, part, part, end)

    return make


def _svhn(folder):
    for name in ("train", "test"):
        x, y = random_levels(32, 32, 3, 4), np.arange(1, 5, dtype=np.uint8)[:, None]
        savemat(folder / f"{name}_32x32.mat", {"X": x, "y": y}, do_compression=name == "train")


def _pictures(*endings):
    def make(folder):
        for number in range(8):
            for ending in endings:
                levels = random_levels(6, 6, seed=number) if ending == "pgm" else random_levels(6, 6, 3, seed=number)
                save(folder / f"class{number % 2}" / f"{number}.{ending}", levels)

    return make


def _shards(folder):
    shard(folder / "a.tar", members_of(random_levels(8, 6, 6), [0, 1] * 4))


def _weights(folder):
    network = Variables({"a.weight": torch.ones(3, 4), "b": torch.zeros(0, 2)}, {"seen": torch.tensor(7)})
    checkpoint.save_networks(folder / "final.safetensors", {"ema": network, "teacher": network})


def _config(folder):
    (folder / "config.toml").write_text('data = "moons:points=60"\nsteps = 4\nlr = 0.1\nbalanced = true\nlabels = 10\n')


STUDY = """\
seeds = 2
first_seed = 3
against = "none"
reach = 0.5
pairs = [["exact", "none"]]

[common]
data = "moons:points=60"
steps = 4
validation = 10

[over]
labels = [10, 20]

[arms.none]
grad = "none"

[arms.exact]
lr = 0.1

[tune]
trials = 2
seeds = 2
ema = [0.9, 0.99]
uda_weight = { low = 0.1, high = 1.0 }
"""


def _study(folder):
    (folder / "study.toml").write_text(STUDY)


def _read_study(folder):
    about = specification.read(folder / "study.toml")
    search_space.read(about, "study.toml")
    specification.read(_written(folder / "again.toml", specification.dump(about)))


def _written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


TINY = TrainConfig(
    method="mpl",
    guide="none",
    data="moons:points=60",
    model="mlp:width=3,depth=1",
    steps=4,
    finetune_steps=2,
    batch=8,
    validation=10,
    device="cpu",
)


@functools.cache
def _run():
    """Every file of a finished run by its path."""
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "run"
        built = experiment.prepare(TINY)
        run_folder.create(out)
        run_folder.save_start(out, built)
        *events, finished = phases.run(built)
        lines = [watching.look(built, event) for event in events if isinstance(event, loop.Reported)]
        result = finished.result
        text = "".join(json.dumps({**line, "images_per_second": 1.0}) + "\n" for line in lines)
        (out / "metrics.jsonl").write_text(text)
        run_folder.save_end(out, built, result, 0.0)
        return {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def _whole_run(folder):
    for path, content in _run().items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


def _read_run(folder):
    serving = run_folder.serve(folder, "", "cpu")
    inputs.prepare(serving.form)(torch.zeros(1, *serving.form.shape))
    facts.gather(folder, "cpu")
    model_card.facts(folder, serving)


JOBS = specification.jobs(
    specification.build({"common": {"data": "moons", "steps": 4}, "arms": {"none": {}}, "seeds": 1}, "here")
)


def _sweep(folder):
    row = {"top1": 0.5, "top5": 1.0, "nll": 0.7, "ece": 0.1}
    look = {"phase": "mpl", "step": 4, "metrics": {"loss": 1.0}, "validation": {"ema": row}}
    run = {"setting": {}, "arm": "none", "seed": 0, "finite": True, "validation": {}, "test": {"ema": row}}
    found = {**run, "config": vars(JOBS[0].config), "log": [look]}
    (folder / f"{JOBS[0].name}.json").write_text(json.dumps(found))


def _split(folder):
    (folder / "split.json").write_text('{"labelled": [0, 5], "unlabelled": [[0, 20], [25, 30]], "validation": [21]}')


def _loaded(text=""):
    def read(folder):
        data = find.load(f"{folder}{text}")
        for x in (data.x, data.x_test):
            x[torch.arange(min(4, len(x)))]

    return read


def _check(name=""):
    return lambda folder: ["data", "check", str(folder / name)]


FORM = Form("arrays", (3,), ("a", "b"), {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]})
COLUMNS = [
    {"name": "size", "kind": "number", "mean": 0.0, "std": 1.0, "missing": False},
    {"name": "kind", "kind": "category", "categories": ["a", "b", "c"]},
]
ROWS = Form("table", (4,), ("c0", "c1"), {"columns": COLUMNS, "label": "label"})


def _animation(folder):
    for number in range(4):
        frames = [Image.fromarray(random_levels(6, 6, seed=number + turn)) for turn in range(3)]
        place = folder / f"class{number % 2}"
        place.mkdir(exist_ok=True)
        for ending in ("gif", "webp", "tiff"):
            frames[0].save(place / f"{number}.{ending}", save_all=True, append_images=frames[1:])


KINDS = {
    "csv": Kind(_table(",", "t.csv"), lambda folder: _loaded()(folder / "t.csv"), _check("t.csv")),
    "tsv": Kind(_table("\t", "t.tsv"), lambda folder: _loaded()(folder / "t.tsv"), _check("t.tsv")),
    "csv of predict": Kind(_table(",", "t.csv"), lambda folder: tables.read(ROWS, [folder / "t.csv"])),
    "npz": Kind(_npz, lambda folder: _loaded()(folder / "d.npz"), _check("d.npz")),
    "npz of images": Kind(_npz_images, lambda folder: _loaded()(folder / "d.npz"), _check("d.npz")),
    "npy": Kind(_npy, _loaded(), _check()),
    "npy of predict": Kind(_npy, lambda folder: arrays.read(FORM, [folder / "x.npy"])),
    "idx": Kind(_idx(""), _loaded(), _check()),
    "idx.gz": Kind(_idx(".gz"), _loaded(), _check()),
    "cifar10 pickle": Kind(lambda folder: write_cifar10(folder, count=2), _loaded(), _check()),
    "cifar10 binary": Kind(lambda folder: write_cifar10(folder, True, 2), _loaded(), _check()),
    "cifar100 pickle": Kind(lambda folder: write_cifar100(folder, count=2), _loaded(), _check()),
    "svhn": Kind(_svhn, _loaded(), _check()),
    "png": Kind(_pictures("png"), _loaded(), _check()),
    "jpeg": Kind(_pictures("jpg"), _loaded(), _check()),
    "bmp and pgm": Kind(_pictures("bmp", "pgm"), _loaded(), _check()),
    "webp and gif": Kind(_pictures("webp", "gif"), _loaded(), _check()),
    "animations": Kind(_animation, _loaded(), _check()),
    "images of predict": Kind(_pictures("png"), lambda folder: images.gather([folder], (3, 4, 4)).x[torch.arange(4)]),
    "tar": Kind(_shards, lambda folder: _loaded()(folder / "a.tar"), _check("a.tar")),
    "safetensors": Kind(_weights, lambda folder: checkpoint.load_networks(folder / "final.safetensors")),
    "config.toml": Kind(
        _config,
        lambda folder: resolve({}, folder / "config.toml"),
        lambda folder: ["train", "--config", str(folder / "config.toml"), "--out", str(folder / "config.toml")],
    ),
    "study": Kind(
        _study, _read_study, lambda folder: ["ablate", str(folder / "study.toml"), "--out", str(folder / "study.toml")]
    ),
    "run of a study": Kind(_sweep, lambda folder: execution.read(JOBS, folder)),
    "split.json": Kind(_split, lambda folder: split.read(folder / "split.json", torch.zeros(40, dtype=torch.int64))),
    "run folder": Kind(_whole_run, _read_run, lambda folder: ["eval", str(folder), "--device", "cpu"]),
}
"""By name."""
