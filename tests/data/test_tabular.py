"""Views of tables and vectors: rates, groups and distributions, against their closed forms."""

import numpy as np
import pytest
import torch
from asserts import assert_pure
from scipy.stats import binom, chisquare, kstest

from metapl.core import rng
from metapl.data.augment import presets, tabular
from metapl.data.form import Form
from metapl.registry import notation

GROUPS = (0, 1, 1, 1, 2, 0)
"""Groups need not be neighbours."""


def distinct(batch):
    """A batch `[batch, 6]` in which every number tells its example and its feature."""
    return torch.arange(6.0 * batch).reshape(batch, 6)


def sources(x, groups, probability, key):
    """The example that each feature comes from, `[batch, features]`."""
    found = tabular.swap(probability, groups)(x, key)
    assert torch.equal(found % 6, x % 6)  # every feature stays in its place
    return (found // 6).long()


def within_chance(hits, trials, probability):
    """Whether a count is one of the likely ones, all but 10⁻⁶ of them."""
    low, high = binom.ppf([5e-7, 1 - 5e-7], trials, probability)
    return low <= hits <= high


# ---------------------------------------------------------------- swap noise


@pytest.mark.parametrize("probability", [0.05, 0.3, 0.9])
def test_swap_happens_at_its_rate(probability):
    """Never with the example itself, so that each change is seen; the same in every group and for every example."""
    batch = 4000
    x = distinct(batch)
    changed = sources(x, GROUPS, probability, rng.key(0)) != torch.arange(batch)[:, None]
    for feature in range(6):
        assert within_chance(int(changed[:, feature].sum()), batch, probability)
    for half in changed[:, [0, 1, 4]].chunk(2):
        assert within_chance(int(half.sum()), half.numel(), probability)


def test_a_group_comes_from_one_example():
    owner = sources(distinct(500), GROUPS, 0.5, rng.key(0))
    for group in range(3):
        members = [feature for feature in range(6) if GROUPS[feature] == group]
        assert bool((owner[:, members] == owner[:, members[:1]]).all())


def test_groups_are_drawn_on_their_own():
    """Whether two groups change, and from where, are independent."""
    batch = 5000
    owner = sources(distinct(batch), GROUPS, 0.5, rng.key(1))[:, [0, 1, 4]]
    changed = owner != torch.arange(batch)[:, None]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        both = changed[:, one] & changed[:, other]
        assert within_chance(int(both.sum()), batch, 0.25)
        assert within_chance(int((owner[:, one] == owner[:, other])[both].sum()), int(both.sum()), 1 / (batch - 1))


@pytest.mark.parametrize("probability", [0.4, 1.0])
def test_every_other_example_is_drawn_equally_often(probability):
    owner = torch.stack([sources(distinct(5), GROUPS, probability, rng.key(seed))[:, 0] for seed in range(1500)])
    for example in range(5):
        counts = torch.bincount(owner[:, example], minlength=5).tolist()
        assert within_chance(counts.pop(example), 1500, 1.0 - probability)
        assert chisquare(counts).pvalue > 1e-6


def test_swap_keeps_the_distribution_of_every_feature():
    """One-hot groups stay one-hot, shares and quantiles stay; noise in place of values would not do that."""
    generator = np.random.default_rng(0)
    categories = generator.choice(3, 4000, p=[0.7, 0.25, 0.05])
    skewed = generator.exponential(size=4000)
    x = torch.tensor(np.column_stack([skewed, np.eye(3)[categories]]), dtype=torch.float32)
    found = tabular.swap(0.8, (0, 1, 1, 1))(x, rng.key(0))
    assert bool((found[:, 1:].sum(1) == 1).all())
    assert set(found[:, 0].tolist()) <= set(x[:, 0].tolist())
    assert chisquare(found[:, 1:].sum(0), 4000 * np.array([0.7, 0.25, 0.05])).pvalue > 1e-4
    assert kstest(found[:, 0].double().numpy(), "expon").pvalue > 1e-4


def test_swap_breaks_the_dependence_between_columns():
    """Two equal columns; with the probability p of each, the correlation falls to (1 − p)²."""
    column = rng.normal(rng.key(2), (20_000, 1), torch.float64)
    found = tabular.swap(0.3, (0, 1))(column.expand(-1, 2), rng.key(0))
    assert float(torch.corrcoef(found.T)[0, 1]) == pytest.approx(0.49, abs=0.03)


@pytest.mark.parametrize(("probability", "batch"), [(0.0, 7), (1.0, 1), (0.5, 0)])
def test_where_nothing_can_be_swapped_the_batch_stays(probability, batch):
    x = distinct(batch)
    assert torch.equal(tabular.swap(probability, GROUPS)(x, rng.key(0)), x)


@pytest.mark.parametrize("probability", [-0.1, 1.1, float("nan")])
def test_no_probability_is_refused(probability):
    with pytest.raises(ValueError, match=r"^swap\(.*\) is no probability: it must be from 0 to 1$"):
        tabular.swap(probability, GROUPS)


# ---------------------------------------------------------------- noise


def test_noise_is_on_its_features_alone():
    x = distinct(5000)
    found = tabular.noise(0.3, (True, False, True, False, False, True))(x.double(), rng.key(0)) - x
    assert bool((found[:, [1, 3, 4]] == 0).all())
    for feature in (0, 2, 5):
        assert kstest(found[:, feature].numpy() / 0.3, "norm").pvalue > 1e-4
    assert abs(float(torch.corrcoef(found[:, [0, 2]].T)[0, 1])) < 5 / 5000**0.5


def test_negative_noise_is_refused():
    with pytest.raises(ValueError, match=r"^noise\(-1\) must not be negative$"):
        tabular.noise(-1, (True,))


# ---------------------------------------------------------------- jitter


COLUMNS = [
    {"name": "size", "kind": "number", "mean": 0.0, "std": 1.0, "missing": True},
    {"name": "colour", "kind": "category", "categories": ["", "blue", "red"]},
    {"name": "gaps", "kind": "number", "mean": 0.0, "std": 0.0, "missing": True},
    {"name": "age", "kind": "number", "mean": 5.0, "std": 2.0, "missing": False},
]
TABLE = Form("table", (7,), ("a", "b"), {"columns": COLUMNS, "label": "y"})
VECTOR = Form("arrays", (7,), ("a", "b"), {"mean": 0.0, "std": 1.0})


def rows(batch=3000):
    """Rows as they are encoded: the size 0 where it is missing."""
    generator = np.random.default_rng(0)
    absent = generator.random(batch) < 0.4
    size = np.where(absent, 0.0, 100 + generator.random(batch))
    colour = np.eye(3)[generator.integers(3, size=batch)]
    gaps, age = generator.random(batch) < 0.5, generator.normal(size=batch)
    return torch.tensor(np.column_stack([size, absent, colour, gaps, age]), dtype=torch.float32)


def test_jitter_keeps_rows_of_a_table_possible():
    x = rows()
    found = presets.jitter(TABLE, noise=0.05, drop=0.5).strong(x, rng.key(0))
    assert bool((found[:, 2:5].sum(1) == 1).all())
    assert set(found[:, 1:6].unique().tolist()) == {0.0, 1.0}
    assert torch.equal(found[:, 0] < 50, found[:, 1] == 1)  # a missing size is the mean
    changed = (found[:, 5] != x[:, 5]).sum()
    assert within_chance(int(changed), len(x), 0.25)


def test_jitter_has_its_noise_and_its_rate():
    x = rows()
    noisy = (presets.jitter(TABLE, noise=0.2, drop=0.0).strong(x, rng.key(0)) - x).double()
    assert kstest(noisy[:, 6].numpy() / 0.2, "norm").pvalue > 1e-4
    assert bool((noisy[:, 1:6] == 0).all())
    swapped = presets.jitter(TABLE, noise=0.0, drop=0.2).strong(x, rng.key(0))
    assert within_chance(int((swapped[:, 6] != x[:, 6]).sum()), len(x), 0.2)


def test_vectors_are_jittered_feature_by_feature():
    x = distinct(2000)[:, [0, 1, 2, 3, 4, 5, 0]]
    swapped = presets.jitter(VECTOR, noise=0.0, drop=0.5).strong(x, rng.key(0)) != x
    assert abs(float(torch.corrcoef(swapped.T.double())[0, 1])) < 5 / 2000**0.5
    noisy = presets.jitter(VECTOR, noise=0.1, drop=0.0).strong(torch.zeros(2000, 7), rng.key(0))
    assert bool((noisy != 0).all())


@pytest.mark.parametrize("form", [TABLE, VECTOR])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_views_are_pure_and_the_weak_one_is_the_example(form, dtype):
    x = rows(50).to(dtype)
    weak, strong, shared, prepare = presets.default(form)
    assert torch.equal(assert_pure(weak, x, rng.key(0)), x)
    assert torch.equal(shared(x, rng.key(0)), x)
    assert torch.equal(prepare(x), x)
    found = assert_pure(strong, x, rng.key(0))
    assert (found.dtype, found.shape) == (dtype, x.shape)
    assert not torch.equal(found, strong(x, rng.key(1)))


@pytest.mark.parametrize("form", [TABLE, VECTOR])
def test_jitter_is_the_default_and_selectable_by_name(form):
    x = rows(50)
    named = notation.build("jitter:noise=0.1,drop=0.1", presets.VIEWS, "views", form)
    assert torch.equal(presets.default(form).strong(x, rng.key(3)), named.strong(x, rng.key(3)))
    other = notation.build("jitter:drop=0.6", presets.VIEWS, "views", form)
    assert not torch.equal(other.strong(x, rng.key(3)), named.strong(x, rng.key(3)))


def test_images_are_not_jittered():
    with pytest.raises(ValueError, match=r"^jitter is for tables and vectors, not for images of shape \(1, 8, 8\)$"):
        presets.jitter(Form("images", (1, 8, 8), ("a", "b"), {}))
