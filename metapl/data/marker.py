"""Which labels mean that there is no label: one rule for columns of tables, arrays and folders.

Three kinds of labels are told apart. Some words mean nothing else, such as `unlabelled` and `<NA>`. Some are a class as
often as not, such as `none` and `unknown`, so that the user is asked. And −1 is scikit-learn's mark, unless it stands
beside −2, or beside 1 alone or 0 alone; beside 0 and 1 alone it may be a sentiment, so that the user is asked again.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from metapl.data.notes import CAREFUL, Note, some
from metapl.registry.errors import InputError, unknown

AUTO = "auto"
"""The value of the option `marker` that asks for the rule."""

SIGNS = frozenset(
    (
        *("", "-", "--", "---", "–", "—", "_", "?", "??", "???", ".", "..", "...", "<na>", "#n/a", "#n/a n/a", "n/a"),
        *("n/d", "#ref!", "#value!", "#div/0!", "#name?", "#null!", "#num!", "(blank)", "<blank>", "[blank]", "nat"),
    )
)
"""Labels that mean no label, in small letters; `-` does not where `+` is a label too."""

SURE = re.compile(
    r"(\d+ )?(un ?labell?ed|not labell?ed|no ?labels?|without labels?|un ?annotated|not annotated|no annotations?)"
    r"( (data|set|images?|examples?|samples?|pictures?|photos?|files?|rows?))?|unsup|nan|null|n a"
)
"""The same for words, in small letters and with a blank for all that is no letter and no digit."""

DOUBTFUL = frozenset(
    (
        *("na", "none", "unknown", "missing", "undefined", "unassigned", "unclassified", "uncategorised"),
        *("uncategorized", "blank", "empty", "pending", "tbd", "tba", "tbc", "to do", "todo", "unsure", "not sure"),
        *("to be done", "to label", "to be labelled", "to be labeled", "skip", "skipped", "not available", "undecided"),
    )
)
"""Words that mean no label to some and are a class to others, written as for `SURE`."""


NUMBERS = frozenset(("-9", "-99", "-999", "-9999", "99", "255", "999", "9999"))
"""Numbers that mean no label to some, beside classes from 0 or 1 on without a gap: the user is asked."""


def is_sure(label: str) -> bool:
    """Whether a label means no label, whatever the others are."""
    return label.strip().casefold() in SIGNS or SURE.fullmatch(_words(label)) is not None


def _words(label: str) -> str:
    return re.sub(r"[\W_]+", " ", label.casefold()).strip()


def find(counts: Mapping[str, int], option: str, where: str) -> frozenset[str]:
    """The labels that mean no label.

    Args:
        counts: how many examples have each label.
        option: `AUTO`, or the labels themselves, as `LABEL/LABEL`; none where it is empty.
        where: what has the labels, for errors.

    Raises:
        InputError: a label that may be a class and may be none, or an option that names a label that is not there.
    """
    if option != AUTO:
        return _given(counts, option, where)
    sure = {label for label in counts if is_sure(label)} - ({"-"} if "+" in counts else set())
    classes = counts.keys() - sure
    for label in sorted(classes):
        if label == "-1":
            sure |= {label} if _means_none(counts, classes - {label}, where) else set()
        elif label in NUMBERS:
            if _stands_out(label, classes - {label}):
                raise _asked(label, f"{counts[label]:,} times", where)
        elif _words(label) in DOUBTFUL and len(classes) > 2:
            raise _asked(label, f"{counts[label]:,} times", where)
    return frozenset(sure)


def _given(counts: Collection[str], option: str, where: str) -> frozenset[str]:
    wanted = [option] if option in counts else list(filter(None, option.split("/")))
    for label in wanted:
        if label not in counts:
            raise unknown(f"marker of {where}", label, sorted(counts))
    return frozenset(wanted)


def _means_none(counts: Mapping[str, int], others: Collection[str], where: str) -> bool:
    """Whether −1 is a mark beside other labels."""
    numbers = [_number(label) for label in others]
    if set(others) in ({"0"}, {"1"}) or any(value is not None and value < 0 for value in numbers):
        return False
    if sorted(others) == ["0", "1"] and counts["-1"] <= sum(counts[label] for label in others):
        raise _asked("-1", f"{counts['-1']:,} times, beside 0 and 1,", where)
    return True


def _stands_out(label: str, others: Collection[str]) -> bool:
    """Whether a label of `NUMBERS` stands beside classes that are numbered through, and is not the next of them."""
    if len(others) < 2 or not all(re.fullmatch(r"\d+", other) for other in others):
        return False
    values = sorted(map(int, others))
    return values[0] in (0, 1) and values[-1] - values[0] == len(values) - 1 and int(label) != values[-1] + 1


def _number(label: str) -> float | None:
    try:
        return float(label)
    except ValueError:
        return None


def _asked(label: str, seen: str, where: str) -> InputError:
    return InputError(
        f"{where}: the label {label!r} stands there {seen} and may be a class or mean that there is no label: give "
        f"marker={label} if it means none, or marker= with nothing after it if it is a class"
    )


def notes(counts: Mapping[str, int], words: Iterable[str], what: str = "examples") -> list[Note]:
    """What `find` has decided, where there was something to decide."""
    found = [Note("labels", f"{label!r} means no label: {counts[label]:,} {what}") for label in sorted(words) if label]
    if "-1" in counts and "-1" not in words:
        found.append(Note("labels", f"'-1' is a class: {counts['-1']:,} {what} (marker=-1 if it means no label)"))
    return found


def alike(classes: Iterable[str]) -> list[Note]:
    """A warning of classes whose names differ in case, blanks and signs alone, and may be meant to be one."""
    by_words: dict[str, list[str]] = {}
    for name in classes:
        by_words.setdefault(_words(name) or name, []).append(name)
    twins = [" and ".join(map(repr, names)) for names in by_words.values() if len(names) > 1]
    text = f"the classes {some(twins)} may be meant to be one: write them alike if they are"
    return [Note(CAREFUL, text)] if twins else []
