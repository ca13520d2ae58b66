"""What a pickle of plain values and arrays is read as."""

import pickle
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pickled import ARRAYS, read
from published import old_pickle, pictures

# ---------------------------------------------------------------- what is read


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_come_back(tmp_path, name, protocol):
    found = read(tmp_path, pickle.dumps({"data": ARRAYS[name]}, protocol))["data"]
    assert type(found) is np.ndarray
    assert found.shape == ARRAYS[name].shape
    assert found.dtype == ARRAYS[name].dtype.newbyteorder("=")
    assert found.flags.writeable
    np.testing.assert_array_equal(found, ARRAYS[name])


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_numpy_before_version_2_come_back(tmp_path, protocol):
    """They name `numpy.core`, which is `numpy._core` now."""
    raw = pickle.dumps([ARRAYS["images"], np.float32(0.5)], protocol)
    new, old = b"numpy._core.", b"numpy.core."
    if protocol >= 4:  # names are strings there, with their length before them
        for name in (b"multiarray", b"numeric"):
            raw = raw.replace(bytes([len(new + name)]) + new + name, bytes([len(old + name)]) + old + name)
        frame = raw.index(b"\x95") + 1
        raw = raw[:frame] + struct.pack("<Q", len(raw) - frame - 8) + raw[frame + 8 :]
    raw = raw.replace(new, old)
    found, half = read(tmp_path, raw)
    np.testing.assert_array_equal(found, ARRAYS["images"])
    assert half == 0.5


def test_a_pickle_of_python_2_comes_back(tmp_path):
    rows = pictures(3)
    raw = old_pickle({"data": rows, "labels": [3, 1, 2], "batch_label": "batch 1", "filenames": ["a.png"] * 3})
    found = read(tmp_path, raw)
    expected = pickle.loads(raw, encoding="latin1")  # ours, written above
    assert found.keys() == expected.keys()
    np.testing.assert_array_equal(found["data"], rows)
    np.testing.assert_array_equal(expected["data"], rows)
    assert {key: found[key] for key in ("labels", "batch_label", "filenames")} == {
        key: expected[key] for key in ("labels", "batch_label", "filenames")
    }


leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()


keys = st.text() | st.integers() | st.binary() | st.tuples(st.integers(), st.text())


values = st.recursive(
    leaves,
    lambda inner: st.lists(inner) | st.dictionaries(keys, inner) | st.lists(inner).map(tuple),
    max_leaves=12,
)


@given(values, st.integers(0, pickle.HIGHEST_PROTOCOL))
@settings(deadline=None, derandomize=True, database=None, max_examples=200)
def test_plain_values_come_back(tmp_path_factory, value, protocol):
    assert read(tmp_path_factory.getbasetemp(), pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("scalar", [np.int64(-3), np.float32(0.5), np.bool_(True)])
def test_scalars_of_numpy_are_plain_numbers(tmp_path, scalar):
    found = read(tmp_path, pickle.dumps([scalar]))[0]
    assert found == scalar.item()
    assert type(found) is type(scalar.item())


def test_what_occurs_twice_is_one(tmp_path):
    inner = [1]
    one, other, images, *again = read(tmp_path, pickle.dumps([inner, (inner,), *[ARRAYS["images"]] * 2]))
    assert one is other[0]
    assert images is again[0]


def test_a_list_in_itself(tmp_path):
    endless = []
    endless.append((endless,))
    found = read(tmp_path, pickle.dumps(endless))
    assert found[0][0] is found


def test_lists_that_share_do_not_multiply(tmp_path):
    """2¹⁰⁰ elements, if each occurrence were made anew."""
    value = []
    for _ in range(100):
        value = [value, value]
    assert len(read(tmp_path, pickle.dumps(value))) == 2
