"""Fifty steps of every method have the losses that they had: no change of them goes unseen.

With the torch that they were stored with, on a CPU that rounds as theirs, they are equal to the last digit.
"""

import json

import numpy as np
import pytest
from loss_curves import STEPS, STORED, TRAINED, curves, made_with

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

KNOWN = json.loads(STORED.read_text())
BOUND = 1e-4
"""How far losses may be off on another CPU, relative to the largest. Data that is off by 2e-7 moves them by 1e-6."""


def test_every_method_has_its_losses():
    assert set(KNOWN["curves"]) == set(TRAINED)


@pytest.mark.parametrize("method", TRAINED)
def test_losses_are_what_they_were(method):
    found, expected = curves(method), KNOWN["curves"][method]
    assert {name: len(values) for name, values in found.items()} == dict.fromkeys(expected, STEPS)
    for name, values in expected.items():
        if made_with() == KNOWN["made_with"]:
            assert found[name] == values, name
        else:
            np.testing.assert_allclose(found[name], values, rtol=0, atol=BOUND * max(map(abs, values)), err_msg=name)
