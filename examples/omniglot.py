"""Omniglot as few-shot tasks, and the network that is usually trained on them.

The data (Lake et al., Science 2015) are read from a folder with these files:

    omniglot_packed.npz      ink: np.packbits of each image of 105 x 105; alphabet and character: of the same length
    splits/vinyals_*.txt     train, val, trainval and test of Vinyals et al. (2016): Alphabet/character01/rot090, ...
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

SIDE = 105
Tasks = tuple[Tensor, Tensor, Tensor, Tensor]
"""Drawings to learn from, their classes, drawings that are asked about, and theirs; each `[tasks, drawings, ...]`."""


def load(folder: str | None, split: str) -> Tensor:
    """The drawings of a split, `[classes, drawings, 28, 28]` of `uint8`; a turned character is another class."""
    place = Path(folder or Path(os.environ.get("METAPL_DATA", "data")) / "omniglot")
    if not (place / "omniglot_packed.npz").is_file():
        raise SystemExit(f"no omniglot_packed.npz in {place}: give the folder with --data, or set METAPL_DATA")
    packed = np.load(place / "omniglot_packed.npz")
    ink = torch.from_numpy(np.unpackbits(packed["ink"], axis=1)[:, : SIDE * SIDE]).reshape(-1, 1, SIDE, SIDE)
    small = torch.cat([shrunk(part) for part in ink.split(1000)])
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(zip(packed["alphabet"], packed["character"], strict=True)):
        rows.setdefault("/".join(name), []).append(row)
    classes = []
    for line in (place / "splits" / f"vinyals_{split}.txt").read_text(encoding="utf-8").split():
        name, turn = line.rsplit("/rot", 1)
        classes.append(torch.rot90(small[rows[name]], int(turn) // 90, (1, 2)))
    return torch.stack(classes)


def shrunk(ink: Tensor) -> Tensor:
    """Grey drawings `[batch, 28, 28]`, from the ink of `[batch, 1, 105, 105]`."""
    return interpolate(ink * 255.0, (28, 28), mode="bilinear", antialias=True)[:, 0].round().byte()


def draw(images: Tensor, generator: torch.Generator, tasks: int, *, ways: int = 5, shots: int = 1, queries: int = 5):
    """Tasks of `ways` classes each, with `shots` drawings of every class to learn from and `queries` to be asked."""
    classes = torch.rand(tasks, len(images), generator=generator).topk(ways).indices
    drawings = torch.rand(tasks, ways, images.shape[1], generator=generator).topk(shots + queries).indices
    chosen = images[classes[:, :, None], drawings].unsqueeze(3) / 255.0
    labels = torch.arange(ways)[:, None].expand(tasks, ways, shots + queries)
    parts = [(one[:, :, :shots], one[:, :, shots:]) for one in (chosen, labels)]
    (x, query_x), (y, query_y) = (tuple(part.flatten(1, 2) for part in pair) for pair in parts)
    return x, y, query_x, query_y


def network(ways: int = 5, channels: int = 32) -> nn.Module:
    """Four convolutions of stride 2, each normalised by the statistics of its batch, then a linear layer."""

    def block(inputs: int) -> nn.Module:
        convolution = nn.Conv2d(inputs, channels, 3, stride=2, padding=1)
        return nn.Sequential(convolution, nn.BatchNorm2d(channels, track_running_stats=False), nn.ReLU())

    blocks = [block(1), *(block(channels) for _ in range(3))]
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(4 * channels, ways))
