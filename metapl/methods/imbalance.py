"""What the supervised loss does where the labelled examples are not equally many of each class, for `--class-weights`.

Both corrections are computed from how many labelled examples there are of each class, and do nothing where they are
equally many.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def none(counts: Tensor) -> None:
    """Every example counts alike."""
    del counts


def effective(counts: Tensor, *, beta: float = 0.999) -> Tensor:
    """w_c ∝ (1 − β) / (1 − β^n_c), with the mean 1 over the classes: one over the effective number of examples.

    β = 0 is no weighting, and β towards 1 is one over the number. Source: Cui et al., *Class-balanced loss based on
    effective number of samples*, CVPR 2019.

    Args:
        counts: n, labelled examples of each class, `[classes]`; a class without any is weighted as with one.
        beta: β.

    Returns:
        `[classes]`, float64.

    Raises:
        ValueError: β is not in [0, 1).
    """
    if not 0 <= beta < 1:
        raise ValueError(f"beta={beta} must be at least 0 and less than 1")
    weights = (1.0 - beta) / (1.0 - beta ** counts.double().clamp(min=1.0))
    return weights / weights.mean()


CLASS_WEIGHTS: dict[str, Callable[..., Tensor | None]] = {"none": none, "effective": effective}
"""The weightings by name, for `--class-weights NAME:key=value,…`."""


def adjustment(counts: Tensor, tau: float) -> Tensor | None:
    """τ log π, what is added to the logits of labelled examples in training; None for τ = 0.

    π is the share of each class among the labelled examples. A network that is trained so is right for equally many
    examples of each class when its logits are taken as they are. Source: Menon et al., *Long-tail learning via logit
    adjustment*, ICLR 2021.

    Args:
        counts: labelled examples of each class, `[classes]`; a class without any counts as with one.
        tau: τ.

    Returns:
        `[classes]`, float64.
    """
    if not tau:
        return None
    known = counts.double().clamp(min=1.0)
    return tau * (known / known.sum()).log()
