"""A batch in parts: the same update as of the whole, in less memory; and BatchNorm over groups, against torch."""

import copy

import pytest
import torch
from asserts import assert_close_tree, assert_pure, relative_error
from torch import nn

from metapl import estimators, optim
from metapl.core import rng, tree
from metapl.core.targets import TARGETS
from metapl.data.augment.base import Augment, noise
from metapl.data.loader import Batch
from metapl.evaluation import cost
from metapl.methods import base, mpl
from metapl.models import convnet
from metapl.nn import functional
from metapl.nn.microbatch import in_parts
from metapl.registry import notation
from metapl.registry.errors import InputError
from metapl.training.config import TrainConfig
from metapl.training.experiment import prepare

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

SHAPE, CLASSES = (3, 6, 6), 4
UNLABELLED, LABELLED = 24, 8
RECIPE = base.Recipe(feedback_weight=2.0, smoothing=0.1, uda_threshold=0.3, uda_temperature=0.5)
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}


def network(norm="group", dropout=0.3):
    return functional.from_module(lambda: convnet(SHAPE, CLASSES, width=8, norm=norm, dropout=dropout))


def trainable(model, dtype):
    rule = optim.sgd(0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    return base.Trainable(functional.cast(model, dtype), optim.chain(optim.clip_by_global_norm(1.0), rule))


def batch(dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(LABELLED + UNLABELLED, *SHAPE, generator=generator, dtype=torch.float64).to(dtype)
    return Batch(x[:LABELLED], torch.arange(LABELLED) % CLASSES, x[LABELLED:])


def train(model, grad, dtype, unroll=1, steps=2):
    """The states before and after some steps of Meta Pseudo Labels; teacher and student have the same kind of model."""
    estimator = notation.build(grad, estimators.ESTIMATORS, "estimator")
    labels, views = TARGETS[estimator.targets[0]], Augment(noise(0.1), noise(0.5))
    recipe = RECIPE._replace(unroll=unroll)
    method = mpl.meta_pseudo_labels(trainable(model, dtype), trainable(model, dtype), estimator, labels, views, recipe)
    states = [method.init(rng.key(0))]
    for step in range(steps):
        states.append(method.step(states[-1], batch(dtype, step), rng.key(step))[0])
    return states


def momenta(state):
    """What the optimisers have gathered: the gradients, clipped, without the rounding of the parameters."""
    return [tree.leaves(train_state.opt_state[-1].momentum) for train_state in (state.teacher, state.student)]


CASES = [("exact", 1), ("first-order", 1), ("exact", 3), ("exact:method=reverse", 2)]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("size", [1, 4, 5])
@pytest.mark.parametrize(("grad", "unroll"), CASES)
def test_parts_of_a_batch_make_the_same_update_as_the_whole(grad, unroll, size, dtype):
    """With dropout, label smoothing, UDA, momentum and clipping, over two steps."""
    start, *whole = train(network(), grad, dtype, unroll)
    _, *parts = train(in_parts(network(), size), grad, dtype, unroll)
    for step, (one, other) in enumerate(zip(whole, parts, strict=True), start=1):
        for expected, found in zip(momenta(one), momenta(other), strict=True):
            assert relative_error(found, expected) < step * TOLERANCE[dtype]  # what was rounded in a step stays
        for train_state in ("teacher", "student"):
            moved = [
                tree.sub(getattr(state, train_state).params, getattr(start, train_state).params)
                for state in (one, other)
            ]
            assert relative_error(moved[1], moved[0]) < 10 * TOLERANCE[dtype]


def test_the_feedback_is_part_of_the_update():
    """Without it the teacher's would be another, so the test above sees it."""
    one, other = (train(network(), grad, torch.float64)[1] for grad in ("exact", "none"))
    assert relative_error(momenta(one)[0], momenta(other)[0]) > 1e-3


def peak(size, grad):
    """The most bytes held at once beyond the state, in one step with 48 unlabelled images."""
    model = functional.from_module(lambda: convnet((3, 16, 16), CLASSES, width=16, norm="group"))
    model = in_parts(model, size) if size else model
    estimator = notation.build(grad, estimators.ESTIMATORS, "estimator")
    labels, views = TARGETS[estimator.targets[0]], Augment(noise(0.1), noise(0.5))
    both = trainable(model, torch.float32)
    method = mpl.meta_pseudo_labels(both, both, estimator, labels, views, RECIPE)
    x = torch.randn(56, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    state, given = method.init(rng.key(0)), Batch(x[:8], torch.arange(8) % CLASSES, x[8:])
    return cost.peak_memory(lambda: method.step(state, given, rng.key(1)), torch.device("cpu"))


@pytest.mark.slow
@pytest.mark.parametrize("grad", ["exact", "first-order"])
def test_smaller_parts_take_less_memory(grad):
    whole, four, one = (peak(size, grad) for size in (0, 4, 1))
    assert four < whole / 3
    assert one < four


@pytest.mark.parametrize("recompute", [True, False])
@pytest.mark.parametrize("count", [12, 16])
def test_batch_norm_over_groups_is_torchs_on_every_group(recompute, count):
    """Logits, and running statistics: the mean over the groups of what each alone would leave."""
    build = lambda: convnet(SHAPE, CLASSES, width=4, norm="batch")  # noqa: E731
    model = functional.cast(in_parts(functional.from_module(build), 4, recompute=recompute), torch.float64)
    params, buffers = model.init(rng.key(0))
    x = torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.enable_grad():
        logits, after = model.apply(params, buffers, x, train=True, key=rng.key(1))
    groups = count // 4
    expected, statistics = torch.empty_like(logits), []
    for group in range(groups):
        module = build().double()
        module.load_state_dict({**params, **buffers})
        expected[group::groups] = module.train()(x[group::groups]).detach()
        statistics.append({name: value.clone() for name, value in module.named_buffers()})
    torch.testing.assert_close(logits.detach(), expected, rtol=1e-12, atol=1e-13)
    for name, value in after.items():
        mean = torch.stack([found[name].double() for found in statistics]).mean(0)
        torch.testing.assert_close(value.double(), mean, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("grad", ["exact", "first-order"])
def test_recomputed_groups_make_the_update_of_recorded_ones(grad):
    recorded, recomputed = (
        train(in_parts(network("batch"), 8, recompute=recompute), grad, torch.float64) for recompute in (False, True)
    )
    for one, other in zip(recorded, recomputed, strict=True):
        assert_close_tree(tree.leaves(tuple(other)), tree.leaves(tuple(one)), rtol=1e-12, atol=1e-13)
    whole = train(network("batch"), grad, torch.float64)[-1]
    assert relative_error(momenta(recorded[-1])[0], momenta(whole)[0]) > 1e-3


def test_every_group_has_its_share_of_every_view():
    """A batch of 8 + 16 examples in parts of 6: each has two of the first and four of the others."""
    seen = []

    def apply(params, buffers, x, *, train, key=None, rows=None):
        seen.append(x[:, 0].tolist())
        return x, buffers

    model = in_parts(functional.from_module(lambda: nn.Linear(1, 1))._replace(apply=apply), 6, recompute=False)
    x = torch.cat([torch.zeros(8, 1), torch.ones(16, 1)])
    logits, _ = model.apply({}, {}, x, train=True)
    assert torch.equal(logits, x)
    assert [sorted(part) for part in seen] == [[0.0] * 2 + [1.0] * 4] * 4


def test_evaluation_is_not_divided():
    model = network("batch")
    params, buffers = model.init(rng.key(0))
    x = batch(torch.float32).x_unlabelled
    one, other = (some.apply(params, buffers, x, train=False)[0] for some in (model, in_parts(model, 4)))
    assert torch.equal(one, other)


def test_parts_are_pure():
    model = in_parts(network("batch"), 4)
    params, buffers = model.init(rng.key(0))
    x = batch(torch.float32).x_unlabelled

    def losses(params, buffers, x):
        return tree.detach(model.apply(params, buffers, x, train=True, key=rng.key(1)))

    assert_pure(losses, params, buffers, x)


CONFIG = {"steps": 2, "batch": 16, "labelled_batch": 8, "finetune_steps": 0, "baselines": False}


def test_batch_norm_needs_groups_that_fit_a_microbatch():
    for options in ({"microbatch": 8}, {"microbatch": 8, "batch_norm_batch": 16}):
        with pytest.raises(InputError, match=r"^microbatch = 8: BatchNorm shares .* give batch_norm_batch = 8 too"):
            prepare(TrainConfig(model="convnet:width=2", **options, **CONFIG))
    prepare(TrainConfig(model="convnet:width=2", microbatch=8, batch_norm_batch=8, **CONFIG))
    prepare(TrainConfig(model="convnet:width=2,norm=group", microbatch=8, **CONFIG))


def test_batch_norm_groups_are_so_many_whatever_their_size():
    model, x = network("batch", dropout=0.0), batch(torch.float64).x_unlabelled
    params, buffers = functional.cast(model, torch.float64).init(rng.key(0))
    for size in (24, 12):
        found = in_parts(model, 0, recompute=False, groups=3).apply(params, buffers, x[:size], train=True)
        expected = in_parts(model, size // 3, recompute=False).apply(params, buffers, x[:size], train=True)
        assert_close_tree(found, expected, rtol=0.0)
    prepare(TrainConfig(model="convnet:width=2", batch_norm_groups=2, **CONFIG))
    for other, remedy in (
        ("batch_norm_batch", "leave out batch_norm_batch"),
        ("microbatch", "or give batch_norm_batch"),
    ):
        with pytest.raises(InputError, match=f"^batch_norm_groups = 2 .*{remedy}"):
            prepare(TrainConfig(model="convnet:width=2", batch_norm_groups=2, **{other: 8}, **CONFIG))


def test_the_model_that_is_divided_is_left_as_it_is():
    model = network("batch")
    before = copy.copy(model)
    in_parts(model, 4)
    assert model == before
