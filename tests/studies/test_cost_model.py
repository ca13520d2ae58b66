"""The model of a step: by hand, and against whole steps that are counted where they are computed."""

from fractions import Fraction

import pytest
import torch

from metapl import models, optim
from metapl.core import rng
from metapl.core.collectives import Processes
from metapl.core.targets import TARGETS
from metapl.data.augment.base import Augment, identity
from metapl.evaluation import cost
from metapl.evaluation.cost import Pass
from metapl.methods.base import Recipe, Trainable
from metapl.methods.mpl import meta_pseudo_labels
from metapl.nn import functional, microbatch, precision
from metapl.nn.layout import channels_last
from metapl.nn.shared_out import shared_out
from metapl.registry.errors import InputError
from metapl.studies import bench, cost_model, passes
from metapl.studies.meta_network import Network
from metapl.studies.passes import KINDS, Passes, Size

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

CPU = torch.device("cpu")
NETWORKS = {
    "mlp:width=32": (1, 8, 8),
    "wrn:depth=10,width=1": (3, 8, 8),
    "resnet18:width=4": (3, 8, 8),
    "vit:depth=1,width=16,heads=2": (3, 8, 8),
}
quick_mlp = [pytest.param(name, marks=[] if name.startswith("mlp") else pytest.mark.slow) for name in NETWORKS]


def step_of(model, shape, size, kind, change=channels_last):
    """A whole step where it is computed, with the network changed."""
    built = functional.from_module(lambda: models.build(model, shape, bench.CLASSES))
    trainable = Trainable(change(built), optim.sgd(**bench.RULE))
    estimator = bench.choose([kind])[kind]
    labels, recipe = TARGETS[estimator.targets[0]], Recipe(unroll=size.unroll)
    method = meta_pseudo_labels(trainable, trainable, estimator, labels, Augment(identity, identity), recipe)
    scene = bench.Scene(model, shape, size.labelled, size.unlabelled // size.labelled)
    state, batch = [method.init(rng.key(0))], bench._batch(scene)

    def step():
        state[0], _ = method.step(state[0], batch, rng.key(1))

    step()
    return step


def assert_near(counted, step, memory=0.03):
    assert sum(one.flops for one in counted.all) == cost.flops(step)
    assert max(cost_model.phases(counted).values()) == pytest.approx(cost.peak_memory(step, CPU), rel=memory)


@pytest.mark.parametrize("model", quick_mlp)
def test_passes_on_shapes_make_the_step_that_is_computed(model):
    size = Size(2, 14)
    kinds = [kind for kind in KINDS if kind != "exact:route=forward" or not model.startswith("mlp")]
    counted = passes.measure(Network(model, NETWORKS[model]), size, kinds)
    for kind in kinds:
        assert_near(counted[kind], step_of(model, NETWORKS[model], size, kind))


@pytest.mark.parametrize("steps", [2, 3])
def test_several_steps_of_the_student(steps):
    shape, size = (1, 8, 8), Size(3, 12, steps)
    counted = passes.measure(Network("mlp:width=32", shape), size, ["none", "exact"])
    for kind, found in counted.items():
        assert_near(found, step_of("mlp:width=32", shape, size, kind), memory=0.05)


@pytest.mark.slow
def test_microbatches_go_on_along_a_line():
    model, shape, size = "convnet:width=4,norm=group", (3, 8, 8), Size(4, 32)
    counted = passes.measure(Network(model, shape, microbatch=4), size, ["first-order", "exact"])
    for kind, found in counted.items():
        assert_near(found, step_of(model, shape, size, kind, lambda one: microbatch.in_parts(one, 4)), memory=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["convnet:width=4", "vit:depth=1,width=16,heads=2"])
def test_bfloat16_on_shapes_is_that_of_autocast(model):
    """The passes of autocast on the CPU; the precision is imitated where there is no autocast."""
    there, back = passes.plain(Network(model, (3, 8, 8), precision="bf16"), 6)
    built = precision.lowered(channels_last(functional.from_module(lambda: models.build(model, (3, 8, 8), 10))), "bf16")
    params, buffers = built.init(rng.key(0))
    params = {name: value.requires_grad_() for name, value in params.items()}
    counter, x = cost.Counter(), torch.zeros(6, 3, 8, 8)
    first, (logits, _) = counter(lambda: built.apply(params, buffers, x, train=True, key=rng.key(1)))
    second, _ = counter(lambda: torch.autograd.grad(logits, list(params.values()), torch.ones_like(logits)))
    assert (there.flops, back.flops) == (first.flops, second.flops)
    assert (there.peak, there.kept) == pytest.approx((first.peak, first.kept), rel=0.05)


@pytest.mark.parametrize("kind", ["none", "first-order", "exact:route=forward", "exact:route=difference"])
def test_operations_in_closed_form(kind):
    """A linear layer: F = B = 2 · 64 · 10, since its inputs have no gradient."""
    found = passes.measure(Network("linear", (1, 8, 8)), Size(3, 6), [kind])[kind]
    one = 2 * 64 * 10
    expected = cost_model.operations(kind, one, one, labelled=3, unlabelled=6)
    assert sum(part.flops for part in found.all) == expected
    units = {"none": -3, "first-order": 0, "exact:route=forward": 6, "exact:route=difference": 6}
    assert expected == one * (2 * (3 + 2 * 6 + 6 + 3) + units[kind])


def test_the_price_of_exact_feedback_at_the_ratio_of_the_paper():
    sizes = {"labelled": 1, "unlabelled": 7}
    base = cost_model.operations("first-order", 1, 2, **sizes)
    assert Fraction(int(cost_model.operations("exact", 1, 2, **sizes)), int(base)) == Fraction(83, 69)
    assert Fraction(int(cost_model.operations("exact:route=difference", 1, 2, **sizes)), int(base)) == Fraction(76, 69)


MADE_UP = Passes(
    teacher=Pass(1, 10, 1, 90, 80),
    student=Pass(2, 20, 1, 40, 30),
    exam=Pass(4, 30, 1, 25, 8),
    update_back=Pass(8, 40, 1, 9, 8),
    feedback=Pass(16, 50, 1, 20, -20),
    teacher_back=Pass(32, 60, 1, 15, -60),
    update=Pass(64, 70, 1, 70, 30),
    params=8,
    buffers=1,
    states=17,
)


def test_phases_and_step_by_hand():
    assert cost_model.phases(MADE_UP) == {
        "teacher": 90,
        "student": 80 + 40,
        "exam": 80 + 30 + 25,
        "update": 80 + 30 + 8 + 9,
        "feedback": 80 + 30 + 8 + 8 + 20,
        "teacher back": 80 + 17 + 15,
        "teacher's update": 80 + 17 - 60 + 70,
    }
    held = 2 * 17 + 8 + 1
    found = cost_model.step("first-order", MADE_UP, Size(2, 4), classes=5, processes=4)
    numbers = 3 * 2 + (2 + 8 + 4 + 2) * 5
    assert found == (127, held + 146, 280, 7, 2 * 3 * 4 * numbers // 4)


def test_seconds_by_hand():
    plan = cost_model.StepPlan(flops=100, memory=0, moved=300, calls=5, sent=50)
    device = cost_model.Device(flops=10.0, memory=1e9, bandwidth=20.0, call=1.0, link=25.0)
    assert cost_model.parts(plan, device) == {"operations": 10.0, "bytes": 15.0, "calls": 5.0}
    assert cost_model.seconds(plan, device) == 15.0 + 2.0


def test_a_line_through_two_points():
    assert cost_model.line((2, 5.0), (6, 13.0)) == (1.0, 2.0)
    assert cost_model.Line(1.0, 2.0).at(10) == 21.0


def test_timed_by_hand():
    """Passes over 5, 2 and 1 examples; the feedback is two ways back of 2."""
    speed = cost_model.Speed(cost_model.Line(1.0, 0.5), cost_model.Line(2.0, 1.0), call=0.5, byte=0.25)

    def plain(count):
        return Pass(moved=count), Pass(4 * count, 2 * count, 1)

    kinds = ("first-order", "none", "exact:route=difference")
    found, unguided, difference = (cost_model.timed(kind, MADE_UP, Size(1, 2), speed, plain) for kind in kinds)
    calls, moved = 7 - 1 - 3, 280 - 50 - (1 + 2) * (5 + 2 + 1)
    assert found == (3 + 4.0) + (3 * 2 + 8.0) + 2 * (2 + 2.0) + 0.5 * calls + 0.25 * moved
    assert found - unguided == (2 + 1.0) - 0.5 * 1 - 0.25 * 2  # the exam's way back
    assert difference - found == 0.5 * 1 + 0.25 * (50 - 2)  # what it has beside a forward pass


@pytest.mark.parametrize(
    ("model", "shape"),
    [("mlp:width=8,depth=1", (1, 8, 8)), pytest.param("convnet:width=4,norm=group", (3, 8, 8), marks=pytest.mark.slow)],
)
@pytest.mark.parametrize(
    ("kind", "steps"),
    [("none", 1), ("none", 2), ("first-order", 1), ("exact", 1), ("exact:route=difference", 1), ("exact", 3)],
)
def test_sums_over_processes_are_those_that_are_made(model, shape, kind, steps):
    seen = []

    def reduce(flat):
        seen.append(flat.numel())
        return flat

    size = Size(4, 12, steps, alone=False)
    step = step_of(model, shape, size, kind, lambda one: shared_out(one, Processes(0, 2, reduce)))
    seen.clear()
    step()
    counted = passes.measure(Network(model, shape), Size(2, 6, steps, alone=False), [kind])[kind]
    assert cost_model.sums(kind, counted, size, bench.CLASSES) == sum(seen)


def test_sums_go_around_a_ring():
    assert cost_model.ring(100, 1) == 0
    assert cost_model.ring(100, 2) == 400
    assert cost_model.ring(100, 4) == 600


def test_bad_sizes():
    network = Network("mlp:width=8", (1, 8, 8))
    with pytest.raises(ValueError, match="7 unlabelled examples cannot be dealt out to 2 steps"):
        passes.measure(network, Size(1, 7, 2), ["exact"])
    with pytest.raises(ValueError, match="first-order not all take 2 steps"):
        passes.measure(network, Size(1, 8, 2), ["first-order"])
    with pytest.raises(InputError, match="unknown precision 'fp8'"):
        passes.measure(network._replace(precision="fp8"), Size(1, 7), ["exact"])
    with pytest.raises(InputError, match="wrn needs images"):
        passes.measure(Network("wrn", (3,)), Size(1, 7), ["exact"])
