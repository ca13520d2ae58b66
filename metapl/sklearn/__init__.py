"""An estimator of scikit-learn, for pipelines, cross-validation and grid search.

    classifier.py   `MetaplClassifier`

Floor 6: imports training and all floors below; nothing of metapl uses it.

Examples:
    >>> import numpy as np
    >>> from metapl.sklearn import MetaplClassifier
    >>> x = np.array([[0.0], [0.1], [0.2], [1.0], [1.1], [1.2]])
    >>> y = np.array(["low", -1, -1, "high", -1, -1], dtype=object)
    >>> found = MetaplClassifier(method="supervised", model="mlp:width=8,depth=1", steps=30).fit(x, y)
    >>> found.predict([[0.15], [1.05]]).tolist()
    ['low', 'high']
"""

from metapl.sklearn.classifier import MetaplClassifier

__all__ = ["MetaplClassifier"]
