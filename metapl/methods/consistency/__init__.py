"""The consistency loss as values: an alignment, a threshold, a kind of target, a mixing, and the loss that joins them.

    weak logits ─► alignment: one number a class is added ─► aligned logits
    aligned logits ─► target: softened, sharpened or hard
    the confidence of the target ─► threshold: a weight for each example
    mean of weight · cross entropy(strong logits, target) ─► the loss

A new rule is a function in `alignment.py`, `threshold.py`, `target.py` or `mixing.py`, and a line in the dict at its
end. What a rule remembers is a pytree that goes in and comes out with the state of the method.
"""
