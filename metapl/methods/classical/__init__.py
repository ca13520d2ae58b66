"""The classical panel: what a person with few labels would take instead, fitted in seconds with scikit-learn.

    logistic.py         logistic regression on the labelled examples
    self_training.py    a logistic regression that learns its own confident answers
    spreading.py        label spreading, and a classifier of new examples on top
    poisson.py          Poisson learning, for every example of a pool
    shares.py           the shares of the classes, and answers shifted to them
    consensus.py        a consensus of it and a regression, which guides the consistency loss of a network
    choice.py           how each chooses its settings
    scaling.py          how inputs are scaled; linear.py: logistic regression as a network
    model.py            what their networks are to the rest: a pure function

Each is a method of its own, and stands in the table of every other one. What it leaves is a network like any other.
"""
