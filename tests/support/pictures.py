"""Image files of known levels, shared by the tests of what reads them."""

import io
import tarfile

import numpy as np
from PIL import Image


def random_levels(*shape, seed=0, dtype=np.uint8):
    """Every level is equally likely."""
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def save(file, levels, **options):
    """Save levels `[height, width]` or `[height, width, channels]`; the name says the format."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(levels).save(file, **options)
    return file


def hwc(x):
    """An image `[channels, height, width]` as Pillow has it."""
    return x.permute(1, 2, 0).squeeze(2).numpy()


def png(levels):
    content = io.BytesIO()
    Image.fromarray(levels).save(content, "PNG")
    return content.getvalue()


def shard(file, members, **options):
    """An archive of names and contents, in their order."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w", **options) as archive:
        for name, content in members:
            head = tarfile.TarInfo(name)
            head.size = len(content)
            archive.addfile(head, io.BytesIO(content))
    return file


def members_of(levels, labels, start=0):
    """The members of an archive with class indices."""
    for number, (one, label) in enumerate(zip(levels, labels, strict=True), start):
        yield f"{number:06d}.cls", str(label).encode()
        yield f"{number:06d}.png", png(one)
