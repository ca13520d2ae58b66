"""The published networks without weights, or with settled statistics."""

import torch

from metapl.models import convnet, efficientnet, resnet18, resnet50, vit, wrn

PHOTO, CIFAR, PLANE = (3, 224, 224), (3, 32, 32), (2,)
CONVOLUTIONAL = [wrn, resnet18, resnet50, efficientnet]


def numbers(module):
    return sum(value.numel() for value in module.parameters())


def kinds(module, kind):
    return [layer for layer in module.modules() if isinstance(layer, kind)]


def hollow(build, shape, classes, **options):
    """The network without numbers in it, so that its size costs nothing."""
    with torch.device("meta"):
        return build(shape, classes, **options)


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


TINY = {
    convnet: {"width": 2},
    wrn: {"depth": 10, "width": 1},
    resnet18: {"width": 2},
    resnet50: {"width": 2},
    vit: {"width": 8, "depth": 1, "heads": 2},
    efficientnet: {"width": 0.1, "depth": 0.1},
}
