"""metapl: Meta Pseudo Labels and other meta-learning as pure functions on torch.func.

`import metapl as mp` is all that a program needs. Its names are imported when they are used, so that the import itself
costs nothing; `docs/guides/which_piece.md` lists them by purpose.

Examples:
    >>> import metapl as mp
    >>> mp.exact().claim
    'exact'
    >>> mp.tree.size({"w": mp.rng.normal(mp.rng.key(0), (2, 3))})
    6
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from metapl.registry import moved

if TYPE_CHECKING:
    from metapl import estimators, methods, models, optim, testing
    from metapl.core import autodiff, bilevel, checkpoints, implicit, inside, linear, losses, rng, targets, tree
    from metapl.core.autodiff import value_and_grad, vjp
    from metapl.core.bilevel import hypergradient
    from metapl.core.forward_mode import jvp
    from metapl.core.inside import gradient as grad_inside
    from metapl.core.inside import value_and_gradient as value_and_grad_inside
    from metapl.core.losses import cross_entropy, uda
    from metapl.core.products import ggn, hvp
    from metapl.core.rng import fold_in, key, split
    from metapl.core.types import (
        Estimator,
        Instance,
        MetaGradient,
        Model,
        Optimizer,
        Problem,
        TargetTransform,
        TrainState,
        Variables,
    )
    from metapl.core.unrolling import scan, unroll
    from metapl.estimators import (
        difference,
        evograd,
        evolution,
        exact,
        first_order,
        forward,
        gumbel,
        higher,
        none,
        placebo,
        sama,
        score,
        taylor,
        truncated,
        unadapted,
    )
    from metapl.nn import functional
    from metapl.nn.functional import cast, from_module
    from metapl.optim import (
        adam,
        adamw,
        chain,
        clip_by_global_norm,
        cosine,
        from_torch,
        groups,
        injected,
        rmsprop,
        sgd,
        to_torch,
    )
    from metapl.registry.errors import InputError
    from metapl.testing import check_estimator

__version__ = "0.2.0"

__all__ = [
    "Estimator",
    "InputError",
    "Instance",
    "MetaGradient",
    "Model",
    "Optimizer",
    "Problem",
    "TargetTransform",
    "TrainState",
    "Variables",
    "adam",
    "adamw",
    "autodiff",
    "bilevel",
    "cast",
    "chain",
    "check_estimator",
    "checkpoints",
    "clip_by_global_norm",
    "cosine",
    "cross_entropy",
    "difference",
    "estimators",
    "evograd",
    "evolution",
    "exact",
    "first_order",
    "fold_in",
    "forward",
    "from_module",
    "from_torch",
    "functional",
    "ggn",
    "grad_inside",
    "groups",
    "gumbel",
    "higher",
    "hvp",
    "hypergradient",
    "implicit",
    "injected",
    "inside",
    "jvp",
    "key",
    "linear",
    "losses",
    "methods",
    "models",
    "none",
    "optim",
    "placebo",
    "rmsprop",
    "rng",
    "sama",
    "scan",
    "score",
    "sgd",
    "split",
    "targets",
    "taylor",
    "testing",
    "to_torch",
    "tree",
    "truncated",
    "uda",
    "unadapted",
    "unroll",
    "value_and_grad",
    "value_and_grad_inside",
    "vjp",
]

_MODULES = {
    "": "estimators methods models optim testing",
    ".core": "autodiff bilevel checkpoints implicit inside linear losses rng targets tree",
    ".nn": "functional",
}
"""The modules among the names, by the package that they stand in."""

_NAMES = {
    "core.autodiff": "value_and_grad vjp",
    "core.bilevel": "hypergradient",
    "core.forward_mode": "jvp",
    "core.losses": "cross_entropy uda",
    "core.products": "ggn hvp",
    "core.rng": "fold_in key split",
    "core.types": "Estimator Instance MetaGradient Model Optimizer Problem TargetTransform TrainState Variables",
    "core.unrolling": "scan unroll",
    "estimators": "difference evograd evolution exact first_order forward gumbel higher none placebo sama score taylor "
    "truncated unadapted",
    "nn.functional": "cast from_module",
    "optim": "adam adamw chain clip_by_global_norm cosine from_torch groups injected rmsprop sgd to_torch",
    "registry.errors": "InputError",
    "testing": "check_estimator",
}
"""All others, by the module that defines them."""

_RENAMED = {
    "grad_inside": ("core.inside", "gradient"),
    "value_and_grad_inside": ("core.inside", "value_and_gradient"),
}
"""Those that say in one word more what they are, since no module stands before them here."""


def _homes() -> dict[str, tuple[str, str | None]]:
    """Where each name is: its module, and what it is called there; None for the module itself."""
    homes: dict[str, tuple[str, str | None]] = {}
    for package, names in _MODULES.items():
        homes |= {name: (f"metapl{package}.{name}", None) for name in names.split()}
    for module, names in _NAMES.items():
        homes |= {name: (f"metapl.{module}", name) for name in names.split()}
    return homes | {name: (f"metapl.{module}", there) for name, (module, there) in _RENAMED.items()}


_HOMES = _homes()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        old = f"metapl.{name}"
        reason = moved.line(old) if moved.knows(old) else _unknown(name)
        raise AttributeError(reason, name=name)
    module, there = _HOMES[name]
    found: Any = importlib.import_module(module)
    globals()[name] = found = found if there is None else getattr(found, there)
    return found


def _unknown(name: str) -> str:
    import difflib  # noqa: PLC0415 - for a message alone

    near = difflib.get_close_matches(name.lower(), _HOMES, n=1)
    return f"module 'metapl' has no attribute {name!r}" + (f": did you mean {near[0]!r}?" if near else "")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


moved.install()
