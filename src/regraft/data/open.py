"""Open a source as data: what it is, its rows in three splits, and what was noticed on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from regraft.data import columns, few, inspect, sources, split
from regraft.data.cells import TEXT
from regraft.data.columns import Made, Roles
from regraft.data.sources import FILE, LABEL, Found
from regraft.data.tables import Table, bad_row, together
from regraft.data.target import Meaning, gaps, meaning, target_of, valued
from regraft.data.times import as_times
from regraft.errors import DataError, UsageError
from regraft.kit import shelf
from regraft.waist import Bad, Data, DataCard, Reading, Row, Seen, fingerprint

MADE_SHARE = 0.2
ORDER = ("train", "val", "test")
GUESS = Reading()


def open_data(source: Any, seed: int = 0, reading: Reading = GUESS) -> Data:
    """Open a path or data in memory; what `reading` leaves open is guessed, missing splits are made, notes say so.

    `source` is a table's path, a folder of tables, of pictures with metadata or of class folders; or a DataFrame, a
    Dataset, (X, y), or a dictionary of splits.

    Raises: DataError: the path is wrong, holds nothing that a modality reads, or cannot be split. UsageError: a column,
    a task or a class is named that is not there.
    """
    found = sources.find(source, reading)
    roles = _roles(found, reading)
    unread, told = together(found.tables.items())
    notes, bad = [*found.notes, *told], [*found.bad, *unread]
    if not found.modality:
        notes.append(roles.note(list(found.tables["train"].columns)))
    made = _made(found, roles, notes, bad)
    task = reading.task or ("classify" if found.modality else "")
    meant = meaning(roles.target, [row.y for row in made["train"].rows], task)
    notes += [meant.note] if meant.note else []
    splits = _valued(found, made, meant, bad, notes)
    inspect.refuse(bad, sum(map(len, splits.values())), reading.allow_bad)
    notes += inspect.counted(bad)
    if reading.max_rows:
        _thin(splits, reading.max_rows, seed, notes)
    times = {}
    if roles.time and not (splits["val"] and splits["test"]):
        times = as_times({row.id: made["train"].times[row.id] for row in splits["train"]}, roles.time)
    elif roles.time:
        notes.append(f"--time {roles.time} is not used: every split is given")
    notes += _make_missing(splits, seed, meant, roles, times)
    target = target_of(splits, meant, reading)
    notes += gaps(target, splits)
    content = [(name, r.id, r.y, r.key, r.group, r.facets) for name in ORDER for r in splits[name]]
    data = Data(
        name=found.name,
        modality=roles.modality,
        target=target,
        train=tuple(splits["train"]),
        val=tuple(splits["val"]),
        test=tuple(splits["test"]),
        fingerprint=fingerprint(target, content),
        notes=tuple(notes),
        columns=() if found.modality else roles.inputs,
        sensitive=roles.sensitive,
        bad=tuple(bad),
    )
    data = replace(data, flags=inspect.flags_of(_seen(data, found, roles.group), "data"))
    return few.drawn(data, reading.shots, seed) if reading.shots else data


def _seen(data: Data, found: Found, group: str) -> Seen:
    """What flags may look at; a table's columns only where there is one."""
    table = found.tables["train"]
    columns = {} if found.modality else table.columns
    return Seen(data, shelf.find("modalities", data.modality).NOUN, table.ids, columns, group)


def card(data: Data) -> DataCard:
    """The data in numbers."""
    rows = tuple((name, len(getattr(data, name))) for name in ORDER)
    rows += (("unlabelled", len(data.unlabelled)),) if data.unlabelled else ()
    return DataCard(data.name, data.modality, data.fingerprint, data.target, rows, data.notes, data.columns)


def sentence(card: DataCard) -> str:
    """What the data is, in a line: the first thing that a run prints."""
    noun = shelf.find("modalities", card.modality).NOUN
    rows = ", ".join(f"{count:,} {name}" for name, count in card.rows)
    begun = f"{card.name}: {sum(count for _, count in card.rows):,} {noun}"
    target = card.target
    if target.kind == "number":
        known = f"in training its mean is {target.centre:.4g}, its spread {target.spread:.4g}"
        return f"{begun} with a number, {target.name}; {rows}; {known}"
    pairs = [f"{label}: {count:,}" for label, count in zip(target.labels, target.counts, strict=True)]
    some = ", ".join(pairs[:6]) + (" …" if len(pairs) > 6 else "")
    what = f"that carry any of {len(pairs)} labels" if target.kind == "multi" else f"in {len(pairs)} classes"
    return f"{begun} {what}; {rows}; training has {some}"


# ---------------------------------------------------------------- rows


def _roles(found: Found, reading: Reading) -> Roles:
    if reading.max_rows < 0:
        raise UsageError("--max-rows is below 0", str(reading.max_rows), "1 or more, or 0 for all", "leave it away")
    if not found.modality:
        return columns.choose(found.tables["train"], reading, found.files)
    named = [("target", reading.target), ("text", ",".join(reading.text)), ("image", reading.image)]
    named += [("group", reading.group), ("sensitive", ",".join(reading.sensitive)), ("time", reading.time)]
    if given := [f"--{flag} {name}" for flag, name in named if name]:
        raise UsageError(
            "a folder of files has no columns",
            saw=", ".join(given),
            allowed="columns for tables, or metadata.csv with a column file_name beside the files",
            do="leave it away, or write such a metadata.csv",
        )
    return Roles(found.modality, (FILE,), LABEL)


def _made(found: Found, roles: Roles, notes: list[str], bad: list[Bad]) -> dict[str, Made]:
    """The rows of every split, their targets not read yet; what cannot be used is added to `bad`."""
    made = {}
    for name in [name for name in ORDER if name in found.tables]:
        table, fitting = found.tables[name], roles
        needed = [*roles.inputs, roles.target, roles.group, *roles.sensitive]
        have = {column.lower() for column in table.columns}
        lacking = [column for column in needed if column and column.lower() not in have]
        if lacking and name in found.asked:
            fitting = _guessed_anew(found, name, roles, lacking)
            notes.append(f"--{name} has other columns, read anew: {fitting.note(list(table.columns))}")
        elif lacking == [roles.target]:
            notes.append(f"the {name} split is left out: it has no column {roles.target} to be scored by")
            continue
        elif lacking:
            raise _lacks(name, lacking, table)
        made[name] = columns.rows(table, fitting)
        bad += [bad_row(table, name, i, why) for i, why in made[name].bad]
    if not made["train"].rows:
        raise DataError(
            "no row of training can be used",
            saw="; ".join(inspect.counted(bad)[-1:]),
            allowed="rows with an input",
            do="check the paths, or name other columns with --text or --image",
        )
    return made


def _guessed_anew(found: Found, name: str, roles: Roles, lacking: Sequence[str]) -> Roles:
    """Roles for a split whose input or target is called otherwise: guessed, and held to be of the same form."""
    table = found.tables[name]
    if set(lacking) & {roles.group, *roles.sensitive}:
        raise _lacks(name, lacking, table)
    same = Reading(
        target="" if roles.target in lacking else roles.target,
        text=() if set(roles.inputs) & set(lacking) or roles.modality != TEXT else roles.inputs,
        group=roles.group,
        sensitive=roles.sensitive,
    )
    guessed = columns.choose(table, same, "" if found.files in lacking else found.files)
    if guessed.modality != roles.modality or len(guessed.inputs) != len(roles.inputs):
        raise _lacks(name, lacking, table)
    return guessed


def _lacks(name: str, lacking: Sequence[str], table: Table) -> DataError:
    return DataError(
        f"the {name} split lacks columns of training",
        saw=f"no {', '.join(lacking)} in {', '.join(list(table.columns)[:20])}",
        allowed="the same columns in every split",
        do="rename its columns",
    )


def _valued(
    found: Found, made: Mapping[str, Made], meant: Meaning, bad: list[Bad], notes: list[str]
) -> dict[str, list[Row]]:
    """Splits of rows that have a target; what has none is added to `bad`, unless nothing in a split has."""
    splits: dict[str, list[Row]] = {}
    for name in ORDER:
        splits[name], gone = valued(made[name].rows, meant) if name in made else ([], [])
        if gone and name in found.asked and not splits[name]:
            raise DataError(
                f"no row of --{name} has a target",
                saw=f"column {meant.name}, {len(gone):,} rows",
                allowed="rows with a target, to be scored by",
                do=f"leave --{name} away: the split is then made of training rows",
            )
        if gone and name != "train" and not splits[name]:
            notes.append(f"the {name} split is left out: none of its {len(gone):,} rows has a {meant.name}")
        elif gone:
            bad += inspect.without_target(found.tables[name], name, gone)
    return splits


def _thin(splits: dict[str, list[Row]], limit: int, seed: int, notes: list[str]) -> None:
    for name, rows in splits.items():
        if len(rows) > limit:
            cover = name == "train" and not isinstance(rows[0].y, float)
            splits[name] = split.thin(rows, limit, seed, cover=cover)
            notes.append(f"{name}: {limit:,} of {len(rows):,} rows kept, --max-rows")


# ---------------------------------------------------------------- splits


def _make_missing(
    splits: dict[str, list[Row]], seed: int, meant: Meaning, roles: Roles, times: Mapping[str, float]
) -> list[str]:
    """Cut the splits that were not given out of training, in place; returns what was made."""
    missing = [name for name in ("test", "val") if not splits[name]]
    if times and roles.group and missing:
        raise UsageError(
            "splits cannot be made by --time and keep the groups of --group whole",
            saw=f"--time {roles.time} --group {roles.group}",
            allowed="one of them, or splits of your own",
            do="leave one of them away",
        )
    each = {"number": f"each tenth of {meant.name}", "multi": "each label"}.get(meant.kind, "each class")
    notes: list[str] = []
    alone: set[str] = set()
    for name in missing:
        if times:
            splits["train"], splits[name] = split.by_time(splits["train"], times, MADE_SHARE, name)
            notes.append(
                f"{name} split made: {len(splits[name]):,} training rows, the latest {MADE_SHARE:.0%} by {roles.time}"
            )
            continue
        alone.update(split.lonely(splits["train"]) if meant.kind != "number" else ())
        splits["train"], splits[name] = split.cut(splits["train"], MADE_SHARE, seed, name)
        whole = f", groups of {roles.group} whole" if roles.group else ""
        notes.append(
            f"{name} split made: {len(splits[name]):,} training rows, {MADE_SHARE:.0%} of {each}{whole}, seed {seed}"
        )
    if alone := {label for label in alone if label}:
        some = ", ".join(sorted(alone)[:5]) + (" …" if len(alone) > 5 else "")
        what = "group" if roles.group else "example"
        notes.append(f"{len(alone)} classes have a single {what} to share out, which stays in training: {some}")
    return notes
