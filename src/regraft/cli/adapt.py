"""`regraft adapt`, with the knobs of its strategies, and `regraft demo`."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Collection, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regraft.cli.given import USUAL, split
from regraft.cli.knobs import alone
from regraft.cli.screen import Json, Screen, Verbose, put, put_error, put_object, put_sentence, size
from regraft.errors import GateError, Interrupted, UsageError
from regraft.waist import Budget, Event

if TYPE_CHECKING:
    from regraft.flow import Run
    from regraft.waist import Options

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        help="A model's folder, minilm, provider/NAME, a state dict with --arch, a bundle; of several the best runs.",
    ),
]
Zoo = Annotated[str, typer.Option("--zoo", help="A folder of models: the best of those that read such data is taken.")]
Unlabelled = Annotated[
    str, typer.Option("--unlabelled", help="A path with rows without labels, which may move class means.")
]
More = Annotated[list[str] | None, typer.Argument(help="More data: a task each, on one backbone that is kept once.")]
EXAMPLE = "regraft adapt photos/ --model path/to/model, or see regraft demo"


def adapt(
    data: Annotated[
        str, typer.Argument(help="Class folders of pictures or texts, a table, or a folder of tables by split.")
    ] = "",
    more: More = None,
    model: Models = None,
    zoo: Zoo = "",
    strategy: Annotated[
        list[str] | None,
        typer.Option("--strategy", help="What to run; may be given again. All that suit, raced, if left out."),
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
    shots: Annotated[
        int, typer.Option("--shots", help="Rows of each class to train and validate with; 0 takes all.", min=0)
    ] = 0,
    unlabelled: Unlabelled = "",
    positive: Annotated[str, typer.Option("--positive", help="Of two classes, the one that is looked for.")] = "",
    order: Annotated[str, typer.Option("--order", help="The labels from low to high, for --task ordinal.")] = "",
    allow_bad: Annotated[
        str, typer.Option("--allow-bad", help="The share of files and rows that may be unusable: they are left out.")
    ] = "1%",
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
    budget: Annotated[
        str, typer.Option("--budget", help="How much may be spent: 30s, 5m, 1h30m, 12trials, 20epochs or 0.1kWh.")
    ] = "",
    refit: Annotated[
        str, typer.Option("--refit", help="What ships: the winner as it was tried (train), or trained on all rows.")
    ] = "train",
    out: Annotated[Path, typer.Option("--out", help="The folder that runs are put into.")] = Path("runs"),
    seed: Annotated[int, typer.Option("--seed", help="Seeds splits, starts, order of rows, resampling.")] = 0,
    precision: Annotated[
        str, typer.Option("--precision", help="fp32 (exact), or auto: what is measured fastest here.")
    ] = "fp32",
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Keep what the frozen trunk gives.")] = True,
    advice: Annotated[bool, typer.Option("--advice", help="First look and forecast, as regraft advise does.")] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start anew beside an earlier run of the same request; take nothing over.")
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

    regraft adapt reviews.csv --model minilm --target label --text review --budget 5m

    regraft adapt reviews.csv questions.csv --model minilm --target label

    A strategy's own options: regraft adapt --strategy NAME --help
    """
    from regraft import flow
    from regraft.kit import hardware, store
    from regraft.planner.request import parse_budget, parse_share
    from regraft.waist import Options, Reading

    reading = Reading(
        target=target,
        text=names(text),
        image=image,
        group=group,
        sensitive=names(sensitive),
        time=time,
        task=task,
        val=val,
        test=test,
        max_rows=max_rows,
        shots=shots,
        unlabelled=unlabelled,
        positive=positive,
        order=names(order),
        allow_bad=parse_share(allow_bad),
    )
    options = Options(
        data=data,
        model=next(iter(model or ()), ""),
        reading=reading,
        strategies=tuple(dict.fromkeys(split(strategy))),
        knobs=tuple(sorted((knobs or {}).items())),
        metric=metric,
        balance=balance,  # type: ignore[arg-type]
        long=long,  # type: ignore[arg-type]
        max_tokens=max_tokens,
        arch=arch,
        budget=parse_budget(budget),
        refit=refit,  # type: ignore[arg-type]
        precision=precision,  # type: ignore[arg-type]
        cache=cache,
        seed=seed,
        advice=advice,
    )
    many = [data, *more] if more else []
    named = dict.fromkeys([*(model or ()), *([zoo] if zoo else ())])
    if resume is not None:
        if options != Options("", "") or fresh or many or named:
            raise alone(resume)
        options = store.Folder(store.existing(resume)).load("options", Options)
    else:
        _complete(data, " ".join(named), None if dry_run else out)
    screen = Screen(quiet=as_json)
    if dry_run:
        _foretell(screen, options, bool(many) or len(named) > 1 or bool(zoo), as_json)
    elif many:
        from regraft.cli.many import adapt_many

        _one(named, zoo)
        adapt_many(screen, options, many, out, fresh, as_json)
    elif len(named) > 1 or zoo:
        models = {name: name for name in model or ()}
        begun = hardware.begun()
        _watch(screen, flow.of_best(options, out, models, zoo, fresh=fresh, begun=begun), out, as_json)
    else:
        work = flow.steps(options, out, fresh=fresh, resume=resume, begun=hardware.begun())
        _watch(screen, work, resume or out, as_json)


def _watch(screen: Screen, work: Generator[Event, None, Run], place: Path, as_json: bool) -> None:
    """Show a run, and what came of it."""
    try:
        run = screen.watch(work)
    except Interrupted as stopped:
        raise _halted(screen, stopped, place, as_json) from stopped
    if as_json:
        put_object("adapt", object_of(run, "adapt"))
    else:
        finale(screen, run)
    if run.verdict.decision == "refuse":
        raise typer.Exit(GateError.code)


def _one(named: Collection[str], zoo: str) -> None:
    """Refuse several models.

    Raises: UsageError: there are.
    """
    if len(named) > 1 or zoo:
        raise UsageError("several tasks share one model", ", ".join(named), "one --model", "leave out the others")


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

    check_place(out)
    folder = write_digits(out / "digits", seed)
    screen = Screen(quiet=as_json)
    screen.say(f"demo: scikit-learn's handwritten digits, 20 a class for training, as small pictures in {folder}")
    screen.say("demo: the backbone was trained on invented pen strokes and has seen no digit")
    model = str(embedded.folder())
    fair = {"scratch.epochs": "60"}  # random weights need longer than the default to show what they can do
    adapt(str(folder), model=[model], budget="12trials", out=out, seed=seed, fresh=fresh, as_json=as_json, knobs=fair)


def _foretell(screen: Screen, options: Options, several: bool, as_json: bool) -> None:
    """Show the plans of a request and what they would take.

    Raises: UsageError: it is for several data or models.
    """
    from regraft import ahead

    if several:
        saw = "several DATA or models"
        raise UsageError("plans are shown for one task and model at a time", saw, "one", "leave out the others")
    plans = screen.watch(ahead.forecast(options), kept=False)
    if as_json:
        put_object("adapt", {"plans": plans})
    else:
        head = ["plan", "frozen stages", "trained", "cache", "GFLOP at most"]
        screen.table(head, [_forecast(plan) for plan in plans])


def _complete(data: str, model: str, out: Path | None) -> None:
    """Refuse a request without data or model, and a folder for runs that cannot be written.

    Raises: UsageError: one is missing; a file with settings that lies here is shown. As `check_place`.
    """
    if not data or not model:
        raise UsageError(
            "what to adapt is missing",
            saw=f"DATA {data or 'not given'}, --model {model or 'not given'}",
            allowed="both",
            do=f"regraft adapt --config {USUAL}" if Path(USUAL).is_file() else EXAMPLE,
        )
    if out is not None:
        check_place(out)


def check_place(out: Path) -> None:
    """Refuse a folder for runs that cannot be made or written, before any work.

    Raises: UsageError: a file stands in the way, or the system does not allow it.
    """
    there = out.absolute()
    while not os.path.lexists(there):
        there = there.parent
    try:
        with tempfile.TemporaryDirectory(prefix=".part-", dir=there):
            pass
    except OSError as error:
        if error.errno in FULL:
            raise  # told as every full disk is
        raise UsageError(
            "runs cannot be put there",
            f"{there}: {error.strerror}",
            "a folder you may write to",
            "choose another --out",
        ) from error


def _halted(screen: Screen, stopped: Interrupted, place: Path, as_json: bool) -> Exception:
    """Tell what a stopped run has so far, and how to go on with it; returns what ends the command."""
    from regraft.deliver import sofar
    from regraft.deliver.report import told

    path = sofar.own(place)
    if path is None:
        return Interrupted("stopped before the run began; nothing was written", "run it again", stopped.code)
    found = sofar.so_far(path)
    error = Interrupted("stopped; what was done is kept", do=found.resume, code=stopped.code)
    if as_json:
        put_error("adapt", error, sofar.facts(found))
        return typer.Exit(error.code)
    for i, trial in enumerate(found.trials):
        score = sofar.validation(trial)
        lead = "→ " if i == found.leader else "  "
        screen.say(f"{lead}{trial.label}: {f'validation {told(score)}, ' if score else ''}{trial.cost.seconds:.1f} s")
    screen.say(f"so far: {len(found.trials)} trials finished of {found.begun} begun, {found.seconds:.0f} s spent")
    if found.bundle:
        screen.say(f"a usable model lies in {found.bundle}")
    return error


def object_of(run: Run, command: str) -> dict[str, Any]:
    """A finished run as `--json` prints it."""
    from regraft.deliver import report

    return report.as_object(str(run.folder), run.data, run.trials, run.verdict, str(run.report), command, run.account)


def finale(screen: Screen, run: Run) -> None:
    """The trials, the decision and what to do next, as `adapt` ends and `runs show` repeats."""
    from regraft.deliver import report, words

    screen.table(report.head_of(run.trials), report.cells_of(run.trials, run.verdict.winner), kept=4)
    put("")
    put_sentence(f"{run.verdict.decision}: {run.winner.label} · {run.verdict.rule}")
    for finding in run.verdict.findings:
        put_sentence(f"  {finding.status}  {finding.check}: {finding.evidence}")
    if run.account.skipped or run.account.budget != Budget():
        left = f", {len(run.account.skipped)} plans left out" if run.account.skipped else ""
        drawn = f", {words.drawn(run.account)}" if run.account.budget.kwh else ""
        put(f"race    {run.account.trials} trials in {run.account.seconds:.0f} s{drawn}{left}")
    if run.account.saved and (text := words.spared(run.account.saved)):
        put_sentence(f"cache   {text}")
    put(f"report  {run.report}")
    if run.verdict.decision == "refuse":
        put("no bundle is shipped")
        return
    put(f"bundle  {run.bundle}")
    put("next")
    for line in report.commands(str(run.folder), run.data):
        put(f"  {line}")


def _forecast(told: dict[str, Any]) -> list[str]:
    numbers = [f"{told['trainable']:,}", size(told["cache_bytes"]), f"{told['gflop_at_most']:,.0f}"]
    return [told["label"], str(told["frontier"]), *numbers]


def names(text: str) -> tuple[str, ...]:
    """Column names with commas between them."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
