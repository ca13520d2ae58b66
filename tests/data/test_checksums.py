"""Whether a file is the published one."""

import gzip
import hashlib

import numpy as np
import pytest
from asserts import assert_says

from metapl.data.sources import fetch

CONTENT = np.random.default_rng(0).bytes(300_000)


MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"


SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


# ---------------------------------------------------------------- checksums


@pytest.mark.parametrize("digest", [MD5, SHA256, f"md5:{MD5[4:].upper()}"])
def test_verify(tmp_path, digest):
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    assert fetch.verify(path, digest)
    for other in (CONTENT[:-1], CONTENT + b"x", b"", bytes([CONTENT[0] ^ 1]) + CONTENT[1:]):
        path.write_bytes(other)
        assert not fetch.verify(path, digest)


def test_verify_reads_every_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "PIECE", 1000)
    (tmp_path / "file").write_bytes(CONTENT)
    assert fetch.verify(tmp_path / "file", MD5)


def test_verify_what_is_inside(tmp_path):
    path, packed = tmp_path / "file.gz", gzip.compress(CONTENT)
    path.write_bytes(packed)
    assert fetch.verify(path, MD5, inside=True)
    assert not fetch.verify(path, MD5)
    for damaged in (packed[:-1], packed[:5], packed[:1000] + b"x" + packed[1001:], packed[:-8] + bytes(8)):
        path.write_bytes(damaged)
        assert not fetch.verify(path, MD5, inside=True)
    path.write_bytes(CONTENT)  # a browser may have unpacked it
    assert fetch.verify(path, MD5, inside=True)


def test_verify_needs_a_file(tmp_path):
    for inside in (False, True):
        assert_says(lambda inside=inside: fetch.verify(tmp_path / "x", MD5, inside), tmp_path / "x", "No such file")
