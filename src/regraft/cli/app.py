"""The verbs as one command, and how each of its errors is told."""

from __future__ import annotations

import codecs
import errno
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import typer

from regraft import __version__
from regraft.cli import adapt, adapters, advise, cache, compare, config, doctor, evaluate, predict, report, runs, shots
from regraft.cli.adapt import FULL
from regraft.cli.knobs import known, settled, strategies_of
from regraft.cli.screen import clean, put, put_error
from regraft.cli.settings import KNOBBED
from regraft.errors import NoMemory, RegraftError, ResourceError, UsageError, short_of_memory
from regraft.kit import shelf

GROUPS: dict[str, tuple[str, tuple[Callable[..., None], ...]]] = {
    "runs": ("The runs in a folder: list them, show one, remove some.", (runs.ls, runs.show, runs.rm)),
    "cache": ("What is kept of frozen trunks: list it, remove some, check it.", (cache.ls, cache.rm, cache.verify)),
    "adapters": (
        "What hangs on one backbone: list it, take some in, remove, merge, export.",
        (adapters.ls, adapters.add, adapters.rm, adapters.merge, adapters.export),
    ),
    "config": ("What regraft does where nothing else is said, and what you said.", (config.show, config.schema)),
}
"""Verbs that have verbs of their own."""
VERBS: dict[str, Callable[..., None]] = {
    "advise": advise.advise,
    "adapt": adapt.adapt,
    "shots": shots.shots,
    "predict": predict.predict,
    "evaluate": evaluate.evaluate,
    "compare": compare.compare,
    "report": report.report,
    "doctor": doctor.doctor,
    "demo": adapt.demo,
}
DENIED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)
NO_ROOM = ("no space left", "os error 28", "disk quota exceeded", "file too large")
ASCII = {"→": ">", "–": "-", "—": "-", "…": "...", "×": "x", "·": "|", "±": "+-", "≤": "<=", "≥": ">=", "�": "?"}
"""Our own signs, for terminals that have no others than ASCII."""


def run(args: Sequence[str]) -> int:
    """Run a command; its exit code. Whatever goes wrong is told."""
    _legible()
    misused: Any = typer.BadParameter.__mro__[1]
    try:
        return _app(args)(args=list(args), standalone_mode=False, prog_name="regraft") or 0
    except SystemExit as end:  # typer's answer to a closed pipe, with an exit code that would mean a bug
        raise BrokenPipeError from end
    except BrokenPipeError:
        raise
    except typer.Abort as error:
        raise KeyboardInterrupt from error
    except misused as error:
        if (told := error.format_message()).startswith("Usage:"):  # a verb that has verbs of its own, without one
            put(told)
            return UsageError.code
        verb = _command(args) if _command(args).partition(" ")[0] in {*VERBS, *GROUPS} else ""
        return _fail(UsageError(told, do=" ".join(["regraft", *verb.split(), "--help"])), args)
    except RegraftError as error:
        return _fail(error, args)
    except Exception as error:
        return _fail(_told(error), args)


def _app(args: Sequence[str]) -> typer.Typer:
    """The commands; `adapt` gets the knobs of all strategies, and lists those of the ones that are named."""
    app = typer.Typer(
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )

    @app.callback()
    def top(
        version: Annotated[
            bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
        ] = False,
    ) -> None:
        """Graft a pretrained model onto your data, by measurement.

        regraft demo

        regraft adapt photos/ --model path/to/model
        """

    asked = _command(args)
    for verb, command in VERBS.items():
        app.command(verb)(_settled(verb, args) if verb == asked and verb in config.VERBS else command)
    for name, (about, group_verbs) in GROUPS.items():
        group = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=about)
        for own in group_verbs:
            group.command(own.__name__)(own)
        app.add_typer(group, name=name)
    return app


def _settled(verb: str, args: Sequence[str]) -> Callable[..., None]:
    """A verb with its settings; one with knobs has those of all strategies, and lists those of the named ones."""
    named = strategies_of(args) if verb in KNOBBED else []
    others = [name for name in named if "." in name]
    told = known(config.VERBS, [*shelf.names("strategies"), *others])
    return settled(verb, config.VERBS[verb], told, [name.rsplit(".", 1)[-1] for name in named])


def _command(args: Sequence[str]) -> str:
    """The verb of a command line, with the verb of its own where it has such.

    >>> _command(["-v", "runs", "ls", "there"]), _command(["predict", "runs", "ls"])
    ('runs ls', 'predict')
    """
    first, second = [*(a for a in args if not a.startswith("-")), "", ""][:2]
    own = [verb.__name__ for verb in GROUPS[first][1]] if first in GROUPS else []
    return f"{first} {second}" if second in own else first


def _version(wanted: bool) -> None:
    if wanted:
        put(f"regraft {__version__}")
        raise typer.Exit


# ---------------------------------------------------------------- errors


def _told(error: Exception) -> RegraftError:
    """What the system refused, as an error with a way out; anything that nobody foresaw is a bug of ours."""
    told: RegraftError | None = None
    for one in _causes(error):
        text = str(one).lower()
        number = one.errno if isinstance(one, OSError) else None
        where = f"{one.strerror}: {one.filename}" if isinstance(one, OSError) and one.filename else str(one)
        if short_of_memory(one):
            told = NoMemory(False, " ".join(str(one).split())[:200])
        elif number in FULL or any(words in text for words in NO_ROOM):
            told = ResourceError(
                "the disk is full; what was written is whole",
                saw=where,
                allowed="a disk with room for the run, the cache and temporary files (TMPDIR)",
                do="remove runs (regraft runs rm), lower --cache-size or use --no-cache, then run it again",
            )
        elif number in DENIED:
            told = UsageError(
                "the system does not allow this", where, "files and folders that you may use", "check the path"
            )
        if told is not None:
            break
    else:
        saw = f"{type(error).__name__}: {error}"
        told = RegraftError("this is a bug in regraft", saw, do="run it with -v, report it")
    told.__cause__ = error
    return told


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _fail(error: RegraftError, args: Sequence[str]) -> int:
    """Tell an error: to people on standard error, to scripts as one object."""
    if "-v" in args or "--verbose" in args:
        import traceback

        traceback.print_exception(error, file=sys.stderr)
    if "--json" in args:
        put_error(_command(args), error)
    else:
        first, *rest = error.lines()
        print(
            "\n".join(clean(line) for line in [f"regraft: {first}", *(f"  {line}" for line in rest)]), file=sys.stderr
        )
    return error.code


def _legible() -> None:
    """Let streams that cannot show a sign show another one in its place, instead of failing."""
    codecs.register_error("regraft", _sign)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors != "regraft":
            stream.reconfigure(errors="regraft")


def _sign(error: UnicodeError) -> tuple[str, int]:
    """What stands for signs that a stream does not have: our own ones in ASCII, others as their numbers."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return "".join(ASCII.get(c) or c.encode("ascii", "backslashreplace").decode() for c in signs), error.end
