"""Choose which columns of a table are inputs, target and groups, and make rows of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from regraft.data.cells import TEXT, column_called, file_cells, located, modality_of, text_cells
from regraft.data.tables import Table
from regraft.data.target import as_number, missing
from regraft.errors import DataError, UsageError
from regraft.kit import shelf
from regraft.waist import Look, Reading, Row

TARGETS = ("label", "labels", "target", "class", "y", "category", "sentiment", "intent", "score", "rating", "stars")
SINGLE = ("text", "sentence", "content", "review")
PAIRS = (("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("text1", "text2"))
LATER = ("document", "question", "title")
IMAGES = ("image", "image_path", "file_name", "filename", "path")
LOOKED_AT = 1000
"""So many rows are looked at to find the column of texts."""


@dataclass(frozen=True, slots=True)
class Roles:
    """What each column is for; `how` says what was given, known by its name or guessed."""

    modality: str
    inputs: tuple[str, ...]
    target: str
    group: str = ""
    sensitive: tuple[str, ...] = ()
    time: str = ""
    how: tuple[tuple[str, str], ...] = ()

    def note(self, columns: Sequence[str]) -> str:
        """A line for the user: which column is what, and which are left out."""
        how = dict(self.how)
        used = [("text" if self.modality == TEXT else self.modality, self.inputs), ("target", (self.target,))]
        used += [("group", (self.group,)), ("sensitive", self.sensitive), ("time", (self.time,))]
        parts = [f"{role} = {' + '.join(names)} ({how[role]})" for role, names in used if any(names)]
        rest = [name for name in columns if not any(name in names for _, names in used)]
        some = ", ".join(rest[:8]) + (" …" if len(rest) > 8 else "")
        return "columns: " + ", ".join(parts + ([f"left out: {some}"] if rest else []))


@dataclass(slots=True)
class Made:
    """Rows of a table with their targets as they stand there, the times of rows; (position, why) of what is bad."""

    rows: list[Row] = field(default_factory=list)
    times: dict[str, Any] = field(default_factory=dict)
    bad: list[tuple[int, str]] = field(default_factory=list)


def choose(table: Table, reading: Reading, files: str = "") -> Roles:
    """The roles of a table's columns: as `reading` gives them, otherwise by name, otherwise by what they hold.

    `files` is a column known to name files.

    Raises: UsageError: a column that is not there, or one with two uses. DataError: no input or no target is found.
    """
    named = {name: tuple(column_called(n, table) for n in given if n) for name, given in _given(reading).items()}
    if len(named["text"]) > 2:
        raise UsageError(
            "there are more than two text columns",
            saw=", ".join(named["text"]),
            allowed="one text, or two that make a pair",
            do="name one or two with --text",
        )
    if named["text"] and named["image"]:
        raise UsageError(
            "both --text and --image are given",
            saw=", ".join(named["text"] + named["image"]),
            allowed="one of them: a model reads texts or pictures",
            do="leave one of them away",
        )
    _refuse_two_uses(named)
    aside = {name for role in ("group", "sensitive", "time") for name in named[role]}
    inputs = named["text"] or named["image"]
    free = [name for name in table.columns if name not in aside and name not in inputs]
    target = "".join(named["target"]) or _by_name(TARGETS, [name for name in free if name != files])
    how = {role: "given" for role in named}
    if not named["target"]:
        how["target"] = "by its name"
    if not inputs:
        inputs, way = _inputs(table, [name for name in free if name != target], files)
    else:
        way = "given"
    modality = TEXT
    if named["image"] or way.endswith("pictures") or (files and inputs == (files,)):
        modality = _seen(table, inputs[0])
    rest = [name for name in free if name not in inputs]
    if not target:
        if not rest:
            raise DataError(
                "no target column was found",
                saw=f"the columns {', '.join(table.columns)}",
                allowed="a column of labels or numbers beside the inputs",
                do="name it with --target",
            )
        target, how["target"] = rest[-1], "guessed: the last column"
    how[TEXT if modality == TEXT else modality] = way
    single = {role: "".join(named[role]) for role in ("group", "time")}
    return Roles(modality, inputs, target, single["group"], named["sensitive"], single["time"], tuple(how.items()))


def rows(table: Table, roles: Roles) -> Made:
    """A table's rows, in their order, without those whose input is missing or unreadable.

    Raises: UsageError: a column is not there. DataError: a text that is none, or a path out of the data's folder.
    """
    names = [column_called(name, table) for name in roles.inputs]
    cells: Sequence[Any]
    keys: Sequence[str]
    looks = table.looks
    if table.keys:
        cells, keys = table.columns[names[0]], table.keys
    elif roles.modality == TEXT:
        cells, keys, said = text_cells(table, names)
        looks = table.looks or said
    else:
        cells, keys, looks = file_cells(table, names[0], roles.modality)
    made = Made()
    targets = table.columns[column_called(roles.target, table)]
    groups = _column(table, roles.group)
    facets = [_column(table, name) for name in roles.sensitive]
    for i, (name, key) in enumerate(zip(table.ids, keys, strict=True)):
        seen = looks[i] if looks else Look()
        if not key:
            made.bad.append((i, seen.problem))
            continue
        of = tuple(facet[i] for facet in facets)
        made.rows.append(Row(name, cells[i], targets[i], groups[i] if groups else "", key, of, seen))
    if roles.time:
        times = table.columns[column_called(roles.time, table)]
        made.times = dict(zip(table.ids, times, strict=True))
    return made


def _column(table: Table, name: str) -> list[str]:
    """A column's values as text, gaps empty; nothing for no name."""
    return ["" if v is None else str(v) for v in table.columns[column_called(name, table)]] if name else []


def _given(reading: Reading) -> dict[str, tuple[str, ...]]:
    named = {"target": (reading.target,), "text": reading.text, "image": (reading.image,), "group": (reading.group,)}
    return named | {"sensitive": reading.sensitive, "time": (reading.time,)}


def _refuse_two_uses(named: dict[str, tuple[str, ...]]) -> None:
    """A column may be sensitive and a group or a time at once; every other two uses contradict each other."""
    roles = list(named)
    for i, one in enumerate(roles):
        for other in roles[i + 1 :]:
            both = [name for name in named[one] if name in named[other]]
            if both and not (other in ("sensitive", "time") and one in ("group", "sensitive")):
                raise UsageError(
                    "one column has two uses",
                    saw=f"--{one} {both[0]} and --{other} {both[0]}",
                    allowed="another column for each",
                    do=f"name another column with --{other}",
                )
    if len(set(named["text"])) < len(named["text"]):
        raise UsageError(
            "one column is named twice",
            saw=f"--text {','.join(named['text'])}",
            allowed="two columns that differ, or one",
            do="name it once",
        )


def _by_name(wanted: Sequence[str], columns: Sequence[str]) -> str:
    lower = {name.lower(): name for name in reversed(columns)}
    return next((lower[name] for name in wanted if name in lower), "")


def _inputs(table: Table, free: Sequence[str], files: str) -> tuple[tuple[str, ...], str]:
    """The input columns among those that are free, and how they were found."""
    if files in free:
        return (files,), "by its name"
    pixels = [name for name in free if _holds_pixels(table.columns[name])]
    lower = {name.lower(): name for name in reversed(free)}
    for name in [*(lower[n] for n in IMAGES if n in lower), *pixels]:
        if modality_of(table.columns[name], table):
            return (name,), "by its pictures"
    for wanted in (*((n,) for n in SINGLE), *PAIRS, *((n,) for n in LATER)):
        if all(name in lower for name in wanted) and not _numeric(table.columns[lower[wanted[0]]]):
            return tuple(lower[name] for name in wanted), "by their names" if len(wanted) > 1 else "by its name"
    lengths = {name: _text_length(table.columns[name]) for name in free}
    longest = max(free, key=lengths.__getitem__, default="")
    if longest and lengths[longest]:
        return (longest,), "guessed: the longest texts"
    numbers = bool(free) and all(_numeric(table.columns[name]) for name in free)
    raise DataError(
        "tables of numbers are not read yet" if numbers else "no column of texts or pictures was found",
        saw=f"the columns {', '.join(list(table.columns)[:20])}",
        allowed="a column of texts or of pictures' paths",
        do="name it with --text COLUMN or --image COLUMN",
    )


def _seen(table: Table, column: str) -> str:
    """The modality of a column of files, which has to have one."""
    if found := modality_of(table.columns[column], table):
        return found
    first = next((v for v in table.columns[column] if not missing(v)), "nothing")
    located(first, table)
    nouns = [shelf.find("modalities", name).NOUN for name in shelf.names("modalities") if name != TEXT]
    raise DataError(
        "a column names no files that regraft reads",
        saw=f"{column}: {str(first)[:80]}",
        allowed=f"{', '.join(nouns)}, by their paths from {table.folder or 'here'}",
        do="check the paths, or name another column with --image",
    )


def _holds_pixels(values: Sequence[Any]) -> bool:
    first = next((v for v in values if v is not None), None)
    return isinstance(first, bytes) or type(first).__module__.startswith("PIL.") or type(first).__module__ == "numpy"


def _numeric(values: Sequence[Any]) -> bool:
    some = [v for v in values[:LOOKED_AT] if not missing(v)]
    return bool(some) and all(isinstance(v, str) and as_number(v) is not None for v in some)


def _text_length(values: Sequence[Any]) -> float:
    """The mean length of a column's values if they read like texts: words and spaces, and rarely the same; else 0."""
    some = [v.strip() for v in values[:LOOKED_AT] if isinstance(v, str) and v.strip()]
    worded = [v for v in some if " " in v and any(c.isalpha() for c in v)]
    if not some or len(worded) * 2 < len(some) or len(set(some)) < min(20, len(some) / 2):
        return 0.0
    return sum(map(len, some)) / len(some)
