"""How many wrong labels `metapl suggest` finds among digits, by what the network says of examples and of neighbours.

A tenth of the labels is changed at random, then a network is trained as `metapl train --method uda` does.

    python benchmarks/wrong_labels.py --labels 40 --seeds 4
"""

from __future__ import annotations

import argparse

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from metapl.core import rng
from metapl.serving import doubts
from metapl.serving.answers import Answers
from metapl.training import phases
from metapl.training.config import TrainConfig
from metapl.training.experiment import Experiment, assemble, prepare


def spoilt(experiment: Experiment, seed: int) -> tuple[Experiment, Tensor]:
    """The experiment with a tenth of its labels changed, and which of the labelled examples these are."""
    labelled, y = experiment.split.labelled, experiment.data.y.clone()
    order, other = rng.split(rng.fold_in(rng.key(seed), 20), 2)
    bad = labelled[rng.permutation(order, len(labelled))[: len(labelled) // 10]]
    y[bad] = (y[bad] + 1 + rng.randint(other, (len(bad),), experiment.data.classes - 1)) % experiment.data.classes
    changed = assemble(experiment.config, experiment.data._replace(y=y), experiment.split)
    return changed, torch.isin(labelled, bad)


def main() -> None:
    """Train, and print a row for each way and seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=600)
    given = parser.parse_args()
    print(f"{'asked':12} seed  wrong  doubted  of these wrong  area under the curve")
    for seed in range(given.seeds):
        config = TrainConfig(
            labels=given.labels, method="uda", validation=0, seed=seed, steps=given.steps, baselines=False
        )
        experiment, bad = spoilt(prepare(config), seed)
        answers = Answers(experiment, phases.finish(phases.run(experiment)).networks, "uda", 256)
        known, data = experiment.split.labelled, experiment.data
        rest = experiment.split.unlabelled[~torch.isin(experiment.split.unlabelled, known)]
        itself = torch.softmax(answers.logits(data.x[known]), -1)
        said = torch.softmax(answers.logits(data.x[rest]), -1)
        near = doubts.of_neighbours(answers.features(data.x[known]), answers.features(data.x[rest]), said)
        for name, probabilities in (("example", itself), ("neighbours", near)):
            score = doubts.score(probabilities, data.y[known])
            doubted, area = score > 0, roc_auc_score(bad.numpy(), score.numpy())
            counts = (int(one.sum()) for one in (bad, doubted, doubted & bad))
            print(f"{name:12} {seed:4} {next(counts):6} {next(counts):8} {next(counts):15} {area:21.2f}")


if __name__ == "__main__":
    main()
