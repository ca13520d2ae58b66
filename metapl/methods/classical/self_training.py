"""Self-training: a logistic regression learns its own confident answers, again and again."""

from __future__ import annotations

import torch

from metapl.methods.classical import linear, logistic, scaling
from metapl.methods.seen import Fitted, Seen
from metapl.methods.spec import MethodSpec, NetworkSpec, PhaseSpec

C = 100.0
"""Of the regression. The C that is best for the labelled examples is seldom sure enough of the others to learn them."""

THRESHOLD = 0.75
"""The least probability of an answer that is learnt, scikit-learn's default."""

ROUNDS = 10
"""The most times that answers are learnt, scikit-learn's default."""


def fit(seen: Seen) -> Fitted:
    """The classifier of a run, with the scaling that `logistic.choose` finds on the labelled examples."""
    from sklearn.semi_supervised import SelfTrainingClassifier  # noqa: PLC0415 - a second to import

    chosen = logistic.choose(seen)
    scaled, z = scaling.apart(seen, chosen.scaling)
    y = torch.full((len(z),), -1)
    y[: seen.labelled] = seen.y[: seen.labelled]
    with linear.quiet():
        found = SelfTrainingClassifier(linear.regression(C), threshold=THRESHOLD, max_iter=ROUNDS)
        found.fit(z.numpy(), y.numpy())
    network = linear.network(scaled, *linear.weights(found.estimator_, seen.classes))
    settings = f"{chosen.scaling}, C = {C:g}, threshold {THRESHOLD:g}"
    return Fitted({"self-training": network}, f"{settings}; {chosen.how}")


METHOD = MethodSpec(
    title="self-training",
    summary="A self-trained logistic regression {learnt}.",
    source="self-training ([Yarowsky, ACL 1995](https://aclanthology.org/P95-1026/)) of a logistic regression",
    phases=(
        PhaseSpec(
            name="self-training",
            fit=fit,
            networks={
                "self-training": NetworkSpec(
                    title="self-training",
                    role="a logistic regression that learns its own confident answers (scikit-learn)",
                    row=2,
                    preference=2,
                    built_from={"": "classical"},
                    colour="ink",
                    dash=(1, 2),
                )
            },
        ),
    ),
    models={},
)
"""The method `self-training`."""
