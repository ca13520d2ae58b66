"""The `NAME:key=value,…` notation."""

import pytest

from metapl.data.sources import SOURCES
from metapl.estimators import ESTIMATORS
from metapl.models import MODELS
from metapl.optim import OPTIMIZERS
from metapl.registry import notation
from metapl.registry.errors import InputError, unknown


def thing(
    *args, count: int = 3, rate: float = 0.5, nested: bool = False, kind: str = "plain", pair: tuple = (0.9, 0.99)
):
    """Returns what it is called with."""
    if count < 0:
        raise ValueError("count must not be negative")
    if kind == "strict":
        raise InputError("strict: a line of its own")
    return args, {"count": count, "rate": rate, "nested": nested, "kind": kind, "pair": pair}


def empty():
    """Takes no options."""
    return "empty"


THINGS = {"thing": thing, "empty": empty}
DEFAULTS = {"count": 3, "rate": 0.5, "nested": False, "kind": "plain", "pair": (0.9, 0.99)}


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("thing", {}),
        ("thing:", {}),
        ("thing:count=7", {"count": 7}),
        ("thing:count=-7", {"count": -7}),
        ("thing:rate=2", {"rate": 2.0}),
        ("thing:rate=1e-3", {"rate": 1e-3}),
        ("thing:nested=true", {"nested": True}),
        ("thing:nested=False", {"nested": False}),
        ("thing:kind=a=b", {"kind": "a=b"}),
        ("thing:pair=0.5/1", {"pair": (0.5, 1.0)}),
        ("thing:count=1,rate=2.5,nested=TRUE", {"count": 1, "rate": 2.5, "nested": True}),
        ("thing:count=1,,rate=2.5,", {"count": 1, "rate": 2.5}),
        ("empty", {}),
    ],
)
def test_what_can_be_typed(text, given):
    name, options = notation.parse(text, THINGS, "thing")
    assert name == text.split(":")[0]
    assert options == given
    assert {key: type(value) for key, value in options.items()} == {key: type(DEFAULTS[key]) for key in given}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("thin", r"^unknown gadget 'thin': did you mean 'thing'\? choose from empty, thing$"),
        ("nowhere", r"^unknown gadget 'nowhere': choose from empty, thing$"),
        ("", r"^unknown gadget '': choose from empty, thing$"),
        (
            "thing:cuont=3",
            r"gadget 'thing' 'cuont': did you mean 'count'\? choose from count, kind, nested, pair, rate$",
        ),
        ("thing:count", r"'count' of 'thing' has no value: write thing:count=VALUE$"),
        ("thing:count=3.5", r"^thing:count=3.5: expected a whole number up to 2⁵³, as in thing:count=3$"),
        ("thing:count=", r"^thing:count=: expected a whole number"),
        ("thing:rate=fast", r"^thing:rate=fast: expected a number, as in thing:rate=0.5$"),
        ("thing:nested=yes", r"^thing:nested=yes: expected true or false, as in thing:nested=false$"),
        ("thing:pair=0.5/x", r"^thing:pair=0.5/x: expected as many numbers, split by '/', as in thing:pair=0.9/0.99$"),
        ("empty:count=3", r"^gadget 'empty' takes no options, got 'count': write empty$"),
    ],
)
def test_what_cannot(text, message):
    with pytest.raises(InputError, match=message) as caught:
        notation.build(text, THINGS, "gadget")
    assert "\n" not in str(caught.value)


def test_build_calls_the_constructor():
    assert notation.build("thing:count=7", THINGS, "gadget", 1, 2) == ((1, 2), {**DEFAULTS, "count": 7})


def test_a_value_that_the_constructor_refuses_is_bad_input():
    with pytest.raises(InputError, match=r"^gadget 'thing:count=-1': count must not be negative$"):
        notation.build("thing:count=-1", THINGS, "gadget")
    with pytest.raises(InputError, match=r"^strict: a line of its own$"):
        notation.build("thing:kind=strict", THINGS, "gadget")


def test_options_are_the_keyword_only_parameters():
    assert notation.options(thing) == DEFAULTS
    assert notation.options(empty) == {}


def test_a_signature_can_be_typed():
    text = notation.signature("thing", thing)
    assert text == "thing:count=3,rate=0.5,nested=false,kind=plain,pair=0.9/0.99"
    assert notation.parse(text, THINGS, "gadget") == ("thing", DEFAULTS)
    assert notation.signature("empty", empty) == "empty"


@pytest.mark.parametrize("registry", [ESTIMATORS, MODELS, OPTIMIZERS, SOURCES], ids=lambda r: next(iter(r)))
def test_every_registered_name_has_a_signature_that_gives_its_defaults(registry):
    for name, constructor in registry.items():
        assert notation.parse(notation.signature(name, constructor), registry, "it") == (
            name,
            notation.options(constructor),
        )


def test_unknown_lists_the_choices_and_the_nearest():
    assert str(unknown("fruit", "aple", {"pear", "apple"})) == (
        "unknown fruit 'aple': did you mean 'apple'? choose from apple, pear"
    )
    assert str(unknown("fruit", "xyz", ["pear"])) == "unknown fruit 'xyz': choose from pear"
