"""What feedback must be, by central differences of plain torch training: no line of metapl has a part in the value.

A real `nn.Module` is trained by `torch.optim.SGD`, the outer loss is taken, and every number of every θ is moved.

A value that a module computes under `no_grad`, or takes through `detach`, `.data` or `.item()`, is a constant of its
derivative at every order, and so is a buffer. Moved training would move both. So the training at the base point
writes down every such value, and the moved ones get what it wrote (`Held`); `hold=False` lets them move.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from stops import Held
from torch import Tensor, nn

LR, MOMENTUM = 0.3, 0.9
WIDTH = 1e-4
"""Of the differences: a relative error of about 1e-8 by truncation, of 1e-11 by rounding."""


class Masked(nn.Module):
    """Dropout with masks that somebody else drew, one a pass."""

    def __init__(self, masks: list[Tensor]) -> None:
        super().__init__()
        self.masks = masks

    def forward(self, x: Tensor) -> Tensor:
        return x * self.masks.pop(0) if self.training else x


class Pass(NamedTuple):
    """What goes through the module once: the input, the seed of torch's generator, and the masks of its dropout."""

    x: Any
    seed: int | None = None
    masks: tuple[Tensor, ...] = ()


class Training(NamedTuple):
    """A module, the θ and passes of its steps, and its outer batch."""

    build: Callable[[], nn.Module]
    state: dict[str, Tensor]
    """Parameters and buffers by name, at the start."""
    call: Callable[[nn.Module, Any], Tensor]
    thetas: list[Tensor]
    passes: list[Pass]
    outer_batch: Pass
    answers: Tensor
    outer_in_training_mode: bool = True
    fresh: bool = False
    """Whether the module keeps something beside parameters and buffers, so that each training needs a new one."""


Labelled = list[tuple[Tensor, Tensor]]
"""For each step distributions `[batch, classes]`, and a weight `[batch]` for each example's loss."""


def soft(thetas: Sequence[Tensor]) -> Labelled:
    return [(torch.softmax(theta, -1), torch.ones(len(theta), dtype=theta.dtype)) for theta in thetas]


def chosen(theta: Tensor) -> Tensor:
    """Argmax labels, one-hot."""
    return nn.functional.one_hot(theta.argmax(-1), theta.shape[-1]).to(theta.dtype)


class Live(NamedTuple):
    """A module with the masks that its dropout takes in turn."""

    module: nn.Module
    masks: list[Tensor]


@functools.lru_cache(maxsize=4)
def _made(build: Callable[[], nn.Module]) -> Live:
    masks: list[Tensor] = []
    return Live(_masked(build(), masks), masks)


def load(training: Training, state: dict[str, Tensor]) -> Live:
    live = (_made.__wrapped__ if training.fresh else _made)(training.build)
    own = {**dict(live.module.named_parameters()), **dict(live.module.named_buffers())}
    assert own.keys() == state.keys(), own.keys() ^ state.keys()
    with torch.no_grad():
        for name, value in state.items():
            own[name].copy_(value)
    live.module.train()
    return live


def _masked(module: nn.Module, masks: list[Tensor]) -> nn.Module:
    kinds = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) in kinds and child.p:
                setattr(parent, name, Masked(masks))
    return module


def through(live: Live, training: Training, given: Pass, stops: Held | None) -> Tensor:
    live.masks[:] = given.masks
    before = torch.get_rng_state()
    if given.seed is not None:
        torch.default_generator.manual_seed(given.seed)
    with stops or nullcontext():
        out = training.call(live.module, given.x)
    torch.set_rng_state(before)
    return out


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return -(targets * torch.log_softmax(logits, -1)).sum(-1)


class Trained(NamedTuple):
    outer: float
    state: dict[str, Tensor]


class Ledger:
    """What the training at the base point wrote down; empty where everything may move."""

    def __init__(self, *, hold: bool) -> None:
        self.hold, self.full = hold, False
        self.stops: list[Any] = []
        self.buffers: list[dict[str, Tensor]] = []

    @contextmanager
    def run(self) -> Iterator[Held | None]:
        yield Held(self.stops, replay=self.full) if self.hold else None
        self.full = True

    def carry(self, step: int, module: nn.Module) -> None:
        if self.hold and self.full:
            with torch.no_grad():
                for name, value in module.named_buffers():
                    value.copy_(self.buffers[step][name])
        elif self.hold:
            self.buffers.append({name: value.detach().clone() for name, value in module.named_buffers()})


def train(training: Training, labelled: Labelled, ledger: Ledger) -> Trained:
    live = load(training, training.state)
    module = live.module
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], LR, momentum=MOMENTUM)
    with ledger.run() as stops:
        for step, ((targets, weights), given) in enumerate(zip(labelled, training.passes, strict=True)):
            optimizer.zero_grad()
            (weights * cross_entropy(through(live, training, given, stops), targets)).mean().backward()
            optimizer.step()
            ledger.carry(step, module)
        state = {name: value.detach().clone() for name, value in [*module.named_parameters(), *module.named_buffers()]}
        module.train(training.outer_in_training_mode)
        outer = nn.functional.cross_entropy(through(live, training, training.outer_batch, stops), training.answers)
    return Trained(outer.item(), state)


def _derivatives(fn: Callable[[Tensor], float], at: Tensor, places: Sequence[int]) -> Tensor:
    """The derivatives of `fn` in these numbers of `at`; zero elsewhere."""
    found = torch.zeros_like(at)
    for place in places:
        sides = []
        for width in (WIDTH, -WIDTH):
            moved = at.clone()
            moved.view(-1)[place] += width
            sides.append(fn(moved))
        found.view(-1)[place] = (sides[0] - sides[1]) / (2.0 * WIDTH)
    return found


def feedback(training: Training, *, hold: bool = True) -> tuple[Tensor, Trained]:
    """d outer / dθ `[steps, batch, classes]` of soft labels, and what the training ended in.

    The last class of each example is not moved: adding one number to all logits of an example changes no label.
    """
    ledger, at = Ledger(hold=hold), torch.stack(training.thetas)
    base = train(training, soft(at), ledger)
    places = [place for place in range(at.numel()) if place % at.shape[-1] != at.shape[-1] - 1]
    found = _derivatives(lambda thetas: train(training, soft(thetas), ledger).outer, at, places)
    found[..., -1] = -found.sum(-1)
    return found, base


def credit(training: Training) -> tuple[Tensor, Trained]:
    """d outer / d w_i `[steps, batch]`, with argmax labels and the loss of example i times w_i = 1; and the end.

    Times ∇ log p(ŷ_i) it is the score function with per-example credit, and summed over the batch the paper's.
    """
    ledger, labels = Ledger(hold=True), [chosen(theta) for theta in training.thetas]
    ones = torch.ones(len(labels), len(labels[0]), dtype=torch.float64)

    def outer(weights: Tensor) -> Trained:
        return train(training, list(zip(labels, weights, strict=True)), ledger)

    base = outer(ones)
    return _derivatives(lambda weights: outer(weights).outer, ones, range(ones.numel())), base


def score(training: Training) -> Tensor:
    """∇ log p(ŷ) in θ, in closed form."""
    return torch.stack([chosen(theta) - torch.softmax(theta, -1) for theta in training.thetas])


def neumann(training: Training, *, rate: float, damping: float, iterations: int) -> Tensor:
    """−∂/∂θ ⟨q, ∇L⟩ after training, q = rate Σ_{i < iterations} (1 − rate (H + damping))ⁱ v.

    The products with H are differences of gradients.
    """
    state = train(training, soft(training.thetas), Ledger(hold=True)).state
    written: list[Any] = []

    def taken(offset: dict[str, Tensor], width: float, wanted: str) -> Any:
        thetas = [theta.clone().requires_grad_() for theta in training.thetas]
        losses, trained = [], {}
        replay, place = bool(taken_before), 0
        for theta, given in zip(thetas, training.passes, strict=True):
            live = load(training, {k: v + width * offset[k] if k in offset else v for k, v in state.items()})
            stops = Held(written, replay=replay)
            stops.place = place
            loss = cross_entropy(through(live, training, given, stops), torch.softmax(theta, -1)).mean()
            place = stops.place
            losses.append(loss / len(thetas))
            if wanted == "params":
                _add(trained, _grads(losses[-1], live.module))
        taken_before.append(True)
        return trained if wanted == "params" else torch.stack(torch.autograd.grad(sum(losses), thetas))

    taken_before: list[bool] = []
    taken({}, 0.0, "params")  # writes down what is stopped
    live = load(training, state)
    live.module.train(training.outer_in_training_mode)
    outer_batch = nn.functional.cross_entropy(through(live, training, training.outer_batch, None), training.answers)
    v = _grads(outer_batch, live.module)
    q = {name: rate * value for name, value in v.items()}
    term = q
    for _ in range(iterations - 1):
        change = _difference(lambda w, at=term: taken(at, w, "params"), term)
        term = {name: term[name] - rate * (change[name] + damping * term[name]) for name in term}
        q = {name: q[name] + term[name] for name in q}
    width = WIDTH / _length(q)
    return -(taken(q, width, "thetas") - taken(q, -width, "thetas")) / (2.0 * width)


def _difference(fn: Callable[[float], dict[str, Tensor]], along: dict[str, Tensor]) -> dict[str, Tensor]:
    width = WIDTH / _length(along)
    above, below = fn(width), fn(-width)
    return {name: (above[name] - below[name]) / (2.0 * width) for name in above}


def _length(tensors: dict[str, Tensor]) -> float:
    return sum(float(value.abs().square().sum()) for value in tensors.values()) ** 0.5


def _grads(loss: Tensor, module: nn.Module) -> dict[str, Tensor]:
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(named, found, strict=True))


def _add(total: dict[str, Tensor], part: dict[str, Tensor]) -> None:
    for name, value in part.items():
        total[name] = total[name] + value if name in total else value
