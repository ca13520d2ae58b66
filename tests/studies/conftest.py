"""The files of a study that was never stopped."""

import pytest
from executions import jobs_of, run


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Jobs in populations of 3, 1 and 2, and the files of a sweep that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "runs"
    jobs = jobs_of()
    assert run(jobs, folder) == []
    return jobs, folder
