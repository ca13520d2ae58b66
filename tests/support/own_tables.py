"""Tables of one's own as CSV files, of which some rows have labels."""

import csv

import numpy as np
from sklearn.datasets import load_breast_cancer


def write(path, header, rows, delimiter=","):
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(header)
        writer.writerows(rows)
    return path


RAW = load_breast_cancer()


KNOWN = np.random.default_rng(0).permutation(569) < 57


DIAGNOSES = np.array(["malignant", "benign"])[RAW.target]


def small(path, labels, header="size,colour,weight,y", name="t.csv"):
    """As many rows as labels, with features that tell the row."""
    rows = [[index**2, "red" if index % 3 else "blue", -index, label] for index, label in enumerate(labels)]
    return write(path / name, header.split(","), rows)
