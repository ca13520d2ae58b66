"""Canonical bilevel problems in float64, and the same problems run by torch alone.

`make` builds a `Case` from the public interface of metapl. `run_torch` takes the same steps with the `nn.Module`
itself, `torch.optim` and `torch.nn.functional`, with nothing of metapl on the way: it is what the tests differentiate
numerically. Every activation is smooth, so that finite differences are valid.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from metapl import functional, optim, rng, tree
from metapl.estimators import ESTIMATORS
from metapl.labels import LABELS
from metapl.losses import cross_entropy
from metapl.types import Estimator, Feedback, Learner, Model, Optimizer, Params, Problem

CLASSES = 3
WARM_STEPS = 3


class Tied(nn.Module):
    """Two layers that share one weight matrix, each with its own bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, CLASSES)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.second(torch.tanh(self.first(x)))))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, CLASSES)).double()


def layernorm() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, CLASSES)).double()


def convnet() -> nn.Module:
    features = (nn.Conv2d(1, 2, 3, padding=1, bias=False), nn.BatchNorm2d(2), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten())
    return nn.Sequential(*features, nn.Linear(8, CLASSES)).double()


def linear() -> nn.Module:
    return nn.Linear(4, CLASSES).double()


class Network(NamedTuple):
    """`dead`: the first input column is exactly zero while the learner learns, and alive in the exam."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...] = (4,)
    exam: str = "train"
    dead: bool = False


NETWORKS = {
    "mlp": Network(mlp),
    "dead-input": Network(mlp, dead=True),
    "batchnorm": Network(convnet, (1, 4, 4)),
    "batchnorm-eval": Network(convnet, (1, 4, 4), exam="eval"),
    "tied": Network(lambda: Tied().double()),
    "layernorm": Network(layernorm),
    "linear": Network(linear),
    "linear-exam": Network(mlp, exam="linear"),
}


class Rule(NamedTuple):
    """An optimiser of metapl and the same one of torch, which is clipped and scheduled by hand."""

    ours: Callable[[], Optimizer]
    theirs: Callable[[list[nn.Parameter]], torch.optim.Optimizer]
    max_norm: float = math.inf
    rate: Callable[[int], float] | None = None


def half_cosine(step: int) -> float:
    """`optim.cosine(0.3, total=20, warmup=2, wait=1)`, written out for steps 3 to 20."""
    return 0.3 * 0.5 * (1.0 + math.cos(math.pi * (step - 3) / 17))


def pair(
    ours: Callable[..., Optimizer], theirs: Callable[..., torch.optim.Optimizer], lr: float, **options: Any
) -> Rule:
    return Rule(lambda: ours(lr, **options), lambda parameters: theirs(parameters, lr, **options))


def sgd(lr: float, **options: Any) -> Rule:
    return pair(optim.sgd, torch.optim.SGD, lr, **options)


def _clipped() -> Optimizer:
    return optim.chain(optim.clip_by_global_norm(0.05), optim.sgd(0.3, momentum=0.9))


def _scheduled() -> Optimizer:
    return optim.sgd(optim.cosine(0.3, total=20, warmup=2, wait=1), momentum=0.9)


OPTIMIZERS = {
    "sgd": sgd(0.3),
    "momentum": sgd(0.2, momentum=0.9),
    "nesterov": sgd(0.2, momentum=0.9, weight_decay=0.05, nesterov=True),
    "adam": pair(optim.adam, torch.optim.Adam, 0.05, betas=(0.8, 0.95), eps=1e-3),
    "adamw": pair(optim.adamw, torch.optim.AdamW, 0.05, betas=(0.8, 0.95), weight_decay=0.1),
    "clipped": sgd(0.3, momentum=0.9)._replace(ours=_clipped, max_norm=0.05),
    "cosine": sgd(0.3, momentum=0.9)._replace(ours=_scheduled, rate=half_cosine),
}


class Case(NamedTuple):
    """A bilevel problem with everything that an estimator is called with."""

    problem: Problem
    learner: Learner
    lessons: list[Tensor]
    batches: list[Tensor]
    exam: Any
    key: Tensor
    network: Network
    rule: Rule


def _inputs(network: Network, count: int, generator: torch.Generator, *, learning: bool) -> Tensor:
    x = torch.randn(count, *network.shape, generator=generator, dtype=torch.float64)
    if network.dead and learning:
        x[:, 0] = 0.0
    return x


def problem_of(model: Model, exam: str, optimizer: Optimizer, labels: str) -> Problem:
    def inner(params, buffers, targets, x):
        logits, buffers = model.apply(params, buffers, x, train=True)
        return cross_entropy(logits, targets), buffers

    def outer(params, buffers, exam_batch):
        if exam == "linear":
            return tree.dot(params, exam_batch)
        x, y = exam_batch
        return cross_entropy(model.apply(params, buffers, x, train=exam == "train")[0], y).mean()

    return Problem(inner, outer, optimizer, LABELS[labels])


def _warm(problem: Problem, learner: Learner, batches: Sequence[Tensor], generator: torch.Generator) -> Learner:
    params, buffers, opt_state = learner
    for x in batches:
        targets = torch.randint(CLASSES, (len(x),), generator=generator)
        leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
        losses, buffers = problem.inner(leaves, buffers, targets, x)
        grads = dict(zip(leaves, torch.autograd.grad(losses.mean(), list(leaves.values())), strict=True))
        updates, opt_state = problem.optimizer.update(grads, opt_state, params)
        params = {name: params[name] + updates[name] for name in params}
    return Learner(params, buffers, opt_state)


def make(
    network: str, rule: str | Rule = "sgd", labels: str = "soft", *, warm: bool = True, steps: int = 1, batch: int = 4
) -> Case:
    """A case with `steps` lessons; `warm`: the learner has taken three steps on other data."""
    net, rule = NETWORKS[network], OPTIMIZERS[rule] if isinstance(rule, str) else rule
    generator = torch.Generator().manual_seed(20)
    model = functional.from_module(net.build)
    problem = problem_of(model, net.exam, rule.ours(), labels)
    params, buffers = model.init(rng.key(3))
    learner = Learner(params, buffers, problem.optimizer.init(params))
    batches = [_inputs(net, batch, generator, learning=True) for _ in range(steps)]
    lessons = [torch.randn(batch, CLASSES, generator=generator, dtype=torch.float64) for _ in range(steps)]
    if net.exam == "linear":
        exam = {k: torch.randn(v.shape, generator=generator, dtype=torch.float64) for k, v in params.items()}
    else:
        exam = (_inputs(net, 5, generator, learning=False), torch.randint(CLASSES, (5,), generator=generator))
    if warm:
        others = [_inputs(net, 6, generator, learning=True) for _ in range(WARM_STEPS)]
        learner = _warm(problem, learner, others, generator)
    return Case(problem, learner, lessons, batches, exam, rng.key(7), net, rule)


def arguments(case: Case, estimator: Estimator) -> tuple[Any, ...]:
    """What `estimator.estimate` is called with."""
    return case.problem, case.lessons, case.learner, case.batches, case.exam, estimator.init(), case.key


def estimate(case: Case, name: str, **hyperparameters: Any) -> Feedback:
    """The feedback of the estimator of that name."""
    estimator = ESTIMATORS[name](**hyperparameters)
    return estimator.estimate(*arguments(case, estimator))[0]


def load_torch(case: Case) -> tuple[nn.Module, torch.optim.Optimizer, int]:
    """The module and the torch optimiser in the state of the learner, and the steps that it has taken."""
    module = case.network.build().train()
    module.load_state_dict({**case.learner.params, **case.learner.buffers}, strict=False)
    optimizer = case.rule.theirs(list(module.parameters()))
    state = case.learner.opt_state[-1] if type(case.learner.opt_state) is tuple else case.learner.opt_state
    for name, parameter in module.named_parameters():
        if hasattr(state, "square"):
            mean, square = state.mean[name].clone(), state.square[name].clone()
            optimizer.state[parameter] = {"step": state.step.double(), "exp_avg": mean, "exp_avg_sq": square}
        elif state.momentum and state.step > 0:
            optimizer.state[parameter] = {"momentum_buffer": state.momentum[name].clone()}
    return module, optimizer, int(state.step)


def exam_torch(case: Case, module: nn.Module) -> Tensor:
    if case.network.exam == "linear":
        return sum((case.exam[name] * value).sum() for name, value in module.named_parameters())
    x, y = case.exam
    return F.cross_entropy(module.train(case.network.exam == "train")(x), y)


def run_torch(
    case: Case, targets: Sequence[Tensor], nudges: Sequence[Params] | None = None
) -> tuple[Tensor, nn.Module, torch.optim.Optimizer]:
    """The exam loss after torch's own steps on these targets; `nudges` are added to the gradients of each step."""
    module, optimizer, step = load_torch(case)
    for index, (target, x) in enumerate(zip(targets, case.batches, strict=True)):
        optimizer.zero_grad()
        F.cross_entropy(module(x), target).backward()
        for name, parameter in module.named_parameters():
            parameter.grad += nudges[index][name] if nudges else 0.0
        nn.utils.clip_grad_norm_(module.parameters(), case.rule.max_norm)
        if case.rule.rate:
            optimizer.param_groups[0]["lr"] = case.rule.rate(step + index)
        optimizer.step()
    with torch.no_grad():
        return exam_torch(case, module), module, optimizer


def soft_exam(case: Case, lessons: Sequence[Tensor]) -> Tensor:
    """The exam loss as a function of soft lessons."""
    return run_torch(case, [torch.softmax(lesson, dim=-1) for lesson in lessons])[0]


def tuples(count: int, classes: int = CLASSES) -> list[Tensor]:
    """Every assignment of labels to `count` examples, as one-hot targets."""
    return [F.one_hot(torch.tensor(y), classes).double() for y in itertools.product(range(classes), repeat=count)]


def gradients_of(loss: Tensor, module: nn.Module) -> Params:
    names, parameters = zip(*module.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


def learner_gradient(case: Case, target: Tensor) -> Params:
    """g, the learner's gradient on these targets, by torch."""
    module, _, _ = load_torch(case)
    return gradients_of(F.cross_entropy(module(case.batches[0]), target), module)


def exam_gradient(case: Case, target: Tensor) -> Params:
    """v, the exam's gradient after torch's own step on these targets."""
    _, module, _ = run_torch(case, [target])
    return gradients_of(exam_torch(case, module), module)


def inner_product(a: Params, b: Params) -> Tensor:
    return sum((a[name] * b[name]).sum() for name in b)
