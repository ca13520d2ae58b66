"""Every kind of module with every estimator that has a claim: the error of the gradient, or the refusal.

    python benchmarks/modules.py > docs/results/modules.md

The truth is central differences of plain torch training in float64: see tests/by_differences.py, tests/zoo.
"""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections import Counter
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from zoo import ZOO, held

HEAD = """# Modules

For each kind of module the relative error of the whole gradient, |found − differences| / |differences|, against central
differences of plain torch training (`torch.optim.SGD` with momentum, float64), after one step and after two. Where
metapl refuses a module, the number of the refusal, which is given in full below.

```bash
python benchmarks/modules.py > docs/results/modules.md
```
"""


def main() -> None:
    """Print the table, and the refusals in full."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    columns = [(way, steps) for way, one in held.WAYS.items() for steps in one.steps]
    print(HEAD)
    print("| module | " + " | ".join(f"{way}, K = {steps}" for way, steps in columns) + " |")
    print("| --- |" + " --- |" * len(columns))
    notes: dict[str, int] = {}
    counts: Counter[str] = Counter()
    for name, entry in ZOO.items():
        if entry.needs and importlib.util.find_spec(entry.needs) is None:
            print(f"not measured for want of {entry.needs}: {name}", file=sys.stderr)
            continue
        cells = [_cell(name, way, steps, notes, counts) for way, steps in columns]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    print("\n" + ", ".join(f"{counts[kind]} {kind}" for kind in ("right", "refused", "raised", "wrong")) + ".\n")
    for text, number in notes.items():
        print(f"{number}. {text.replace('|', '¦')}")


def _cell(name: str, way: str, steps: int, notes: dict[str, int], counts: Counter[str]) -> str:
    if way not in held.ways_of(name, steps):
        return ""
    found = held.outcome(name, way, steps)
    counts[found.kind] += 1
    if found.kind == "right":
        return found.text
    if found.kind == "wrong":
        return f"**wrong**: {found.text}"
    number = notes.setdefault(found.text, len(notes) + 1)
    return f"refused [{number}]" if found.kind == "refused" else f"**raised** [{number}]"


if __name__ == "__main__":
    main()
