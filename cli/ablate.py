"""`metapl ablate`."""

from __future__ import annotations

import shlex
import time
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metapl.cli.flags import with_flags
from metapl.cli.tell import TrustCode
from metapl.registry import trust
from metapl.registry.errors import InputError
from metapl.studies import checks, specification
from metapl.training.config import TrainConfig, read_flag

if TYPE_CHECKING:
    from metapl.studies.specification import Study

HELP = """Compare arms on paired seeds: same split, initial weights, batches and views for all arms of a seed.

A study is a TOML file, or made of flags: metapl ablate --vary "grad=none exact" --over "labels=10 40" --seeds 32
--out study. The same command goes on where it was stopped."""

FIELDS = [one for one in fields(TrainConfig) if one.name not in ("seed", "log")]

VaryOption = typer.Option(
    help='KEY=VALUE VALUE …, a flag of `train` and its values: an arm each, as in "grad=none exact". Given again, '
    "every combination is an arm. The key preset is an arm of all that a preset sets.",
    show_default=False,
)
OverOption = typer.Option(
    help="KEY=VALUE VALUE …: all arms once for each of these values; may be given again.", show_default=False
)
StudyArgument = typer.Argument(help="TOML file of the study; flags override it.", show_default=False)
OutOption = typer.Option(help="Folder of the study; runs that it holds already are not made again.")
SeedsOption = typer.Option(help=f"Seeds of every arm. [default: {checks.NUMBERS['seeds']}]".replace("[", "\\["))
FirstOption = typer.Option(help="The first of the seeds. \\[default: 0]")
AgainstOption = typer.Option(help="The arm that the others are compared with. \\[default: the first]")
TogetherOption = typer.Option(help="Most runs that train as one vectorised program; 1: one after another.")


@with_flags(FIELDS)
def ablate(  # noqa: PLR0913 - one parameter a flag
    path: Annotated[Path | None, StudyArgument] = None,
    *,
    out: Annotated[Path, OutOption],
    vary: Annotated[list[str] | None, VaryOption] = None,
    over: Annotated[list[str] | None, OverOption] = None,
    seeds: Annotated[int | None, SeedsOption] = None,
    first_seed: Annotated[int | None, FirstOption] = None,
    against: Annotated[str, AgainstOption] = "",
    together: Annotated[int, TogetherOption] = 32,
    trust_code: TrustCode = False,
    **flags: Any,
) -> None:
    """See HELP."""
    started = time.perf_counter()
    common = {key: value for key, value in flags.items() if value is not None}
    if together < 1:
        raise InputError(f"--together {together} must be at least 1")
    if path:
        trust.require(specification.load(path), f"study {path}", trust_code)
    wanted = read(path, vary or [], over or [], common, {"seeds": seeds, "first_seed": first_seed, "against": against})
    from metapl.cli import ablate_table  # noqa: PLC0415 - imports torch
    from metapl.files import storage  # noqa: PLC0415 - imports torch
    from metapl.reporting import study as reporting  # noqa: PLC0415 - imports torch
    from metapl.reporting import study_plot  # noqa: PLC0415 - imports torch
    from metapl.studies import execution, folder, older, results  # noqa: PLC0415 - imports torch

    jobs = specification.jobs(older.as_begun(wanted, out / folder.RUNS))
    execution.check(jobs)
    environment = folder.start(out, wanted)
    with ablate_table.Bar(jobs, out) as bar:
        execution.run(jobs, out / folder.RUNS, together, bar.say, bar.tick)
    runs = execution.read(jobs, out / folder.RUNS)
    if len(runs) < len(jobs):
        return  # another process of torchrun is still at it, and will print the table
    folder.finish(out, wanted, runs)
    storage.write_text(out / "index.html", reporting.page(wanted, runs, environment))
    study_plot.study(results.rows(wanted, runs), out / "plots" / "arms.png")
    ablate_table.show(wanted, runs, out, time.perf_counter() - started)


def read(path: Path | None, vary: list[str], over: list[str], common: dict[str, Any], given: dict[str, Any]) -> Study:
    """The study of a file, with what was given on the command line in place of what it says.

    Raises:
        InputError: neither file nor arms, or anything that is wrong in them.
    """
    if path is None and not vary:
        raise InputError('nothing to compare: name a TOML file, or give --vary, as in --vary "grad=none exact"')
    tables: dict[str, Any] = specification.load(path) if path else {}
    tables["common"] = {**tables.get("common", {}), **common}
    if vary:
        tables["arms"] = specification.combinations(_by_key("--vary", vary))
        tables.pop("pairs", None)  # of the arms that these replace
    if over:
        tables["over"] = _by_key("--over", over)
    tables |= {key: value for key, value in given.items() if value not in (None, "")}
    return specification.build(tables, str(path or "the study"))


def _by_key(flag: str, texts: list[str]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for text in texts:
        key, values = _values(flag, text)
        if key in found:
            raise InputError(f"{flag} {text!r}: {key} is given twice: put all of its values into one {flag}")
        found[key] = values
    return found


def _values(flag: str, text: str) -> tuple[str, list[Any]]:
    key, equals, values = text.partition("=")
    try:
        parts = shlex.split(values)
    except ValueError as error:
        raise InputError(f"{flag} {text!r}: {error}: close every quote") from None
    if not equals or not parts:
        raise InputError(f"{flag} {text!r} must be KEY=VALUE VALUE …, as in {flag} 'grad=none exact'")
    return key, parts if key == checks.PRESET else [read_flag(key, part, f"{flag} {text}") for part in parts]
