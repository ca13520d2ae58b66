"""A step of Meta Pseudo Labels against the same step written out with `nn.Module`, autograd and `torch.optim`."""

import copy

import pytest
import torch
from asserts import assert_close_tree, assert_pure
from problems import CLASSES, convnet, mlp
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from metapl import optim
from metapl.core import rng
from metapl.core.targets import TARGETS
from metapl.core.types import TargetTransform, TrainState, Variables
from metapl.data.augment.base import Augment, identity, noise
from metapl.data.loader import Batch
from metapl.estimators import ESTIMATORS, first_order
from metapl.methods import base, feedback_scale, mpl
from metapl.nn import functional

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

NETWORKS = {"mlp": (mlp, (4,)), "batchnorm": (convnet, (1, 4, 4))}
LABELLED, UNLABELLED, STEPS = 3, 5, 3
MOMENTUM, DECAY = 0.9, 0.01
STUDENT_LR, TEACHER_LR = 0.3, 0.2
FORCED = torch.tensor([2, 0, 1, 1, 2])

# Two views that differ and draw nothing, so that it shows which of them goes where.
VIEWS = Augment(weak=lambda x, key: 1.1 * x + 0.2, strong=lambda x, key: 0.8 * x - 0.1)

# 1/16 lies below the early decays (step + 1) / (step + 10), so it is the decay from the first step on.
BASE = base.Recipe(feedback_weight=0.7, uda_temperature=0.2, uda_threshold=0.6, ema=0.0625)
RECIPES = {
    "base": BASE,
    "no-uda": BASE._replace(uda_weight=0.0),
    "raw": BASE._replace(feedback_size=feedback_scale.raw()),
    "smoothing": BASE._replace(smoothing=0.1),
    "ramp": BASE._replace(uda_ramp=4, uda_weight=0.75),
}


GRADS = {
    **ESTIMATORS,
    "first-order": lambda: first_order(baseline=0.0, reduction="sum"),
    "first-order, as in the paper": lambda: first_order(baseline=0.9, reduction="mean"),
}


def _straight_through(theta, classes):
    expected = torch.softmax(theta, dim=-1)
    return F.one_hot(classes, CLASSES).to(theta.dtype) + expected - expected.detach()


KINDS = {
    "soft": lambda theta: torch.softmax(theta, dim=-1),
    "argmax": lambda theta: _straight_through(theta, theta.argmax(-1)),
    "forced": lambda theta: _straight_through(theta, FORCED),
}


def forced_labels(classes=FORCED):
    """As sampled labels are, if these are what is drawn."""
    return TargetTransform(
        lambda theta, _key: _straight_through(theta, classes),
        lambda theta, targets: (targets.detach() * torch.log_softmax(theta, dim=-1)).sum(-1),
    )


def make_batch(network="mlp", seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = NETWORKS[network][1]
    x_labelled = torch.randn(LABELLED, *shape, generator=generator, dtype=torch.float64)
    x_unlabelled = torch.randn(UNLABELLED, *shape, generator=generator, dtype=torch.float64)
    return Batch(x_labelled, torch.randint(CLASSES, (LABELLED,), generator=generator), x_unlabelled)


def trainable(build, lr):
    sgd = optim.sgd(lr, momentum=MOMENTUM, weight_decay=DECAY, nesterov=True)
    return base.Trainable(functional.from_module(build), sgd)


def make_method(network="mlp", grad="exact", recipe=BASE, labels="soft", views=VIEWS, student_lr=STUDENT_LR):
    build, estimator = NETWORKS[network][0], GRADS[grad]()
    taught = forced_labels() if labels == "forced" else TARGETS[labels]
    return mpl.meta_pseudo_labels(
        trainable(build, TEACHER_LR), trainable(build, student_lr), estimator, taught, views, recipe
    )


def key_of(step):
    return rng.fold_in(rng.key(5), step)


class ByHand:
    """Teacher and student as torch has them, and a step as the paper has it."""

    def __init__(self, build, state, recipe, grad, kind):
        self.teacher, self.teacher_rule = self._load(build, state.teacher, TEACHER_LR)
        self.student, self.student_rule = self._load(build, state.student, STUDENT_LR)
        self.average = copy.deepcopy(self.student)
        self.recipe, self.grad, self.kind, self.steps = recipe, grad, kind, 0
        self.metrics, self.usual = {}, 0.0

    @staticmethod
    def _load(build, train_state, lr):
        module = build().train()
        module.load_state_dict({**train_state.params, **train_state.buffers})
        return module, torch.optim.SGD(module.parameters(), lr, momentum=MOMENTUM, weight_decay=DECAY, nesterov=True)

    def step(self, batch):
        views = [VIEWS.weak(batch.x_labelled, None), VIEWS.strong(batch.x_unlabelled, None)]
        if self.recipe.uda_weight:
            views.insert(1, VIEWS.weak(batch.x_unlabelled, None))
        logits = self.teacher(torch.cat(views)).split([len(view) for view in views])
        own = self._supervised_and_uda(logits, batch.y_labelled)
        told, learnt = self._told(logits[-1], views[-1], (views[0], batch.y_labelled))
        (felt,) = torch.autograd.grad(told, logits[-1], retain_graph=True)
        self.metrics["feedback"] = felt.norm()
        grads = torch.autograd.grad(own + told, list(self.teacher.parameters()))
        self._move(self.teacher, self.teacher_rule, grads)
        self._move(self.student, self.student_rule, learnt)
        self._average()
        self.steps += 1

    def _supervised_and_uda(self, logits, y):
        recipe = self.recipe
        loss = F.cross_entropy(logits[0], y, label_smoothing=recipe.smoothing)
        self.metrics["supervised"] = loss.detach()
        if not recipe.uda_weight:
            return loss
        target = torch.softmax(logits[1].detach() / recipe.uda_temperature, dim=-1)
        sure = target.max(-1).values >= recipe.uda_threshold
        consistency = (F.cross_entropy(logits[2], target, reduction="none") * sure).mean()
        self.metrics["uda"] = consistency.detach()
        ramp = min(1.0, (self.steps + 1) / recipe.uda_ramp) if recipe.uda_ramp else 1.0
        return loss + recipe.uda_weight * ramp * consistency

    def _told(self, theta, x, exam):
        """A scalar whose gradient in the lesson is the feedback, and the student's own gradient."""
        targets = KINDS[self.kind](theta)
        loss = F.cross_entropy(self.student(x), targets, label_smoothing=self.recipe.smoothing)
        self.metrics["student"] = loss.detach()
        grads = torch.autograd.grad(loss, list(self.student.parameters()), create_graph=True)
        moved = self._nesterov(grads)
        if self.grad == "none":
            self._exam(moved, exam)
            told = 0.0 * theta.sum()
        elif "first-order" in self.grad:
            reduction = "mean" if "paper" in self.grad else "sum"
            said = F.cross_entropy(theta, targets.detach(), reduction=reduction)
            told = self._first_order(grads, moved, exam) * said
        else:
            told = self._exact(grads, moved, exam)
        return told, [grad.detach() for grad in grads]

    def _nesterov(self, grads):
        """`torch.optim.SGD(nesterov=True)` with its momentum so far, differentiable in the gradients."""
        moved = []
        for parameter, grad in zip(self.student.parameters(), grads, strict=True):
            start = parameter.detach().clone()
            direction = grad + DECAY * start
            before = self.student_rule.state[parameter].get("momentum_buffer")
            buffer = direction if before is None else MOMENTUM * before.clone() + direction
            moved.append(start - STUDENT_LR * (direction + MOMENTUM * buffer))
        return moved

    def _exam(self, params, exam):
        x, y = exam
        probe = copy.deepcopy(self.student)  # its running statistics go with it
        names = [name for name, _ in probe.named_parameters()]
        loss = F.cross_entropy(torch.func.functional_call(probe, dict(zip(names, params, strict=True)), (x,)), y)
        self.metrics["exam"] = loss.detach()
        return loss

    def _exact(self, grads, moved, exam):
        loss = self._exam(moved, exam)
        u = torch.autograd.grad(loss, grads, retain_graph=True)
        return self._factor(_length(u) * _length(grads)) * loss

    def _first_order(self, grads, moved, exam):
        """The scalar h, the foretold fall of the exam loss; as in the paper, above the usual."""
        at = [value.detach().requires_grad_() for value in moved]
        v = torch.autograd.grad(self._exam(at, exam), at)
        rate = STUDENT_LR * (1.0 + MOMENTUM)  # what Nesterov's rule takes of the gradient at once
        h = rate * sum((a * b.detach()).sum() for a, b in zip(v, grads, strict=True))
        scale = rate * _length(v) * _length(grads)
        credit = h - self.usual * scale
        if "paper" in self.grad:
            self.usual = 0.9 * self.usual + 0.1 * h / scale
        return self._factor(scale) * credit

    def _factor(self, scale):
        return self.recipe.feedback_weight / (1.0 if self.recipe is RECIPES["raw"] else scale)

    @staticmethod
    def _move(module, rule, grads):
        for parameter, grad in zip(module.parameters(), grads, strict=True):
            parameter.grad = grad
        rule.step()

    def _average(self):
        kept = min(self.recipe.ema, (self.steps + 1) / (self.steps + 10))
        here, there = self.average.state_dict(), self.student.state_dict()
        for name, value in here.items():
            mixed = kept * value + (1.0 - kept) * there[name] if value.is_floating_point() else there[name]
            value.copy_(mixed)


def _length(grads):
    return sum((grad.detach() ** 2).sum() for grad in grads).sqrt()


def _everything(module):
    return dict(module.named_parameters()), dict(module.named_buffers())


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(
    ("grad", "kind"),
    [
        ("exact", "soft"),
        ("exact", "argmax"),
        ("exact", "forced"),
        ("unroll", "soft"),
        ("first-order", "argmax"),
        ("first-order", "forced"),
        ("first-order, as in the paper", "forced"),
        ("none", "soft"),
    ],
)
def test_steps_equal_those_written_by_hand(network, recipe, grad, kind):
    method = make_method(network, grad, RECIPES[recipe], kind)
    state = method.init(rng.key(1))
    hand = ByHand(NETWORKS[network][0], state, RECIPES[recipe], grad, kind)
    for step in range(STEPS):
        batch = make_batch(network, seed=step)
        state, metrics = method.step(state, batch, key_of(step))
        hand.step(batch)
        assert_close_tree(dict(sorted(metrics.items())), dict(sorted(hand.metrics.items())), rtol=1e-10, atol=1e-14)
    assert_close_tree(state.teacher[:2], _everything(hand.teacher), rtol=1e-10)
    assert_close_tree(state.student[:2], _everything(hand.student), rtol=1e-10)
    assert_close_tree(tuple(state.ema), _everything(hand.average), rtol=1e-10)
    assert int(state.step) == STEPS


def test_the_consistency_loss_of_these_problems_is_partly_masked():
    """Else the comparison above would not see the threshold."""
    confident = []
    for network, (build, _) in NETWORKS.items():
        state = make_method(network).init(rng.key(1))
        hand = ByHand(build, state, BASE, "none", "soft")
        weak = VIEWS.weak(make_batch(network).x_unlabelled, None)
        target = torch.softmax(hand.teacher(weak) / BASE.uda_temperature, dim=-1)
        confident += (target.max(-1).values >= BASE.uda_threshold).tolist()
    assert {True, False} == set(confident)


@pytest.mark.parametrize("grad", GRADS)
@pytest.mark.parametrize("network", NETWORKS)
def test_a_step_is_pure(network, grad):
    kind = GRADS[grad]().targets[0]
    views = Augment(noise(0.1), noise(0.5))
    method = make_method(network, grad, labels=kind, views=views)
    state, _ = method.step(method.init(rng.key(1)), make_batch(network), key_of(0))
    assert_pure(method.step, state, make_batch(network, seed=1), key_of(1))


def test_init_is_pure_and_its_average_is_the_student():
    method = make_method("batchnorm")
    state = assert_pure(method.init, rng.key(1))
    assert_close_tree(tuple(state.ema), (state.student.params, state.student.buffers), rtol=0)
    assert not torch.equal(state.teacher.params["0.weight"], state.student.params["0.weight"])


def test_networks_are_those_of_the_state():
    method = make_method("batchnorm")
    state, _ = method.step(method.init(rng.key(1)), make_batch("batchnorm"), key_of(0))
    networks = method.networks(state)
    assert list(networks) == ["teacher", "student", "ema"]
    assert networks["teacher"] == Variables(state.teacher.params, state.teacher.buffers)
    assert networks["student"] == Variables(state.student.params, state.student.buffers)
    assert networks["ema"] == state.ema


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
