"""Files of tables."""

import numpy as np
import pytest
from own_tables import DIAGNOSES, KNOWN, RAW
from own_tables import write as write_table


@pytest.fixture
def write(tmp_path):
    """Write a file, text or bytes, and return its path."""

    def writer(content, name="table.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return writer


@pytest.fixture(scope="module")
def cancer(tmp_path_factory):
    """Breast cancer with 57 labels of 569."""
    labels = np.where(KNOWN, DIAGNOSES, "")
    rows = [[*map(float, row), label] for row, label in zip(RAW.data, labels, strict=True)]
    return write_table(tmp_path_factory.mktemp("cancer") / "cancer.csv", [*RAW.feature_names, "diagnosis"], rows)
