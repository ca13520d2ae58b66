"""The core of meta-gradients: types, pytrees, random keys, losses, targets, and derivatives through inner steps.

Begin with `metapl.core.types`. Values: `tree`, `rng`, `losses`, `targets`. Derivatives: `autodiff` (values, gradients
and vjps that nobody differentiates again), `forward_mode`, `inside` (the gradient inside of a step), `hvp` (how it is
differentiated in turn), `unrolling` (a loop of steps, made of `replaying`). Torch from below: `closures`,
`interception`, `torch_private`.

The core imports nothing of metapl but `metapl.registry`, and every folder above may import it.
"""
