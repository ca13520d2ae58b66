"""Settings for the whole suite."""

import torch

from metapl.core import torch_private

# The networks are tiny and pytest-xdist already uses every core; more threads would only wait for one another.
torch.set_num_threads(1)

# Some tests take `torch.func.jvp` itself, whose first use warns, and warnings are errors here.
torch_private.load_forward_formulas()
