"""Run folders of strangers: nothing in them is run, and each ends with one line and exit code 2, or with success."""

import json
import os
import re
import shutil
import struct
import sys

import numpy as np
import pytest
from command import invoke

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

FLAGS = (
    *("--method", "mpl", "--guide", "none", "--no-baselines", "--steps", "4", "--finetune-steps", "2"),
    *("--model", "mlp:width=8", "--device", "cpu"),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    assert invoke("train", *FLAGS, "--out", folder).code == 0
    return folder


@pytest.fixture
def copy(run, tmp_path, monkeypatch):
    """A copy of the run, examples beside it, and on the path a module that leaves a mark when it is imported."""
    shutil.copytree(run, tmp_path / "run")
    np.save(tmp_path / "x.npy", np.zeros((3, 8, 8), dtype=np.uint8))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\ndef net(shape, classes): 1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "run"
    sys.modules.pop("evil", None)


def toml(key, value):
    def harm(folder):
        place = folder / "config.toml"
        place.write_text(re.sub(rf"^{key} = .*$", lambda _: f"{key} = {value}", place.read_text(), flags=re.MULTILINE))

    return harm


def changed(name, **values):
    def harm(folder):
        found = json.loads((folder / name).read_text())
        found.update(values)
        (folder / name).write_text(json.dumps({key: value for key, value in found.items() if value != "gone"}))

    return harm


def raw(name, content):
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def weights(change):
    def harm(folder):
        place = folder / "checkpoints" / "final.safetensors"
        place.write_bytes(change(place.read_bytes()))

    return harm


def unsigned(harm):
    """The same, in a folder that has no checksum."""

    def both(folder):
        changed("summary.json", weights="gone")(folder)
        harm(folder)

    return both


def special(make, name="data.json"):
    def harm(folder):
        (folder / name).unlink()
        make(folder / name)

    return harm


def measured(**values):
    return {"finetuned": {"top1": 0.5, "top5": 1.0, "nll": 1.0, "ece": 0.1, **values}}


PREDICT, EVAL, EXPORT, REPORT = ("predict",), ("eval",), ("export",), ("report",)
ALL = PREDICT + EVAL + EXPORT + REPORT
FORM = PREDICT + EXPORT

HOSTILE = {
    "a module of theirs": (toml("model", '"module:evil:net"'), ALL, "imports evil and calls its net"),
    "their teacher": (toml("teacher_model", '"module:evil:net"'), ALL, "--trust-code"),
    "a command": (toml("model", '"module:subprocess:call"'), ALL, "--trust-code"),
    "timm": (toml("model", '"timm:resnet18,checkpoint_path=/etc/passwd"'), ALL, "--trust-code"),
    "an optimiser": (toml("optimizer", '"module:evil:net"'), ALL, "--trust-code"),
    "views": (toml("augment", '"evil:net"'), EVAL, "unknown augment"),
    "an estimator": (toml("grad", '"os:system"'), EVAL, "unknown estimator 'os'"),
    "a network of 10⁹": (toml("model", '"mlp:width=1000000000"'), ALL, "width is beyond their size"),
    "10⁹ layers": (toml("model", '"mlp:depth=1000000000"'), ALL, "depth is beyond their size"),
    "10⁴ layers": (toml("model", '"mlp:depth=10000"'), ALL, "far more parameters than its weights|other tensors"),
    "a wide vit": (toml("model", '"vit:patch=1,width=9000,depth=9000,heads=1"'), ALL, "far more parameters"),
    "a calibrator": (
        lambda folder: [toml("method", '"reduced"')(folder), toml("calibrator", '"mlp:width=99999999"')(folder)],
        ALL,
        "calibrator",
    ),
    "a shape of texts": (changed("data.json", shape=["touch", "x"]), ALL, 'shape\\[0\\] is "touch"'),
    "a shape of 10¹⁸": (changed("data.json", shape=[1, 10**9, 10**9]), ALL, "a whole number from 1 to"),
    "a shape of 2⁵⁶": (changed("data.json", shape=[1, 2**28, 2**28]), ALL, "at most 268,435,456 numbers"),
    "a boolean shape": (changed("data.json", shape=[True, 8, 8]), ALL, "shape\\[0\\] is true"),
    "no shape": (changed("data.json", shape=[]), ALL, "a list of 1 to 8"),
    "a million classes": (changed("data.json", classes=list(map(str, range(10**6)))), ALL, "other tensors|classes"),
    "classes of numbers": (changed("data.json", classes=[1, 2]), ALL, "classes\\[0\\] is 1"),
    "a deviation of 0": (changed("data.json", details={"mean": [0.1], "std": [0]}), ALL, "a number above 0"),
    "four means": (changed("data.json", details={"mean": [0.1] * 4, "std": [1] * 4}), ALL, "for each channel"),
    "another kind": (changed("data.json", kind="__class__"), ALL, "one of images, table, arrays"),
    "an unknown key": (changed("data.json", more=1), ALL, "has 'more'"),
    "a missing key": (changed("data.json", details="gone"), ALL, "has no details"),
    "deep JSON": (raw("data.json", "[" * 10**5), ALL, "cannot be read"),
    "a number of 10⁴ digits": (raw("data.json", f'{{"shape": [{"9" * 10**4}]}}'), ALL, "cannot be read"),
    "no UTF-8": (raw("data.json", b'{"kind": "\xff"}'), ALL, "cannot be read"),
    "an endless device": (special(lambda place: place.symlink_to("/dev/zero")), ALL, "a file of another kind"),
    "a pipe": (special(os.mkfifo), ALL, "a file of another kind"),
    "a pipe of weights": (special(os.mkfifo, "checkpoints/final.safetensors"), ALL, "a file of another kind"),
    "a pipe of a log": (special(os.mkfifo, "metrics.jsonl"), REPORT, "a file of another kind"),
    "deep TOML": (raw("config.toml", "a = " + "[" * 10**5), ALL, "nested too deeply|not valid TOML"),
    "TOML of 10⁴ digits": (
        raw("config.toml", f"seed = {'9' * 10**4}"),
        ALL,
        "not valid TOML|integer string conversion",
    ),
    "a rate beyond float64": (toml("lr", "1" + "0" * 400), ALL, "at most 64 bits"),
    "a path with NUL": (toml("data", '"a\\u0000b"'), ALL, r"a\\x00b cannot be written"),
    "an unknown flag": (raw("config.toml", "__class__ = 'x'\n"), ALL, "unknown key"),
    "a device as data": (toml("data", '"/dev/zero"'), EVAL, "nothing there that metapl reads"),
    "other data": (toml("data", '"moons"'), EVAL, "2 classes of examples of shape \\[2\\] now"),
    "a flipped bit": (weights(lambda found: found[:-1] + bytes([found[-1] ^ 1])), ALL, "SHA-256"),
    "a header of 2⁶²": (unsigned(weights(lambda found: struct.pack("<Q", 2**62) + found[8:])), ALL, "cannot be read"),
    "a pickle": (unsigned(weights(lambda _: b"cos\nsystem\n(S'touch ran'\ntR.")), ALL, "cannot be read"),
    "a checksum of another type": (changed("summary.json", weights={"sha256": 5}), ALL, "sha256 is 5"),
    "an accuracy of −5": (changed("summary.json", test=measured(top1=-5)), ALL, "a share from 0 to 1"),
    "a network of another name": (
        changed("summary.json", test={"../x": measured()["finetuned"]}),
        ALL,
        "must be one of",
    ),
    "a split of 10¹²": (
        raw("split.json", '{"labelled": [0], "unlabelled": [[0, 1000000000000]], "validation": []}'),
        EVAL,
        "a whole number from 0 to 1296",
    ),
    "a validation that is learnt from": (changed("split.json", validation=[0], labelled=[0]), EVAL, "share examples"),
    "counts of texts": (changed("confusion.json", finetuned=[["a"]]), EXPORT, "a list of 10"),
    "an environment of tables": (changed("environment.json", threads={}), REPORT, "threads is"),
    "a log of infinities": (
        raw("metrics.jsonl", '{"phase": "mpl", "step": 1e400, "metrics": {}, "validation": {}}\n'),
        REPORT,
        "step is Infinity",
    ),
    "an empty log": (raw("metrics.jsonl", ""), REPORT, "no line of training"),
    "a fingerprint of lists": (raw("fingerprint.json", "[]"), EVAL, "a table of names"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_run(copy, name):
    harm, refusing, match = HOSTILE[name]
    refusing = {*refusing, *(REPORT if "eval" in refusing else ())}
    harm(copy)
    for verb in ALL:
        more = {"predict": (copy.parent / "x.npy",), "export": ("--out", copy.parent / "out")}.get(verb, ())
        found = invoke(verb, copy, *more)
        if verb in refusing:
            assert (found.code, found.out) == (2, "")
            assert re.fullmatch(rf"metapl: [^\n]*({match})[^\n]*\n", found.err), found.err
            assert verb != "export" or not (copy.parent / "out").exists()
        else:
            assert found.code == 0, found.err
    assert not (copy.parent / "ran").exists()
    assert "evil" not in sys.modules


def test_trusted_code_is_named_before_it_is_run(copy):
    toml("model", '"module:evil:net"')(copy)
    found = invoke("predict", copy, copy.parent / "x.npy", "--trust-code")
    first, second = found.err.splitlines()
    assert first == f"metapl: {copy / 'config.toml'}: model = 'module:evil:net' imports evil and calls its net"
    assert "failed (ZeroDivisionError" in second
    assert (copy.parent / "ran").exists()


def test_a_run_to_compare_at_is_a_strangers_too(copy):
    toml("model", '"module:evil:net"')(copy)
    found = invoke("compare", "--run", copy)
    assert (found.code, "--trust-code" in found.err) == (2, True)
    assert not (copy.parent / "ran").exists()


@pytest.mark.parametrize("verb", ["train", "compare", "ablate", "tune"])
def test_a_file_of_flags_or_a_study_is_a_strangers_too(copy, verb):
    file, out = copy.parent / "their.toml", copy.parent / "out"
    flags = 'model = "module:evil:net"\n'
    study = f"[arms.a]\n{flags}[tune]\ntrials = 1\nseeds = 1\n[tune.over]\nlr = [0.1, 1.0]\n"
    file.write_text(study if verb in ("ablate", "tune") else flags)
    place = {"train": ("--config", file, "--out", out), "compare": ("--config", file)}.get(verb, (file, "--out", out))
    found = invoke(verb, *place)
    assert (found.code, found.out) == (2, "")
    assert "--trust-code" in found.err
    assert not out.exists()
    assert not (copy.parent / "ran").exists()


def test_an_old_folder_is_read_with_nothing_said(copy):
    (copy / "fingerprint.json").unlink()
    (copy / "data.json").unlink()
    changed("summary.json", weights="gone")(copy)
    assert invoke("eval", copy).err == ""
