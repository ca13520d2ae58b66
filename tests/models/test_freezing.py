"""Which parameters are frozen by patterns of their names."""

from collections import OrderedDict

import pytest
from torch import nn

from metapl.models.freezing import freeze
from metapl.registry.errors import InputError


def network():
    body = nn.Sequential(OrderedDict(first=nn.Linear(3, 4), norm=nn.LayerNorm(4), second=nn.Linear(4, 4)))
    return nn.Sequential(OrderedDict(body=body, head=nn.Linear(4, 2), head2=nn.Linear(2, 2)))


ALL = {name for name, _ in network().named_parameters()}
BODY = {name for name in ALL if name.startswith("body.")}


@pytest.mark.parametrize(
    ("text", "frozen"),
    [
        ("none", set()),
        ("body", BODY),
        ("body.*", BODY),
        ("!head", ALL - {"head.weight", "head.bias"}),
        ("!head*", BODY),
        ("!head|head2", BODY),
        ("*.bias", {name for name in ALL if name.endswith("bias")}),
        ("body.first.weight", {"body.first.weight"}),
        ("body.first|body.[n]orm", {name for name in BODY if "second" not in name}),
    ],
)
def test_names_and_layers_match(text, frozen):
    module = freeze(network(), text)
    assert {name for name, value in module.named_parameters() if not value.requires_grad} == frozen


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "hed",
            r"freeze: no name matches 'hed': the network has body.first.weight, body.first.bias, body.norm.weight, …",
        ),
        ("body|hed", "no name matches 'hed'"),
        ("!hed", "no name matches 'hed'"),
        ("", "no name matches ''"),
        ("*", "leaves nothing to train"),
        ("body|head|head2", "leaves nothing to train"),
    ],
)
def test_what_matches_nothing_or_all_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        freeze(network(), text)
