"""`MetaplClassifier` and `LabelSpreading` in one pipeline, by the same code: cross-validation on digits.

In each fold all but some labels of the training part are hidden as −1, as scikit-learn has it.

    python benchmarks/sklearn_pipeline.py --labels 40 --folds 5
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.semi_supervised import LabelSpreading

from metapl.sklearn import MetaplClassifier

MODELS: dict[str, BaseEstimator] = {
    "LabelSpreading(knn)": LabelSpreading(kernel="knn", n_neighbors=7),
    "MetaplClassifier(uda)": MetaplClassifier(method="uda", steps=600),
    "MetaplClassifier(mpl)": MetaplClassifier(method="mpl", steps=600),
}
"""What is compared, each behind the same scaler."""


def hidden(y: np.ndarray, labels: int, seed: int) -> np.ndarray:
    """The classes with all but so many hidden, which are drawn in the proportions of the classes."""
    _, kept = train_test_split(np.arange(len(y)), test_size=labels, stratify=y, random_state=seed)
    seen = np.full_like(y, -1)
    seen[kept] = y[kept]
    return seen


def main() -> None:
    """Print the accuracy of each model over the folds, and its seconds a fold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, default=40)
    parser.add_argument("--folds", type=int, default=5)
    given = parser.parse_args()
    x, y = load_digits(return_X_y=True)
    folds = list(StratifiedKFold(given.folds, shuffle=True, random_state=0).split(x, y))
    for name, model in MODELS.items():
        scores, began = [], time.perf_counter()
        for seed, (train, test) in enumerate(folds):
            pipeline = make_pipeline(MinMaxScaler(), clone(model))
            pipeline.fit(x[train], hidden(y[train], given.labels, seed))
            scores.append(100 * pipeline.score(x[test], y[test]))
        seconds = (time.perf_counter() - began) / len(folds)
        mean, spread = statistics.fmean(scores), statistics.stdev(scores)
        print(f"{name:24} {mean:5.1f} ± {spread:.1f} %  {seconds:6.1f} s a fold")


if __name__ == "__main__":
    main()
