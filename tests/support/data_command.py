"""`metapl data` in this process."""

import hashlib

import pytest
import typer
from typer.testing import CliRunner

from metapl.cli import data
from metapl.registry.errors import InputError

app = typer.Typer()
app.add_typer(data.app, name="data")


def invoke(*args):
    """What `metapl data ARGS` prints, without line breaks inside of table cells."""
    result = CliRunner().invoke(app, ["data", *map(str, args)])
    if result.exception is not None:
        raise result.exception
    assert result.exit_code == 0
    return result.output


def assert_refused(*args, words):
    with pytest.raises(InputError) as raised:
        invoke(*args)
    assert "\n" not in str(raised.value)
    for word in words:
        assert str(word) in str(raised.value)


def digest_of(path):
    return f"md5:{hashlib.md5(path.read_bytes()).hexdigest()}"
