"""Plans of runs: their arithmetic by hand, and the paper's runs as their presets have them."""

import pytest

from metapl.registry.errors import InputError
from metapl.studies import passes, plans
from metapl.studies.cost_model import Device
from metapl.studies.meta_network import Network
from metapl.studies.passes import Size

NETWORK = Network("linear", (1, 8, 8))
RUN = plans.Run(NETWORK, labelled=4, unlabelled=8, steps=86_400, processes=2)
DEVICE = Device(flops=1e6, memory=1e6, bandwidth=1e30, call=1e-30, link=1e6)


def test_a_plan_by_hand():
    rows = {row.grad: row for row in plans.plan(RUN, DEVICE)}
    assert list(rows) == list(plans.GRADS)
    one, parameters, labelled, unlabelled = 2 * 64 * 10, 64 * 10 + 10, 2, 4
    first = rows["first-order"]
    assert first.flops == 2 * one * (labelled + 2 * unlabelled + unlabelled + labelled)
    logits = 4 + 2 * 8 + 8 + 4
    assert first.sent == 2 * 1 * 4 * (3 * parameters + 10 * logits) // 2
    assert first.seconds == pytest.approx(first.flops / 1e6 + first.sent / 1e6)
    assert (first.days, first.beyond, first.bound) == (pytest.approx(first.seconds), 1.0, "operations")
    assert rows["exact"].flops == first.flops + one * unlabelled
    assert rows["exact"].beyond == pytest.approx(rows["exact"].seconds / first.seconds)
    assert all(row.fits for row in rows.values())
    least = min(row.memory for row in rows.values())
    assert not any(row.fits for row in plans.plan(RUN, DEVICE._replace(memory=least - 1)))


def test_several_steps_of_the_student():
    rows = {row.grad: row for row in plans.plan(RUN._replace(unroll=2), DEVICE)}
    assert list(rows) == ["none", "exact"]
    assert rows["none"].beyond == 1.0
    assert rows["exact"].flops > rows["none"].flops


def test_the_runs_of_the_paper():
    """Batches and steps of the paper's tables, as far as it has them: the images of a step of its teacher are 1,920."""
    cifar, imagenet, jft = (plans.paper(name) for name in ("cifar10", "imagenet", "jft"))
    assert (cifar.network.model, cifar.network.shape) == ("wrn:depth=28,width=2", (3, 32, 32))
    assert (cifar.labelled + 2 * cifar.unlabelled, cifar.steps) == (1920, 1_000_000)
    assert (imagenet.network.model, imagenet.network.shape, imagenet.network.classes) == (
        "resnet50",
        (3, 224, 224),
        1000,
    )
    assert (jft.labelled, jft.unlabelled, jft.processes) == (2048, 16_384, 2048)
    assert jft.network.model == "efficientnet:size=l2,dropout=0,drop_path=0"
    for run in (cifar, imagenet, jft):
        size = plans.part(run)
        assert size.labelled * run.processes == run.labelled
        assert size.alone == (run.processes == 1)


@pytest.mark.parametrize(
    ("model", "shape", "parameters", "forward"),
    [
        ("resnet50", (3, 224, 224), 25.557e6, 2 * 4.09e9),
        ("efficientnet:dropout=0,drop_path=0", (3, 224, 224), 5.3e6, 2 * 0.39e9),
    ],
)
@pytest.mark.slow
def test_networks_have_the_published_numbers(model, shape, parameters, forward):
    """Parameters and multiply-adds: ResNet-50 as torchvision's table has it; EfficientNet-B0 of Tan and Le, table 2."""
    classes = 1000
    there, back = passes.plain(Network(model, shape, classes), 1)
    assert there.flops == pytest.approx(forward, rel=0.03)
    assert back.flops == pytest.approx(2 * forward, rel=0.05)
    found = passes.measure(Network(model, shape, classes), Size(1, 1), ["none"])["none"]
    assert found.params / 4 == pytest.approx(parameters, rel=0.01)


def test_a_device_in_float32_multiplies_half_as_fast():
    assert plans.device("h100", "bf16").flops == 2 * plans.device("h100", "float32").flops
    assert plans.device("a100", "bf16").flops == plans.SHARE * 312e12


def test_bad_plans():
    with pytest.raises(InputError, match="unknown plan 'cifar': did you mean 'cifar10'"):
        plans.paper("cifar")
    with pytest.raises(InputError, match="unknown device of a plan 'h10': did you mean"):
        plans.device("h10", "bf16")
    with pytest.raises(InputError, match="4 labelled examples cannot be dealt out evenly to 3"):
        plans.part(RUN._replace(processes=3))
    with pytest.raises(InputError, match="8 unlabelled examples cannot be dealt out evenly to 6"):
        plans.part(RUN._replace(unroll=3))
