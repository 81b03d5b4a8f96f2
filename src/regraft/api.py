"""The verbs in Python: `advise` on data and models, `adapt`, `open` what came of it, `evaluate` and `compare` it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft import ahead, flow, many
from regraft.flow import Run as Run
from regraft.flow import finish, read_run, steps
from regraft.kit import store
from regraft.many import Tasks as Tasks
from regraft.planner.request import parse_budget, parse_share
from regraft.waist import Options, Reading

if TYPE_CHECKING:
    from regraft.deliver.compare import Compared
    from regraft.deliver.evaluate import Evaluation
    from regraft.deliver.model import Model
    from regraft.planner.advise import Advice


def adapt(
    data: Any,
    *,
    model: Any = None,
    zoo: str | Path = "",
    target: str = "",
    text: str | Sequence[str] = (),
    image: str = "",
    group: str = "",
    sensitive: str | Sequence[str] = (),
    time: str = "",
    task: str = "",
    val: str | Path = "",
    test: str | Path = "",
    max_rows: int = 0,
    shots: int = 0,
    unlabelled: str | Path = "",
    positive: str = "",
    order: Sequence[str] = (),
    allow_bad: str | float = "1%",
    metric: str = "",
    balance: str = "auto",
    long: str = "cut",
    max_tokens: int = 0,
    arch: str = "",
    strategies: Sequence[str] = (),
    knobs: dict[str, Any] | None = None,
    budget: str = "",
    refit: str = "train",
    out: str | Path = "runs",
    seed: int = 0,
    precision: str = "fp32",
    cache: bool = True,
    fresh: bool = False,
    advice: bool = False,
) -> Run:
    """Adapt a pretrained model to data: run the strategies, pick on validation, audit, pack.

    Args:
        data: A path (class folders of pictures or texts, a table, a folder of tables by split), a DataFrame, a
            `datasets.Dataset`, a tuple of arrays (X, y), or a dictionary split → one of these.
        model: A folder in Hugging Face or timm layout, `minilm`, `provider/NAME`, a state dict with `arch`, a bundle, a
            module; of a list of these, and of those in the folder `zoo`, the best by transferability scores.
        target, text, image, group, sensitive, time: Columns, where they are not to be guessed; two texts make a pair.
        task: A name in tasks/; `val`, `test`: paths of given splits; `max_rows`: most rows of a split, 0 for all;
            `shots`: so many rows of each class to train and validate with, 0 for all; `unlabelled`: the path of rows
            without labels, which may move class means.
        positive: Of two classes the one that is looked for; `order`: the labels from low to high, for task "ordinal".
        allow_bad: The share of files and rows that may be unusable; they are left out and listed in quarantine.jsonl.
        metric: What decides.
        balance: "auto", "none" or "classes": whether every class counts equally however rare it is.
        long, max_tokens: What becomes of texts of more tokens than that: "cut", "ends" or "windows"; 0 is the default.
        strategies: Names of files in strategies/, or dotted module paths; none for a race of all of them.
        knobs: "<strategy>.<knob>" → value.
        budget: "5m", "12trials", "20epochs", "0.1kWh" …; a race without one has ten minutes, named strategies have no
            bound.
        refit: "all" trains the winner once more on validation rows too.
        precision: "fp32", or "auto": trunk and training steps compute as is measured fastest here (layout, bfloat16, a
            compiled trunk), and large JPEGs are decoded for the trunk at a smaller scale.
        advice: Look at some rows and price the plans before the race; the report then holds forecast against fact.
    Returns: The finished run. The same call again reads it; after a kill it goes on.
    Raises: DataError, ModelError, UsageError, ResourceError: each with what was seen and what to do.
    """
    texts = tuple(sorted((name, str(value)) for name, value in (knobs or {}).items()))
    reading = Reading(
        target=target,
        text=_columns(text),
        image=image,
        group=group,
        sensitive=_columns(sensitive),
        time=time,
        task=task,
        val=str(val),
        test=str(test),
        max_rows=max_rows,
        shots=shots,
        unlabelled=str(unlabelled),
        positive=positive,
        order=tuple(order),
        allow_bad=parse_share(allow_bad),
    )
    options = Options(
        data=str(data) if isinstance(data, (str, Path)) else f"<{type(data).__name__}>",
        model=_told(model) if model is not None and not isinstance(model, list) else "",
        reading=reading,
        strategies=tuple(strategies),
        knobs=texts,
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
    if zoo or isinstance(model, list):
        return finish(flow.of_best(options, Path(out), _named(model), str(zoo), fresh=fresh, data=data))
    return finish(steps(options, Path(out), fresh=fresh, data=data, model=model))


def adapt_many(
    data: Mapping[str, Any] | Sequence[str | Path],
    *,
    model: Any,
    target: str = "",
    text: str | Sequence[str] = (),
    max_rows: int = 0,
    strategies: Sequence[str] = (),
    knobs: dict[str, Any] | None = None,
    metric: str = "",
    budget: str = "",
    out: str | Path = "runs",
    seed: int = 0,
    precision: str = "fp32",
    cache: bool = True,
    fresh: bool = False,
) -> Tasks:
    """Adapt one model to several data, a task each: one backbone, stored once, from one cache.

    Args:
        data: Task → data as `adapt` takes it, or paths.
        strategies: As `adapt` has them; those that leave the backbone as it is for all tasks, if none are named.
        budget: What each task may spend.
    Returns: The runs by task; `predict` answers all of them with one pass of the backbone.
    Raises: as `adapt`.
    """
    named = data if isinstance(data, Mapping) else many.names([str(path) for path in data])
    options = Options(
        data="",
        model=_told(model),
        reading=Reading(
            target=target,
            text=_columns(text),
            max_rows=max_rows,
        ),
        strategies=tuple(strategies),
        knobs=tuple(sorted((name, str(value)) for name, value in (knobs or {}).items())),
        metric=metric,
        budget=parse_budget(budget),
        precision=precision,  # type: ignore[arg-type]
        cache=cache,
        seed=seed,
    )
    return finish(many.steps(options, named, Path(out), fresh=fresh, model=model))


def advise(
    data: Any,
    *,
    model: Any = None,
    zoo: str | Path = "",
    goal: str = "",
    serve_on: str = "",
    many_tasks: bool = False,
    energy_budget: float = 0.0,
    on: str = "",
    hourly: float = 0.0,
    target: str = "",
    text: str | Sequence[str] = (),
    image: str = "",
    group: str = "",
    sensitive: str | Sequence[str] = (),
    time: str = "",
    task: str = "",
    val: str | Path = "",
    test: str | Path = "",
    max_rows: int = 0,
    positive: str = "",
    order: Sequence[str] = (),
    allow_bad: str | float = "1%",
    metric: str = "",
    long: str = "cut",
    max_tokens: int = 0,
    arch: str = "",
    budget: str = "",
    seed: int = 0,
    precision: str = "fp32",
) -> Advice:
    """Look at data and model, and say which way to go and why; nothing that is trained is kept, and nothing written.

    Args:
        model: As `adapt` has it, or a list of such; of several the best by transferability scores is taken.
        zoo: A folder of models: those that can be opened and read such data compete, too.
        goal: "accuracy", "speed", "stability" or "cost"; `serve_on`: where answers will be computed, such as "cpu".
        many_tasks: One network shall serve many tasks.
        energy_budget: How much training may draw, in kWh; `budget`: how long it may take.
        on: A card to price the plans on, too; `hourly`: what an hour costs, there or here.
    Returns: The advice: its `way`, `why`, `first` plan, `model`; what was seen is its `survey` and its `choice`.
    Raises: as `adapt`; UsageError: neither model nor zoo, or no such goal or card.
    """
    from regraft.planner.rules import Needs

    named = _named(model)
    reading = Reading(
        target=target,
        text=_columns(text),
        image=image,
        group=group,
        sensitive=_columns(sensitive),
        time=time,
        task=task,
        val=str(val),
        test=str(test),
        max_rows=max_rows,
        positive=positive,
        order=tuple(order),
        allow_bad=parse_share(allow_bad),
    )
    options = Options(
        data=str(data) if isinstance(data, (str, Path)) else f"<{type(data).__name__}>",
        model=next(iter(named), ""),
        reading=reading,
        metric=metric,
        long=long,  # type: ignore[arg-type]
        max_tokens=max_tokens,
        arch=arch,
        precision=precision,  # type: ignore[arg-type]
        seed=seed,
    )
    needs = Needs(goal, parse_budget(budget).seconds, serve_on, many_tasks, energy_budget)
    return finish(ahead.advice(options, needs, hourly, on, data, named, str(zoo)))[1]


def evaluate(
    run: str | Path,
    data: Any,
    *,
    target: str = "",
    text: str | Sequence[str] = (),
    image: str = "",
    split: str = "",
    max_rows: int = 0,
) -> Evaluation:
    """Score the model of a run or a bundle on labelled data, anything that `adapt` reads: every metric, 95 % intervals.

    Args:
        target, text, image: Columns, where they are not called as in training.
        split: "train", "val", "test" or "all"; the test split if there is one and otherwise all rows if left out.
    Raises: UsageError, DataError, ModelError: as `regraft evaluate`.
    """
    from regraft.deliver import evaluate as scoring

    reading = Reading(target=target, text=_columns(text), image=image, max_rows=max_rows)
    return scoring.evaluate(run, data, reading, split)


def evaluate_many(
    family: str | Path,
    data: Mapping[str, Any],
    *,
    target: str = "",
    text: str | Sequence[str] = (),
    image: str = "",
    split: str = "",
    max_rows: int = 0,
) -> dict[str, Evaluation]:
    """Score tasks of a family, each on its own labelled data, with one pass of the backbone that they share.

    Args:
        data: Task → data as `evaluate` takes it; tasks that are not named are not opened.
    Returns: Task → what it scores.
    Raises: as `evaluate`; UsageError: no family, no such task.
    """
    from regraft.deliver import evaluate as scoring

    reading = Reading(target=target, text=_columns(text), image=image, max_rows=max_rows)
    return scoring.evaluate_family(family, data, reading, split)


def compare(a: str | Path, b: str | Path) -> Compared:
    """Two finished runs against each other, paired on the test rows that both have.

    Raises: UsageError: one is not finished.
    """
    from regraft.deliver import compare as comparing

    return comparing.compare(a, b)


def open_result(path: str | Path, module: Any = None) -> Run | Model:
    """Open a run or a bundle; both predict. `module` is the network of a bundle from your own code.

    Raises: UsageError: there is neither, or the run is not finished.
    """
    from regraft.deliver.model import Model

    place = Path(path)
    if (place / "regraft.json").is_file() or module is not None:
        return Model.load(place if (place / "regraft.json").is_file() else place / "bundle", module)
    return read_run(store.existing(place))


def _columns(named: str | Sequence[str]) -> tuple[str, ...]:
    """Columns as a tuple: of one name, of several, or of none."""
    return (named,) if isinstance(named, str) and named else tuple(named)


def _told(model: Any) -> str:
    """What a model is called: its path or name, or its class."""
    if isinstance(model, (str, Path)):
        return str(model)
    return f"<{type(model[0] if isinstance(model, tuple) else model).__name__}>"


def _named(model: Any) -> dict[str, Any]:
    """Name → query of a model, of a list of them, or of none."""
    named: dict[str, Any] = {}
    for one in model if isinstance(model, list) else [] if model is None else [model]:
        told = _told(one)
        named[f"{told} {len(named) + 1}" if told in named and named[told] is not one else told] = one
    return named
