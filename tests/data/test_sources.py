"""Published image sets, from files in their official formats, against what was written into them."""

import hashlib

import numpy as np
import pytest
import torch
from datasets_alike import assert_types
from published import pictures

from metapl.data.formats import moments as of_levels
from metapl.data.formats.moments import moments
from metapl.data.sources import STORED, find
from metapl.data.sources.idx import CLOTHES_FILES, MNIST_FILES


def test_moments_are_those_of_numpy(monkeypatch):
    monkeypatch.setattr(of_levels, "_CHUNK", 7)
    x = torch.from_numpy(pictures(50).reshape(-1, 3, 32, 32) // 3)
    mean, std = moments(x)
    np.testing.assert_allclose(mean, (x.numpy() / 255.0).mean(axis=(0, 2, 3)), rtol=1e-13)
    np.testing.assert_allclose(std, (x.numpy() / 255.0).std(axis=(0, 2, 3)), rtol=1e-13)


def test_a_channel_of_one_level_can_be_divided_by_its_deviation():
    x = torch.full((5, 2, 3, 3), 51, dtype=torch.uint8)
    x[0, 1] = 0
    mean, std = moments(x)
    assert mean[0] == pytest.approx(0.2)
    assert std[0] == 1.0
    assert std[1] == pytest.approx(0.2 * 0.4)


# ---------------------------------------------------------------- all of them


def test_what_is_known_of_published_files_is_well_formed():
    for one in STORED.values():
        for known in (*one.files, *one.archives):
            kind, _, digits = known.digest.partition(":")
            assert len(digits) == {"md5": 32, "sha256": 64}[kind]
            assert int(digits, 16) >= 0
            assert digits == digits.lower()
        digests = [known.digest for known in one.files]
        assert len(set(digests)) == len(digests)
    assert {known.name for known in CLOTHES_FILES} == {known.name for known in MNIST_FILES}
    assert not {known.digest for known in CLOTHES_FILES} & {known.digest for known in MNIST_FILES}


# ---------------------------------------------------------------- the published files, where they are at hand


def published(name):
    place = find.find(name)
    if place is None:
        pytest.skip(f"{name} is not in METAPL_DATA or {find.SYSTEM}")
    return find.load(name)


def test_cifar10_as_published():
    """The binary version, made from the images as they were read, has the checksums of the published one."""
    data = published("cifar10")
    assert_types(data, (3, 32, 32), 10)
    assert torch.bincount(data.y).tolist() == [5000] * 10
    assert torch.bincount(data.y_test).tolist() == [1000] * 10
    mean, std = moments(data.x)
    np.testing.assert_allclose(mean, data.form.details["mean"], atol=5e-7)
    np.testing.assert_allclose(std, data.form.details["std"], atol=3e-6)
    binary = {known.name: known.digest for known in STORED["cifar10"].files if known.name.endswith(".bin")}
    parts = [*zip(data.x.split(10_000), data.y.split(10_000), strict=True), (data.x_test, data.y_test)]
    for digest, (x, y) in zip(binary.values(), parts, strict=True):
        records = torch.cat([y.to(torch.uint8)[:, None], x.flatten(1)], 1)
        assert digest == f"md5:{hashlib.md5(records.numpy().tobytes()).hexdigest()}"


def test_fashion_mnist_as_published():
    """Counts and statistics that are well known."""
    data = published("fashion-mnist")
    assert_types(data, (1, 28, 28), 10)
    assert torch.bincount(data.y).tolist() == [6000] * 10
    assert torch.bincount(data.y_test).tolist() == [1000] * 10
    assert data.form.classes[data.y[0]] == "ankle boot"
    assert data.form.details["mean"] == pytest.approx([0.2860], abs=5e-5)
    assert data.form.details["std"] == pytest.approx([0.3530], abs=5e-5)
