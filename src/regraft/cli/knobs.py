"""The options that `regraft.cli` adds to a verb: knobs of strategies, the machine's settings, --config and --set."""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from typer.models import ParameterInfo

from regraft.cli import given as giving
from regraft.cli.screen import clean
from regraft.cli.settings import KNOB, KNOBBED, PREFIX, Setting, settings_of
from regraft.errors import UsageError
from regraft.kit import hardware, shelf

Command = Callable[..., None]
CONFIG_HELP = "Settings from a TOML, JSON or YAML file; flags and REGRAFT_ variables come before it."
SET_HELP = "A setting as NAME=VALUE, such as probe.lr=0.01; counts as its flag, may be given again."
Threads = Annotated[int, typer.Option("--threads", min=0, help="Threads to compute with; 0 takes what is allowed.")]
CacheFolder = Annotated[
    str, typer.Option("--cache-folder", help="Where the cache lies; your cache folder if left out.")
]
CacheSize = Annotated[str, typer.Option("--cache-size", help="The most that the cache keeps, such as 10GB or 500MB.")]


def machine(threads: Threads = 0, cache_folder: CacheFolder = "", cache_size: CacheSize = "") -> None:
    """The settings of the machine, which every verb that computes has."""
    hardware.choose(threads, cache_folder, cache_size)


def known(commands: dict[str, Command], strategies: Sequence[str]) -> dict[str, dict[str, Setting]]:
    """Verb → parameter → setting, of these commands by their verbs; `KNOBBED` ones have the knobs of `strategies`."""
    found = {}
    for verb, command in commands.items():
        own = settings_of(verb, command, strategies if verb in KNOBBED else ())
        found[verb] = own | settings_of("adapt" if verb == "adapt" else verb, machine)
    return found


def settled(verb: str, command: Command, told: dict[str, dict[str, Setting]], shown: Sequence[str] = ()) -> Command:
    """`command` with its settings taken from flags, variables and a file; it gets knobs as `knobs`.

    `shown` are the strategies whose knobs the help lists.
    """
    settings = told[verb]
    kept = [_with_variables(p, settings) for p in _parameters(command) if p.name != "knobs"]
    kept += [_knob(one, one.table not in shown) for one in settings.values() if KNOB in one.param]
    kept += [_with_variables(p, settings) for p in _parameters(machine)]
    kept += [_option("config", Path | None, _config(verb, told, {p.name: p.default for p in kept}))]
    kept += [_option("set", list[str] | None, typer.Option("--set", help=SET_HELP))]
    context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)

    def made(**given: Any) -> None:
        ctx, sets = given.pop("ctx"), given.pop("set") or []
        del given["config"]
        if given.get("resume") and (sets or _source(ctx, "config") == "COMMANDLINE"):
            raise alone(given["resume"])
        found = giving.resolve(ctx, given, settings, sets)
        for line in found.aside:
            warn(f"{line} is left aside: its strategy is not among those that were asked for")
        values = given | found.values
        machine(**{p.name: values.pop(p.name) for p in _parameters(machine)})
        chosen = {n.replace(KNOB, "."): v for n in list(values) if KNOB in n and (v := values.pop(n)) is not None}
        if verb in KNOBBED:
            values["knobs"] = chosen
        command(**values)

    made.__doc__ = command.__doc__
    made.__name__ = command.__name__
    made.__signature__ = inspect.Signature([*kept, context])  # type: ignore[attr-defined]
    made.__annotations__ = {p.name: p.annotation for p in (*kept, context)}
    return made


def alone(run: Any) -> UsageError:
    """The error for a request beside --resume."""
    return UsageError(
        "--resume takes its request from the run",
        saw="DATA, --model, --strategy, a knob or another setting beside it",
        allowed="--resume RUN alone",
        do=f"regraft adapt --resume {run}",
    )


def warn(line: str) -> None:
    """A line on standard error that ends nothing."""
    print(clean(f"regraft: {line}"), file=sys.stderr, flush=True)


def strategies_of(args: Sequence[str]) -> list[str]:
    """The strategies that a command line, a variable or a file names, before any of them is parsed.

    Raises: UsageError: the file cannot be read.
    """
    values = [args[i + 1] for i, a in enumerate(args[:-1]) if a == "--config"]
    values += [a.partition("=")[2] for a in args if a.startswith("--config=")]
    held = hardware.variables(PREFIX)
    found = asked(args, "--strategy") + held.get(f"{PREFIX}STRATEGY", "").split()
    sets = [args[i + 1] for i, a in enumerate(args[:-1]) if a == "--set"]
    sets += [a[len("--set=") :] for a in args if a.startswith("--set=")]
    found += [text.partition("=")[2] for text in sets if text.startswith("strategy=")]
    for file in values or filter(None, [held.get(giving.CONFIG)]):
        found += giving.names_of(giving.read(Path(file)))
    return list(dict.fromkeys(giving.split(found)))


def _config(verb: str, told: dict[str, dict[str, Setting]], usually: dict[str, Any]) -> Any:
    """The option --config: what its file says becomes the default of the others."""

    def use(ctx: typer.Context, value: Path | None) -> Path | None:
        ctx.meta[giving.ENVIRONMENT] = giving.from_environment(told[verb])
        ctx.meta[giving.FILE], ctx.meta[giving.USUALLY] = {}, usually
        for line in giving.strays(told):
            warn(line)
        if value is not None:
            ctx.default_map, ctx.meta[giving.FILE] = giving.from_file(value, verb, told)
        return value

    return typer.Option(
        "--config", help=CONFIG_HELP, is_eager=True, callback=use, envvar=giving.CONFIG, show_envvar=False
    )


def _source(ctx: typer.Context, param: str) -> str:
    source = ctx.get_parameter_source(param)
    return source.name if source else "DEFAULT"


def _option(name: str, kind: Any, option: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option])


def _knob(one: Setting, hidden: bool) -> inspect.Parameter:
    """A knob as an option: a text, which its strategy reads."""
    said = f"{one.help} [default: {one.default}]".strip()
    option = typer.Option(f"--{one.name}", help=said, hidden=hidden, envvar=list(one.env), show_envvar=False)
    return _option(one.param, str | None, option)


def _with_variables(parameter: inspect.Parameter, settings: dict[str, Setting]) -> inspect.Parameter:
    """A parameter whose option reads its variable too."""
    made = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
    if parameter.name not in settings or not settings[parameter.name].env:
        return made
    kind, *rest = get_args(parameter.annotation)
    info = copy.copy(next(part for part in rest if isinstance(part, ParameterInfo)))
    info.envvar, info.show_envvar = list(settings[parameter.name].env), False
    return made.replace(annotation=Annotated[kind, info])


def _parameters(command: Command) -> list[inspect.Parameter]:
    return list(inspect.signature(command, eval_str=True).parameters.values())


def sayings(knobs: type) -> dict[str, str]:
    """What docstrings say of each knob, a class's own before those it inherits: "depth: how many … lr: rate …".

    >>> class Shared:
    ...     'lr: the rate.'
    ...     lr: float = 0.1
    >>> class Knobs(Shared):
    ...     'depth: how many.'
    ...     depth: int = 2
    >>> sayings(Knobs)
    {'depth': 'how many.', 'lr': 'the rate.'}
    """
    line = [kind for kind in knobs.__mro__ if kind is not object]
    names = {name for kind in line for name in inspect.get_annotations(kind)}
    said: dict[str, list[str]] = {}
    for kind in line:
        current: list[str] | None = None
        for word in (kind.__doc__ or "").split():
            if word.endswith(":") and word[:-1] in names:
                current = []  # what was said before stays
                said.setdefault(word[:-1], current)
            elif current is not None:
                current.append(word)
    return {name: " ".join(text) for name, text in said.items()}


def asked(args: Sequence[str], flag: str) -> list[str]:
    """The values of `flag` on a command line, before it is parsed; all built-in strategies when there are none."""
    found = [args[i + 1] for i, a in enumerate(args[:-1]) if a == flag] + [
        a[len(flag) + 1 :] for a in args if a.startswith(flag + "=")
    ]
    knobbed = [a[2:].split(".", 1)[0] for a in args if a.startswith("--") and "." in a.split("=", 1)[0]]
    known = shelf.names("strategies")
    return list(dict.fromkeys(n for n in [*found, *knobbed] if n in known or (n in found and "." in n)))
