"""Priors of the classes from files, good and bad."""

import json

import pytest
import torch

from metapl.data import prior
from metapl.registry.errors import InputError

CLASSES = ("cat", "big dog", "3")


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"cat": 0.5, "big dog": 0.25, "3": 0.25}),
        "cat 0.5\nbig dog 0.25\n3 0.25\n",
        "\n3\t0.25\n  cat\t 0.5 \r\n\nbig dog  0.25",
        "cat .502\nbig dog .251\n3 .251",  # rounded, and normalised
    ],
)
def test_a_prior_is_read_by_the_names_of_the_classes(tmp_path, text):
    path = tmp_path / "prior"
    path.write_text(text)
    expected = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    torch.testing.assert_close(prior.read(path, CLASSES), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat 0.5\nbig dog 0.5", r"prior = .* has no probability of '3': give one for each of 3 classes"),
        ("cat 0.5\nbig dog 0.25\n3 0.2", r"prior = .* sums to 0\.95: give probabilities that sum to 1"),
        ("cat 0.5\nbig dog 0.5\n3 0", r"the probability of '3' is 0\.0: give a number above 0"),
        ("cat 0.5\nbig dog 0.75\n3 -0.25", r"the probability of '3' is -0\.25"),
        ("cat 0.5\nbig dog nan\n3 0.5", r"the probability of 'big dog' is nan"),
        ("cat 0.5\ncat 0.25\nbig dog 0.25\n3 0.25", r"prior = .* names a class twice"),
        ("cat 0.5\nbig dogs 0.25\n3 0.25", r"unknown class in prior = .* 'big dogs': did you mean 'big dog'\?"),
        ("cat a half", r"prior = .* cannot be read \(could not convert .*\): give a JSON object or lines"),
        ("cat", r"prior = .* cannot be read"),
        ("{", r"prior = .* cannot be read"),
        ('{"cat": [1], "big dog": 0.25, "3": 0.25}', r"prior = .* cannot be read"),
        ("", r"has no probability of 'cat'"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, text, message):
    path = tmp_path / "prior"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        prior.read(path, CLASSES)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"prior = .*nowhere is no file: .* estimated, uniform, labelled") as caught:
        prior.read(tmp_path / "nowhere", CLASSES)
    assert caught.value.fields == ("prior",)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([4, 4, 4], [1 / 3, 1 / 3, 1 / 3]),
        ([1, 0, 0], [5 / 13, 4 / 13, 4 / 13]),
        ([96, 0, 0], [100 / 108, 4 / 108, 4 / 108]),
    ],
)
def test_an_estimated_prior_has_four_more_of_each_class(counts, expected):
    assert prior.estimated(torch.tensor(counts)).tolist() == pytest.approx(expected, rel=1e-12)
