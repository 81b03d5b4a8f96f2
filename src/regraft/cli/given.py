"""Settings as they were given: on the command line, in the environment, in a file; which one holds, and from where."""

from __future__ import annotations

import json
import os.path
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from regraft.cli.settings import ALIKE, KNOB, KNOBBED, MACHINE, ONCE, PLACES, PREFIX, Setting, check, find
from regraft.errors import UsageError, near
from regraft.kit import hardware, shelf

FORMS = (".toml", ".json", ".yaml", ".yml")
CONFIG = f"{PREFIX}CONFIG"
USUAL = "regraft.toml"
Known = Mapping[str, Mapping[str, Setting]]
"""Verb → parameter → setting."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a file: the verb that it is for ("" for all), the setting's name, its value, and where it stands."""

    verb: str
    name: str
    value: Any
    where: str


@dataclass(frozen=True, slots=True)
class Given:
    """Parameter → value of all settings of a verb, and where each comes from; `aside` are knobs that do not apply."""

    values: dict[str, Any]
    origins: dict[str, str]
    aside: tuple[str, ...]


def read(path: Path) -> list[Entry]:
    """The entries of a file; nothing is checked but its form.

    Raises: UsageError: it is not there, or not what its ending says.
    """
    if path.suffix.lower() not in FORMS:
        raise UsageError("settings are not read from such a file", str(path), ", ".join(FORMS), "change its ending")
    try:
        text = path.read_bytes().decode("utf-8-sig")
        held = _parsed(text, path.suffix.lower())
    except OSError as error:
        beside = [p.name for p in path.parent.iterdir() if p.suffix in FORMS] if path.parent.is_dir() else []
        guess = near(path.name, beside)
        raise UsageError(
            "the file with the settings cannot be read",
            saw=f"{path}: {error.strerror}",
            allowed="a TOML, JSON or YAML file",
            do=f"did you mean {path.parent / guess}?" if guess else "check --config",
        ) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"this is no {path.suffix[1:].upper()}",
            saw=f"{path}: {' '.join(str(error).split())}",
            allowed="the form that the file's ending says, in UTF-8",
            do="mend the line, or see regraft config schema",
        ) from error
    if not isinstance(held, dict):
        raise UsageError("this file holds no settings", str(path), "keys with values", "see regraft config schema")
    return list(_entries(held, str(path), "", ()))


def names_of(entries: Sequence[Entry]) -> list[str]:
    """The strategies that a file names."""
    found = [e.value for e in entries if e.name == "strategy" and e.verb in ("", *KNOBBED)]
    return [str(one) for value in found for one in (value if isinstance(value, list) else [value])]


def from_file(path: Path, verb: str, known: Known) -> tuple[dict[str, Any], dict[str, str]]:
    """What a file sets for a verb: parameter → value as its option takes it, and where each stands.

    Raises: UsageError: a key that nothing has, or one that is said twice, or a value of the wrong kind.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    for entry in sorted(read(path), key=lambda e: e.verb):  # a verb's own table comes after what holds for all
        one = _setting(entry, known)
        if (entry.verb, one.name) in seen:
            raise UsageError("a setting is said twice", entry.where, f"{one.name} once", "remove one of the two")
        seen.add((entry.verb, one.name))
        value = check(one, entry.value, entry.where, text=False)
        applies = entry.verb == verb or (not entry.verb and (verb == "adapt" or one.param in ALIKE.get(verb, ())))
        if applies and one.param in known[verb]:
            values[one.param] = option_value(known[verb][one.param], _placed(one, value, path.parent))
            origins[one.param] = entry.where
    return values, origins


def from_environment(settings: Mapping[str, Setting]) -> dict[str, str]:
    """Parameter → the variable that sets it, with its value checked.

    Raises: UsageError: a value of the wrong kind.
    """
    held = hardware.variables(PREFIX)
    found = {}
    for one in settings.values():
        for name in one.env:
            if held.get(name) and one.param not in found:
                check(one, held[name], name, text=True)
                found[one.param] = name
    return found


def strays(known: Known) -> list[str]:
    """A line for each variable that sets nothing: most likely mistyped, but it may be for another version.

    It is no error: an environment is shared by many commands, and one of them must not break for what another reads.
    """
    names = {name for settings in known.values() for one in settings.values() for name in one.env} | {CONFIG}
    lines = []
    for name in hardware.variables(PREFIX):
        if name not in names:
            guess = near(name, names)
            lines.append(
                f"{name} sets nothing" + (f": did you mean {guess}?" if guess else "; see regraft config show")
            )
    return lines


def resolve(
    ctx: typer.Context, given: Mapping[str, Any], settings: Mapping[str, Setting], sets: Sequence[str]
) -> Given:
    """What holds: flags and --set, else the environment, else the file, else the default.

    With `resume` the run's own request holds: neither the environment nor a file says anything then.

    Raises: UsageError: `--set` with a name that is none, with a value of the wrong kind, or beside the flag itself.
    """
    values = {param: given[param] for param in settings if param in given}
    origins = {param: _origin(ctx, param) for param in values}
    for param, value in _set(sets, settings).items():
        if origins[param] == "flag":
            name = settings[param].name
            raise UsageError(
                "a setting is said twice", f"--{name} and --set {name}", "one of the two", "remove one of the two"
            )
        values[param], origins[param] = value, "flag --set"
    if given.get("resume") is not None:
        for param, origin in origins.items():
            if not origin.startswith(("flag", "default")) and param not in MACHINE:
                values[param], origins[param] = ctx.meta[USUALLY].get(param), "default"
    asked = {name.rsplit(".", 1)[-1] for name in split(values.get("strategy"))}
    aside = []
    for param, origin in origins.items():
        strategy = settings[param].table if KNOB in param else ""
        if strategy and asked and strategy not in asked and not origin.startswith(("flag", "default")):
            aside.append(f"{settings[param].name} ({origin})")
            values[param], origins[param] = None, "default"
    return Given(values, origins, tuple(aside))


def option_value(one: Setting, value: Any) -> Any:
    """A validated value as the option takes it: texts for knobs, commas between names."""
    if KNOB in one.param:
        return str(value)
    if one.param == "strategy":
        return split([value] if isinstance(value, str) else value)
    if one.many:
        return [value] if isinstance(value, str) else list(value)
    return ",".join(value) if isinstance(value, list) else value


def told_value(one: Setting, value: Any) -> Any:
    """An option's value as a file would have it.

    Raises: UsageError: it is of the wrong kind (a knob's text from a flag).
    """
    if KNOB in one.param:
        return check(one, value, f"--{one.name}", text=True)
    return split(value) if one.param == "strategy" else str(value) if isinstance(value, Path) else value


def split(names: Sequence[str] | None) -> list[str]:
    """Names, each of which may be several with commas between them.

    >>> split(["probe,full", "partial"])
    ['probe', 'full', 'partial']
    """
    return [name.strip() for part in names or () for name in part.split(",") if name.strip()]


# ---------------------------------------------------------------- files


def _parsed(text: str, suffix: str) -> Any:
    if suffix == ".toml":
        return tomllib.loads(text)
    if suffix == ".json":
        return json.loads(text, object_pairs_hook=_once)
    import yaml

    try:
        return yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The keys of a JSON object, each of which may stand there once."""
    held = dict(pairs)
    if len(held) != len(pairs):
        raise ValueError(f"a key stands there twice: {', '.join(key for key, _ in pairs)}")
    return held


def _entries(held: Mapping[str, Any], file: str, verb: str, tables: tuple[str, ...]) -> Iterator[Entry]:
    """The entries of a table; those of a table in it are called `table.key`, but for a verb's and for `reading`."""
    for key, value in held.items():
        path = (*tables, str(key))
        if isinstance(value, dict):
            own = key if not tables and key in ("adapt", *ALIKE) else verb
            yield from _entries(value, file, own, path)
        elif path != ("$schema",):
            inner = [word for i, word in enumerate(path[:-1]) if (i, word) != (0, verb) and word != "reading"]
            where = f"{file}: [{'.'.join(tables)}] {key}" if tables else f"{file}: {key}"
            yield Entry(verb, ".".join([*inner, path[-1]]), value, where)


def _setting(entry: Entry, known: Known) -> Setting:
    """The setting that an entry names.

    Raises: UsageError: there is none of that name; the nearest one is shown.
    """
    settings = known[entry.verb or "adapt"]
    if found := find(entry.name, settings):
        return found
    what = _unknown(entry.name, settings)
    raise UsageError(
        "there is no setting of that name",
        saw=entry.where,
        allowed=what[0],
        do=what[1],
    )


def _unknown(name: str, settings: Mapping[str, Setting]) -> tuple[str, str]:
    """What is allowed in place of a name, and the nearest of it."""
    if name.replace("-", "_") in ONCE:
        return "settings of a request", f"--{name.replace('_', '-')} is said on the command line alone"
    table, _, _ = name.rpartition(".")
    inside = [one.name for one in settings.values() if one.table == table and table]
    plain = [one.name for one in settings.values() if KNOB not in one.param]
    allowed = inside or plain
    guess = near(name.replace("_", "-"), plain) or near(name, [one.name for one in settings.values()])
    listed = ", ".join(allowed) + ("" if inside else f", and knobs of {', '.join(shelf.names('strategies'))}")
    return listed, f"did you mean {guess}?" if guess else "regraft config show lists them all"


def _placed(one: Setting, value: Any, folder: Path) -> Any:
    """A path of a file relative to where the command stands; a model's only where it is there, or can be no name."""
    if isinstance(value, list):
        return [_placed(one, part, folder) for part in value]
    if not isinstance(value, str) or not value or one.param not in (*PLACES, "model"):
        return value
    there = os.path.normpath(folder / Path(value).expanduser())
    return there if one.param != "model" or os.path.exists(there) or value.startswith((".", "~")) else value


# ---------------------------------------------------------------- flags


def _set(sets: Sequence[str], settings: Mapping[str, Setting]) -> dict[str, Any]:
    """What --set says; what a flag may say again may be said several times, of anything else the last counts."""
    found: dict[str, Any] = {}
    for text in sets:
        name, equals, raw = text.partition("=")
        name = name.strip().removeprefix("--")
        if not equals:
            raise UsageError("--set takes a name and a value", text, "--set NAME=VALUE", "--set probe.lr=0.01")
        one = find(name, settings)
        if one is None:
            allowed, do = _unknown(name, settings)
            raise UsageError("there is no setting of that name", f"--set {text}", allowed, do)
        value = option_value(one, check(one, raw.strip(), f"--set {name}", text=True))
        found[one.param] = [*found.get(one.param, []), *value] if one.many else value
    return found


def _origin(ctx: typer.Context, param: str) -> str:
    """Where the value of an option comes from."""
    source = ctx.get_parameter_source(param)
    kind = source.name if source else "DEFAULT"
    if kind == "ENVIRONMENT":
        return str(ctx.meta[ENVIRONMENT].get(param, "environment"))
    if kind == "DEFAULT_MAP":
        return str(ctx.meta[FILE].get(param, "file"))
    return "flag" if kind == "COMMANDLINE" else "default"


ENVIRONMENT, FILE, USUALLY = "regraft.environment", "regraft.file", "regraft.usually"
"""Where a context keeps which variable and which line of the file set a parameter, and what it is otherwise."""
