"""What one example is, apart from the data: enough to read new examples when the training data is gone.

A run saves its form, so that `metapl predict` and an exported model need nothing else.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, TypeAlias

Kind: TypeAlias = Literal["images", "table", "arrays", "features"]
"""What an example is."""

SMALL = 32 * 32
"""Pixels of a small image."""


class Form(NamedTuple):
    """The form of an example and the names of the classes; JSON can hold all of it."""

    kind: Kind
    shape: tuple[int, ...]
    """Of one example as the network sees it: `[channels, height, width]` of images, `[features]` of a table."""
    classes: tuple[str, ...]
    """Names, in the order of the class indices."""
    details: dict[str, Any]
    """Of images: `mean` and `std` by channel, in units of white = 1. Of tables: `columns`, see
    `metapl.data.formats.tables`. Of arrays: `mean` and `std` as nested lists of the example's shape, or scalars. Of
    features the same, and `unit`: whether each is divided by its length; where metapl has embedded them itself also
    the `encoder`, the `digest` of its weights, and what they were `before`: kind, shape and details."""

    @property
    def small_and_grey(self) -> bool:
        """Whether it is an image of one channel and at most 32×32 pixels, such as a letter.

        Distances between such images mean something, and a perceptron is good enough for them.
        """
        return self.kind == "images" and self.shape[0] == 1 and math.prod(self.shape) <= SMALL


def embedded_from(form: Form) -> Form | None:
    """The form that examples had before an encoder made features of them; None where they are read as they are."""
    before = form.details.get("before")
    return Form(before["kind"], tuple(before["shape"]), form.classes, before["details"]) if before else None
