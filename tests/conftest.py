"""Settings for the whole suite."""

import torch

# The networks are tiny and pytest-xdist already uses every core; more threads would only wait for one another.
torch.set_num_threads(1)
