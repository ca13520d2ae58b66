"""Meta Pseudo Labels with the exact feedback, from parts: digits with one label a class.

    python examples/mpl_in_40_lines.py

Pham, Dai, Xie and Le, "Meta Pseudo Labels" (CVPR 2021).
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

import metapl as mp

model = mp.from_module(lambda: nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)))
rule = mp.sgd(0.1, momentum=0.9)


def logits(params, x):
    """Of the teacher or of the student."""
    return model.apply(params, {}, x, train=True)[0]


def loss(params, x, labels):
    """The mean cross entropy against classes or distributions."""
    return mp.cross_entropy(logits(params, x), labels).mean()


def step(params, state, x, labels):
    """A step of SGD on the loss."""
    updates, state = rule.update(mp.grad_inside(loss, params, x, labels)[0], state, params)
    return mp.tree.add(params, updates), state


def teach(teacher, student, state, labelled, unlabelled):
    """The gradient of the teacher, and the student after its step on the teacher's labels."""

    def outer(teacher):
        after = step(student, state, unlabelled, logits(teacher, unlabelled).softmax(-1))
        return loss(after[0], *labelled) + loss(teacher, *labelled), after

    _, after, grads = mp.value_and_grad(outer, teacher)
    return grads, after


def main(seed=0, steps=1000):
    """Print the test accuracy of a network that sees the labels only, of the teacher and of the student."""
    x, y = (torch.tensor(array) for array in load_digits(return_X_y=True))
    x = x.float() / 16.0
    order = mp.rng.permutation(mp.key(seed), 1297)
    rows = torch.cat([order[y[order] == label][:1] for label in range(10)])
    alone, teacher, student = (model.init(key)[0] for key in mp.split(mp.key(seed), 3))
    states = [rule.init(params) for params in (alone, teacher, student)]
    for index in range(steps):
        unlabelled = x[mp.rng.randint(mp.fold_in(mp.key(seed), index), (128,), 1297)]
        alone, states[0] = step(alone, states[0], x[rows], y[rows])
        grads, (student, states[2]) = teach(teacher, student, states[2], (x[rows], y[rows]), unlabelled)
        updates, states[1] = rule.update(grads, states[1], teacher)
        teacher = mp.tree.add(teacher, updates)
    for name, params in {"labels only": alone, "teacher": teacher, "student": student}.items():
        print(f"{name}: {(logits(params, x[1297:]).argmax(1) == y[1297:]).float().mean():.3f}")


if __name__ == "__main__":
    main()
