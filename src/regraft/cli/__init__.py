"""The command line: a file for each verb, with progress, tables, JSON and exit codes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from regraft import __version__
from regraft.cli import adapt, compare, config, doctor, evaluate, predict, report, runs
from regraft.cli.knobs import asked, with_knobs
from regraft.cli.screen import clean, put, put_error
from regraft.errors import Interrupted, RegraftError, ResourceError, UsageError

GROUPS: dict[str, tuple[str, tuple[Callable[..., None], ...]]] = {
    "runs": ("The runs in a folder: list them, show one, remove some.", (runs.ls, runs.show, runs.rm)),
    "config": ("What regraft does where nothing else is said.", (config.show,)),
}
"""Verbs that have verbs of their own."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command and exit with its code."""
    args = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    command = _command(args)
    misused: Any = typer.BadParameter.__mro__[1]
    try:
        code = _app(asked(args, "--strategy"))(args=args, standalone_mode=False, prog_name="regraft") or 0
    except RegraftError as error:
        code = _fail(error, command, args)
    except misused as error:
        shown = f"regraft {command} --help".replace("  ", " ")
        code = _fail(UsageError(error.format_message(), do=shown), command, args)
    except (KeyboardInterrupt, typer.Abort):
        code = _fail(Interrupted("stopped"), command, args)
    except MemoryError:
        code = _fail(
            ResourceError("memory ran out", do="give it more memory, or a smaller model or batch"), command, args
        )
    except BrokenPipeError:
        code = 0
    except Exception as error:  # a bug of ours, told like every other error
        bug = RegraftError(
            "this is a bug in regraft", f"{type(error).__name__}: {error}", do="run it with -v, report it"
        )
        bug.__cause__ = error
        code = _fail(bug, command, args)
    sys.exit(code)


def _app(strategies: Sequence[str]) -> typer.Typer:
    """The commands; `adapt` gets the knobs of the strategies that the command line names."""
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

    app.command("adapt")(with_knobs(adapt.adapt, strategies))
    for verb in (predict.predict, evaluate.evaluate, compare.compare, report.report, doctor.doctor, adapt.demo):
        app.command(verb.__name__)(verb)
    for name, (about, verbs) in GROUPS.items():
        group = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=about)
        for verb in verbs:
            group.command(verb.__name__)(verb)
        app.add_typer(group, name=name)
    return app


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


def _fail(error: RegraftError, command: str, args: Sequence[str]) -> int:
    """Tell an error: to people on standard error, to scripts as one object."""
    if "-v" in args or "--verbose" in args:
        import traceback

        traceback.print_exception(error, file=sys.stderr)
    if "--json" in args:
        put_error(command, error)
    else:
        print(
            "\n".join(
                clean(line) for line in ["regraft: " + error.lines()[0], *("  " + ln for ln in error.lines()[1:])]
            ),
            file=sys.stderr,
        )
    return error.code
