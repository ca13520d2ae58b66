"""The ways of `unroll` and `scan` to differentiate inner steps exactly, as keyword arguments."""

EXACT = {
    "reverse": {"method": "reverse"},
    "replay": {"method": "replay"},
    "mixed": {"method": "mixed"},
    "replay-checkpoints": {"method": "replay", "checkpoints": True},
    "mixed-checkpoints": {"method": "mixed", "checkpoints": True},
}
