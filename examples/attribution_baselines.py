"""What else predicts the effect of leaving training examples out: gradients and influence functions after training.

    python examples/attribution_baselines.py --data digits

Both look at the trained network only, and not at how it came about. The gradient's cosine says which training examples
pull the parameters where the test example's loss falls (as TracIn does at one checkpoint). Influence functions also ask
how far: they solve with the curvature of the training loss, here a generalised Gauss-Newton matrix with damping.

Pruthi et al., "Estimating Training Data Influence by Tracing Gradient Descent" (NeurIPS 2020); Koh and Liang,
"Understanding Black-box Predictions via Influence Functions" (ICML 2017).
"""

import argparse
from functools import partial

import torch
from attribution import data, lds, losses, network, train

import metapl as mp


def gradients(model, params, x, y):
    """The gradient of the loss of every example: a tree stacked along the examples."""

    def loss(params, x, y):
        return mp.cross_entropy(model.apply(params, {}, x[None], train=False)[0], y[None]).squeeze()

    return torch.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(params, x, y)


def flat(tree):
    """A stacked tree as a matrix, one row an example."""
    return torch.cat([leaf.flatten(1) for leaf in mp.tree.leaves(tree)], dim=1)


def cosine(train, test):
    """The cosines of the gradients `[tests, examples]`."""
    return torch.nn.functional.normalize(flat(test)) @ torch.nn.functional.normalize(flat(train)).T


def influence(model, params, examples, train, test, damping):
    """−⟨gradient of the test example, (GGN + damping)⁻¹ gradient of the training example⟩ / examples."""
    x, y = examples
    solve = mp.linear.cg(iterations=50, damping=damping)

    def forward(params):
        return model.apply(params, {}, x, train=False)[0]

    def apply(along):
        return mp.ggn(forward, lambda logits: mp.cross_entropy(logits, y).mean(), params, along)

    return -flat(torch.vmap(lambda gradient: solve(apply, gradient))(test)) @ flat(train).T / len(y)


def main(count=1000, tests=24, trainings=64):
    """Print the LDS of each, on the trainings of attribution.py."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="digits")
    examples, (x, y) = data(parser.parse_args().data, count, tests)
    model = network(examples[0].shape[1], 10)
    start, _ = model.init(mp.key(0))
    after = partial(losses, model=model, start=start, examples=examples, tests=(x, y), method="reverse")
    ranks = torch.stack([mp.rng.permutation(key, count) for key in mp.split(mp.key(2), trainings)])
    left_out = (ranks < count / 100).float()
    with torch.no_grad():
        trained = torch.vmap(after, chunk_size=16)(1.0 - left_out)
    params = train(model, start, torch.ones(count), examples)
    each, test = gradients(model, params, *examples), gradients(model, params, x, y)
    print(f"cosine of gradients: LDS {lds(left_out @ cosine(each, test).T, trained):.3f}")
    for damping in (0.01, 0.1):
        scores = influence(model, params, examples, each, test, damping)
        print(f"influence functions, damping {damping}: LDS {lds(-left_out @ scores.T, trained):.3f}")


if __name__ == "__main__":
    main()
