"""A noted pass: tangents that are those of forward mode, and passes that cannot be noted."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention
from torch.utils.checkpoint import checkpoint

from metapl import estimators, models, optim
from metapl.core import losses, rng, tree
from metapl.core.targets import SOFT
from metapl.core.types import Instance, Problem, TrainState
from metapl.estimators import route, tangents
from metapl.estimators.tape import Tape
from metapl.evaluation import cost
from metapl.nn import functional
from metapl.nn.layout import channels_last
from metapl.registry.errors import InputError

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

IMAGES = (3, 8, 8)


class Mixed(nn.Module):
    """Biases, frozen parts, BatchNorm in evaluation, shared layers, several inputs of one operation."""

    def __init__(self):
        super().__init__()
        self.first, self.shared = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.plain, self.fixed = nn.BatchNorm2d(4, affine=False), nn.BatchNorm2d(4)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.last = nn.Linear(8, 10)
        self.alone = nn.Conv2d(4, 4, 1)
        self.alone.weight.requires_grad_(False)

    def forward(self, x):
        """`[batch, 3, 8, 8]` to logits."""
        self.fixed.eval()
        y = F.relu(self.plain(self.first(x)))
        y = self.alone(self.fixed(self.shared(self.shared(y)))) + y
        a, b = y.mean((2, 3)), y.amax((2, 3))
        return self.last(torch.cat([self.frozen(a) * b, torch.add(a, b, alpha=2.0)], 1))


NETWORKS = {
    **{name: lambda name=name: models.build(name, IMAGES, 10) for name in ("mlp:width=8", "convnet:width=4")},
    "wrn": lambda: models.build("wrn:depth=10,width=1", IMAGES, 10),
    "vit": lambda: models.build("vit:depth=1,width=8,heads=2", IMAGES, 10),
    "resnet18": lambda: models.build("resnet18:width=4", IMAGES, 10),
    "mixed": Mixed,
    "group norm": lambda: models.build("convnet:width=4,norm=group", IMAGES, 10),
    "group norm without scales": lambda: nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4, affine=False), nn.Tanh(), nn.Flatten(), nn.Linear(144, 10))
    ),
}


def instance_of(build, change=lambda logits: logits, smoothing=0.1, dtype=torch.float64, layout=lambda model: model):
    model = layout(functional.cast(functional.from_module(build), dtype))
    params, buffers = model.init(rng.key(0))
    keys = rng.split(rng.key(1), 5)
    x, exam = (rng.normal(key, (4, *IMAGES), dtype) for key in keys[:2])
    y = rng.randint(keys[2], (4,), 10)

    def inner(params, buffers, targets, batch):
        logits, after = model.apply(params, buffers, batch, train=True, key=keys[3])
        return losses.cross_entropy(change(logits), targets, smoothing), after

    def outer(params, buffers, batch):
        return F.cross_entropy(model.apply(params, buffers, batch, train=True, key=keys[3])[0], y)

    rule = optim.sgd(0.1, momentum=0.9)
    problem = Problem(inner, outer, rule, SOFT)
    theta = rng.normal(keys[4], (4, 10), dtype)
    return Instance(problem, [theta], TrainState(params, buffers, rule.init(params)), [x], exam, rng.key(7))


def noted(instance, targets):
    """A tape of the inner pass at these targets."""
    tape, state = Tape(), instance.state
    params = tree.map(lambda leaf: leaf.detach().requires_grad_(), state.params)
    tape.noting(instance.problem).inner(params, state.buffers, targets, instance.inner_batches[0])
    return tape


def direction(instance):
    keys = rng.split(rng.key(3), len(instance.state.params))
    pairs = zip(instance.state.params.items(), keys, strict=True)
    return {name: rng.normal(key, value.shape, value.dtype) for (name, value), key in pairs}


@pytest.mark.parametrize("layout", [lambda model: model, channels_last], ids=["as they are", "channels last"])
@pytest.mark.parametrize("name", NETWORKS)
def test_tangents_are_those_of_forward_mode(name, layout):
    instance = instance_of(NETWORKS[name], layout=layout)
    problem, (theta,), state, (batch,), _, _ = instance
    u, old, new = direction(instance), torch.softmax(theta, -1), torch.softmax(2.0 * theta, -1)

    def at(params, targets):
        return problem.inner(params, state.buffers, targets, batch)[0]

    def along(targets):
        return torch.func.jvp(lambda params: at(params, targets), (state.params,), (u,))[1]

    tape = noted(instance, old)
    assert not tape.refused
    targets = new.clone().requires_grad_()
    found = tape.along(u, targets)
    torch.testing.assert_close(found, along(new))
    (grad,) = torch.autograd.grad(found.square().sum(), targets)
    expected = torch.func.grad(lambda targets: along(targets).square().sum())(new)
    torch.testing.assert_close(grad, expected)
    with pytest.raises(InputError, match="it has been walked over"):
        tape.along(u, new)


def small(width):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36 * width, 10))


def test_a_step_pays_for_the_tangents_alone():
    batch, width = 4, 32
    instance = instance_of(lambda: small(width))
    first = 2 * batch * 36 * 27 * width
    last = 2 * batch * 36 * width * 10
    calls = {name: lambda name=name: estimators.exact(route=name).estimate(instance, ()) for name in route.ROUTES}
    forward, back = first + last, first + 2 * last  # the images have neither gradient nor tangent
    assert cost.flops(lambda: estimators.none().estimate(instance, ())) == 2 * forward + back
    assert cost.flops(calls["forward"]) == 2 * forward + 2 * back + first + 2 * last
    assert cost.flops(calls["auto"]) == cost.flops(calls["forward"])
    assert cost.flops(calls["difference"]) == 2 * forward + 2 * back + forward


def written(logits):
    logits = logits * 1.0
    return logits.mul_(2.0)


def without_history(logits):
    return logits + 0.1 * logits.data


def by_numbers(logits):
    return torch.view_as_real(torch.view_as_complex(logits.reshape(4, 5, 2)).conj().resolve_conj()).reshape(4, 10)


def drawn(logits):
    return F.rrelu(logits, training=True)


def recomputed(logits):
    return checkpoint(torch.tanh, logits, use_reentrant=False, preserve_rng_state=False)


def falling(logits):
    return F.leaky_relu(logits, -0.5)


def remembered(logits):
    with torch.no_grad():
        mean = logits.mean()
    return logits - mean + logits.detach().amax()


CHANGES = [written, without_history, by_numbers, drawn, recomputed]


@pytest.mark.parametrize("change", CHANGES)
def test_what_cannot_be_noted_is_refused(change):
    instance = instance_of(lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 10)), change)
    tape = noted(instance, torch.softmax(instance.thetas[0], -1))
    assert tape.refused
    with pytest.raises(InputError, match="cannot be linearised"):
        tape.along(direction(instance), torch.softmax(instance.thetas[0], -1))


@pytest.mark.parametrize("change", [*CHANGES[:3], remembered, falling])
def test_and_the_routes_still_agree(change):
    instance = instance_of(lambda: small(2), change)
    found = [estimators.exact(route=name).estimate(instance, ())[0].grads[0] for name in ("forward", "reverse")]
    torch.testing.assert_close(*found)


def test_a_wrong_tangent_does_not_go_unnoticed(monkeypatch):
    instance = instance_of(NETWORKS["convnet:width=4"])
    expected = estimators.exact(route="reverse").estimate(instance, ())[0].grads[0]
    torch.testing.assert_close(estimators.exact().estimate(instance, ())[0].grads[0], expected)
    rule = tangents.RULES[torch.ops.aten.convolution.default]
    wrong = rule._replace(tangent=lambda *given: 1.01 * rule.tangent(*given))
    monkeypatch.setitem(tangents.RULES, torch.ops.aten.convolution.default, wrong)
    torch.testing.assert_close(estimators.exact().estimate(instance, ())[0].grads[0], expected)


def test_targets_that_are_used_before_the_network():
    def inner(problem):
        def changed(params, buffers, targets, batch):
            sharp = (targets * targets) / (targets * targets).sum(-1, keepdim=True)
            return problem.inner(params, buffers, sharp, batch)

        return problem._replace(inner=changed)

    instance = instance_of(NETWORKS["convnet:width=4"])
    instance = instance._replace(problem=inner(instance.problem))
    found = [estimators.exact(route=name).estimate(instance, ())[0].grads[0] for name in ("forward", "reverse")]
    torch.testing.assert_close(*found)
    assert not noted(instance, torch.softmax(instance.thetas[0], -1)).refused


@pytest.mark.parametrize("name", ["mlp:width=8", "wrn"])
def test_a_difference_is_near(name):
    instance = instance_of(NETWORKS[name])
    exact, near = (estimators.exact(route=one).estimate(instance, ())[0] for one in ("reverse", "difference"))
    assert estimators.exact(route="difference").claim == "approximate"
    torch.testing.assert_close(near.grads[0], exact.grads[0], rtol=1e-4, atol=1e-6 * float(exact.grads[0].norm()))
    torch.testing.assert_close(near.state, exact.state)
    torch.testing.assert_close((near.inner, near.outer, near.scale), (exact.inner, exact.outer, exact.scale))
    with pytest.raises(ValueError, match="leave route=difference out"):
        estimators.exact(fraction=0.5, route="difference")
