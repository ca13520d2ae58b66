"""Parameters that training leaves as they are, chosen by patterns of their names.

Examples:
    >>> from torch import nn
    >>> from metapl.models.freezing import freeze
    >>> network = freeze(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2)), "!1")
    >>> [name for name, value in network.named_parameters() if value.requires_grad]
    ['1.weight', '1.bias']
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from metapl.registry.errors import InputError

NONE = "none"
"""The text that freezes nothing."""


def freeze(module: nn.Module, text: str) -> nn.Module:
    """Freeze the parameters of a module whose names match, in place, and return the module.

    A frozen BatchNorm goes on measuring its statistics, which are no parameters.

    Args:
        module: any.
        text: `PATTERN|PATTERN`, with `*`, `?` and `[…]` as in a shell: names of parameters, or of the layers that hold
            them. After a leading `!` all others are frozen. `none` freezes nothing.

    Raises:
        InputError: a pattern that matches no parameter, or nothing is left to train.
    """
    if text == NONE:
        return module
    parameters = dict(module.named_parameters())
    chosen = matching(list(parameters), text.removeprefix("!"), "freeze")
    frozen = parameters.keys() - chosen if text.startswith("!") else chosen
    if len(frozen) == len(parameters):
        raise InputError(f"freeze = {text} leaves nothing to train: leave out some of its patterns", "freeze")
    for name in frozen:
        parameters[name].requires_grad_(False)
    return module


def matching(names: Sequence[str], text: str, field: str) -> set[str]:
    """The names that match one of `PATTERN|PATTERN`, or are below a name that does.

    Raises:
        InputError: a pattern without a match; `field` is what it was given for.
    """
    found: set[str] = set()
    for pattern in text.split("|"):
        here = {name for name in names if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")}
        if not here:
            known = (
                f"the network has {', '.join(names[:3])}{', …' if len(names) > 3 else ''}" if names else "it has none"
            )
            raise InputError(f"{field}: no name matches {pattern!r}: {known}", field)
        found |= here
    return found
