"""Batches: a function of the step, whatever the examples are in."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metapl.core import rng
from metapl.data import loader
from metapl.data.split import Split

quick = settings(deadline=None, derandomize=True, database=None, max_examples=60)


# ---------------------------------------------------------------- batches


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
@quick
def test_every_epoch_of_a_stream_is_a_permutation(count, size, seed):
    indices = loader.stream(count, size, rng.key(seed))
    steps = 3 * count  # at least three epochs
    drawn = torch.cat([indices(step) for step in range(steps)])
    for epoch in drawn.split(count)[:3]:
        assert epoch.sort().values.tolist() == list(range(count))
    assert {len(indices(step)) for step in range(steps)} == {min(size, count)}


@given(st.integers(2, 40), st.integers(1, 39), st.lists(st.integers(0, 200), min_size=1, max_size=8))
@quick
def test_any_step_of_a_stream_can_be_drawn_again(count, size, steps):
    """In any order, by a stream that has drawn nothing else."""
    used = loader.stream(count, size, rng.key(1))
    for step in steps:
        assert torch.equal(used(step), loader.stream(count, size, rng.key(1))(step))


def test_epochs_have_orders_of_their_own():
    indices = loader.stream(20, 10, rng.key(0))
    epochs = [torch.cat([indices(2 * epoch), indices(2 * epoch + 1)]).tolist() for epoch in range(10)]
    assert len({tuple(epoch) for epoch in epochs}) == 10
    other = loader.stream(20, 10, rng.key(1))
    assert not torch.equal(other(0), indices(0))


@pytest.mark.parametrize("size", [5, 6, 100])
def test_a_batch_that_would_hold_the_whole_set_is_the_whole_set(size):
    indices = loader.stream(5, size, rng.key(0))
    assert [indices(step).tolist() for step in range(3)] == [[0, 1, 2, 3, 4]] * 3


def test_batches_keep_examples_and_labels_together():
    x, y = 10.0 * torch.arange(42)[:, None], torch.arange(42)
    parts = Split(torch.arange(12), torch.arange(12, 42), torch.arange(0))
    at = loader.batches(x, y, parts, (5, 7), rng.key(0))
    for step in range(6):
        batch = at(step)
        assert batch.x_labelled[:, 0].tolist() == [10.0 * label for label in batch.y_labelled.tolist()]
        assert torch.equal(batch.y_labelled, batch.labelled)
        assert torch.equal(batch.x_unlabelled[:, 0], 10.0 * batch.unlabelled)
        assert batch.x_labelled.shape == (5, 1)
        assert batch.x_unlabelled.shape == (7, 1)
        assert bool((batch.labelled < 12).all())
        assert bool((batch.unlabelled >= 12).all())


def test_labelled_and_unlabelled_examples_come_in_orders_of_their_own():
    x, every = torch.arange(30.0)[:, None], torch.arange(30)
    batch = loader.batches(x, every, Split(every, every, every[:0]), (10, 10), rng.key(0))(0)
    assert not torch.equal(batch.x_labelled, batch.x_unlabelled)


@pytest.mark.parametrize("sizes", [(0, 10), (4, 0)])
def test_a_batch_may_have_no_examples_of_one_kind(sizes):
    x, every = torch.arange(30.0)[:, None], torch.arange(30)
    parts = Split(every[:8], every, every[:0])
    some, both = (loader.batches(x, every, parts, wanted, rng.key(0)) for wanted in (sizes, (4, 10)))
    for step in range(9):
        one, other = some(step), both(step)
        assert one.x_labelled.shape == (sizes[0], 1)
        assert one.x_unlabelled.shape == (sizes[1], 1)
        for field, there in ((0, sizes[0]), (1, sizes[0]), (2, sizes[1]), (3, sizes[0]), (4, sizes[1])):
            assert torch.equal(one[field], other[field] if there else other[field][:0])


class Slow:
    """Examples that are read one batch at a time, which counts how often it is asked."""

    def __init__(self, x):
        self.x, self.shape, self.dtype, self.asked = x, x.shape, x.dtype, []

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        self.asked.append(index.tolist())
        return self.x[index]


def test_reading_ahead_gives_the_same_batches_and_reads_each_once():
    x, every = torch.arange(30.0)[:, None], torch.arange(30)
    parts = Split(every[:8], every, every[:0])
    plain, slow = loader.batches(x, every, parts, (4, 10), rng.key(0)), Slow(x)
    ahead = loader.ahead(loader.batches(slow, every, parts, (4, 10), rng.key(0)))
    for step in (0, 1, 2, 3, 7, 8, 2):
        for one, other in zip(plain(step), ahead(step), strict=True):
            assert torch.equal(one, other)
    assert ahead(3)
    assert slow.asked.count(plain(1).unlabelled.tolist()) == 1
