"""Small files in the formats of published data sets, written from their descriptions."""

import gzip
import struct

import numpy as np

OLD_ARRAY = (
    b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01%s"
    b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89%stb"
)
"""A uint8 array as numpy wrote it in Python 2, without its shape and its bytes."""


def old_pickle(value):
    """Protocol 2 as Python 2 wrote it, where `str` is bytes; the memo is left out."""
    return b"\x80\x02" + _old(value) + b"."


def _old(value):
    match value:
        case dict():
            return b"}(" + b"".join(_old(key) + _old(one) for key, one in value.items()) + b"u"
        case list():
            return b"](" + b"".join(map(_old, value)) + b"e"
        case tuple():
            return b"(" + b"".join(map(_old, value)) + b"t"
        case int():
            return b"J" + struct.pack("<i", value)
        case str():
            raw = value.encode("latin1")
            return b"T" + struct.pack("<i", len(raw)) + raw
        case np.ndarray():
            return OLD_ARRAY % (_old(value.shape), _old(value.tobytes().decode("latin1")))


def pictures(count, seed=0):
    """Rows `[count, 3072]`, uint8, in the order red, green, blue."""
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def write_idx(path, array):
    """Unsigned bytes in the idx format; compressed where the name ends in .gz."""
    raw = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


def write_mnist(folder, train, test, end=".gz"):
    """The four files of an idx data set."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (x, y) in (("train", train), ("t10k", test)):
        write_idx(folder / f"{name}-images-idx3-ubyte{end}", x)
        write_idx(folder / f"{name}-labels-idx1-ubyte{end}", y)


def write_cifar10(folder, binary=False, count=4):
    """Six batches of `count` images: the rows and labels of each."""
    folder.mkdir(parents=True, exist_ok=True)
    inner_batches = {}
    for seed, name in enumerate([*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]):
        rows, y = pictures(count, seed), [(seed + one) % 10 for one in range(count)]
        if binary:
            records = b"".join(bytes([label]) + row.tobytes() for label, row in zip(y, rows, strict=True))
            (folder / f"{name}.bin").write_bytes(records)
        else:
            names = [f"image_{one}.png" for one in range(count)]
            held = {"batch_label": name, "labels": y, "data": rows, "filenames": names}
            (folder / name).write_bytes(old_pickle(held))
        inner_batches[name] = rows, y
    return inner_batches


def write_cifar100(folder, binary=False, count=120):
    """The two parts: the rows, the fine and the coarse labels of each."""
    folder.mkdir(parents=True, exist_ok=True)
    fine, coarse = [f"fine_{one}" for one in range(100)], [f"coarse_{one}" for one in range(20)]
    parts = {}
    for seed, name in enumerate(("train", "test")):
        rows, y = pictures(count, seed), [(seed + 7 * one) % 100 for one in range(count)]
        groups = [label // 5 for label in y]
        if binary:
            labels = zip(groups, y, rows, strict=True)
            records = b"".join(bytes([group, label]) + row.tobytes() for group, label, row in labels)
            (folder / f"{name}.bin").write_bytes(records)
        else:
            held = {"batch_label": name, "fine_labels": y, "coarse_labels": groups, "data": rows}
            (folder / name).write_bytes(old_pickle(held))
        parts[name] = rows, y, groups
    if binary:
        (folder / "fine_label_names.txt").write_text("\n".join([*fine, "", ""]))
        (folder / "coarse_label_names.txt").write_text("\n".join([*coarse, "", ""]))
    else:
        (folder / "meta").write_bytes(old_pickle({"fine_label_names": fine, "coarse_label_names": coarse}))
    return parts
