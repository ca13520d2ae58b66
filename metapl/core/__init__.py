"""Bilevel problems and gradients through their inner steps, as pure functions of pytrees of tensors.

Inside: the records that everything else passes around (`types`), arithmetic on trees, randomness as a value, losses,
how meta-parameters become targets, and three ways to differentiate: gradients that nobody differentiates again
(`autodiff`), the gradient inside a step (`inside`), and a whole inner loop in the memory of one step (`unrolling`).
Start with `types`. Nothing here knows of teachers, of students or of data sets.

Floor 2: imports `registry`; every folder above may import it.
"""
