"""Files that tell whether they are whole: 600 of them cut, lengthened or changed in a bit, none of which is read."""

import json
import random

import pytest
import torch
from safetensors import safe_open

from metapl.files import sealed
from metapl.registry.errors import InputError

TENSORS = {
    "a": torch.randn(30, 7),
    "counts": torch.tensor(3),
    "empty": torch.zeros(0, 4),
    "half": torch.randn(5).bfloat16(),
    "flags": torch.tensor([True, False]),
    "turned": torch.randn(4, 6).T,
    "complex": torch.randn(3, dtype=torch.complex64),
}
ABOUT = {"step": 3, "words": ['"sha256":"', "0" * 64, "é"]}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("sealed") / "state.safetensors"
    sealed.write(path, TENSORS, ABOUT)
    return path


def test_what_is_written_is_read(written):
    tensors, about = sealed.read(written)
    assert about == ABOUT
    assert set(tensors) == set(TENSORS)
    for name, value in TENSORS.items():
        assert tensors[name].dtype == value.dtype
        assert torch.equal(tensors[name], value)


def test_it_is_a_file_of_safetensors(written):
    with safe_open(written, "pt") as file:
        assert set(file.keys()) == set(TENSORS)
        assert json.loads(file.metadata()["about"]) == ABOUT


def test_tensors_that_share_their_memory(tmp_path):
    one = torch.randn(4)
    sealed.write(tmp_path / "file", {"one": one, "other": one, "part": one[1:]}, None)
    assert torch.equal(sealed.read(tmp_path / "file")[0]["part"], one[1:])


def spoiled(data, draw):
    """A file that is cut somewhere, goes on with something, lacks a part, or has one bit changed."""
    place = draw.randrange(len(data))
    match draw.randrange(5):
        case 0:
            return data[:place]
        case 1:
            return data + draw.randbytes(1 + place)
        case 2:
            return data[:place] + data[place + 1 + draw.randrange(64) :]
        case 3:
            return data[:place] + bytes(len(data) - place) if any(data[place:]) else data[:place]
        case _:
            return data[:place] + bytes([data[place] ^ (1 << draw.randrange(8))]) + data[place + 1 :]


def test_no_file_that_was_cut_or_changed_is_read(written, tmp_path):
    data, draw, path = written.read_bytes(), random.Random(0), tmp_path / "state.safetensors"
    for _ in range(600):
        path.write_bytes(spoiled(data, draw))
        assert path.read_bytes() != data
        with pytest.raises(InputError, match=r"state\.safetensors cannot be read \(.*it was cut or has changed"):
            sealed.read(path)


@pytest.mark.parametrize("bit", range(8))
def test_no_bit_of_the_checksum_may_change(written, tmp_path, bit):
    data = written.read_bytes()
    at = data.index(b'"sha256":"') + len('"sha256":"')
    for place in range(at, at + 64):
        (tmp_path / "file").write_bytes(data[:place] + bytes([data[place] ^ (1 << bit)]) + data[place + 1 :])
        with pytest.raises(InputError, match="cannot be read"):
            sealed.read(tmp_path / "file")


@pytest.mark.parametrize("content", [b"", b"\0" * 8, b"\xff" * 80, b"{}", b"no such thing" * 9], ids=repr)
def test_what_is_no_such_file(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(InputError, match="cannot be read"):
        sealed.read(tmp_path / "file")


def test_no_file_and_a_folder(tmp_path):
    for path, reason in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(InputError, match=f"cannot be read .{reason}"):
            sealed.read(path)
