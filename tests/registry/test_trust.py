"""Code that files ask for: refused, or said before it is imported; never called to find out what it is."""

import logging
import subprocess
import sys
import types
from importlib.metadata import EntryPoint

import pytest
from torch import nn

from metapl import models
from metapl.models.external import KINDS, external
from metapl.registry import trust
from metapl.registry.errors import InputError
from metapl.training.config import resolve


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"model": "module:subprocess:call"}, "model = 'module:subprocess:call' imports subprocess and calls its call"),
        ({"teacher_model": "module:a.b:C,x=1"}, "imports a.b and calls its C"),
        ({"model": "timm:resnet18"}, "model = 'timm:resnet18' has timm make a network"),
        ({"over": {"model": ["mlp", "timm:resnet18"]}}, "over.model = 'timm:resnet18'"),
        ({"tune": {"model": {"choices": ["module:a:b"]}}}, "tune.model.choices = 'module:a:b'"),
        ({"arms": {"x": {"teacher_model": "module:a:b"}}}, "arms.x.teacher_model = 'module:a:b'"),
        ({"grad": "theirs:weight=2"}, "grad = 'theirs:weight=2' imports their.code:build"),
    ],
)
def test_code_in_a_file(values, told, monkeypatch, caplog):
    point = EntryPoint("theirs", "their.code:build", trust.ESTIMATORS)
    monkeypatch.setattr(trust, "entry_points", lambda group: [point])
    with pytest.raises(InputError, match=r"^file\.toml: .*--trust-code") as caught:
        trust.require(values, "file.toml", trust_code=False)
    assert told in str(caught.value)
    with caplog.at_level(logging.WARNING, "metapl"):
        logging.getLogger("metapl").addHandler(caplog.handler)
        trust.require(values, "file.toml", trust_code=True)
        logging.getLogger("metapl").removeHandler(caplog.handler)
    assert told in caplog.text


@pytest.mark.parametrize(
    "values", [{}, {"model": "mlp:width=3", "grad": "exact", "lr": 0.1}, {"data": "folder"}, {"labels": "theirs"}]
)
def test_what_is_metapls_own_needs_no_trust(values, monkeypatch):
    monkeypatch.setattr(trust, "entry_points", lambda group: [EntryPoint("theirs", "a:b", group)])
    trust.require(values, "file.toml", trust_code=False)


def test_every_kind_of_foreign_network_is_code():
    for kind in KINDS:
        with pytest.raises(InputError, match="--trust-code"):
            trust.require({"model": f"{kind}:x:y"}, "file", trust_code=False)


def test_a_file_of_config_is_a_file_and_the_command_line_is_not(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text('model = "module:a:b"\n')
    with pytest.raises(InputError, match=rf"^{file}: model = .* --trust-code"):
        resolve({}, file)
    assert resolve({"model": "mlp"}, file).model == "mlp"
    assert resolve({"model": "module:c:d"}, file).model == "module:c:d"
    assert resolve({}, file, trust_code=True).model == "module:a:b"


# ---------------------------------------------------------------- on the command line, too, nothing is called blindly

CALLS = []


class Callable:
    def __call__(self, *args):
        CALLS.append(args)


class Meta(type):
    def __call__(cls, *args):
        CALLS.append(args)


class Plain(metaclass=Meta):
    pass


def net(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0], classes))


@pytest.fixture
def foreign(monkeypatch):
    module = types.ModuleType("foreign")
    module.call, module.system, module.made = subprocess.call, __import__("os").system, Callable()
    module.Plain, module.Popen, module.net, module.number = Plain, subprocess.Popen, net, 3
    monkeypatch.setitem(sys.modules, "foreign", module)
    CALLS.clear()


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("call", "subprocess is of Python itself"),  # a function that the module has from elsewhere
        ("system", "system is a builtin_function_or_method"),
        ("made", "made is a Callable: name a function"),
        ("Plain", r"class Plain is no nn\.Module"),
        ("Popen", r"class Popen is no nn\.Module"),
        ("number", "number is a int"),
        ("absent", "absent is not there"),
    ],
)
def test_what_makes_no_network_is_not_called(foreign, tmp_path, name, match):
    mark = tmp_path / "ran"
    with pytest.raises(InputError, match=match) as caught:
        external("module", f"foreign:{name}", ("touch", str(mark)), 2, {})
    assert "\n" not in str(caught.value)
    assert not mark.exists()
    assert CALLS == []


def test_a_function_and_a_class_are(foreign):
    assert isinstance(models.build("module:foreign:net", (3,), 2), nn.Sequential)


@pytest.mark.parametrize("place", ["subprocess", "os.path", "this", "antigravity", "__main__", "sys", "..evil", "a-b"])
def test_modules_of_python_are_not_imported(place, capsys):
    loaded = set(sys.modules)
    with pytest.raises(InputError, match=r"is of Python itself|is no name of a module"):
        external("module", f"{place}:call", (3,), 2, {})
    assert set(sys.modules) == loaded
    assert capsys.readouterr().out == ""
