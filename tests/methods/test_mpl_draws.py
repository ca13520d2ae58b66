"""What a step of Meta Pseudo Labels draws with, what it tells the rule of the size, and what it is by default."""

import pytest
import torch
from asserts import assert_close_tree
from problems import CLASSES, mlp
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from metapl import estimators, optim
from metapl.core import rng, tree
from metapl.core.targets import SOFT
from metapl.data.augment.base import Augment
from metapl.data.loader import Batch
from metapl.methods import base, exams, feedback_scale, mpl
from metapl.nn import functional
from metapl.registry.errors import InputError

LABELLED, UNLABELLED, STUDENT_LR = 3, 4, 0.3
VIEWS = Augment(weak=lambda x, key: 1.1 * x + 0.2, strong=lambda x, key: 0.8 * x - 0.1)
RECIPE = base.Recipe(uda_temperature=0.2, uda_threshold=0.5, uda_weight=0.8)


def make_batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, more = (torch.randn(count, 4, generator=generator, dtype=torch.float64) for count in (LABELLED, UNLABELLED))
    return Batch(x, torch.randint(CLASSES, (LABELLED,), generator=generator), more)


def listened(log):
    """A network that notes how many examples each of its passes has, and the key that it draws with."""
    model = functional.from_module(mlp)

    def apply(params, buffers, x, *, key=None, **how):
        log.append((len(x), None if key is None else int(key)))
        return model.apply(params, buffers, x, key=key, **how)

    return base.Trainable(model._replace(apply=apply), optim.sgd(STUDENT_LR))


@pytest.mark.parametrize("unroll", [1, 2])
@pytest.mark.parametrize("grad", ["none", "exact", "unroll"])
def test_every_pass_of_a_step_has_a_key_of_its_own(grad, unroll):
    """An exam with the masks of the lesson would be about the units that were taught just now."""
    taught, lectured = [], []
    method = mpl.meta_pseudo_labels(
        listened(lectured),
        listened(taught),
        estimators.ESTIMATORS[grad](),
        SOFT,
        VIEWS,
        RECIPE._replace(unroll=unroll),
    )
    state = method.init(rng.key(1))
    keys = []
    for step in range(2):
        taught.clear()
        lectured.clear()
        state, _ = method.step(state, make_batch(step), rng.key(7 + step))
        thetas = {key for count, key in taught if count == UNLABELLED // unroll}
        exams = {key for count, key in taught if count == LABELLED}
        assert {count for count, _ in taught} == {UNLABELLED // unroll, LABELLED}
        assert (len(thetas), len(exams), len(lectured)) == (unroll, 1, 1)
        own = rng.split(rng.key(7 + step), 5)[2]  # as it is in every run on record
        assert thetas == {int(one) for one in ([own] if unroll == 1 else rng.split(own, unroll))}
        keys += [*thetas, *exams, lectured[0][1]]
    assert None not in keys
    assert len(set(keys)) == len(keys)


def by_torch(state, batch, recipe):
    """The teacher's own loss as a function of its logits, and the student's gradients before and after its step."""
    teacher, student = mlp(), mlp()
    teacher.load_state_dict(state.teacher.params)
    student.load_state_dict(state.student.params)
    seen = VIEWS.weak(batch.x_labelled, None)
    weak, strong = (view(batch.x_unlabelled, None) for view in (VIEWS.weak, VIEWS.strong))
    logits = [teacher(x).detach().requires_grad_() for x in (seen, weak, strong)]
    target = torch.softmax(logits[1].detach() / recipe.uda_temperature, -1)
    sure = target.max(-1).values >= recipe.uda_threshold
    own = F.cross_entropy(logits[0], batch.y_labelled)
    own = own + recipe.uda_weight * (F.cross_entropy(logits[2], target, reduction="none") * sure).mean()
    to_seen, to_strong = torch.autograd.grad(own, [logits[0], logits[2]])

    theta = F.cross_entropy(student(strong), torch.softmax(logits[2], -1))
    grads = torch.autograd.grad(theta, list(student.parameters()), create_graph=True)
    moved = [p.detach() - STUDENT_LR * grad for p, grad in zip(student.parameters(), grads, strict=True)]
    names = [name for name, _ in student.named_parameters()]
    again = torch.func.functional_call(student, dict(zip(names, moved, strict=True)), (seen,))
    exam = F.cross_entropy(again, batch.y_labelled)
    felt, *arrived = torch.autograd.grad(exam, [logits[2], *grads])
    return to_seen, to_strong, exam.detach(), felt, length(arrived) * length(grads)


def length(tensors):
    return torch.cat([one.detach().reshape(-1) for one in tensors]).norm()


def test_the_rule_of_the_size_is_told_what_it_says():
    """The teacher's own gradient is in all of its logits, of the labelled examples too."""
    heard = []
    recipe = RECIPE._replace(labelled=4.0, feedback_size=lambda told: (heard.append(told), told.scale * 0.0 + 2.0)[1])
    trainable = base.Trainable(functional.from_module(mlp), optim.sgd(STUDENT_LR))
    method = mpl.meta_pseudo_labels(trainable, trainable, estimators.exact(), SOFT, VIEWS, recipe)
    state, batch = method.init(rng.key(1)), make_batch()
    _, metrics = method.step(state, batch, rng.key(7))
    to_seen, to_strong, exam, felt, scale = by_torch(state, batch, recipe)
    assert min(to_seen.norm(), to_strong.norm()) > 0.05 * length([to_seen, to_strong])
    expected = feedback_scale.Statistics(felt.norm(), scale, exam, length([to_seen, to_strong]), CLASSES, 4.0)
    assert len(heard) == 1
    assert_close_tree(tuple(heard[0]), tuple(expected), rtol=1e-10)
    assert_close_tree(metrics["feedback"], 2.0 * felt.norm(), rtol=1e-10)


@pytest.mark.parametrize("name", ["relative", "capped"])
def test_feedback_is_measured_by_all_of_the_teachers_own_gradient(name):
    recipe = RECIPE._replace(feedback_size=feedback_scale.SIZES[name](), feedback_weight=1.0)
    trainable = base.Trainable(functional.from_module(mlp), optim.sgd(STUDENT_LR))
    method = mpl.meta_pseudo_labels(trainable, trainable, estimators.exact(), SOFT, VIEWS, recipe)
    state, batch = method.init(rng.key(1)), make_batch()
    to_seen, to_strong, _, felt, scale = by_torch(state, batch, recipe)
    own = length([to_seen, to_strong])
    expected = own if name == "relative" else torch.minimum(felt.norm() / scale, own)
    assert_close_tree(method.step(state, batch, rng.key(7))[1]["feedback"], expected, rtol=1e-10)


def test_a_recipe_that_says_nothing():
    """Feedback as the paper's cosine and all losses in full, no ramp, no smoothing."""
    recipe = base.Recipe()
    told = feedback_scale.Statistics(
        torch.tensor(0.3), torch.tensor(0.5), torch.tensor(0.7), torch.tensor(0.6), CLASSES, 4.0
    )
    assert float(recipe.feedback_size(told)) == 2.0
    expected = {"feedback_weight": 1.0, "unroll": 1, "labelled": 1.0, "ema": 0.99, "smoothing": 0.0}
    uda = {"uda_weight": 1.0, "uda_temperature": 0.7, "uda_threshold": 0.6, "uda_ramp": 0}
    rules = {
        "feedback_size": recipe.feedback_size,
        "consistency": recipe.consistency,
        "exam": exams.weak,
        "guide": None,
        "guide_weight": 1.0,
    }
    assert recipe._asdict() == {**expected, **uda, **rules, "class_weights": None, "logit_shift": None}


def test_an_update_leaves_no_graph_behind():
    """Of a learning rate that somebody differentiates elsewhere; else every step would hold all that came before it."""
    rate = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    trainable = base.Trainable(functional.from_module(mlp), optim.sgd(rate, momentum=0.9))
    train_state = base.new_train_state(trainable, rng.key(0))
    after = base.apply_gradient(trainable.optimizer, train_state, train_state.params, train_state.buffers)
    assert not any(leaf.requires_grad for leaf in tree.leaves(after))
    assert_close_tree(after.params, {name: 0.9 * p for name, p in train_state.params.items()}, rtol=1e-14)


@pytest.mark.parametrize("names", [("labelled",), ("labelled", "weak", "strong")])
def test_what_is_logged_is_data(names):
    """And the loss itself is not; a log of losses in a graph would keep every step."""
    logits = {name: torch.randn(3, CLASSES, dtype=torch.float64, requires_grad=True) for name in names}
    batch = Batch(torch.zeros(3, 1), torch.tensor([0, 1, 2]), torch.zeros(3, 1))
    total, (_, parts) = base.self_loss(RECIPE, logits, batch, torch.tensor(0), RECIPE.consistency.init(torch.zeros(1)))
    assert total.requires_grad
    assert not any(value.requires_grad for value in parts.values())
    expected = F.cross_entropy(logits["labelled"], torch.tensor([0, 1, 2]))
    assert_close_tree(parts["supervised"], expected, rtol=1e-14)


def test_a_batch_that_cannot_be_shared_out_is_an_error():
    """Four examples in chunks of two are two lessons, not three."""
    trainable = base.Trainable(functional.from_module(mlp), optim.sgd(STUDENT_LR))
    method = mpl.meta_pseudo_labels(trainable, trainable, estimators.exact(), SOFT, VIEWS, RECIPE._replace(unroll=3))
    state = method.init(rng.key(1))
    assert (state.step.dtype, int(state.step)) == (torch.int64, 0)
    with pytest.raises(ValueError, match=r"argument 2 is longer"):
        method.step(state, make_batch(), rng.key(7))


def test_the_count_of_steps_is_where_the_student_is():
    """On the device of its parameters; "meta", which has no numbers, stands for a GPU."""
    model = functional.from_module(mlp)
    far = mpl.Trainable(model._replace(init=lambda key: tree.to(model.init(key), "meta")), optim.sgd(STUDENT_LR))
    near = mpl.Trainable(model, optim.sgd(STUDENT_LR))
    for student, device in ((far, "meta"), (near, "cpu")):
        state = mpl.meta_pseudo_labels(near, student, estimators.exact(), SOFT, VIEWS, RECIPE).init(rng.key(1))
        assert state.step.device.type == device


def test_a_network_with_nothing_to_train_is_refused():
    frozen = functional.from_module(lambda: mlp().requires_grad_(False))
    with pytest.raises(InputError, match="no parameter that requires a gradient: there is nothing to train"):
        mpl.new_train_state(mpl.Trainable(frozen, optim.sgd(STUDENT_LR)), rng.key(0))
