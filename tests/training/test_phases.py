"""A whole run: its networks, and what each of them may see."""

import pytest
import torch
from asserts import assert_close_tree
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from metapl import methods
from metapl.data.augment.base import Augment
from metapl.models import convnet, mlp
from metapl.registry.errors import InputError
from metapl.training import phases
from metapl.training.config import TrainConfig
from metapl.training.experiment import prepare
from metapl.training.loop import Reported

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


TINY = {
    "method": "mpl",
    "guide": "none",
    "alignment": "none",
    "model": "mlp:width=6,depth=1",
    "teacher_model": "convnet:width=4,depth=1",
    "device": "cpu",
    "steps": 4,
    "finetune_steps": 2,
    "batch": 24,
    "labels": 20,
    "validation": 30,
}


def whole_run(experiment):
    return phases.finish(phases.run(experiment))


def prepared(**options):
    return prepare(TrainConfig(**{**TINY, **options}))


def with_data(experiment, **parts):
    return experiment._replace(data=experiment.data._replace(**parts))


@pytest.fixture(scope="module")
def finished():
    experiment = prepared()
    return experiment, whole_run(experiment)


def assert_same_networks(one, other):
    assert list(one) == list(other)
    for name in one:
        assert_close_tree(tuple(one[name]), tuple(other[name]), rtol=0)


def test_a_run_trains_every_network(finished):
    _, result = finished
    expected = [*methods.PANEL, "supervised", "pseudo-labels", "uda", "teacher", "student", "ema", "finetuned"]
    assert list(result.networks) == list(result.test) == list(result.validation) == expected


def test_a_run_returns_the_last_networks_of_its_phases():
    """Of a baseline the averaged weights, as of the student; of finetuning the weights themselves."""
    *events, finished = phases.run(prepared())
    last = {event.phase: event.networks for event in events if isinstance(event, Reported)}
    result = finished.result
    expected = {name: last[name]["ema"] for name in ("supervised", "pseudo-labels", "uda")}
    expected |= {**last["mpl"], "finetuned": last["finetune"]["model"]}
    assert_same_networks({name: result.networks[name] for name in expected}, expected)
    assert set(result.networks) == {*methods.PANEL, *expected}


def test_no_network_ever_sees_the_validation_part_or_the_test_set(finished):
    experiment, result = finished
    x, y = experiment.data.x.clone(), experiment.data.y.clone()
    x[experiment.split.validation], y[experiment.split.validation] = 100.0, 0
    held_out = {"x_test": -experiment.data.x_test, "y_test": 9 - experiment.data.y_test}
    other = whole_run(with_data(experiment, x=x, y=y, **held_out))
    # The settings of the panel are chosen on the validation part, as its line says; no network is fitted to it.
    trained = result.networks.keys() - set(methods.PANEL)
    assert_same_networks(*({name: one.networks[name] for name in trained} for one in (other, result)))
    assert other.validation != result.validation
    assert other.test != result.test


def test_no_network_ever_sees_a_label_that_was_not_given(finished):
    experiment, result = finished
    y = torch.zeros_like(experiment.data.y)
    y[experiment.split.labelled] = experiment.data.y[experiment.split.labelled]
    y[experiment.split.validation] = experiment.data.y[experiment.split.validation]
    other = whole_run(with_data(experiment, y=y))
    assert_same_networks(other.networks, result.networks)
    assert other.validation == result.validation


@pytest.mark.parametrize("part", ["validation", "test"])
@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("teacher", lambda: convnet((1, 8, 8), 10, width=4, depth=1)),
        ("ema", lambda: mlp((1, 8, 8), 10, width=6, depth=1)),
    ],
)
def test_every_part_is_judged_by_its_own_examples(finished, part, name, build):
    experiment, result = finished
    data, held_out = experiment.data, experiment.split.validation
    x, y = (data.x_test, data.y_test) if part == "test" else (data.x[held_out], data.y[held_out])
    module = build().eval()
    module.load_state_dict({**result.networks[name].params, **result.networks[name].buffers})
    with torch.no_grad():
        logits = module(x)
    row = getattr(result, part)[name]
    assert row["top1"] == pytest.approx(float((logits.argmax(-1) == y).float().mean()), abs=1e-6)
    assert row["nll"] == pytest.approx(float(F.cross_entropy(logits, y)), rel=1e-5)


def test_finetuning_starts_from_the_averaged_student_and_learns_the_labelled_examples():
    """Steps of no length stay there; long ones end where their loss is small."""
    still = whole_run(prepared(baselines=False, finetune_lr=1e-12)).networks
    assert_close_tree(still["finetuned"].params, still["ema"].params, rtol=1e-6)
    with pytest.raises(AssertionError, match="exceeds"):
        assert_close_tree(still["student"].params, still["ema"].params, rtol=1e-6)
    experiment = prepared(baselines=False, finetune_lr=0.05, finetune_steps=200)
    x, y = experiment.data.x[experiment.split.labelled], experiment.data.y[experiment.split.labelled]
    networks = whole_run(experiment).networks
    losses = {
        name: float(F.cross_entropy(experiment.models.student.apply(*networks[name], x, train=False)[0], y))
        for name in ("ema", "finetuned")
    }
    assert losses["finetuned"] < 0.5 < losses["ema"]


@pytest.mark.parametrize(
    ("text", "by_torch"),
    [
        ("sgd:momentum=0.9", lambda params: torch.optim.SGD(params, 0.02, momentum=0.9)),
        ("adam", lambda params: torch.optim.Adam(params, 0.02)),
    ],
)
def test_finetuning_is_by_its_own_optimiser(text, by_torch):
    """On the whole labelled set, without views, three steps by hand; the clipping of the other phases is not in it."""
    assert TrainConfig().finetune_optimizer == "sgd:momentum=0.9"
    experiment = prepared(
        baselines=False, finetune_optimizer=text, finetune_lr=0.02, finetune_steps=3, clip=1e-3, labelled_batch=64
    )
    still = Augment(lambda x, key: x, lambda x, key: x, prepare=experiment.data.augment.prepare)
    experiment = with_data(experiment, augment=still)
    networks = whole_run(experiment).networks
    module = mlp((1, 8, 8), 10, width=6, depth=1)
    module.load_state_dict(networks["ema"].params)
    optimizer = by_torch(list(module.parameters()))
    x, y = experiment.data.x[experiment.split.labelled], experiment.data.y[experiment.split.labelled]
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(module(still.prepare(x)), y).backward()
        optimizer.step()
    assert_close_tree(networks["finetuned"].params, dict(module.named_parameters()), rtol=1e-4, atol=1e-6)


def test_an_optimiser_of_finetuning_that_does_not_exist_is_known_before_training():
    with pytest.raises(InputError, match="unknown optimizer 'sdg'"):
        prepared(finetune_optimizer="sdg")


def test_without_feedback_the_teacher_learns_as_if_it_were_alone(finished):
    """With `none` it depends neither on the student's network nor on how the student learns."""
    options = {"baselines": False, "grad": "none", "finetune_steps": 0}
    one = whole_run(prepared(**options)).networks["teacher"]
    other = whole_run(prepared(**options, lr=0.7, model="mlp:width=3")).networks["teacher"]
    assert_close_tree(tuple(one), tuple(other), rtol=0)
    assert not torch.equal(one.params["0.weight"], finished[1].networks["teacher"].params["0.weight"])


def test_pseudo_labels_learn_from_the_averaged_supervised_network():
    """They never see a label, so what they know they have from the network that they name."""
    result = whole_run(prepared(method="pseudo-labels", teacher_model="", steps=300, ema=0.9))
    assert list(result.networks) == [*methods.PANEL, "supervised", "pseudo-labels"]
    assert result.test["supervised"]["top1"] > 0.4
    assert result.test["pseudo-labels"]["top1"] > 0.4
