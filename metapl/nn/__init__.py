"""Networks as pure functions: any `nn.Module` by `functional.from_module`, dropout by key, microbatches.

Imports the core and the registry; whatever builds or trains a network may import it.
"""
