"""Views by name, for `--augment NAME:key=value,…`; each source has one of them as its default.

A new one is a function of the form of the data here, and a line in `VIEWS`.
"""

from __future__ import annotations

from collections.abc import Callable

from metapl.data.augment import image_views, tabular
from metapl.data.augment.base import Augment, compose, identity
from metapl.data.form import Form
from metapl.data.formats import features, tables


def jitter(form: Form, *, noise: float = 0.1, drop: float = 0.1) -> Augment:
    """For tables and vectors: the example itself, and with swap noise and Gaussian noise (`tabular`).

    All features of one column of a table are swapped together; only its numbers become noisy.

    Args:
        form: of the data.
        noise: standard deviation of the strong view's Gaussian noise, in standard deviations of the feature; of
            features of a network in the root mean square of the example's own.
        drop: probability with which a column of the strong view comes from another example of the batch.

    Raises:
        ValueError: examples that are no vectors, a negative noise, a drop outside 0 … 1.
    """
    if len(form.shape) != 1:
        raise ValueError(f"jitter is for tables and vectors, not for {form.kind} of shape {form.shape}")
    every = range(form.shape[0])
    if form.kind == "features":
        parts = [tabular.swap(drop, every), *([tabular.relative_noise(noise)] if noise else [])]
        strong = compose(*parts)
        return Augment(identity, strong, lambda x, key: features.itself(x), features.prepare(form))  # noqa: ARG005
    whole = tables.Layout(tuple(every), (True,) * len(every))
    owners, numbers = tables.layout(form.details["columns"]) if form.kind == "table" else whole
    return Augment(identity, compose(tabular.swap(drop, owners), tabular.noise(noise, numbers)))


VIEWS: dict[str, Callable[..., Augment]] = {
    "small": image_views.small,
    "large": image_views.large,
    "crop": image_views.crop,
    "plain": image_views.plain,
    "jitter": jitter,
}
"""The views by name, for `--augment NAME:key=value,…`."""


def description(form: Form) -> str:
    """The views that fit a form of data, in words, and how to have others."""
    if form.kind != "images":
        return "jitter, see --augment" if len(form.shape) == 1 else "none: --augment has none for such arrays"
    name = "crop" if form.small_and_grey else "small" if image_views.fits_small(form) else "large"
    off = "flip=false" if name == "large" else "flip=no"
    mirrored = name == "large" or image_views.mirrors(form)
    return f"{name}, mirrored: --augment {name}:{off} if left is not right" if mirrored else f"{name}, not mirrored"


def default(form: Form) -> Augment:
    """The views that fit a form of data."""
    if form.kind == "images":
        return image_views.fitting(form)
    if form.kind == "features":  # noise on many numbers takes as long as the rest of a step, and gains nothing
        return jitter(form, noise=0.0)
    return jitter(form) if len(form.shape) == 1 else Augment(identity, identity)
