"""Bilevel problems and gradients through their inner steps, as pure functions of pytrees of tensors.

Begin with `metapl.core.types`. Values: `tree`, `rng`, `losses`, `targets`. Derivatives: `autodiff` (values, gradients
and vjps that nobody differentiates again), `forward_mode`, `inside` (the gradient inside of a step), `hvp` (how it is
differentiated in turn), `unrolling` (loops of steps, made of `loops`, `replaying` and `stored`), `checkpoints` (what
such a loop keeps), `bilevel` (a hypergradient in one call). Of solutions: `implicit`, the `linear` solvers that it
takes, `products` with second derivatives. Torch from below: `closures`, `strays`, `interception`, `written_out`,
`torch_private`. Nothing here knows of teachers, of students or of data sets.

Floor 2: imports `registry`; every folder above may import it.
"""
