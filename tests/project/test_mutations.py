"""The changes that `benchmarks/mutants.py` tries: all of a small file, written out."""

import contextlib
import importlib.util
from pathlib import Path

PLACE = Path(__file__).parents[2] / "benchmarks" / "mutations.py"

SOURCE = '''"""A docstring, 1 + 1."""
from __future__ import annotations

def area(width: float | int, height: float = 2.0) -> float | None:
    """Another, 2 * 2."""
    with guarded():
        width = abs(width)
    if height < 0:
        raise ValueError(f"height={height} " + "is negative")
    return width * height
'''

CHANGED = {
    "2.0  →  2.2",
    "with guarded(): width = abs(width)  →  if True: width = abs(width)",
    "width = abs(width)  →  pass",
    "abs(width)  →  width",
    "if height < 0: raise ValueError(f'height={height} ' + 'is negative')  →  if not height < 0: raise ValueError",
    "height < 0  →  height <= 0",
    "0  →  1",
    "0  →  -1",
    "raise ValueError(f'height={height} ' + 'is negative')  →  pass",
    "width * height  →  width / height",
}


def mutations():
    spec = importlib.util.spec_from_file_location("mutations", PLACE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_file_is_changed_in_one_place_at_a_time(tmp_path):
    path = tmp_path / "area.py"
    path.write_text(SOURCE, "utf-8")
    module = mutations()
    made = [module.made(mutant) for mutant in module.mutants(path)]
    texts = [text for _, text in made]
    assert len(texts) == len(set(texts)) == len(CHANGED)
    assert all(any(text.startswith(expected) for expected in CHANGED) for text in texts)

    def area(code):
        names = {"guarded": contextlib.nullcontext}
        exec(code, names)
        return names["area"](-3.0, 5.0)

    areas = {text: area(code) for code, text in made if not text.startswith("if height")}
    assert areas["width * height  →  width / height"] == 3.0 / 5.0
    assert areas["abs(width)  →  width"] == areas["width = abs(width)  →  pass"] == -15.0
    assert areas["2.0  →  2.2"] == areas["height < 0  →  height <= 0"] == 15.0
