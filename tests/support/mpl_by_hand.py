"""Meta Pseudo Labels on small problems, and the same steps written by hand."""

import copy

import torch
from problems import CLASSES, convnet, mlp
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from metapl import optim
from metapl.core import rng
from metapl.core.targets import TARGETS
from metapl.core.types import TargetTransform
from metapl.data.augment.base import Augment
from metapl.data.loader import Batch
from metapl.estimators import ESTIMATORS, first_order
from metapl.methods import base, feedback_scale, mpl
from metapl.nn import functional

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
