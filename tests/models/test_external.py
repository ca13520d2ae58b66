"""Networks from elsewhere, and the one line that every failure becomes."""

import sys
import types

import pytest
import torch
from torch import nn

from metapl.core import rng
from metapl.models import MODELS, build
from metapl.models.external import external, read
from metapl.nn import functional
from metapl.registry.errors import InputError

IMAGE = (3, 8, 8)

MINE = '''
"""A user's own networks, and what may be wrong with them."""

import torch
from torch import nn

number = 3


class Flat(nn.Module):
    def __init__(self, shape, classes, *, width=4, bias=True, kind="relu", scale=1.0):
        super().__init__()
        self.given = (shape, classes, width, bias, kind, scale)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(shape).numel(), width, bias=bias), nn.ReLU())
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        return self.head(self.body(x))


class Counting(Flat):
    """Writes to a buffer whenever it is called."""

    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return super().forward(x)


class Deciding(Flat):
    """Looks at numbers, which the meta device has not."""

    def forward(self, x):
        x = nn.functional.dropout(x, 0.1, self.training)
        return super().forward(x) * (2.0 if x.sum().item() > 0 else 1.0)


class Asking(Flat):
    def forward(self, x):
        return {"logits": super().forward(x)}


def recurrent(shape, classes):
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.rows, self.head = nn.RNN(shape[-1], 5, batch_first=True), nn.Linear(5, classes)

        def forward(self, x):
            return self.head(self.rows(x.flatten(1, -2))[0][:, -1])

    return Last()


def lazy(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(classes))


def narrow(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(shape).numel(), classes + 1))


def picky(shape, classes):
    return nn.Linear(99, classes)


def empty(shape, classes):
    return nn.Flatten()


def nothing(shape, classes):
    pass


def broken(shape, classes):
    raise RuntimeError("no such luck\\nand a second line")
'''


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A package of a user's own on the path."""
    package = tmp_path / "own_networks"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "net.py").write_text(MINE)
    (package / "unfinished.py").write_text("def net(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_networks.net"
    for name in [name for name in sys.modules if name.startswith("own_networks")]:
        del sys.modules[name]


@pytest.fixture
def timm(monkeypatch):
    """What of timm is called: `create_model(name, **options)`."""
    calls = []

    def create_model(name, num_classes=1000, in_chans=3, width=4):
        calls.append((name, num_classes, in_chans, width))
        if name != "tiny.one_in1k":
            raise RuntimeError(f"Unknown model ({name})")
        layers = nn.Conv2d(in_chans, width, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        layers[0].fused_attn = True
        return nn.Sequential(*layers, nn.Linear(width, num_classes))

    stand_in = types.ModuleType("timm")
    stand_in.create_model = create_model
    monkeypatch.setitem(sys.modules, "timm", stand_in)
    return calls


# ---------------------------------------------------------------- what is typed


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("resnet18", "resnet18", {}),
        ("a.b:c,", "a.b:c", {}),
        ("n,flag=true,other=False", "n", {"flag": True, "other": False}),
        ("n,count=3,less=-2", "n", {"count": 3, "less": -2}),
        ("n,rate=1e-3,half=0.5", "n", {"rate": 1e-3, "half": 0.5}),
        ("n,act=relu,equation=a=b,none=", "n", {"act": "relu", "equation": "a=b", "none": ""}),
        ("n,name=nan,other=inf", "n", {"name": "nan", "other": "inf"}),
    ],
)
def test_reading(text, name, options):
    found, given = read(text)
    assert (found, given) == (name, options)
    assert {key: type(value) for key, value in given.items()} == {key: type(value) for key, value in options.items()}


@pytest.mark.parametrize("text", ["n,width", "n,=3"])
def test_an_option_needs_a_name_and_a_value(text):
    with pytest.raises(InputError, match=r"of 'n' has no name or no value: write n,KEY=VALUE"):
        read(text)


# ---------------------------------------------------------------- what comes back


def test_a_module_of_ones_own(mine):
    module = build(f"module:{mine}:Flat,width=6,bias=false,kind=tanh,scale=2.5", IMAGE, 10)
    assert module.given == (IMAGE, 10, 6, False, "tanh", 2.5)
    assert module(torch.zeros(4, *IMAGE)).shape == (4, 10)
    assert module.training


@pytest.mark.parametrize("attribute", ["Flat", "Deciding", "recurrent"])
def test_a_module_of_ones_own_is_a_pure_function(mine, attribute):
    model = functional.from_module(lambda: build(f"module:{mine}:{attribute}", IMAGE, 10))
    params, buffers = model.init(rng.key(0))
    x = torch.rand(4, *IMAGE)

    def loss(params):
        return model.apply(params, buffers, x, train=True, key=rng.key(1))[0].square().mean()

    gradient = torch.func.grad(loss)(params)
    moved = {name: value - 0.01 * gradient[name] for name, value in params.items()}
    assert loss(moved) < loss(params)


def test_trying_a_module_leaves_it_as_it_was(mine):
    module = build(f"module:{mine}:Counting", IMAGE, 10)
    assert module.calls == 0
    assert not any(value.is_meta for value in module.state_dict().values())
    assert all(part.training for part in module.modules())


@pytest.mark.parametrize("attribute", ["Flat", "Deciding"])
def test_trying_a_module_draws_nothing(mine, attribute):
    torch.manual_seed(0)
    build(f"module:{mine}:{attribute}", IMAGE, 10)
    after = torch.rand(())
    torch.manual_seed(0)
    getattr(sys.modules[mine], attribute)(IMAGE, 10)
    assert torch.equal(torch.rand(()), after)


def test_timm(timm):
    module = build("timm:tiny.one_in1k,width=6", (1, 8, 8), 10)
    assert timm == [("tiny.one_in1k", 10, 1, 6)]
    assert module(torch.zeros(4, 1, 8, 8)).shape == (4, 10)
    assert module[0].fused_attn is False


def test_timm_itself():
    pytest.importorskip("timm", reason="needs timm")
    model = functional.from_module(
        lambda: build("timm:vit_tiny_patch16_224,img_size=8,patch_size=4,embed_dim=8,num_heads=2,depth=1", IMAGE, 10)
    )
    params, buffers = model.init(rng.key(0))

    def loss(params):
        return model.apply(params, buffers, torch.ones(2, *IMAGE), train=False)[0].square().sum()

    assert model.apply(params, buffers, torch.ones(2, *IMAGE), train=False)[0].shape == (2, 10)
    _, second = torch.func.jvp(torch.func.grad(loss), (params,), (params,))
    assert all(value.isfinite().all() for value in second.values())


@pytest.mark.parametrize("name", MODELS)
def test_registered_names_go_by_the_usual_notation(name):
    with torch.device("meta"):
        assert isinstance(build(name, (3, 32, 32), 10), nn.Module)
    with pytest.raises(InputError, match=f"unknown option of model '{name}' 'colour'"):
        build(f"{name}:colour=red", (3, 32, 32), 10)


def test_options_of_a_registered_name():
    assert build("wrn:depth=10,width=1", IMAGE, 4)[-1].out_features == 4
    with pytest.raises(InputError, match=r"model 'wrn:depth=11': wrn[(]depth=11[)] must be"):
        build("wrn:depth=11", IMAGE, 4)


# ---------------------------------------------------------------- what may be wrong


def refused(text, message, shape=IMAGE):
    with pytest.raises(InputError, match=message) as caught:
        build(text, shape, 10)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "names no constructor: write module:PACKAGE.MODULE:CONSTRUCTOR"),
        ("own_networks.net", "names no constructor: write module:PACKAGE.MODULE:CONSTRUCTOR"),
        ("own_networks.net:", "names no constructor"),
        (":Flat", "names no constructor"),
        ("own_networks.absent:Flat", "own_networks.absent cannot be imported [(]ModuleNotFoundError.*PYTHONPATH"),
        ("own_networks.unfinished:net", "own_networks.unfinished cannot be imported [(]SyntaxError"),
        ("own_networks.net:absent", "absent is not there: name a function"),
        ("own_networks.net:number", "number is a int: name a function"),
        ("own_networks.net:nothing", "makes a NoneType: a constructor returns an nn.Module"),
        ("own_networks.net:lazy", "has no shape for 1.weight before its first batch: use layers that are not lazy"),
        ("own_networks.net:empty", "has no parameters: there is nothing to train"),
        ("own_networks.net:broken", r"failed [(]RuntimeError: no such luck[)].*broken[(][(]3, 8, 8[)], 10[)]"),
        ("own_networks.net:Flat,depth=3", r"failed [(]TypeError: .*depth.*called as Flat[(].*10, depth=3[)]"),
        ("own_networks.net:narrow", r"maps \[2, 3, 8, 8\] to \[2, 11\]: it must return logits \[batch, 10\]"),
        ("own_networks.net:Asking", r"returns a dict: it must return logits \[batch, 10\]"),
        ("own_networks.net:picky", r"cannot take inputs \[2, 3, 8, 8\] [(]RuntimeError: "),
    ],
)
def test_what_may_be_wrong_with_a_module_of_ones_own(mine, name, message):
    refused(f"module:{name}", message)


def test_timm_is_optional(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    refused("timm:resnet18", "model 'timm:resnet18' needs timm .*: pip install timm$")


@pytest.mark.parametrize(
    ("text", "shape", "message"),
    [
        ("timm:huge", IMAGE, r"cannot be made [(]RuntimeError: Unknown model [(]huge[)][)]: timm.list_models"),
        ("timm:tiny.one_in1k,depth=2", IMAGE, "cannot be made [(]TypeError: .*depth"),
        ("timm:tiny.one_in1k", (2,), r"needs images, this data has shape \[2\]: use mlp"),
        ("timm:tiny.one_in1k,num_classes=4", IMAGE, r"to \[2, 4\]: it must return logits \[batch, 10\]"),
        ("timm:tiny.one_in1k", (3, 2, 2), r"cannot take inputs \[2, 3, 2, 2\] [(]RuntimeError: "),
    ],
)
def test_what_may_be_wrong_with_timm(timm, text, shape, message):
    refused(text, message, shape)


@pytest.mark.parametrize(("text", "message"), [("wrm", "'wrm': did you mean 'wrn'"), ("tim:x", "did you mean 'timm'")])
def test_unknown_names_are_compared_with_all(text, message):
    refused(text, f"unknown model {message}" if text == "wrm" else message)


def test_the_function_behind_it(mine):
    module = external("module", f"{mine}:Flat", IMAGE, 10, {"width": 3})
    assert module.given[2] == 3
