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
        (("--steps", "4"), "--steps is for a plan: give --plan own with it"),
        (("--plan", "cifar"), "unknown plan 'cifar': did you mean 'cifar10'"),
        (("--plan", "own", "--model", "mlp"), "--plan own is made of flags: give --model and --shape at least"),
        (("--plan", "cifar10", "--processes", "3"), "128 labelled examples cannot be dealt out evenly to 3"),
        (("--plan", "cifar10", "--processes", "0"), "--processes 0 must be at least 1"),
        (("--plan", "cifar10", "--link", "-1"), "--link -1.0 must be above 0"),
        (("--plan", "cifar10", "--device", "tpu"), "unknown device of a plan 'tpu'"),
        (("--plan", "cifar10", "--precision", "fp8"), "unknown precision 'fp8'"),
        (("--plan", "cifar10", "--grad", "exact"), "--grad is not for a plan"),
        (("--plan", "cifar10", "--plot", "a.png"), "--plot is not for a plan"),
        (("--plan", "cifar10", "--rounds", "3"), "--rounds is not for a plan"),
        (("--plan", "cifar10", "--processor-time"), "--processor-time is not for a plan"),
        (("--plan", "own", "--model", "mlp", "--model", "linear"), "a plan is of one network, not 2"),
    ],
)
def test_bad_input(given, told):
    outcome = invoke("bench", *given)
    assert_one_line(outcome, told)


def test_a_plan(tmp_path):
    file = tmp_path / "plan.json"
    sizes = ("--shape", "1,8,8", "--batch", "4", "--ratio", "2", "--processes", "2", "--steps", "86400")
    device = ("--device", "a100", "--device-flops", "1e6", "--link", "1e6", "--device-call", "1e-12")
    outcome = invoke("bench", "--plan", "own", "--model", "linear", *sizes, *device, "--json", file)
    assert (outcome.code, outcome.err) == (0, "")
    assert "4 labelled and 8 unlabelled examples a step, 86,400 steps; 2 × a100" in outcome.out
    record = json.loads(file.read_text())
    assert record["device"]["flops"] == 1e6
    assert record["device"]["memory"] == 80e9
    rows = {row["grad"]: row for row in record["rows"]}
    assert list(rows) == ["none", "first-order", "exact", "exact:route=difference"]
    first = rows["first-order"]
    assert first["flops"] == 2 * 2 * 64 * 10 * (2 * 2 + 3 * 4)
    assert first["seconds"] == pytest.approx((first["flops"] + first["sent"]) / 1e6)
    assert first["days"] == pytest.approx(first["seconds"])
    assert f"{first['days']:,.2f} days" in outcome.out


def test_a_plan_that_does_not_fit():
    outcome = invoke("bench", "--plan", "own", "--model", "linear", "--shape", "1,8,8", "--device-memory", "1e3")
    assert "! does not fit into 1 kB: more --processes, or --microbatch" in outcome.out


def test_a_picture(tmp_path):
    picture = tmp_path / "costs.png"
    assert invoke("bench", *SMALL, "--grad", "none", "--plot", picture).code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
