"""The feedback of Meta Pseudo Labels: whom labels reach, what it lowers, its size; the average and the ramp."""

import pytest
import torch
from asserts import assert_close_tree
from mpl_by_hand import (
    BASE,
    GRADS,
    NETWORKS,
    STUDENT_LR,
    TEACHER_LR,
    UNLABELLED,
    VIEWS,
    forced_labels,
    key_of,
    make_batch,
    make_method,
    trainable,
)
from problems import CLASSES, mlp
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from metapl import optim
from metapl.core import rng
from metapl.core.targets import TARGETS
from metapl.core.types import TrainState, Variables
from metapl.data.augment.base import Augment, identity, noise
from metapl.data.loader import Batch
from metapl.methods import base, feedback_scale, mpl
from metapl.nn import functional

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


def _run(method, batches):
    state = method.init(rng.key(1))
    states = [state]
    for step, batch in enumerate(batches):
        states.append(method.step(states[-1], batch, key_of(step))[0])
    return states


def _equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("grad", GRADS)
def test_labels_reach_the_student_through_the_teacher_only(grad):
    """Other labels of the same examples: another teacher at once, the same student until that one teaches."""
    batches = [make_batch(seed=step) for step in range(8)]
    others = [batch._replace(y_labelled=(batch.y_labelled + 1) % CLASSES) for batch in batches]
    method = make_method(grad=grad, labels=GRADS[grad]().targets[0])
    _, first, *_, last = _run(method, batches)
    _, other_first, *_, other_last = _run(method, others)
    assert _equal(first.student.params, other_first.student.params)
    assert not _equal(first.teacher.params, other_first.teacher.params)
    assert not _equal(last.student.params, other_last.student.params)


def test_labelled_examples_leave_the_students_statistics_alone():
    """The exam is sat in training mode, on a copy of the running statistics."""
    batch = make_batch("batchnorm")
    method = make_method("batchnorm")
    _, one = _run(method, [batch])
    _, other = _run(method, [batch._replace(x_labelled=batch.x_labelled + 3.0)])
    assert _equal(one.student.buffers, other.student.buffers)
    assert not _equal(one.teacher.buffers, other.teacher.buffers)
    assert int(one.student.buffers["1.num_batches_tracked"]) == 1


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("size", feedback_scale.SIZES)
def test_no_feedback_equals_feedback_of_weight_zero(network, size):
    batches = [make_batch(network, seed=step) for step in range(2)]
    recipe = BASE._replace(feedback_size=feedback_scale.SIZES[size]())
    silent = _run(make_method(network, "none", recipe), batches)[-1]
    weightless = _run(make_method(network, "exact", recipe._replace(feedback_weight=0.0)), batches)[-1]
    assert_close_tree(silent, weightless, rtol=0)


def _exam_after_lesson(teacher, state, batch, key):
    """The exam loss of this state's student, taught once by this teacher."""
    retold = state._replace(teacher=teacher)
    return make_method("batchnorm", "none").step(retold, batch, key)[1]["exam"]


@pytest.mark.parametrize("grad", ["exact", "unroll"])
@pytest.mark.parametrize("seed", range(3))
def test_descending_on_the_feedback_lowers_the_exam_loss(grad, seed):
    """What the feedback alone does to the teacher makes it teach the same student better."""
    batch = make_batch("batchnorm", seed=seed)
    state = _run(make_method("batchnorm", grad), [make_batch("batchnorm", seed=10)])[-1]
    told, _ = make_method("batchnorm", grad, BASE._replace(feedback_weight=0.01)).step(state, batch, key_of(1))
    untold, _ = make_method("batchnorm", "none").step(state, batch, key_of(1))
    assert _exam_after_lesson(told.teacher, state, batch, key_of(1)) < _exam_after_lesson(
        untold.teacher, state, batch, key_of(1)
    )


@pytest.mark.parametrize(("size", "weight"), [("cosine", 1.0), ("raw", 1e3)])
def test_first_order_feedback_raises_the_probability_of_labels_that_helped(size, weight):
    """And lowers it where the step on them made the exam worse; small plain steps, so that first order is enough."""
    outcomes = []
    batch = make_batch()
    for seed in range(8):
        classes = torch.randint(CLASSES, (UNLABELLED,), generator=torch.Generator().manual_seed(seed))
        recipe = BASE._replace(feedback_size=feedback_scale.SIZES[size](), feedback_weight=weight)
        told, silent = (_small_plain_steps(grad, recipe, classes) for grad in ("first-order", "none"))
        state = told.init(rng.key(1))
        told, metrics = told.step(state, batch, key_of(0))
        untold, _ = silent.step(state, batch, key_of(0))
        helped = bool(metrics["exam"] < _exam_loss(state.student, batch))
        raised = bool(_log_prob(told.teacher, batch, classes) > _log_prob(untold.teacher, batch, classes))
        assert helped == raised
        outcomes.append(helped)
    assert set(outcomes) == {True, False}


def _small_plain_steps(grad, recipe, classes):
    small = base.Trainable(functional.from_module(mlp), optim.sgd(1e-4))
    return mpl.meta_pseudo_labels(small, small, GRADS[grad](), forced_labels(classes), VIEWS, recipe)


def _logits(train_state, x):
    module = mlp()
    module.load_state_dict(train_state.params)
    return module(x)


def _exam_loss(train_state, batch):
    return F.cross_entropy(_logits(train_state, VIEWS.weak(batch.x_labelled, None)), batch.y_labelled)


def _log_prob(train_state, batch, classes):
    return -F.cross_entropy(_logits(train_state, VIEWS.strong(batch.x_unlabelled, None)), classes)


@pytest.mark.parametrize(("grad", "labels"), [("exact", "soft"), ("unroll", "soft"), ("first-order", "argmax")])
@pytest.mark.parametrize(("size", "ratio"), [("cosine", 1.0), ("exam", 1.0), ("relative", 1.0), ("raw", 100.0)])
def test_only_raw_feedback_has_the_unit_of_the_students_learning_rate(grad, labels, size, ratio):
    recipe = BASE._replace(feedback_size=feedback_scale.SIZES[size]())
    felt = []
    for lr in (1e-8, 1e-6):
        method = make_method(grad=grad, recipe=recipe, labels=labels, student_lr=lr)
        felt.append(float(method.step(method.init(rng.key(1)), make_batch(), key_of(0))[1]["feedback"]))
    assert felt[1] / felt[0] == pytest.approx(ratio, rel=1e-4)
    assert felt[0] > 0


def test_the_rule_of_the_size_hears_how_many_labels_there_are():
    def felt(labelled):
        recipe = BASE._replace(feedback_size=feedback_scale.cosine(power=0.5), labelled=labelled)
        method = make_method("mlp", "exact", recipe)
        return float(method.step(method.init(rng.key(1)), make_batch(), key_of(0))[1]["feedback"])

    assert felt(16.0) == pytest.approx(felt(1.0) / 4, rel=1e-12)


def _linear():
    return nn.Linear(4, CLASSES, bias=False).double()


def _with_student(student, grad):
    estimator = GRADS[grad]()
    labels = TARGETS[estimator.targets[0]]
    return mpl.meta_pseudo_labels(
        trainable(mlp, TEACHER_LR), student, estimator, labels, Augment(identity, identity), BASE
    )


@pytest.mark.parametrize("grad", sorted(set(GRADS) - {"none"}))
@pytest.mark.parametrize("reason", ["student waits", "exam without gradient"])
def test_feedback_of_scale_zero_is_zero(grad, reason):
    """A student that does not move yet, or an exam whose gradient is exactly zero: 0 / 0 would be NaN."""
    if reason == "student waits" and grad in ("evograd", "implicit"):
        # The one's stand-in for the step has a learning rate of its own, the other's learner counts as trained to the
        # end: neither knows that the student waits.
        return
    batch = make_batch()
    if reason == "student waits":
        student = trainable(mlp, optim.cosine(0.3, total=10, wait=2))
    else:
        student, batch = trainable(_linear, STUDENT_LR), batch._replace(x_labelled=torch.zeros_like(batch.x_labelled))
    told, metrics = _with_student(student, grad).step(_with_student(student, grad).init(rng.key(1)), batch, key_of(0))
    untold, _ = _with_student(student, "none").step(_with_student(student, "none").init(rng.key(1)), batch, key_of(0))
    assert metrics["feedback"] == 0
    assert_close_tree(told.teacher, untold.teacher, rtol=0)
    assert all(torch.isfinite(value).all() for value in told.teacher.params.values())


@pytest.mark.parametrize("decay", [0.0, 0.05, 0.99, 1.0])
@pytest.mark.parametrize("step", [0, 3, 5000])
def test_average(decay, step):
    """kept · before + (1 − kept) · now; counters are taken over."""
    before = Variables({"w": torch.tensor([1.0, -2.0]).double()}, {"seen": torch.tensor(3)})
    now = TrainState({"w": torch.tensor([3.0, 5.0]).double()}, {"seen": torch.tensor(4)}, ())
    kept = min(decay, (step + 1) / (step + 10))
    found = base.average(before, now, torch.tensor(step), decay)
    expected = kept * before.params["w"] + (1.0 - kept) * now.params["w"]
    torch.testing.assert_close(found.params["w"], expected, rtol=1e-12, atol=0)
    assert int(found.buffers["seen"]) == 4


@pytest.mark.parametrize(("step", "weight"), [(0, 0.1), (1, 0.2), (4, 0.5), (5, 0.5), (100, 0.5)])
def test_the_weight_of_uda_grows_linearly(step, weight):
    recipe = base.Recipe(uda_weight=0.5, uda_ramp=5, uda_threshold=0.0, uda_temperature=1.0)
    generator = torch.Generator().manual_seed(0)
    logits = {n: torch.randn(4, 3, generator=generator).double() for n in ("labelled", "weak", "strong")}
    y = torch.tensor([0, 1, 2, 0])
    batch = Batch(torch.zeros(4, 1), y, torch.zeros(4, 1))
    total, _ = base.self_loss(recipe, logits, batch, torch.tensor(step), recipe.consistency.init(logits["weak"]))
    consistency = F.cross_entropy(logits["strong"], torch.softmax(logits["weak"], -1))
    expected = F.cross_entropy(logits["labelled"], y) + weight * consistency
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=0)


def test_every_view_has_draws_of_its_own_whichever_are_asked_for():
    """So arms with and without UDA see the same examples."""
    batch = Batch(torch.zeros(4, 6), torch.zeros(4, dtype=torch.int64), torch.zeros(4, 6))
    augment = Augment(noise(1.0), noise(1.0))
    every = base.views(("labelled", "weak", "strong"), augment, batch, rng.key(0))
    fewer = base.views(("labelled", "strong"), augment, batch, rng.key(0))
    assert list(fewer) == ["labelled", "strong"]
    assert all(torch.equal(fewer[name], every[name]) for name in fewer)
    assert len(torch.cat(list(every.values())).unique()) == 3 * 4 * 6
