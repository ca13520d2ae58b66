"""Pickles that are refused: code that would run, and files that are damaged."""

import copyreg
import datetime
import functools
import os
import pickle
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from pickled import ARRAYS, read

from metapl.data.formats import safe_pickle
from metapl.registry.errors import InputError


def assert_refused(tmp_path, raw, word=None):
    with pytest.raises(InputError, match=word) as raised:
        read(tmp_path, raw)
    message = str(raised.value)
    assert message.startswith(f"{tmp_path / 'batch'} ")
    assert message.isprintable()
    assert len(message) < 600


# ---------------------------------------------------------------- what is refused


class Calls:
    """Unpickles by calling."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def dangerous(path):
    """Pickles that leave a file at `path` where they are trusted."""
    text = str(path)
    name, module = text.encode(), os.mkdir.__module__.encode()
    return {
        "reduce": pickle.dumps(Calls(os.mkdir, text)),
        "reduce, protocol 0": pickle.dumps(Calls(os.mkdir, text), 0),
        "exec": pickle.dumps(Calls(exec, f"import os; os.mkdir({text!r})")),
        "beside an array": pickle.dumps({"data": ARRAYS["images"], "labels": Calls(os.mkdir, text)}, 2),
        "as a key": pickle.dumps({Calls(os.mkdir, text): 1}),
        "partial": pickle.dumps(Calls(functools.partial(os.mkdir, text))),
        "in an object array": pickle.dumps(np.array([Calls(os.mkdir, text)], dtype=object)),
        "as the state of an array": pickle.dumps(Calls(np.ndarray, (Calls(os.mkdir, text),))),
        "instance": b"(S'" + name + b"'\ni" + module + b"\nmkdir\n.",
        "object": b"(c" + module + b"\nmkdir\nS'" + name + b"'\no.",
        "dotted name": b"\x80\x04\x8c\x06shutil\x8c\x08os.mkdir\x93\x8c" + bytes([len(name)]) + name + b"\x85R.",
        "thrown away": b"c" + module + b"\nmkdir\n(S'" + name + b"'\ntR0N.",
    }


NAMES = list(dangerous("/tmp/x"))


@pytest.mark.parametrize("name", NAMES)
def test_code_is_not_run(tmp_path, name):
    target = tmp_path / "ran"
    assert_refused(tmp_path, dangerous(target)[name], "nothing of it was run")
    assert not target.exists()


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"object", "instance", "as the state of an array"}))
def test_these_pickles_do_run_where_they_are_trusted(tmp_path, name):
    """Else the test above would test nothing. Those left out need a class in the place of the function."""
    target = tmp_path / "ran"
    try:
        pickle.loads(dangerous(target)[name])
    except TypeError:
        assert name == "as a key"
    assert target.exists()


def test_what_a_program_registered_by_number_is_not_run(tmp_path):
    """A cached one never asks for its name."""
    target = tmp_path / "ran"
    raw = b"\x80\x02\x82\xf0X" + struct.pack("<I", len(str(target))) + str(target).encode() + b"\x85R."
    copyreg.add_extension("os", "mkdir", 0xF0)
    try:
        pickle.loads(b"\x80\x02\x82\xf0.")  # now it is cached
        assert_refused(tmp_path, raw, "names 'os.mkdir'")
        assert not target.exists()
        pickle.loads(raw)
        assert target.exists()
    finally:
        copyreg.remove_extension("os", "mkdir", 0xF0)


DTYPE = b"cnumpy\ndtype\n(S'%s'\nI00\nI01\ntR"


STATE = b"(I3\nS'%s'\n%s%s%sI-1\nI-1\nI%d\ntb"


EMPTY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"


def dtype(code=b"u1", order=b"|", sub=b"N", names=b"N", fields=b"N", flags=0):
    return DTYPE % code + STATE % (order, sub, names, fields, flags)


def array(shape=b"(I2\nt", kind=None, data=b"S'ab'\n"):
    return EMPTY + b"(I1\n" + shape + (kind or dtype()) + b"I00\n" + data + b"tb."


def test_the_pickles_below_are_right_but_for_their_fault(tmp_path):
    assert read(tmp_path, array()).tolist() == [97, 98]
    assert pickle.loads(array(), encoding="latin1").tolist() == [97, 98]


STRANGE = {
    "objects": array(kind=dtype(b"O8")),
    "objects whose flags say that they are bytes": array(b"(I1\nt", dtype(b"O8", flags=0), b"S'%s'\n" % (b"A" * 8)),
    "objects from a list": array(kind=dtype(b"O8", flags=63), data=b"(lI1\naI2\na"),
    "bytes from a list": array(data=b"(lI1\naI2\na"),
    "a number for data": array(data=b"I5\n"),
    "records": array(kind=dtype(b"V8")),
    "fields": array(kind=dtype(names=b"(S'a'\nt", fields=b"(dS'a'\n(" + dtype() + b"I0\nts")),
    "a type of types": array(kind=dtype(sub=b"(" + dtype() + b"(I2\ntt")),
    "times": array(kind=dtype(b"M8")),
    "no type": array(kind=b"S'u1'\n"),
    "an array for a type": array(kind=EMPTY),
    "an order that there is not": array(kind=dtype(order=b"S")),
    "many flags": array(kind=DTYPE.replace(b"I01\n", b"I01\nI1\nI1\n") % b"u1"),
    "a list for a shape": array(b"(lI2\na"),
    "a negative side": array(b"(I-1\nI-2\nt"),
    "a side that is true": array(b"(I01\nI2\nt"),
    "a side of 1.0": array(b"(F2.0\nt"),
    "too few bytes": array(data=b"S'a'\n"),
    "too many bytes": array(data=b"S'abc'\n"),
    "texts that are no bytes": array(data=b"V\\u1234\n"),
    "a petabyte": array(b"(L1000000000000000L\nt"),
    "sides that overflow": array(b"(L4294967296L\nL4294967297L\nt"),
    "70 dimensions": array(b"(" + b"I1\n" * 69 + b"I2\nt"),
    "no bytes in a huge shape": array(b"(I0\nL99999999999999999999L\nt", data=b"S''\n"),
    "an array without a state": EMPTY + b".",
    "a state of one": EMPTY + b"(I1\ntb.",
    "a type alone": dtype() + b".",
    "a function": b"cnumpy\ndtype\n.",
    "a call of ndarray": b"cnumpy\nndarray\n((I3\ntS'O'\ntR.",
    "a class for an argument": b"\x80\x02cnumpy\nndarray\n)\x81.",
    "a class with keywords": b"\x80\x04cnumpy\nndarray\n)}\x92.",
    "a state for a function": b"cnumpy\ndtype\n}S'__defaults__'\nI1\nsb.",
    "attributes for a function": b"cnumpy\ndtype\n(N}S'_function'\nI1\nstb.",
    "another encoding": b"c_codecs\nencode\n(Vabc\nVrot13\ntR.",
    "an encoding of bytes": b"c_codecs\nencode\n(S'ab'\nVutf-16\ntR.",
    "a scalar of objects": b"cnumpy.core.multiarray\nscalar\n(" + dtype(b"O8") + b"S'%s'\ntR." % (b"A" * 8),
    "an array of another class": b"cnumpy.core.multiarray\n_reconstruct\n(cbuiltins\nlist\n(I0\ntS'b'\ntR.",
    "another function of numpy": b"cnumpy\nload\n(S'x'\ntR.",
    "an identity from elsewhere": b"Pelsewhere\n.",
    "another one": b"\x80\x02K\x01Q.",
    "buffers from elsewhere": b"\x80\x05\x97.",
    "a set": pickle.dumps({1, 2}, 4),
    "bytes that can change": pickle.dumps(bytearray(b"ab"), 5),
    "a date": pickle.dumps(datetime.date(2000, 1, 1)),
    "a path": pickle.dumps(Path("/")),
    "an array where nothing can be hashed": b"(d(" + EMPTY + b"(I1\n(I1\nt" + dtype() + b"I00\nS'a'\ntbtI1\ns.",
    "lists in lists": b"]" * 100_000 + b"a" * 99_999 + b".",
    "a number that is none": b"F" + b"x" * 5000 + b"\n.",
    "a page of the web": b"<!DOCTYPE html>\n<html></html>\n",
    "nothing": b"",
    "an archive": b"PK\x03\x04" + bytes(100),
    "zeros": bytes(100),
    "the future": b"\x80\x63N.",
}


@pytest.mark.parametrize("name", STRANGE)
def test_strange_pickles_are_refused_in_one_line(tmp_path, name):
    assert_refused(tmp_path, STRANGE[name])


def test_strange_pickles_leave_no_trace(tmp_path):
    """What follows is read as if they had not been."""
    for raw in STRANGE.values():
        with pytest.raises(InputError):
            read(tmp_path, raw)
        assert read(tmp_path, array()).tolist() == [97, 98]


def test_a_name_is_not_printed_as_it_is(tmp_path):
    assert_refused(tmp_path, b"cos\x1b[31m" + b"x" * 5000 + b"\nsystem\n.", r"names '.*\.\.\..*system'")


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_every_truncation_is_refused(tmp_path, protocol):
    raw = pickle.dumps({"data": ARRAYS["images"], "labels": [1, 2, 3, 4], "name": b"batch"}, protocol)
    assert read(tmp_path, raw)["labels"] == [1, 2, 3, 4]
    for length in range(len(raw)):
        assert_refused(tmp_path, raw[:length])


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"nope cannot be read \(No such file or directory\): "):
        safe_pickle.load(tmp_path / "nope")
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory\): "):
        safe_pickle.load(tmp_path)


def test_nothing_is_imported(tmp_path):
    """A pickle may name any module, and naming it would import it."""
    (tmp_path / "imported_by_a_pickle.py").write_text("")
    sys.path.insert(0, str(tmp_path))
    try:
        assert_refused(tmp_path, b"cimported_by_a_pickle\nx\n.", "imported_by_a_pickle")
        assert "imported_by_a_pickle" not in sys.modules
    finally:
        sys.path.remove(str(tmp_path))
