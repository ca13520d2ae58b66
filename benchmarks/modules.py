"""Every kind of module with every estimator that has a claim: the error of the gradient, or the refusal.

    python benchmarks/modules.py > docs/results/modules.md

The truth is central differences of plain torch training in float64: see by_differences.py and zoo in tests/support.
"""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections import Counter
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from zoo import ZOO, held

HEAD = """# Modules

For each kind of module the relative error of the whole gradient, |found − differences| / |differences|, against central
differences of plain torch training (`torch.optim.SGD` with momentum, float64), after one step and after two. Where
metapl refuses a module, the number of the refusal, which is given in full below. An empty cell was not measured: rows
that differ from another one in a smooth formula only are held to a few of the columns, and a part of a batch whose
examples see each other has another feedback. metapl 0.1.0, torch 2.13.0 (CPU), Python 3.11.7, one thread, a minute.

What is computed under `torch.no_grad` or detached is a constant, at every order, as `stop_gradient` of JAX has it;
after two steps the differences hold these values, and BatchNorm's statistics, at what they were. Plain differences move
them: on a network that divides by a stopped norm they are 0.4 % away. The table does not show `difference` and `sama`,
which take differences of values and go through all of that.

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
