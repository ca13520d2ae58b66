"""Networks as functions: any `torch.nn.Module` as a pair of pure functions.

Inside: `functional.from_module`, which makes the pair; `skeleton` and `admission`, which take a module apart and refuse
what cannot be pure; dropout whose mask is a function of a key; weight normalisation; and a batch applied in parts.

Floor 3: imports `core` and `registry`; estimators, methods and everything above may import it.
"""
