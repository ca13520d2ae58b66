"""`metapl predict`: where it writes, and what happens to names and bad files."""

import os
import subprocess
import sys

import pytest
from predicting import invoke, problems, saved

from metapl.data.formats import images
from metapl.registry.errors import InputError

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


def test_a_file_in_place_of_standard_output(digits, tmp_path):
    saved(tmp_path / "some", 3)
    out = tmp_path / "new" / "found.csv"
    outcome = invoke(digits, tmp_path / "some", "--out", out)
    assert outcome.stdout == ""
    assert out.read_bytes() == invoke(digits, tmp_path / "some").stdout_bytes
    assert b"\r" not in out.read_bytes()
    assert [path.name for path in out.parent.iterdir()] == ["found.csv"]


def test_only_confident_rows(digits, tmp_path):
    saved(tmp_path / "some", 9)
    (tmp_path / "some" / "bad.png").write_text("no image")
    every = problems(invoke(digits, tmp_path / "some").stdout)
    bound = sorted(float(confidence) for _, _, confidence in every if confidence)[4]
    outcome = invoke(digits, tmp_path / "some", "--confident", bound)
    assert problems(outcome.stdout) == [row for row in every if row[2] and float(row[2]) >= bound]
    assert "predicted  5 examples" in outcome.stderr


@pytest.mark.parametrize("in_memory", [0, 2**30])
def test_damaged_images_have_a_row_that_says_so(digits, tmp_path, monkeypatch, in_memory):
    saved(tmp_path / "some", 5)
    for number in (1, 3):
        (tmp_path / "some" / f"0{number}.png").write_text("no image")
    saved(tmp_path / "sound", 5)
    monkeypatch.setattr(images, "IN_MEMORY", in_memory)
    outcome = invoke(digits, tmp_path / "sound" / "02.png", tmp_path / "some", "--batch", 2)
    found = problems(outcome.stdout)
    assert [place for place, (problem, _, _) in enumerate(found) if problem] == [2, 4]
    assert found[2] == (f"{tmp_path / 'some' / '01.png'}: no image that can be read (unknown format)", "", "")
    sound = problems(invoke(digits, *(tmp_path / "some" / f"0{number}.png" for number in (0, 2, 4))).stdout)
    assert [found[place][:2] for place in (1, 3, 5)] == [row[:2] for row in sound]
    # Sums over batches of other sizes may have other last digits.
    confidences = [float(found[place][2]) for place in (1, 3, 5)]
    assert confidences == pytest.approx([float(row[2]) for row in sound], rel=1e-6)
    assert f"unread     2: {tmp_path / 'some' / '01.png'}: " in outcome.stderr


def test_a_file_is_whole_or_as_it_was(digits, tmp_path, monkeypatch):
    saved(tmp_path / "some", 5)
    (tmp_path / "found.csv").write_text("precious")

    def full(*args):
        raise InputError("no room: make some")

    monkeypatch.setattr("metapl.serving.predict.probabilities", full)
    with pytest.raises(InputError, match="no room"):
        invoke(digits, tmp_path / "some", "--out", tmp_path / "found.csv")
    assert (tmp_path / "found.csv").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.csv", "some"]


@pytest.mark.skipif(sys.platform == "win32", reason="names are text there")
def test_a_name_that_is_no_text(digits, tmp_path):
    saved(tmp_path, 1)
    try:
        os.rename(tmp_path / "00.png", os.fsencode(tmp_path) + b"/\xff.png")
    except OSError as error:
        pytest.skip(f"this file system refuses the name: {error}")
    for out in (tmp_path / "found.csv", "-"):
        outcome = invoke(digits, tmp_path, "--out", out)
        found = outcome.stdout_bytes if out == "-" else out.read_bytes()
        assert b"/\xff.png,".join(found.split(b"/\xff.png,")) == found != found.replace(b"\xff", b"")


@pytest.mark.slow
def test_a_reader_that_stops_early(digits, tmp_path):
    """As `head` does: no traceback."""
    saved(tmp_path, 2)
    code = "import typer; from metapl.cli.predict import predict; typer.run(predict)"
    given = [sys.executable, "-c", code, str(digits), *[str(tmp_path / "00.png")] * 700, "--device", "cpu"]
    with subprocess.Popen(given, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline().startswith(b"name,")
        process.stdout.close()
        assert process.stderr.read() == b""


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("nowhere", "x.png"), "nowhere is not a run"),
        (("RUN", "nowhere.png"), r"nowhere\.png does not exist"),
        (("RUN", "empty"), "empty: no images and no shards below it"),
        (("RUN", "x.png", "--network", "studnet"), "unknown network 'studnet': did you mean 'student'"),
        (("RUN", "x.png", "--device", "tpu"), "device = tpu"),
    ],
    ids=str,
)
def test_bad_input(digits, tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.png").write_text("no image")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=message) as caught:
        invoke(*(digits if arg == "RUN" else arg for arg in args))
    assert "\n" not in str(caught.value)
