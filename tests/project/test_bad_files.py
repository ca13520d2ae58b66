"""A sample of the spoiled files: read, or refused in one line, within bounded memory and time."""

import random

import bad_files
import pytest
from good_files import KINDS

from metapl.registry.errors import InputError

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

SAMPLE = 8
"""Files of each kind."""


def refuse(text):
    raise InputError(text)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_spoiled_is_read(tmp_path, kind):
    KINDS[kind].make(tmp_path)
    assert bad_files.outcome(lambda: KINDS[kind].read(tmp_path)) == "read"


@pytest.mark.parametrize("kind", KINDS)
def test_a_spoiled_file_is_read_or_refused(kind):
    found = [bad_files.trial(kind, number, 0) for number in range(1, 1 + SAMPLE)]
    assert [(outcomes, what) for outcomes, what in found if not set(outcomes) <= {"read", "refused"}] == []
    assert any("refused" in outcomes for outcomes, _ in found)


def test_the_same_seed_spoils_the_same(tmp_path):
    made = []
    for name in ("one", "other"):
        random.seed(name)
        (tmp_path / name).mkdir()
        folder, what = bad_files.make("npz of images", 3, 5, tmp_path / name)
        made.append((what, [path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()]))
    assert made[0] == made[1]


@pytest.mark.parametrize(
    ("act", "found"),
    [
        (lambda: None, "read"),
        (lambda: 1 / 0, "ZeroDivisionError: 'division by zero' at test_bad_files.py"),
        (lambda: refuse("one line"), "refused"),
        (lambda: refuse("two\nlines"), "a refusal of 9 letters"),
        (lambda: bad_files.warnings.warn("odd", stacklevel=2), "UserWarning: 'odd'"),
    ],
)
def test_what_counts_as_a_fault(act, found):
    assert bad_files.outcome(act).startswith(found)
