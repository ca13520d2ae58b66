"""Wrong labels found: the training examples whose weight, if it grew, would raise the loss on clean examples most.

    python examples/flipped_labels.py --data digits

A tenth of the labels is replaced by others. Training is differentiated in the weights of the examples, as in
attribution.py, and the mean loss of clean held-out examples takes the place of a test example's. Two baselines see no
clean examples: the loss of each example after training, and scikit-learn's out-of-fold probability of its label.
"""

import argparse

import torch
from attribution import data, losses, network, train
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

import metapl as mp


def flip(y, share, classes=10):
    """The labels, of which a random share is another class, and which those are."""
    wrong = mp.rng.permutation(mp.key(5), len(y)) < share * len(y)
    return torch.where(wrong, (y + 1 + mp.rng.randint(mp.key(6), y.shape, classes - 1)) % classes, y), wrong


def precision(scores, wrong):
    """The share of wrong labels among as many as there are, those of the highest scores."""
    return float(wrong[scores.topk(int(wrong.sum())).indices].float().mean())


def harm(model, start, examples, clean, **how):
    """The derivative of the mean loss of clean examples in the weight of every training example."""

    def objective(weights):
        return losses(weights, model, start, examples, clean, **how).mean()

    return torch.func.grad(objective)(torch.ones(len(examples[1]), dtype=examples[0].dtype))


def main(count=1000, clean=500):
    """Print the precision of the three rankings."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="digits")
    (x, y), held_out = data(parser.parse_args().data, count, clean)
    noisy, wrong = flip(y, 0.1)
    model = network(x.shape[1], 10)
    start, _ = model.init(mp.key(0))
    params = train(model, start, torch.ones(count), (x, noisy))
    logistic = LogisticRegression(max_iter=1000)
    trusted = torch.tensor(cross_val_predict(logistic, x.numpy(), noisy.numpy(), cv=5, method="predict_proba"))
    scores = {
        "gradient through training": harm(model, start, (x, noisy), held_out),
        "loss after training": mp.cross_entropy(model.apply(params, {}, x, train=False)[0], noisy),
        "cross-validated self-confidence": -trusted.gather(1, noisy[:, None]).squeeze(1),
    }
    for name, found in scores.items():
        print(f"{name}: {precision(found, wrong):.2f} of {int(wrong.sum())} are wrong")


if __name__ == "__main__":
    main()
