"""Splits of a training pool: sizes, balance, labels that nobody knows, and what is saved of them."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metapl.core import rng
from metapl.data.split import Split, Wanted, from_json, split, to_json
from metapl.registry.errors import InputError

quick = settings(deadline=None, derandomize=True, database=None, max_examples=60)

Y = torch.tensor([0, 1, 2] * 40)[torch.randperm(120, generator=torch.Generator().manual_seed(0))]


NAMES = ("ant", "bee", "cat")


def make_split(labels=9, validation=12, seed=0, y=Y, **options):
    return split(y, NAMES, Wanted(labels, validation, **options), rng.key(seed))


def counts(index):
    return torch.bincount(Y[index], minlength=3).tolist()


@pytest.mark.parametrize(("labels", "validation"), [(3, 0), (9, 12), (60, 60), (120, 0)])
def test_a_split_is_balanced(labels, validation):
    parts = make_split(labels, validation)
    assert counts(parts.labelled) == [labels // 3] * 3
    assert counts(parts.validation) == [validation // 3] * 3


@pytest.mark.parametrize("labels", [4, 10, 11, 29])
@pytest.mark.parametrize("validation", [0, 5, 13])
def test_what_does_not_divide_goes_to_some_classes(labels, validation):
    parts = make_split(labels, validation)
    assert len(parts.labelled) == labels
    assert len(parts.validation) == validation
    assert max(counts(parts.labelled)) - min(counts(parts.labelled)) == (labels % 3 > 0)


def test_which_classes_get_what_does_not_divide_depends_on_the_key():
    assert len({tuple(counts(make_split(labels=4, seed=seed).labelled)) for seed in range(20)}) == 3


@given(st.integers(3, 60), st.sampled_from([0, 3, 20, 45]), st.integers(0, 99), st.booleans())
@quick
def test_parts_of_a_split_are_apart(labels, validation, seed, together):
    parts = make_split(labels, validation, seed, labelled_in_unlabelled=together)
    labelled, unlabelled, held_out = (set(part.tolist()) for part in parts)
    assert not labelled & held_out
    assert not unlabelled & held_out
    assert labelled | unlabelled | held_out == set(range(len(Y)))
    assert labelled & unlabelled == (labelled if together else set())
    assert [len(labelled), len(held_out)] == [labels, validation]
    assert all(part.dtype == torch.int64 and bool((part.diff() > 0).all()) for part in parts)


def test_the_key_determines_the_split():
    assert all(torch.equal(a, b) for a, b in zip(make_split(), make_split(), strict=True))
    splits = {tuple(make_split(seed=seed).labelled.tolist()) for seed in range(20)}
    assert len(splits) == 20


def test_labelled_in_unlabelled_changes_neither_labels_nor_validation():
    one, other = make_split(), make_split(labelled_in_unlabelled=False)
    assert torch.equal(one.labelled, other.labelled)
    assert torch.equal(one.validation, other.validation)


def test_more_labels_leave_the_validation_part_as_it_is():
    assert torch.equal(make_split(labels=3).validation, make_split(labels=60).validation)


def test_every_example_may_be_chosen():
    chosen = torch.cat([make_split(labels=30, validation=0, seed=seed).labelled for seed in range(40)])
    assert len(chosen.unique()) == len(Y)


@pytest.mark.parametrize(
    ("labels", "validation", "message"),
    [
        (2, 0, r"--labels 2 .* at least 3"),
        (-5, 0, r"--labels -5 .* at least 3"),
        (9, 2, r"--validation 2 .* 0 or at least 3"),
        (121, 0, r"--labels 121 .* at most 120 labels"),
        (100, 21, r"--labels 100 .* at most 99 labels"),
    ],
)
def test_impossible_splits_are_refused(labels, validation, message):
    with pytest.raises(InputError, match=message):
        make_split(labels, validation)


def test_a_class_that_is_too_small_is_refused():
    wanted = r"^of class 'cat' there are 1 to choose from, and 2 are wanted.* at most 3 in all, or give --no-balanced$"
    with pytest.raises(InputError, match=wanted):
        make_split(6, 0, y=torch.tensor([0] * 9 + [1] * 9 + [2]))


@pytest.mark.parametrize("rare", [1, 2, 7])
def test_a_validation_part_that_nobody_asked_for_takes_no_more_than_half_of_a_class(rare):
    """A run on a rare class must not fail for a part that it does without, see `split`."""
    y = torch.tensor([0] * 300 + [1] * 300 + [2] * rare)
    parts = make_split(3, -1, y=y)
    assert y[parts.validation].bincount(minlength=3)[2] == rare // 2
    assert set(y[parts.validation].bincount(minlength=3)[:2].tolist()) <= {40, 41}  # a fifth, in three
    assert y[parts.labelled].tolist() == [0, 1, 2]
    with pytest.raises(InputError, match=r"^of class 'cat' there are .* are wanted"):
        make_split(3, len(y) // 5, y=y)


SKEWED = torch.tensor([0] * 70 + [1] * 24 + [2] * 6)


@pytest.mark.parametrize(
    ("labels", "expected"), [(50, [35, 12, 3]), (10, [7, 2, 1]), (3, [1, 1, 1]), (4, [2, 1, 1]), (100, [70, 24, 6])]
)
def test_proportional_labels_follow_the_data_with_one_of_each_at_least(labels, expected):
    parts = make_split(labels, 0, y=SKEWED, balanced=False)
    assert SKEWED[parts.labelled].bincount().tolist() == expected


@given(st.integers(3, 100), st.integers(0, 99))
@quick
def test_proportional_labels_are_within_one_of_their_share(labels, seed):
    parts = make_split(labels, 0, seed, y=SKEWED, balanced=False)
    found = SKEWED[parts.labelled].bincount(minlength=3)
    assert int(found.sum()) == labels
    shares = labels * SKEWED.bincount() / len(SKEWED)
    assert all(
        abs(float(share) - int(count)) <= 1 or count == 1 for share, count in zip(shares, found, strict=True)
    ) or (
        labels < 20  # the rare classes are lifted to one, which the largest pays for
    )


def half_known():
    y = Y.clone()
    y[::2] = -1
    return y


def test_where_some_labels_are_missing_all_that_there_are_are_used():
    y = half_known()
    parts = make_split(0, -1, y=y)
    assert len(parts.validation) == 12  # a fifth of the sixty that are known
    known = set(torch.arange(120)[y >= 0].tolist())
    assert set(parts.labelled.tolist()) == known - set(parts.validation.tolist())
    assert set(parts.unlabelled.tolist()) == set(range(120)) - set(parts.validation.tolist())


def test_where_every_label_is_known_one_of_a_class_is_used():
    parts = make_split(0, -1)
    assert counts(parts.labelled) == [1, 1, 1]
    assert len(parts.validation) == 24


def test_only_known_labels_are_given_out():
    y = half_known()
    for seed in range(10):
        parts = make_split(9, 12, seed, y=y)
        assert bool((y[parts.labelled] >= 0).all())
        assert bool((y[parts.validation] >= 0).all())
        assert (y[parts.unlabelled] < 0).sum() == 60


def test_too_few_labels_for_a_validation_part_of_every_class_leave_it_out():
    y = torch.full((50,), -1)
    y[:12] = torch.arange(12) % 3
    assert len(make_split(0, -1, y=y).validation) == 0


def test_a_class_without_a_labelled_example_is_refused():
    y = half_known()
    y[y == 1] = -1
    with pytest.raises(InputError, match=r"^class 'bee' has no labelled example in the training pool"):
        make_split(0, -1, y=y)


def test_a_validation_part_that_takes_the_last_label_of_a_class_is_refused():
    y = torch.full((50,), -1)
    y[:7] = torch.tensor([0, 0, 0, 1, 1, 1, 2])
    with pytest.raises(InputError, match=r"^class 'cat' has no labelled example left: lower --validation"):
        make_split(0, 3, y=y)


@given(st.integers(0, 99), st.booleans(), st.sampled_from([3, 40, 108]))
@quick
def test_a_split_survives_json(seed, together, labels):
    parts = make_split(labels, 12, seed, labelled_in_unlabelled=together)
    found = from_json(json.loads(json.dumps(to_json(parts))), Y, "split.json")
    assert all(torch.equal(one, other) for one, other in zip(parts, found, strict=True))


@pytest.mark.parametrize("unlabelled", [[], [5], [0, 1, 2, 7, 8, 11]])
def test_ranges_of_unlabelled_examples(unlabelled):
    parts = Split(torch.tensor([3]), torch.tensor(unlabelled, dtype=torch.int64), torch.tensor([4]))
    written = to_json(parts)
    assert [i for first, last in written["unlabelled"] for i in range(first, last + 1)] == unlabelled
    assert torch.equal(from_json(written, torch.zeros(12), "split.json").unlabelled, parts.unlabelled)


GOOD = {"labelled": [1], "unlabelled": [[0, 4], [7, 7]], "validation": [6]}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"labelled": [[1]]}, r"labelled\[0\] is \[1\], and must be a whole number from 0 to 9"),
        ({"labelled": [True]}, r"labelled\[0\] is true"),
        ({"labelled": [1.0]}, r"labelled\[0\] is 1\.0"),
        ({"labelled": [-1]}, r"labelled\[0\] is -1"),
        ({"labelled": [10]}, r"labelled\[0\] is 10"),
        ({"labelled": {"1": 1}}, r"labelled is .* must be a list"),
        ({"labelled": []}, r"labelled is empty"),
        ({"labelled": [1, 1]}, r"labelled has an example twice"),
        ({"labelled": [9]}, r"labelled has an example whose class nobody knows"),
        ({"validation": [9]}, r"validation has an example whose class nobody knows"),
        ({"validation": [6, 6]}, r"validation has an example twice"),
        ({"validation": [1]}, r"validation and labelled share examples"),
        ({"labelled": [5], "validation": [2]}, r"validation and unlabelled share examples"),
        ({"unlabelled": [[0, 10**12]]}, r"unlabelled\[0\]\[1\] is 1000000000000"),
        ({"unlabelled": [[0, 10**400]]}, r"unlabelled\[0\]\[1\] is 1000"),
        ({"unlabelled": [[0, float("inf")]]}, r"unlabelled\[0\]\[1\] is Infinity"),
        ({"unlabelled": [[0, float("nan")]]}, r"unlabelled\[0\]\[1\] is NaN"),
        ({"unlabelled": [[False, 4]]}, r"unlabelled\[0\]\[0\] is false"),
        ({"unlabelled": [[5, 1]]}, r"a range that ends before it begins"),
        ({"unlabelled": [[0, 4], [4, 5]]}, r"unlabelled has an example twice"),
        ({"unlabelled": [[0, 9]] * 10}, r"more than the 10 training examples"),
        ({"unlabelled": [[0]]}, r"unlabelled\[0\] is \[0\], and must be a list of 2"),
        ({"unlabelled": "0-4"}, r"unlabelled is .* must be a list"),
        ({"extra": []}, r"has 'extra', which nothing here knows"),
    ],
)
def test_what_is_no_split_of_this_pool_is_refused(change, match):
    y = torch.tensor([0, 1] * 4 + [1, -1])
    assert from_json(GOOD, y, "split.json").unlabelled.tolist() == [0, 1, 2, 3, 4, 7]
    with pytest.raises(InputError, match=rf"^split\.json(: | ).*{match}"):
        from_json({**GOOD, **change}, y, "split.json")


@pytest.mark.parametrize("missing", GOOD)
def test_a_split_without_a_part_is_refused(missing):
    with pytest.raises(InputError, match=rf"^split\.json has no {missing}$"):
        from_json({name: part for name, part in GOOD.items() if name != missing}, torch.zeros(10), "split.json")
