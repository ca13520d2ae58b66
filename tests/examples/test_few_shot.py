"""The examples on tasks of a few drawings: the data, and meta-gradients against plain autograd, one task at a time."""

import sys
from functools import partial

import anil
import drawn_characters
import imaml
import maml
import meta_sgd
import numpy as np
import omniglot
import pytest
import torch
from torch.nn.functional import cross_entropy

import metapl as mp

WAYS = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("omniglot")
    drawn_characters.write(place)
    return place


@pytest.fixture(scope="module")
def images(folder):
    return omniglot.load(str(folder), "trainval")


@pytest.fixture(scope="module")
def tasks(images):
    found = omniglot.draw(images, torch.Generator().manual_seed(0), 2, ways=WAYS, queries=2)
    return tuple(part.double() if part.is_floating_point() else part for part in found)


@pytest.fixture(scope="module")
def model():
    return mp.from_module(small)


def small():
    return omniglot.network(WAYS, channels=4).double()


def moved(theta):
    """Elsewhere, so that normalisation layers are not at ones and zeros, nor all rates alike."""
    noise = torch.Generator().manual_seed(1)
    return {
        name: leaf.double() + 0.1 * torch.randn(leaf.shape, generator=noise, dtype=torch.float64)
        for name, leaf in theta.items()
    }


def by_autograd(theta, tasks, learned, *, module=None, also=()):
    """The mean loss of the tasks and its gradient at θ, one task at a time; that at `also` is left in its `.grad`.

    `learned(loss, params)` are the parameters after a task, where `loss(params)` is the loss on its examples.
    """
    module = module or small()
    leaves = {name: leaf.clone().requires_grad_() for name, leaf in theta.items()}

    def judged(params, x, y):
        return cross_entropy(torch.func.functional_call(module, params, (x,)), y)

    losses = []
    for x, y, query_x, query_y in zip(*tasks, strict=True):
        params = learned(partial(judged, x=x, y=y), leaves)
        losses.append(judged(params, query_x, query_y))
    loss = torch.stack(losses).mean()
    loss.backward(inputs=[*leaves.values(), *dict(also).values()])
    return loss.detach(), {name: leaf.grad for name, leaf in leaves.items()}


def descended(loss, params, *, steps, rate, moving=None):
    """Gradient descent of plain torch that keeps its graph, on the parameters of some names."""
    names = list(moving or params)
    for _ in range(steps):
        grads = torch.autograd.grad(loss(params), [params[name] for name in names], create_graph=True)
        params = {**params, **{name: params[name] - rate * grad for name, grad in zip(names, grads, strict=True)}}
    return params


def distance(found, expected):
    return float(mp.tree.norm(mp.tree.sub(found, expected)) / mp.tree.norm(expected))


def test_a_split_is_read(folder, images):
    assert images.shape == (16, 6, 28, 28)
    assert images.dtype == torch.uint8
    packed = np.load(folder / "omniglot_packed.npz")["ink"]
    whole = np.unpackbits(packed, axis=1)[:, : 105 * 105].mean() * 255  # shrinking keeps the mean grey, but for borders
    assert images[::2].float().mean() == pytest.approx(whole, rel=0.02)
    assert torch.equal(images[1::2], images[::2].rot90(1, (2, 3)))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(SystemExit, match=r"no omniglot_packed\.npz in .*: give the folder with --data"):
        omniglot.load(str(tmp_path), "test")


def test_a_task_asks_about_the_classes_that_it_shows():
    """Drawings that say of which class and which number they are."""
    images = (torch.arange(10)[:, None] * 20 + torch.arange(8)).byte()[:, :, None, None].expand(-1, -1, 28, 28)
    x, y, query_x, query_y = omniglot.draw(images, torch.Generator().manual_seed(0), 50, ways=4, shots=2, queries=3)
    assert (x.shape, query_x.shape) == ((50, 8, 1, 28, 28), (50, 12, 1, 28, 28))
    shown, asked = ((part[:, :, 0, 0, 0] * 255).round().long() for part in (x, query_x))
    every = {20 * one + drawing for one in range(10) for drawing in range(8)}
    assert {*shown.flatten().tolist(), *asked.flatten().tolist()} == every
    for task in range(50):
        classes = {int(label): {int(one) // 20 for one in shown[task][y[task] == label]} for label in range(4)}
        assert all(len(one) == 1 for one in classes.values())
        assert len(set.union(*classes.values())) == 4
        for label in range(4):
            assert {int(one) // 20 for one in asked[task][query_y[task] == label]} == classes[label]
        assert len({*shown[task].tolist(), *asked[task].tolist()}) == 20


@pytest.mark.parametrize("steps", [1, 2])
def test_maml(model, tasks, steps):
    theta = moved(model.init(mp.key(0))[0])
    loss, grads = maml.meta_gradient(partial(maml.learn, model, steps), theta, tasks)
    value, expected = by_autograd(theta, tasks, partial(descended, steps=steps, rate=0.4))
    assert float(loss) == pytest.approx(float(value), rel=1e-10)
    assert distance(grads, expected) < 1e-8


def test_anil(tasks):
    features = mp.from_module(lambda: small()[:-1])
    theta = anil.start(features, small()[-1])
    assert set(theta["features"]) < set(small().state_dict())
    theta = {"features": moved(theta["features"]), "head": moved(theta["head"])}
    loss, grads = maml.meta_gradient(partial(anil.learn, features, 3), theta, tasks)
    whole = {**theta["features"], **{f"5.{name}": leaf for name, leaf in theta["head"].items()}}
    head = ("5.weight", "5.bias")
    value, expected = by_autograd(whole, tasks, partial(descended, steps=3, rate=0.4, moving=head))
    assert float(loss) == pytest.approx(float(value), rel=1e-10)
    found = {**grads["features"], **{f"5.{name}": leaf for name, leaf in grads["head"].items()}}
    assert distance(found, expected) < 1e-8


def test_meta_sgd(model, tasks):
    theta = meta_sgd.start(model)
    theta = {"params": moved(theta["params"]), "rates": moved(theta["rates"])}
    loss, grads = maml.meta_gradient(partial(meta_sgd.learn, model, 2), theta, tasks)
    rates = {name: leaf.clone().requires_grad_() for name, leaf in theta["rates"].items()}

    def learned(loss, params):
        for _ in range(2):
            found = torch.autograd.grad(loss(params), list(params.values()), create_graph=True)
            params = {n: p - rates[n] * g for (n, p), g in zip(params.items(), found, strict=True)}
        return params

    value, expected = by_autograd(theta["params"], tasks, learned, also=rates)
    assert float(loss) == pytest.approx(float(value), rel=1e-10)
    assert distance(grads["params"], expected) < 1e-8
    assert distance(grads["rates"], {name: leaf.grad for name, leaf in rates.items()}) < 1e-8


def test_imaml_at_the_solution(tasks):
    """A convex task, whose solution many recorded steps come to as well; CG is exact after as many as H has values."""
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, WAYS)).double()
    model = mp.from_module(lambda: module)
    theta = moved(model.init(mp.key(0))[0])
    tasks = (0.5 * tasks[0], tasks[1], 0.5 * tasks[2], tasks[3])
    exact = partial(imaml.learn, model, 150, solver=mp.linear.cg(iterations=40))
    loss, grads = maml.meta_gradient(exact, theta, tasks)

    def learned(loss, params):
        first = params
        for _ in range(150):
            found = torch.autograd.grad(loss(params), list(params.values()), create_graph=True)
            params = {n: p - 0.1 * (g + 2 * (p - first[n])) for (n, p), g in zip(params.items(), found, strict=True)}
        return params

    value, expected = by_autograd(theta, tasks, learned, module=module)
    assert float(loss) == pytest.approx(float(value), rel=1e-10)
    assert distance(grads, expected) < 1e-8


@pytest.mark.parametrize("program", [maml, anil, meta_sgd, imaml])
def test_a_program_runs(program, folder, monkeypatch, capsys):
    draw = omniglot.draw
    monkeypatch.setattr(sys, "argv", ["program", "--data", str(folder), "--steps", "2"])
    monkeypatch.setattr(omniglot, "draw", lambda images, generator, tasks: draw(images, generator, min(tasks, 2)))
    monkeypatch.setattr(omniglot, "network", partial(omniglot.network, channels=4))
    program.main()
    assert "steps: " in capsys.readouterr().out
