"""Pickles as files, and arrays to be pickled."""

import numpy as np

from metapl.data.formats import safe_pickle

ARRAYS = {
    "images": np.arange(60, dtype=np.uint8).reshape(4, 15),
    "empty": np.zeros((0, 3), np.float32),
    "scalar": np.array(7),
    "columns first": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "axes mixed": np.arange(24.0).reshape(2, 3, 4).transpose(1, 0, 2),
    "strided": np.arange(12)[::2],
    "big endian": np.arange(5, dtype=">i4"),
    "booleans": np.array([True, False]),
    "half": np.array([1.5, -2.0], np.float16),
    "complex": np.array([1 + 2j]),
    "texts": np.array(["ab", "ß"]),
    "bytes": np.array([b"ab", b"c"]),
}


def read(tmp_path, raw):
    path = tmp_path / "batch"
    path.write_bytes(raw)
    return safe_pickle.load(path)
