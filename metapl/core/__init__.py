"""Bilevel problems and gradients through their inner steps, as pure functions of pytrees of tensors.

Begin with `metapl.core.types`. Values: `tree`, `rng`, `losses`, `targets`. Derivatives: `autodiff` (values, gradients
and vjps that nobody differentiates again), `forward_mode`, `inside` (the gradient inside of a step), `hvp` (how it is
differentiated in turn), `unrolling` (loops of steps, made of `replaying`), `bilevel` (a hypergradient in one call).
Torch from below: `closures`, `interception`, `torch_private`. Nothing here knows of teachers, of students or of data
sets.

Floor 2: imports `registry`; every folder above may import it.
"""
