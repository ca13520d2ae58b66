"""Every script of this folder, one process each: the records of docs/results/peers.md, and its tables.

    python benchmarks/peers/run.py

Writes docs/results/peers.jsonl, one line a script, if all of them ran, and prints the tables that the page shows.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RECORDS = HERE.parents[1] / "docs" / "results" / "peers.jsonl"
HEADER = ("peer", "what is wrong", "figure", "the peer's", "right", "metapl's", "script")


def scripts() -> list[Path]:
    """The scripts: all but this one and what they share."""
    return sorted(path for path in HERE.glob("*.py") if path.name not in ("common.py", "run.py"))


def run(script: Path) -> dict[str, Any] | None:
    """The record of one script, or None if its peer is missing, which the script says itself."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    if done.returncode == 2:
        print(f"{script.name}: {done.stderr.strip()}", file=sys.stderr)
        return None
    if done.returncode:
        raise SystemExit(f"{script.name} failed:\n{done.stderr}")
    versions = {"python": platform.python_version(), "torch": version("torch")}
    return {"script": script.name, **json.loads(done.stdout), **versions}


def figure(value: float | str | None, missing: str) -> str:
    """A number with six digits, or the word for one that is missing; adding 0 takes the sign from −0."""
    return missing if value is None else f"{float(value) + 0.0:.6g}".replace("-", "−").replace("nan", "NaN")


def table(records: Iterable[dict[str, Any]], header: tuple[str, ...]) -> str:
    """A Markdown table, one row a record."""
    lines = ["| " + " | ".join(header) + " |", "| " + " | ".join("---" for _ in header) + " |"]
    for record in records:
        found = figure(record["found"], "raises")
        numbers = found, figure(record["expected"], "—"), figure(record["metapl"], "—")
        cells = record["peer"], record["what"], record["quantity"], *numbers, f"`{record['script']}`"
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def tables(records: list[dict[str, Any]]) -> tuple[str, str]:
    """What is not right, and what is."""
    wrong = [record for record in records if record["verdict"] != "right"]
    right = [record for record in records if record["verdict"] == "right"]
    return table(wrong, HEADER), table(right, ("peer", "what is right", *HEADER[2:]))


def main() -> None:
    """Run them all."""
    records = [record for script in scripts() if (record := run(script))]
    print("\n\n".join(tables(records)))
    if len(records) < len(scripts()):
        print(f"not written: {RECORDS.name} is for all scripts, and peers are missing", file=sys.stderr)
        raise SystemExit(2)
    RECORDS.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")


if __name__ == "__main__":
    main()
