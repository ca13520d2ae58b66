"""What all data sets have in common, whatever file they are from."""

import numpy as np
import pytest
import torch

from metapl.registry.errors import InputError


def assert_same(one, other):
    for name in ("x", "y", "x_test", "y_test"):
        assert torch.equal(getattr(one, name), getattr(other, name))
    assert one.form == other.form


def assert_types(data, shape, classes):
    assert data.x.dtype == data.x_test.dtype == torch.uint8
    assert data.y.dtype == data.y_test.dtype == torch.int64
    assert data.form.kind == "images"
    assert data.form.shape == tuple(data.x.shape[1:]) == tuple(data.x_test.shape[1:]) == shape
    assert data.classes == classes
    assert len(data.x) == len(data.y)
    assert len(data.x_test) == len(data.y_test)
    assert data.x.is_contiguous()
    assert data.x_test.is_contiguous()


def assert_moments(data):
    """By numpy, of the training pool."""
    x = data.x.numpy() / 255.0
    np.testing.assert_allclose(data.form.details["mean"], x.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(data.form.details["std"], x.std(axis=(0, 2, 3)), rtol=1e-12)


def assert_refused(load, *words):
    with pytest.raises(InputError) as raised:
        load()
    message = str(raised.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message
