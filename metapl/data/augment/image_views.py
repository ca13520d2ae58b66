"""The views of image data sets: those of the Meta Pseudo Labels release, for images of any size."""

from __future__ import annotations

from metapl.data.augment import crops
from metapl.data.augment.base import Augment, View, compose, identity
from metapl.data.augment.randaugment import randaugment
from metapl.data.form import Form


def _require_images(view: str, form: Form) -> tuple[int, int]:
    if form.kind != "images":
        raise ValueError(f"{view} is for images, not for a {form.kind}: use jitter")
    return form.shape[1], form.shape[2]


def _moved(form: Form, pad: float, flip: str) -> View:
    """Padded and cropped, and mirrored in half of the cases."""
    if flip not in ("auto", "yes", "no"):
        raise ValueError(f"flip={flip!r} must be auto, yes or no")
    mirrored = flip == "yes" or (flip == "auto" and mirrors(form))
    crop = crops.pad_crop(round(pad * form.shape[1]))
    return compose(crops.flip(), crop) if mirrored else crop


def mirrors(form: Form) -> bool:
    """Whether images are mirrored unless somebody says otherwise: in colours, and no lettering by their source."""
    return bool(form.details.get("mirror", form.shape[0] == 3))


def _normalise(form: Form) -> Augment:
    prepare = crops.normalise(tuple(form.details["mean"]), tuple(form.details["std"]))
    return Augment(identity, identity, identity, prepare)


def plain(form: Form) -> Augment:
    """No augmentation: both views are the image."""
    _require_images("plain", form)
    return _normalise(form)


def crop(form: Form, *, flip: str = "auto", pad: float = 0.125, cutout: float = 0.25) -> Augment:
    """For small images, without colours or shapes being changed: both views moved, the strong one with a blank square.

    Args:
        form: of the data.
        flip: whether to mirror in half of the cases, yes or no; auto mirrors colour images that the source does not
            call lettering.
        pad: how far an image is moved each way at most, as a share of its side.
        cutout: half the side of the blank square, as a share of the image's.

    Raises:
        ValueError: data other than images.
    """
    side = _require_images("crop", form)[0]
    strong = crops.cutout(round(cutout * side))
    return _normalise(form)._replace(shared=_moved(form, pad, flip), strong=strong)


def small(
    form: Form,
    *,
    magnitude: float = 16.0,
    layers: int = 2,
    flip: str = "auto",
    pad: float = 0.125,
    cutout: float = 0.25,
) -> Augment:
    """RandAugment as the release has it for CIFAR-10: for images of up to about 96 pixels.

    Both views share a first move (mirrored, padded by an eighth, cropped). The strong one is then changed by
    RandAugment, a square of half the side is blanked, and it is moved once more.

    Args:
        form: of the data.
        magnitude: M, of a level of 10; the release's 16 goes beyond it.
        layers: operations in a row.
        flip: as of `crop`.
        pad: as of `crop`.
        cutout: as of `crop`.

    Raises:
        ValueError: data other than images.
    """
    side = _require_images("small", form)[0]
    moved = _moved(form, pad, flip)
    altered = randaugment(magnitude=magnitude, layers=layers, translate=side / 8, cutout=side / 8)
    strong = compose(altered, crops.cutout(round(cutout * side)), moved)
    return _normalise(form)._replace(shared=moved, strong=strong)


def large(form: Form, *, magnitude: float = 17.0, layers: int = 2, area: float = 0.08, flip: bool = True) -> Augment:
    """RandAugment as the release has it for ImageNet: for photographs.

    Both views share a random crop, resized; each is mirrored on its own, and the strong one changed by RandAugment.

    Args:
        form: of the data.
        magnitude: M, of a level of 10.
        layers: operations in a row.
        area: the least share of the image that a crop keeps.
        flip: whether to mirror in half of the cases.

    Raises:
        ValueError: data other than square images.
    """
    height, width = _require_images("large", form)
    if height != width:
        raise ValueError(f"large is for square images, not for {height}×{width}: use small")
    scale = height / 224
    altered = randaugment(magnitude=magnitude, layers=layers, translate=100 * scale, cutout=40 * scale)
    shared = crops.random_resized_crop(height, area=(area, 1.0))
    if not flip:
        return _normalise(form)._replace(shared=shared, strong=altered)
    return _normalise(form)._replace(shared=shared, weak=crops.flip(), strong=compose(crops.flip(), altered))


def fitting(form: Form) -> Augment:
    """`crop` for small grey images, `small` for others of at most 96 pixels and oblong ones, `large` for the rest.

    RandAugment changes a small drawing or letter beyond recognition: with it a perceptron on 4,000 MNIST digits, guided
    by labels that were 83 % right, got 74 % right.
    """
    _require_images("fitting", form)
    if form.small_and_grey:
        return crop(form, pad=0.07, cutout=0.125)
    return small(form) if fits_small(form) else large(form)


def fits_small(form: Form) -> bool:
    """Whether images have at most 96 pixels either way, or are oblong."""
    _, height, width = form.shape
    return height <= 96 or height != width
