"""What can be set and how: every option and knob with its kind, its table in a file, its variables; as JSON Schema."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from annotated_types import Ge
from typer.models import ArgumentInfo, ParameterInfo

from regraft.errors import UsageError, near
from regraft.kit import shelf
from regraft.waist import Budget, Options, Reading, plain

PREFIX = "REGRAFT_"
KNOB = "__"
ONCE = ("more", "resume", "fresh", "dry_run", "as_json", "verbose")
"""Options that belong to one command: neither a file nor the environment sets them."""
PLACES = ("data", "val", "test", "unlabelled", "out", "zoo", "cache_folder")
"""Options that are paths; in a file they are relative to the file. `model` is one too where the path exists."""
MACHINE = ("threads", "cache_folder", "cache_size")
KNOBBED = ("adapt", "shots")
"""Verbs that have the knobs of strategies."""
ALIKE = {
    "demo": ("out", "seed", *MACHINE),
    "evaluate": ("target", "text", "image", "max_rows", *MACHINE),
    "doctor": ("out", *MACHINE),
    "shots": (
        *(
            "model",
            "shots",
            "strategy",
            "target",
            "text",
            "image",
            "group",
            "test",
            "unlabelled",
            "metric",
            "out",
            "seed",
        ),
        *MACHINE,
    ),
    "advise": (
        *("model", "zoo", "target", "text", "image", "group", "sensitive", "time", "task", "val", "test", "max_rows"),
        *("positive", "order", "allow_bad", "metric", "long", "max_tokens", "arch", "budget", "seed", "precision"),
        *MACHINE,
    ),
}
"""The options of other verbs that mean what they mean in adapt: one variable, or one key of a file, sets both."""
TITLE = "Settings of regraft, for --config"


@dataclass(frozen=True, slots=True)
class Setting:
    """One thing that can be set: `name` as its flag has it, `param` as the function calls it, `kind` for pydantic.

    `table` is where a file may put it beside the top level: `reading`, or a strategy. `env` are its variables, the
    usual one first. `many` says that its flag may be given again.
    """

    name: str
    param: str
    kind: Any
    default: Any
    help: str
    table: str = ""
    env: tuple[str, ...] = ()
    many: bool = False

    @property
    def key(self) -> str:
        """What a file calls it inside its table."""
        return self.name.rpartition(".")[2]


def settings_of(verb: str, command: Callable[..., None], strategies: Iterable[str] = ()) -> dict[str, Setting]:
    """Parameter → setting, of a verb's options and of the knobs of `strategies`."""
    fields = {**get_type_hints(Options, include_extras=True), **get_type_hints(Reading, include_extras=True)}
    usual = {**plain(Options("", "")), **plain(Reading())}
    found: dict[str, Setting] = {}
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        declared = [part for part in get_args(parameter.annotation)[1:] if isinstance(part, ParameterInfo)]
        if name in ONCE or not declared or (isinstance(declared[0], ArgumentInfo) and verb != "adapt"):
            continue
        alike = verb == "adapt" or name in ALIKE[verb]
        own = "" if parameter.default is parameter.empty else parameter.default
        default = usual.get(FIELDS.get(name, name), plain(own)) if verb == "adapt" else own
        found[name] = Setting(
            name.replace("_", "-"),
            name,
            _kind(name, parameter.annotation, fields.get(name), declared[0].min),
            _default(name, default),
            declared[0].help or "",
            "reading" if verb == "adapt" and name in Reading.__slots__ else "",
            variables(name) if alike else (),
            _repeats(parameter.annotation),
        )
    for strategy in strategies:
        found |= {one.param: one for one in knobs(strategy)}
    return found


def knobs(strategy: str) -> list[Setting]:
    """The knobs of a strategy."""
    from regraft.cli.knobs import sayings
    from regraft.planner.propose import knobs_of

    kind, short = shelf.find("strategies", strategy).Knobs, strategy.rsplit(".", 1)[-1]
    hints, said = get_type_hints(kind, include_extras=True), sayings(kind)
    return [
        Setting(
            f"{short}.{name}",
            f"{short}{KNOB}{name}",
            hints[name],
            plain(default),
            said.get(name, ""),
            short,
            (f"{PREFIX}{short}_{name}".upper(), f"{PREFIX}{short}__{name}".upper()),
        )
        for name, (_, default) in knobs_of(strategy).items()
    ]


FIELDS = {"strategy": "strategies"}
"""Fields of the request that the command line calls otherwise."""
SWITCHES = {"cache": f"{PREFIX}USE_CACHE", "cache_folder": f"{PREFIX}CACHE"}
"""Variables that are not called as their option: REGRAFT_CACHE has always been the folder."""


def variables(param: str) -> tuple[str, ...]:
    """The environment variable of an option.

    >>> variables("max_rows"), variables("cache_folder")
    (('REGRAFT_MAX_ROWS',), ('REGRAFT_CACHE',))
    """
    return (SWITCHES.get(param, PREFIX + param.upper()),)


def check(one: Setting, raw: Any, where: str, *, text: bool) -> Any:
    """A value validated as its setting's kind; a `text` is read as one, anything else must be of the kind already.

    Raises: UsageError: it is not; `where` it stood is shown.
    """
    from pydantic import TypeAdapter, ValidationError

    adapter = TypeAdapter(one.kind)
    try:
        return adapter.validate_strings(raw) if text else adapter.validate_python(raw, strict=True)
    except ValidationError as error:
        told = dict.fromkeys(_allowed(part["msg"]) for part in error.errors())
        guess = near(raw, _words(one.kind)) if isinstance(raw, str) else ""
        usual = f"the default is {_shown(one.default)}" if one.default not in ("", None, []) else "leave it out"
        raise UsageError(
            f"this is no value for {one.name}",
            saw=f"{where}: {raw if text else _shown(raw)}",
            allowed=", or ".join(told),
            do=f"did you mean {guess}?" if guess else usual,
        ) from error


def find(name: str, known: Mapping[str, Setting]) -> Setting | None:
    """The setting of that name; dashes and underscores mean the same."""
    return next((one for one in known.values() if _plain(one.name) == _plain(name)), None)


def schema(verbs: Mapping[str, Mapping[str, Setting]]) -> dict[str, Any]:
    """A JSON Schema (2020-12) of what a file for --config may hold; of `verbs` the first is adapt."""
    common = next(iter(verbs.values()))
    properties: dict[str, Any] = {"$schema": {"type": "string", "description": "This schema; for editors alone."}}
    properties |= _tables(common)
    for verb, settings in verbs.items():
        inside = properties | {} if verb == "adapt" else _tables(settings)
        properties[verb] = _table(f"What holds for regraft {verb} alone.", inside)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": TITLE} | _table("", properties)


def _tables(settings: Mapping[str, Setting]) -> dict[str, Any]:
    """The properties of some settings: those of a table also, or only, in their table."""
    found: dict[str, Any] = {}
    for one in settings.values():
        if one.table in ("", "reading"):
            found[one.key] = _property(one)
    for table in dict.fromkeys(one.table for one in settings.values() if one.table):
        about = "How data is read." if table == "reading" else f"Knobs of the strategy {table}."
        found[table] = _table(about, {one.key: _property(one) for one in settings.values() if one.table == table})
    return found


def _table(about: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    told = {"type": "object", "properties": dict(properties), "additionalProperties": False}
    return {"description": about} | told if about else told


def _property(one: Setting) -> dict[str, Any]:
    """A setting in a JSON Schema."""
    from pydantic import TypeAdapter

    made = TypeAdapter(one.kind).json_schema()
    return {**made, "default": one.default, "description": one.help}


# ---------------------------------------------------------------- kinds


def _kind(param: str, annotation: Any, field: Any, least: float | None) -> Any:
    """What a value of an option is validated as: the record's own type where it says more than the flag's."""
    from pydantic import AfterValidator, Field, WithJsonSchema

    base = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    if param == "budget":
        return Annotated[
            str, AfterValidator(_budget), Field(examples=["30s", "5m", "1h30m", "12trials", "20epochs", "0.1kWh"])
        ]
    if param == "allow_bad":
        return Annotated[str | float, AfterValidator(_share), Field(examples=["5%", 0.05])]
    if param == "cache_size":
        return Annotated[str, AfterValidator(_size), Field(examples=["10GB", "500MB"])]
    if param in ("strategy", "task"):
        item = {"strategy": "strategies", "task": "tasks"}[param]
        known = {"anyOf": [{"enum": ["", *shelf.names(item)] if param == "task" else [*shelf.names(item)]}]}
        named = {"anyOf": [*known["anyOf"], {"type": "string", "pattern": r"[.,]"}]}
        one = Annotated[str, AfterValidator(partial(_named, item)), WithJsonSchema(named)]
        return list[one] | one if param == "strategy" else one
    if _repeats(annotation):
        return list[str] | str
    if get_origin(field) is tuple:  # names with commas between them, or a list of these
        return list[Annotated[str, AfterValidator(_no_comma)]] | str
    if get_origin(field) is Literal:
        return field
    kind = str if base is Path or Path in get_args(base) else base
    return Annotated[kind, Ge(least)] if least is not None else kind


def _repeats(annotation: Any) -> bool:
    """Whether an option may be given again."""
    return list[str] in get_args(get_args(annotation)[0])


def _budget(text: str) -> str:
    made = _amount(text)
    if text and not (made.seconds or made.trials or made.epochs):
        raise ValueError("30s, 5m, 1h30m, 12trials, 20epochs or 0.1kWh")
    return text


def _size(text: str) -> str:
    if text and not _amount(text).bytes:
        raise ValueError("a size such as 10GB or 500MB")
    return text


def _amount(text: str) -> Budget:
    """A text as a budget; an empty one where it is none."""
    try:
        return Budget.parse(text)
    except ValueError:
        return Budget()


def _share(value: str | float) -> str:
    from regraft.planner.request import parse_share

    try:
        parse_share(value)
    except UsageError as error:
        raise ValueError(error.allowed) from error
    return str(value)


def _named(item: str, text: str) -> str:
    """A name on a shelf, or several with commas; a dotted one is somebody's own module."""
    for name in filter(None, (part.strip() for part in text.split(","))):
        if "." not in name and name not in shelf.names(item):
            raise ValueError(", ".join(shelf.names(item)))
    return text


def _no_comma(text: str) -> str:
    if "," in text:
        raise ValueError("names without a comma")
    return text


def _allowed(message: str) -> str:
    """What pydantic says that a value should be, in our words."""
    text = message.removeprefix("Value error, ").removeprefix("Input should be ").split(", unable")[0]
    return PLAINER.get(text, text)


PLAINER = {"a valid integer": "a whole number", "a valid number": "a number", "a valid boolean": "true or false"}
PLAINER |= {"a valid string": "a text", "a valid list": "a list of these"}


def _words(kind: Any) -> list[str]:
    """The words that a kind is limited to, as far as it is."""
    if get_origin(kind) is Literal:
        return [str(word) for word in get_args(kind)]
    return [*shelf.names("strategies"), *shelf.names("tasks")] if "_named" in repr(kind) else []


def _default(param: str, value: Any) -> Any:
    """A default as a file would write it."""
    if param == "budget":
        return ""
    if param == "allow_bad":
        return f"{float(value):.0%}" if not isinstance(value, str) else value
    return (
        []
        if not value and param in ("strategy", "model")
        else plain(value if not isinstance(value, Path) else str(value))
    )


def _plain(name: str) -> str:
    return name.replace("-", "_")


def _shown(value: Any) -> str:
    """A value as a file has it."""
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, (str, list)) else str(value)
