"""`metapl bench`."""

import json

import pytest
import torch
from command import assert_one_line, invoke

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

SMALL = ("--model", "mlp:width=8,depth=1", "--batch", "2", "--ratio", "3", "--rounds", "2", "--device", "cpu")


def test_the_command(tmp_path):
    file = tmp_path / "numbers.json"
    outcome = invoke("bench", *SMALL, "--model", "linear", "--grad", "none", "--grad", "exact", "--json", file)
    assert (outcome.code, outcome.err) == (0, "")
    assert "mlp:width=8,depth=1, 2 labelled and 6 unlabelled examples of 1×8×8" in outcome.out
    assert all(column in outcome.out for column in ("GFLOPs", "FLOPs", "ms", "time", "memory", "examples/s"))
    record = json.loads(file.read_text())
    assert record["environment"]["torch"] == torch.__version__
    assert (record["rounds"], record["processor_time"]) == (2, False)
    assert [scene["model"] for scene in record["scenes"]] == ["mlp:width=8,depth=1", "linear"]
    for scene in record["scenes"]:
        names = [row["name"] for row in scene["rows"]]
        assert names[:4] == ["first-order", "none", "exact", "port, by hand"]
        assert set(names[4:]) | set(scene["left_out"]) == {"TorchOpt"}
        assert (scene["shape"], scene["batch"], scene["ratio"], scene["device"]) == ([1, 8, 8], 2, 3, "cpu")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--batch", "0"), "--batch 0 must be at least 1"),
        (("--shape", "3,x"), "--shape 3,x must be whole numbers above 0"),
        (("--shape", "3,0"), "--shape 3,0 must be whole numbers above 0"),
        (("--grad", "exakt"), "unknown estimator 'exakt': did you mean 'exact'"),
        (("--model", "wrn", "--shape", "3"), "wrn needs images"),
    ],
)
def test_bad_input(given, told):
    outcome = invoke("bench", *given)
    assert_one_line(outcome, told)
