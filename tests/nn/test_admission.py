"""Which modules can be pure functions: what is refused when it is made, and in a pass."""

import pytest
import torch
from asserts import assert_close_tree, assert_pure
from students import model_of
from torch import nn

from metapl import optim
from metapl.core import rng
from metapl.methods import base
from metapl.nn import functional
from metapl.registry.errors import InputError

X = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))


# ---------------------------------------------------------------- what is refused at the door


class OwnGenerator(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.source = nn.Linear(3, 2), torch.Generator()

    def forward(self, x):
        return self.linear(x) + torch.randn(2, generator=self.source)


REFUSED = {
    "an instance": (nn.Linear(3, 2), "takes a function that builds a module, such as lambda"),
    "no module": (lambda: torch.ones(2), "made a Tensor: it must return an nn.Module"),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(2)), r"0 \(LazyLinear\) has no shape for weight"),
    "a lazy buffer": (lambda: nn.LazyBatchNorm1d(affine=False), "has no shape for running_mean"),
    "sparse": (lambda: nn.Embedding(5, 2, sparse=True), "Embedding has sparse gradients.*use sparse=False"),
    "sparse bags": (lambda: nn.Sequential(nn.EmbeddingBag(5, 2, sparse=True)), r"0 \(EmbeddingBag\) has sparse"),
    "parallel": (lambda: nn.DataParallel(nn.Linear(3, 2)), r"DataParallel spreads its batch.*\.module"),
    "a generator": (OwnGenerator, r"draws from a generator of its own \(source\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_pure_is_refused_when_it_is_made(name):
    build, message = REFUSED[name]
    with pytest.raises(InputError, match=message) as found:
        functional.from_module(build)
    assert "\n" not in str(found.value)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*torch.jit:FutureWarning")
def test_a_scripted_module_is_refused():
    with pytest.raises(InputError, match=r"compiled by torch\.jit"):
        functional.from_module(lambda: nn.Sequential(torch.jit.script(nn.Linear(3, 2))))


def test_nothing_to_train_is_refused_before_it_is_trained():
    frozen = functional.from_module(lambda: nn.Linear(3, 2).requires_grad_(False))
    with pytest.raises(InputError, match="nothing to train"):
        base.new_train_state(base.Trainable(frozen, optim.sgd(0.1)), rng.key(0))
    params, buffers = frozen.init(rng.key(0))
    assert not params
    assert_close_tree(frozen.apply(params, buffers, X, train=True)[0], X @ buffers["weight"].T + buffers["bias"], 1e-6)


# ---------------------------------------------------------------- what is refused in a pass


class Counter(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.calls = nn.Linear(3, 2), 0

    def forward(self, x):
        self.calls += 1
        return self.linear(x) / self.calls


class Switch(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.phase = nn.Linear(3, 2), "first"

    def forward(self, x):
        self.phase = "second"
        return self.linear(x)


class Remembered(nn.Module):
    """A moving average that is not a buffer."""

    def __init__(self):
        super().__init__()
        self.linear, self.mean = nn.Linear(3, 2), torch.zeros(3)

    def forward(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0).detach()
        return self.linear(x - self.mean)


class Inside(nn.Module):
    """The part that changes is not the module itself."""

    def __init__(self):
        super().__init__()
        self.part = nn.Sequential(Counter())

    def forward(self, x):
        return self.part(x)


ATTRIBUTES = {Counter: "calls", Switch: "phase", Remembered: "mean", Inside: "part.0.calls"}


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("build", ATTRIBUTES)
def test_an_attribute_that_a_pass_changes_is_refused(build, train):
    model, params, buffers = model_of(build)
    with pytest.raises(InputError, match=rf"changes the attribute {ATTRIBUTES[build]} .*register_buffer"):
        model.apply(params, buffers, X, train=train)


class Kept(nn.Module):
    """What a pass leaves behind for somebody to look at, and containers that it writes to."""

    def __init__(self):
        super().__init__()
        self.linear, self.seen, self.log, self.table = nn.Linear(3, 2), None, [], {}

    def forward(self, x):
        self.seen = x
        self.log.append(len(self.log))
        self.table["calls"] = self.table.get("calls", 0) + 1
        return self.linear(x) * self.table["calls"] * len(self.log)


def test_what_a_pass_leaves_behind_is_gone_with_its_instance():
    model, params, buffers = model_of(Kept)
    first, second = (model.apply(params, buffers, X, train=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert_close_tree(first, nn.functional.linear(X, params["linear.weight"], params["linear.bias"]), rtol=1e-6)


class Clipping(nn.Module):
    def __init__(self, frozen=False):
        super().__init__()
        self.linear, self.scale = nn.Linear(3, 2), nn.Parameter(torch.full((2,), 3.0), requires_grad=not frozen)

    def forward(self, x):
        with torch.no_grad():
            self.scale.mul_(0.5)
        return self.linear(x) * self.scale


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("train", [True, False])
def test_writing_on_a_parameter_is_refused(train, frozen):
    model, params, buffers = model_of(lambda: Clipping(frozen))
    with pytest.raises(InputError, match="writes on the parameter scale, in place or"):
        model.apply(params, buffers, X, train=train)
    stacked = {name: torch.stack([value] * 2) for name, value in params.items()}
    with pytest.raises(InputError, match="writes on the parameter scale, in place or"):
        torch.vmap(lambda p: model.apply(p, buffers, X, train=train)[0])(stacked)


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.Embedding(7, 3, max_norm=0.5),
        lambda: nn.EmbeddingBag(7, 3, max_norm=0.5),
        lambda: nn.Sequential(nn.Embedding(7, 3, max_norm=0.5), nn.Identity()),
    ],
)
def test_an_embedding_with_a_largest_norm_serves_but_does_not_train(build):
    model, params, buffers = model_of(build)
    rows, module = torch.arange(7)[:, None], build()
    module.load_state_dict(params)
    found, _ = assert_pure(lambda p: model.apply(p, buffers, rows, train=False), params)
    assert_close_tree(found, module.eval()(rows).detach(), rtol=1e-6)
    assert not torch.equal(next(module.parameters()), next(iter(params.values())))  # torch has written on its own
    with pytest.raises(InputError, match=r"weight is changed by every pass \(max_norm\)"):
        model.apply(params, buffers, rows, train=True)


class Draws(nn.Module):
    def __init__(self, training_only=True):
        super().__init__()
        self.linear, self.training_only = nn.Linear(3, 2), training_only

    def forward(self, x):
        return self.linear(nn.functional.dropout(x, 0.5, self.training or not self.training_only))


def test_what_draws_needs_a_key():
    model, params, buffers = model_of(Draws)
    with pytest.raises(InputError, match="draws from torch's generator, which needs a key"):
        model.apply(params, buffers, X, train=True)
    model.apply(params, buffers, X, train=False)
    one, other = (
        assert_pure(lambda p, k=k: model.apply(p, {}, X, train=True, key=rng.key(k))[0], params) for k in (1, 2)
    )
    assert not torch.equal(one, other)
    always, params, buffers = model_of(lambda: Draws(training_only=False))
    with pytest.raises(InputError, match="needs a key"):
        always.apply(params, buffers, X, train=False)
    drawn = [always.apply(params, buffers, X, train=False, key=rng.key(3))[0] for _ in range(2)]
    assert torch.equal(*drawn)


class Statistics(nn.Module):
    """Buffers that are written in evaluation too, one in place and one anew."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.register_buffer("total", torch.zeros(3))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        self.total += x.sum(0)
        self.calls = self.calls + 1
        return self.linear(x)


@pytest.mark.parametrize("train", [True, False])
def test_buffers_are_never_written_on(train):
    model, params, buffers = model_of(Statistics)
    _, after = assert_pure(lambda b: model.apply(params, b, X, train=train), buffers)
    assert_close_tree(after, {"total": X.sum(0), "calls": torch.tensor(1)}, rtol=1e-6)


def test_names_that_are_not_the_modules_are_refused_whatever_is_clipped():
    """The same sentence as for any other module, where the weight that would be cloned is not there."""
    model = functional.from_module(lambda: nn.Embedding(5, 3, max_norm=1.0))
    params, buffers = model.init(rng.key(0))
    with pytest.raises(RuntimeError, match="weight"):
        model.apply({"another": params["weight"]}, buffers, torch.tensor([1, 2]), train=False)


class _Replacing(nn.Module):
    """Puts another parameter in the place of its own, and gives what the first one gives."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x):
        out = x * self.weight
        self.weight = nn.Parameter(torch.zeros(3))
        return out


def test_a_parameter_that_is_replaced_is_named():
    model = functional.from_module(_Replacing)
    params, buffers = model.init(rng.key(0))
    with pytest.raises(InputError, match="writes on the parameter weight"):
        model.apply(params, buffers, torch.ones(2, 3), train=True)
