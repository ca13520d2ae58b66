"""Meta Pseudo Labels with several steps of the student for one of the teacher."""

import pytest
import torch
from asserts import assert_close_tree, finite_differences
from problems import CLASSES, mlp
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from metapl import estimators, methods, optim
from metapl.core import rng
from metapl.core.targets import SOFT
from metapl.data import loader
from metapl.data.augment.base import Augment
from metapl.data.split import Split
from metapl.methods import base, feedback_scale, mpl
from metapl.nn import functional
from metapl.training import phases
from metapl.training.config import TrainConfig
from metapl.training.experiment import prepare

VIEWS = Augment(weak=lambda x, key: 1.1 * x + 0.2, strong=lambda x, key: 0.8 * x - 0.1)
STUDENT_LR, TEACHER_LR, STEPS, SIZE = 0.3, 0.2, 3, 2
RAW = base.Recipe(feedback_size=feedback_scale.raw(), uda_weight=0.0, feedback_weight=5.0, unroll=STEPS)


def batch_of(generator):
    x = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(CLASSES, (4,), generator=generator)
    return loader.Batch(x, y, torch.randn(STEPS * SIZE, 4, generator=generator, dtype=torch.float64))


def method(estimator, recipe=RAW):
    teacher = base.Trainable(functional.from_module(mlp), optim.sgd(TEACHER_LR))
    student = base.Trainable(functional.from_module(mlp), optim.sgd(STUDENT_LR, momentum=0.9))
    return mpl.meta_pseudo_labels(teacher, student, estimator, SOFT, VIEWS, recipe)


def by_torch(teacher_params, state, batch):
    """The teacher's loss and the student after its steps, with nothing of metapl on the way."""
    teacher, student = mlp(), mlp()
    teacher.load_state_dict(teacher_params)
    student.load_state_dict(state.student.params)
    rule = torch.optim.SGD(student.parameters(), STUDENT_LR, momentum=0.9)
    for x in VIEWS.strong(batch.x_unlabelled, None).split(SIZE):
        rule.zero_grad()
        F.cross_entropy(student(x), torch.softmax(teacher(x), -1).detach()).backward()
        rule.step()
    seen = VIEWS.weak(batch.x_labelled, None)
    with torch.no_grad():
        exam = F.cross_entropy(student(seen), batch.y_labelled)
        return F.cross_entropy(teacher(seen), batch.y_labelled) + RAW.feedback_weight * exam, student


@pytest.mark.parametrize("build", [estimators.exact, estimators.unroll, lambda: estimators.truncated(steps=STEPS)])
def test_the_teacher_descends_on_the_exam_after_all_steps(build):
    batch, key = batch_of(torch.Generator().manual_seed(3)), rng.key(4)
    state = method(build()).init(key)
    after, _ = method(build()).step(state, batch, key)
    slope = finite_differences(lambda params: by_torch(params, state, batch)[0], state.teacher.params)
    expected = {name: p - TEACHER_LR * slope[name] for name, p in state.teacher.params.items()}
    moved = {name: after.teacher.params[name] - p for name, p in state.teacher.params.items()}
    assert_close_tree(moved, {name: expected[name] - p for name, p in state.teacher.params.items()}, rtol=1e-7)
    student = by_torch(state.teacher.params, state, batch)[1]
    assert_close_tree(after.student.params, dict(student.named_parameters()), rtol=1e-12)


def test_a_truncated_feedback_credits_the_last_batches_only():
    """And so differs, which shows that the first lessons count above."""
    batch, key = batch_of(torch.Generator().manual_seed(3)), rng.key(4)
    state = method(estimators.exact()).init(key)
    whole, part = (method(build).step(state, batch, key)[0] for build in (estimators.exact(), estimators.truncated()))
    difference = (whole.teacher.params["0.weight"] - part.teacher.params["0.weight"]).norm()
    assert difference > 0.01 * (whole.teacher.params["0.weight"] - state.teacher.params["0.weight"]).norm()


@pytest.mark.parametrize("size", [3, 7, 50])
def test_the_student_sees_the_same_batches_in_the_same_order(size):
    x, every = torch.arange(24.0)[:, None], torch.arange(24)
    parts = Split(every[:4], every[4:], every[:0])
    one = loader.batches(x, every, parts, (2, size), rng.key(0))
    four = loader.batches(x, every, parts, (2, size), rng.key(0), 4)
    for step in range(5):
        singles = [one(4 * step + index).x_unlabelled for index in range(4)]
        assert torch.equal(four(step).x_unlabelled, torch.cat(singles))
        assert torch.equal(four(step).y_labelled, one(step).y_labelled)


@pytest.mark.parametrize(("name", "course"), [("cosine", optim.cosine), ("constant", optim.plateau)])
def test_the_schedule_of_the_student_lasts_for_all_its_steps(name, course):
    experiment = prepare(
        TrainConfig(method="mpl", steps=10, unroll=3, optimizer="sgd", clip=0.0, student_wait=2, schedule=name)
    )
    config = experiment.config
    paced = mpl.trained_student(experiment.given)
    schedule = course(config.lr, 30, 0, 6)
    params = {"w": torch.ones(())}
    state = paced.optimizer.init(params)
    for step in range(30):
        updates, state = paced.optimizer.update({"w": torch.ones(())}, state, params)
        assert float(updates["w"]) == pytest.approx(-float(schedule(torch.tensor(step))), rel=1e-6, abs=1e-12)


def test_a_run_takes_as_many_steps_of_each():
    experiment = prepare(TrainConfig(method="mpl", guide="none", steps=2, unroll=3, labels=10, batch=8))
    trained = methods.find("mpl").phases[0].build(experiment.given, {})
    state = trained.init(rng.key(0))
    for step in range(2):
        state, metrics = trained.step(state, phases.batches(experiment, 3)(step), rng.key(step))
    assert (int(state.student.opt_state[-1].step), int(state.teacher.opt_state[-1].step)) == (6, 2)
    assert all(torch.isfinite(value) for value in metrics.values())
