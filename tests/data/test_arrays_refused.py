"""Arrays that are refused, with the remedy."""

import numpy as np
import pytest

from metapl.data.sources import STORED
from metapl.registry.errors import InputError

load = STORED["arrays"].load

X = np.random.default_rng(0).normal(size=(12, 4))
Y = np.arange(12) % 3
WHOLE = {"x": X, "y": Y}
IMAGES = np.zeros((12, 5, 5), np.uint8)


def with_nan(x):
    x = x.copy()
    x[3, 1] = np.nan
    return x


REFUSED = {
    "no x": ({"y": Y}, r"no array x among y: call it x or X or x_train"),
    "no y": ({"x": X}, r"no array y among x: call it y or Y"),
    "x twice": ({**WHOLE, "X": X}, r"x and X both say what x is: leave one out"),
    "counts": ({"x": X, "y": Y[:-1]}, r"12 examples in x, but 11 labels in y: match them"),
    "counts of the test": (
        {**WHOLE, "x_test": X, "y_test": Y[:2]},
        r"12 examples in x_test, but 2 labels in y_test: match them",
    ),
    "x_test alone": ({**WHOLE, "x_test": X}, r"x_test and y_test must be there both or neither: add the other one"),
    "y_test alone": ({**WHOLE, "y_test": Y}, r"x_test and y_test must be there both or neither: add the other one"),
    "another shape": (
        {**WHOLE, "x_test": X[:, :3], "y_test": Y},
        r"examples of x_test are float64 of shape \(3,\), those of x float64 of shape \(4,\): make them alike",
    ),
    "another kind": (
        {"x": IMAGES, "y": Y, "x_unlabelled": IMAGES / 255},
        r"examples of x_unlabelled are float64 of shape \(5, 5\), those of x uint8 .*: make them alike",
    ),
    "empty": ({"x": X[:0], "y": Y[:0]}, r"\w holds nothing: give an example at least"),
    "a number": ({"x": np.float64(3), "y": Y}, r"x holds nothing: give an example at least"),
    "no features": ({"x": X[:, 0], "y": Y}, r"shape \(\d+,\) is no \[examples, features\]: reshape it to \(\d+, 1\)"),
    "not a number": ({"x": with_nan(X), "y": Y}, r"x: holds NaN or infinity, in 1 of 12 examples \(\d+, from 0 on\): "),
    "texts": ({"x": X.astype(str), "y": Y}, r"<U\d+ are no numbers: give float32"),
    "complex": ({"x": X * 1j, "y": Y}, r"complex128 are no numbers: give float32"),
    "channels": (
        {"x": np.zeros((12, 5, 5, 4), np.uint8), "y": Y},
        r"shape \(\d+, 5, 5, 4\) has no dimension of 1 or 3 channels: write \[n, height, width, channels\]",
    ),
    "out of range": (
        {**WHOLE, "classes": np.array(["a", "b"])},
        r"y: label 2 is none of the 2 classes: correct it or name it",
    ),
    "negative": ({"x": X, "y": Y - 2}, r"label -2 is none of the 2 classes: correct it or name it, or give marker="),
    "below -1": ({"x": X, "y": np.where(Y == 0, -5, Y)}, r"y: label -5 is none of the 2 classes: correct it"),
    "not in classes": (
        {"x": X, "y": np.array(["a", "b", "z"])[Y], "classes": np.array(["a", "b"])},
        r"y: label 'z' is none of the 2 classes: correct it or name it",
    ),
    "new in the test": (
        {**WHOLE, "x_test": X, "y_test": Y + 1},
        r"y_test: label 3 is none of the 3 classes: correct it or name it",
    ),
    "texts in the test": (
        {**WHOLE, "x_test": X, "y_test": Y.astype(str)},
        r"y_test: label '0' is none of the 3 classes: correct it or name it",
    ),
    "unknown in the test": (
        {**WHOLE, "x_test": X, "y_test": Y - 1},
        r"y_test has labels that nobody knows: leave these examples out",
    ),
    "fractions": ({"x": X, "y": Y + 0.5}, r"y: 0\.5 is no class: give integers or texts"),
    "infinity": ({"x": X, "y": np.where(Y == 1, np.inf, Y)}, r"y: inf is no class: give integers or texts"),
    "one-hot": ({"x": X, "y": np.eye(3)[Y]}, r"y: shape \(12, 3\) is not one label an example: give y\.argmax\(1\)"),
    "dates": ({"x": X, "y": Y.astype("datetime64[D]")}, r"y: datetime64\[D\] are no labels: give integers or texts"),
    "one class": (
        {"x": X, "y": Y * 0},
        r"the classes are \['0'\]: give two at least, each with a name of its own",
    ),
    "no class": ({"x": X, "y": Y * 0 - 1}, r"the classes are \[\]: give two at least"),
    "a name twice": (
        {**WHOLE, "classes": np.array(["a", "b", "a"])},
        r"the classes are \['a', 'b', 'a'\]: give two at least, each with a name of its own",
    ),
    "bytes": ({"x": X, "y": np.array([b"\xff", b"a", b"b"])[Y]}, r"y: texts that are not UTF-8: save them as str"),
    "objects as x": (
        {"x": X.astype(object), "y": Y},
        r"x: no plain array, but Python objects .*: save numbers",
    ),
    "objects as y": (
        {"x": X, "y": Y.astype(object)},
        r"y: no plain array, but Python objects .*: save numbers",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_arrays_that_do_not_fit_are_refused(tmp_path, name):
    named, message = REFUSED[name]
    np.savez(tmp_path / "own.npz", **named)
    with pytest.raises(InputError, match=message) as caught:
        load(tmp_path / "own.npz")
    assert str(caught.value).startswith(f"{tmp_path}/own.npz: ")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("share", [0, 0.05, 0.4, 0.9, 0.999])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_file_that_is_cut_short_is_refused(tmp_path, share, save):
    save(tmp_path / "own.npz", **WHOLE)
    content = (tmp_path / "own.npz").read_bytes()
    (tmp_path / "own.npz").write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=r"own\.npz: .*: (write it again with numpy\.savez|save numbers, .*)$"):
        load(tmp_path / "own.npz")


def test_a_damaged_array_is_refused(tmp_path):
    np.savez(tmp_path / "own.npz", **WHOLE)
    content = bytearray((tmp_path / "own.npz").read_bytes())
    content[250:260] = b"x" * 10
    (tmp_path / "own.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"own\.npz: x: cannot be read \(Bad CRC-32.*\): write it again"):
        load(tmp_path / "own.npz")


def test_a_pickle_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return open, (str(tmp_path / "sprung"), "w")

    np.save(tmp_path / "x.npy", np.array([Trap()]), allow_pickle=True)
    np.save(tmp_path / "y.npy", Y)
    with pytest.raises(InputError, match=r"x\.npy: no plain array, but Python objects"):
        load(tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_files_by_another_name(tmp_path):
    """What a file is called does not decide what it is."""
    np.savez(tmp_path / "x.npz", **WHOLE)
    (tmp_path / "x.npz").rename(tmp_path / "x.npy")
    np.save(tmp_path / "y.npy", Y)
    with pytest.raises(InputError, match=r"x\.npy: an archive of arrays by the name of one: rename it to \.npz"):
        load(tmp_path)
    (tmp_path / "y.npy").rename(tmp_path / "y.npz")
    with pytest.raises(InputError, match=r"y\.npz: no array y"):
        load(tmp_path / "y.npz")


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"own\.npz: cannot be read \(No such file or directory\)"):
        load(tmp_path / "own.npz")


def test_no_share_for_the_test_is_refused(tmp_path):
    np.savez(tmp_path / "own.npz", **WHOLE)
    with pytest.raises(InputError, match=r"^test=0\.0 must be a share of each class"):
        load(tmp_path / "own.npz", test=0.0)
