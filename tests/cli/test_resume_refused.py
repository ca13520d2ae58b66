"""What a run does not go on with, and how it may grow."""

import pytest
from command import invoke
from going_on import ALONE, EVERY, interrupt, resumed

from metapl.files import lock
from metapl.training import changes

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


def refused(folder, *args):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    outcome = invoke("train", "--resume", folder, *args)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    return outcome.err


def test_another_configuration_is_refused_with_the_difference(cut):
    assert "lr is 0.5, and was 0.1: restore that, or give --force" in refused(cut, "--lr", 0.5)
    assert "grad is first-order, and was exact; batch is 24, and was 12" in refused(
        cut, "--batch", 24, "--grad", "first-order"
    )
    assert "seed is 3, and was 0" in refused(cut, "--seed", 3)


def test_the_same_configuration_is_not(cut, whole):
    assert resumed(cut, "--lr", 0.1, "--labels", 20) == whole(*ALONE)


@pytest.mark.parametrize(
    ("name", "value"), [("torch", "1.0"), ("metapl", "0.0.1"), ("threads", 77), ("gpu", "a large one")]
)
def test_other_versions_and_machines_are_refused(cut, monkeypatch, name, value):
    now = changes.made_with()
    monkeypatch.setattr(changes, "made_with", lambda: {**now, name: value})
    assert f"{name} is {value}, and was {now[name]}" in refused(cut)


def test_other_data_is_refused(stop, tmp_path):
    table = tmp_path / "t.csv"
    rows = [f"{number % 7},{number % 5},{number % 2}" for number in range(60)]
    table.write_text("\n".join(["a,b,label", *rows]))
    stop("mpl", 2, interrupt)
    short = ("--labels", 8, "--validation", 4, "--steps", 3, "--no-baselines")
    args = ("--data", f"{table}:label=label", "--method", "mpl", "--guide", "none", *short)
    assert invoke("train", *args, "--out", tmp_path / "run").code == 130
    table.write_text("\n".join(["a,b,label", "6,0,1", *rows[1:]]))
    assert "examples of the" in refused(tmp_path / "run")


def test_forced_it_goes_on_and_says_what_that_means(cut):
    outcome = invoke("train", "--resume", cut, "--lr", 0.5, "--force")
    assert outcome.code == 0
    assert (
        outcome.err
        == "metapl: --force: no run from its beginning has the numbers that follow: lr is 0.5, and was 0.1\n"
    )
    assert "lr = 0.5" in (cut / "config.toml").read_text()


def test_a_state_of_another_network_is_refused_even_if_forced(cut):
    outcome = invoke("train", "--resume", cut, "--model", "mlp:width=7,depth=1", "--force")
    assert outcome.code == 2
    assert "other tensors than this run" in outcome.err


def test_what_names_another_run_is_refused(cut):
    for flag in (("--out", "x"), ("--seeds", 2), ("--preset", "cifar10-4k"), ("--config", cut / "config.toml")):
        assert "--resume has the folder" in refused(cut, *flag)


def test_what_is_no_run_is_refused(tmp_path):
    assert "is not a run" in refused(tmp_path)


def test_a_run_that_another_process_trains_is_refused(cut):
    with lock.Held(cut):
        assert "is in use by another process: wait for it, or stop it" in refused(cut)


# ---------------------------------------------------------------- longer runs


LONG = (*ALONE, "--schedule", "constant", "--finetune-steps", 0)


def test_steps_may_grow_where_no_step_depends_on_them(stop, tmp_path, whole):
    stop("mpl", 3, interrupt)
    assert invoke("train", *LONG, "--out", tmp_path / "run").code == 130
    assert resumed(tmp_path / "run", "--steps", 7) == whole(*LONG, "--steps", 7)


def test_a_finished_run_that_kept_its_last_state_may_grow(tmp_path, whole):
    assert invoke("train", *LONG, "--keep", 1, *EVERY, "--out", tmp_path / "run").code == 0
    assert resumed(tmp_path / "run", "--steps", 7) == whole(*LONG, "--steps", 7)


def test_a_finished_run_without_a_state_may_not(tmp_path):
    assert invoke("train", *LONG, "--out", tmp_path / "run").code == 0
    assert "is finished, and has no state to go on from: --keep 1" in refused(tmp_path / "run", "--steps", 7)


def test_finetuning_may_grow(stop, tmp_path, whole):
    stop("mpl", 3, interrupt)
    assert invoke("train", *ALONE, "--out", tmp_path / "run").code == 130
    assert resumed(tmp_path / "run", "--finetune-steps", 5) == whole(*ALONE, "--finetune-steps", 5)


def test_steps_may_not_grow_where_others_depend_on_them(cut, stop, tmp_path):
    assert "(with schedule = cosine every step depends on how many there are)" in refused(cut, "--steps", 7)
    assert "steps is 3, and was 4" in refused(cut, "--steps", 3)
    stop("finetune", 1, interrupt)
    assert invoke("train", *ALONE, "--schedule", "constant", "--out", tmp_path / "other").code == 130
    assert "(the phase mpl is over)" in refused(tmp_path / "other", "--steps", 7)


def test_a_finished_run_is_left_alone(tmp_path):
    assert invoke("train", *ALONE, "--out", tmp_path / "run").code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    outcome = invoke("train", "--resume", tmp_path / "run")
    assert (outcome.code, outcome.out) == (0, f"{tmp_path / 'run'} is finished: there is nothing to go on with\n")
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
