"""The command line: the verbs of the API under the same names, with progress, tables, JSON and exit codes."""

from __future__ import annotations

import inspect
import json
import shutil
import signal
import sys
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from regraft import __version__
from regraft.errors import GateError, Interrupted, RegraftError, ResourceError, UsageError
from regraft.kit import shelf

EVERY_S, BLINK_S = 10.0, 0.1
TABLE_ROWS = 40
KNOB = "__"
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, nothing else.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Show tracebacks of errors.")]


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command and exit with its code."""
    args = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    command = next((a for a in args if not a.startswith("-")), "")
    misused: Any = typer.BadParameter.__mro__[1]
    try:
        code = _app(_asked(args, "--strategy"))(args=args, standalone_mode=False, prog_name="regraft") or 0
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

    app.command("adapt")(_with_knobs(adapt, strategies))
    app.command("predict")(predict)
    app.command("demo")(demo)
    return app


def adapt(
    data: Annotated[
        str, typer.Argument(help="Class folders of pictures or texts, a table, or a folder of tables by split.")
    ] = "",
    model: Annotated[
        str,
        typer.Option("--model", help="A model's folder, minilm, provider/NAME, a state dict with --arch, a bundle."),
    ] = "",
    strategy: Annotated[
        list[str] | None, typer.Option("--strategy", help="What to run, in turn; may be given again. All if left out.")
    ] = None,
    target: Annotated[str, typer.Option("--target", help="The column to predict.")] = "",
    text: Annotated[str, typer.Option("--text", help="The column of texts, or two with a comma: a pair.")] = "",
    image: Annotated[str, typer.Option("--image", help="The column of picture paths.")] = "",
    group: Annotated[str, typer.Option("--group", help="Rows with one value here stay in one split.")] = "",
    sensitive: Annotated[
        str, typer.Option("--sensitive", help="Columns that never are inputs and are kept beside the rows.")
    ] = "",
    time: Annotated[str, typer.Option("--time", help="A column of times: the latest rows become the test.")] = "",
    task: Annotated[str, typer.Option("--task", help="classify, multilabel, regress or ordinal.")] = "",
    val: Annotated[str, typer.Option("--val", help="A path with the validation split.")] = "",
    test: Annotated[str, typer.Option("--test", help="A path with the test split.")] = "",
    max_rows: Annotated[int, typer.Option("--max-rows", help="Most rows of each split; 0 takes all.", min=0)] = 0,
    positive: Annotated[str, typer.Option("--positive", help="Of two classes, the one that is looked for.")] = "",
    order: Annotated[str, typer.Option("--order", help="The labels from low to high, for --task ordinal.")] = "",
    metric: Annotated[str, typer.Option("--metric", help="The metric that decides.")] = "",
    balance: Annotated[
        str, typer.Option("--balance", help="auto, none, or classes: every class counts the same however rare it is.")
    ] = "auto",
    long: Annotated[
        str, typer.Option("--long", help="Texts that are too long: cut, ends (head and tail), or windows (averaged).")
    ] = "cut",
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Longest text in tokens; 0 takes the default.")] = 0,
    arch: Annotated[
        str, typer.Option("--arch", help="The architecture of a state dict: timm/NAME, torchvision/NAME.")
    ] = "",
    out: Annotated[Path, typer.Option("--out", help="The folder that runs are put into.")] = Path("runs"),
    seed: Annotated[int, typer.Option("--seed", help="Seeds splits, starts, order of rows, resampling.")] = 0,
    precision: Annotated[
        str, typer.Option("--precision", help="fp32 (exact), or auto: bf16 for the trunk where it is measured faster.")
    ] = "fp32",
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Keep what the frozen trunk gives.")] = True,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start anew beside an earlier run of the same request.")
    ] = False,
    resume: Annotated[Path | None, typer.Option("--resume", help="Go on with this run, which must exist.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plans and what they would take; write nothing.")
    ] = False,
    as_json: Json = False,
    verbose: Verbose = False,
    knobs: dict[str, str] | None = None,
) -> None:
    """Adapt a pretrained model to your data: try the strategies, pick on validation, audit, pack.

    regraft adapt photos/ --model path/to/model

    regraft adapt photos/ --model path/to/model --strategy partial --partial.depth 2

    regraft adapt reviews.csv --model minilm --target label --text review

    A strategy's own options: regraft adapt --strategy NAME --help
    """
    from regraft import api
    from regraft.deliver import report
    from regraft.kit import store
    from regraft.waist import Options, Reading

    reading = Reading(
        target=target,
        text=_names(text),
        image=image,
        group=group,
        sensitive=_names(sensitive),
        time=time,
        task=task,
        val=val,
        test=test,
        max_rows=max_rows,
        positive=positive,
        order=_names(order),
    )
    options = Options(
        data=data,
        model=model,
        reading=reading,
        strategies=tuple(strategy or api.STRATEGIES),
        knobs=tuple(sorted((knobs or {}).items())),
        metric=metric,
        balance=balance,  # type: ignore[arg-type]
        long=long,  # type: ignore[arg-type]
        max_tokens=max_tokens,
        arch=arch,
        precision=precision,  # type: ignore[arg-type]
        cache=cache,
        seed=seed,
    )
    if resume is not None:
        if options != Options("", "", strategies=api.STRATEGIES) or strategy or fresh:
            raise UsageError(
                "--resume takes its request from the run",
                saw="DATA, --model, --strategy, a knob or another setting beside it",
                allowed="--resume RUN alone",
                do=f"regraft adapt --resume {resume}",
            )
        options = store.Folder(store.existing(resume)).load("options", Options)
    else:
        if not data or not model:
            raise UsageError(
                "what to adapt is missing",
                saw=f"DATA {data or 'not given'}, --model {model or 'not given'}",
                allowed="both",
                do="regraft adapt photos/ --model path/to/model, or see regraft demo",
            )
    screen = Screen(quiet=as_json)
    if dry_run:
        plans = screen.watch(api.forecast(options))
        if as_json:
            _print(json.dumps({"schema": report.SCHEMA, "command": "adapt", "ok": True, "plans": plans}))
        else:
            head = ["plan", "frozen stages", "trained", "cache", "GFLOP at most"]
            screen.table(head, [_forecast(plan) for plan in plans])
        return
    run = screen.watch(api.steps(options, out, fresh=fresh, resume=resume))
    if as_json:
        told = report.as_object(str(run.folder), run.data, run.trials, run.verdict, str(run.report), "adapt")
        _print(json.dumps(told))
    else:
        _finale(screen, run)
    if run.verdict.decision == "refuse":
        raise typer.Exit(GateError.code)


def predict(
    run: Annotated[Path, typer.Argument(help="A run, or a bundle.")],
    inputs: Annotated[
        list[str] | None, typer.Argument(help="Files, folders, tables; - reads a text or a path a line.")
    ] = None,
    text: Annotated[list[str] | None, typer.Option("--text", help="A text; for a model of pairs give two.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write predictions here: .csv or .jsonl.")] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Predict with a run or a bundle.

    regraft predict runs/RUN photo.jpg more_photos/

    regraft predict runs/RUN --text "a quiet triumph"

    regraft predict runs/RUN table.csv --out labels.csv

    From standard input a pair is two texts with a tab between them.
    """
    from regraft import api
    from regraft.kit import durable

    if out is not None and out.suffix not in (".csv", ".jsonl"):
        raise UsageError("predictions cannot be written in this form", str(out), ".csv or .jsonl", "change its ending")
    if not inputs and not text:
        raise UsageError("there is nothing to predict", allowed="files, folders, --text, or - for standard input")
    model = api.open_model(run)
    cells: list[Any] = []
    for each in inputs or []:
        cells += api.lines(sys.stdin, model) if each == "-" else [Path(each)]
    cells += api.texts(text or [], model)
    answers = model.predict(cells)
    told = [json.dumps(answer, ensure_ascii=False) for answer in answers]
    if out is not None:
        made = api.as_csv(answers) if out.suffix == ".csv" else "\n".join(told) + "\n"
        durable.write(out, made.encode("utf-8", "surrogatepass"))
    if as_json:
        _print(json.dumps({"schema": 1, "command": "predict", "ok": True, "run": str(run), "predictions": answers}))
        return
    screen = Screen()
    head = [name for name, value in answers[0].items() if not isinstance(value, dict)]
    rows = [[_shown(answer[name]) for name in head] for answer in answers]
    screen.table(head, rows[: TABLE_ROWS if out else None])
    if out is not None:
        screen.say(f"{len(rows)} predictions written to {out}")


def demo(
    out: Annotated[Path, typer.Option("--out", help="The folder that the demo's data and run are put into.")] = Path(
        "runs"
    ),
    seed: Annotated[int, typer.Option("--seed", help="Seeds the choice of digits and everything after it.")] = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Run it anew.")] = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show the whole way on handwritten digits with a small backbone of our own: no network, under two minutes.

    regraft demo
    """
    from regraft import embedded
    from regraft.embedded.digits import write_digits

    folder = write_digits(out / "digits", seed)
    screen = Screen(quiet=as_json)
    screen.say(f"demo: scikit-learn's handwritten digits, 20 a class for training, as small pictures in {folder}")
    screen.say("demo: the backbone was trained on invented pen strokes and has seen no digit")
    model = str(embedded.folder())
    fair = {"scratch.epochs": "60"}  # random weights need longer than the default to show what they can do
    adapt(str(folder), model, out=out, seed=seed, fresh=fresh, as_json=as_json, knobs=fair)


class Screen:
    """Progress on standard error: one calm line on a terminal, plain lines at most every ten seconds in a log."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.live = sys.stderr.isatty() and not quiet
        self._last = time.monotonic()
        self._shown = 0

    def say(self, text: str) -> None:
        """A line that stays."""
        if not self.quiet:
            self._wipe()
            print(clean(text), file=sys.stderr, flush=True)

    def event(self, event: Any) -> None:
        """Show one event of a run."""
        from regraft.waist import Epoch, Filled, Finished, PhaseDone, Said, Scored, Step

        if isinstance(event, Said):
            self.say(event.text)
        elif isinstance(event, Scored):
            line: Epoch = event.epoch
            self._passing(f"epoch {line.epoch + 1}: loss {line.train_loss:.4f}, validation {line.metric:.3f}")
        elif isinstance(event, Step):
            self._passing(f"step {event.step}/{event.steps}: loss {event.loss:.4f}")
        elif isinstance(event, PhaseDone) and event.verified:
            self.say(f"  {event.verified} frozen tensors hashed before and after: unchanged")
        elif isinstance(event, Finished):
            t = event.trial
            self.say(f"  {t.label}: validation {t.score('val').value:.3f}, {t.cost.seconds:.1f} s")
        elif isinstance(event, Filled):
            self._passing(f"trunk: {event.done}/{event.rows} examples")

    def watch(self, work: Generator[Any, None, Any]) -> Any:
        """Pull a run to its end, showing its events; a first Ctrl-C or SIGTERM stops it at the next step.

        Raises: Interrupted: it was stopped; what was done is on disk.
        """
        stopped: list[int] = []

        def stop(number: int, _frame: FrameType | None) -> None:
            stopped.append(number)
            if len(stopped) > 1:
                raise KeyboardInterrupt

        kept = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            while True:
                try:
                    self.event(next(work))
                except StopIteration as end:
                    return end.value
                except Exception:
                    if not stopped:
                        raise
                if stopped:
                    work.close()
                    raise Interrupted(
                        "stopped; what was done is kept",
                        do="run the same command again to go on",
                        code=143 if stopped[0] == signal.SIGTERM else 130,
                    )
        finally:
            self._wipe()
            for number, handler in kept.items():
                signal.signal(number, handler)

    def table(self, head: list[str], rows: list[list[str]]) -> None:
        """A table on standard output."""
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for i, title in enumerate(head):
            table.add_column(title, overflow="fold", no_wrap=i > 0)
        for row in rows:
            table.add_row(*(Text(clean(cell)) for cell in row))
        width = None if sys.stdout.isatty() else 200
        Console(width=width, highlight=False).print(table)

    def _passing(self, text: str) -> None:
        if self.live:
            if time.monotonic() - self._last >= BLINK_S:
                self._last = time.monotonic()
                self._wipe()
                line = clean(text)[: shutil.get_terminal_size().columns - 1]
                sys.stderr.write(line)
                sys.stderr.flush()
                self._shown = len(line)
        elif not self.quiet and time.monotonic() - self._last >= EVERY_S:
            self._last = time.monotonic()
            print("  " + text, file=sys.stderr, flush=True)

    def _wipe(self) -> None:
        if self._shown:
            sys.stderr.write("\r" + " " * self._shown + "\r")
            self._shown = 0


def clean(text: str) -> str:
    """Text without control characters, so that names in data cannot steer a terminal."""
    return "".join(c if c.isprintable() else "�" for c in text)


def _forecast(told: dict[str, Any]) -> list[str]:
    numbers = [f"{told['trainable']:,}", f"{told['cache_bytes'] / 1e6:.1f} MB", f"{told['gflop_at_most']:,.0f}"]
    return [told["label"], str(told["frontier"]), *numbers]


def _finale(screen: Screen, run: Any) -> None:
    from regraft.deliver import report

    head = ["", "plan", "validation", "test", "trained", "seconds", "peak memory"]
    screen.table(head, report.cells_of(run.trials, run.verdict.winner))
    _print("")
    _print(f"{run.verdict.decision}: {run.winner.label} · {run.verdict.rule}")
    for finding in run.verdict.findings:
        _print(f"  {finding.status}  {finding.check}: {finding.evidence}")
    _print(f"report  {run.report}")
    if run.verdict.decision == "refuse":
        _print("no bundle is shipped")
        return
    _print(f"bundle  {run.bundle}")
    _print("next")
    for line in report.commands(str(run.folder), run.data):
        _print(f"  {line}")


def _with_knobs(command: Callable[..., None], strategies: Sequence[str]) -> Callable[..., None]:
    """`command` with an option for each knob of the strategies in place of its `knobs`."""
    from regraft.planner.propose import knobs_of

    kept = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "knobs"]
    for name in strategies:
        short = name.rsplit(".", 1)[-1]
        said = _sayings(shelf.find("strategies", name).Knobs)
        for knob, (_, default) in knobs_of(name).items():
            option = typer.Option(None, f"--{short}.{knob}", help=f"{said.get(knob, '')} [default: {default}]".strip())
            kept.append(
                inspect.Parameter(
                    f"{short}{KNOB}{knob}", inspect.Parameter.KEYWORD_ONLY, default=option, annotation=str
                )
            )

    def made(**given: Any) -> None:
        knobs = {name: given.pop(name) for name in list(given) if KNOB in name}
        command(**given, knobs={name.replace(KNOB, "."): v for name, v in knobs.items() if v is not None})

    made.__doc__ = command.__doc__
    made.__name__ = command.__name__
    made.__signature__ = inspect.Signature(kept)  # type: ignore[attr-defined]
    made.__annotations__ = {p.name: p.annotation for p in kept}
    return made


def _sayings(knobs: type) -> dict[str, str]:
    """What a Knobs docstring says of each knob: "depth: how many … lr: rate …" → a sentence each."""
    names = list(knobs.__annotations__)
    words = (knobs.__doc__ or "").split()
    said: dict[str, list[str]] = {}
    current = ""
    for word in words:
        if word.endswith(":") and word[:-1] in names:
            current = word[:-1]
            said[current] = []
        elif current:
            said[current].append(word)
    return {name: " ".join(text) for name, text in said.items()}


def _asked(args: Sequence[str], flag: str) -> list[str]:
    """The values of `flag` on a command line, before it is parsed; all built-in strategies when there are none."""
    found = [args[i + 1] for i, a in enumerate(args[:-1]) if a == flag] + [
        a[len(flag) + 1 :] for a in args if a.startswith(flag + "=")
    ]
    knobbed = [a[2:].split(".", 1)[0] for a in args if a.startswith("--") and "." in a.split("=", 1)[0]]
    known = shelf.names("strategies")
    return list(dict.fromkeys(n for n in [*found, *knobbed] if n in known or (n in found and "." in n)))


def _names(text: str) -> tuple[str, ...]:
    """Column names with commas between them."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _shown(value: Any) -> str:
    """A part of an answer in a table."""
    if isinstance(value, float):
        return f"{value:.3f}"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _version(wanted: bool) -> None:
    if wanted:
        _print(f"regraft {__version__}")
        raise typer.Exit


def _print(text: str) -> None:
    print("\n".join(clean(line) for line in text.split("\n")), flush=True)


def _fail(error: RegraftError, command: str, args: Sequence[str]) -> int:
    """Tell an error: to people on standard error, to scripts as one object."""
    if "-v" in args or "--verbose" in args:
        import traceback

        traceback.print_exception(error, file=sys.stderr)
    if "--json" in args:
        told = {"code": error.code, "what": error.what, "saw": error.saw, "allowed": error.allowed, "do": error.do}
        _print(json.dumps({"schema": 1, "command": command, "ok": False, "error": told}))
    else:
        print(
            "\n".join(
                clean(line) for line in ["regraft: " + error.lines()[0], *("  " + ln for ln in error.lines()[1:])]
            ),
            file=sys.stderr,
        )
    return error.code


if __name__ == "__main__":
    main()
