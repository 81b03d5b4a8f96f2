"""Words for what pages and tables tell: names from data, scores, durations, trials side by side, a run in sentences."""

from __future__ import annotations

import dataclasses
import math
import shlex
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from regraft.deliver.story import QUARANTINE, Story
from regraft.planner.request import strategies_of
from regraft.waist import Account, Bad, Budget, Comparison, Options, Plan, Reading, Saved, Score, Trial

BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that turn the direction of what follows them."""
LONGEST = 80
REASONS = 6
ITSELF = "the winner itself"
ROLES = ("as it is", "random features", "from scratch", "plain features")
"""What a trial may be besides an adapted backbone: what one would have without adapting anything."""


def clean(text: str) -> str:
    """Text from data in one line, without characters that steer a reader: � stands for each of these.

    >>> clean("a\\nb\\u202ec\\x1b[31m")
    'a b�c�[31m'
    """
    return "".join(
        " " if c.isspace() else "�" if c in BIDI or unicodedata.category(c) in ("Cc", "Cs") else c for c in text
    )


def brief(text: str, most: int = LONGEST) -> str:
    """A name from data: clean, never empty, at most `most` characters.

    >>> brief("ants"), brief(""), brief("a" * 99, 5)
    ('ants', '(empty)', 'aaaa…')
    """
    line = clean(text).strip()
    return (line if len(line) <= most else line[: most - 1] + "…") or "(empty)"


def figure(value: float) -> str:
    """A score or a loss with as many digits as a reader can use; a dash where there is none.

    >>> figure(0.94321), figure(12345.678), figure(-0.00012), figure(float("nan"))
    ('0.943', '12,346', '-0.00012', '–')
    """
    size = abs(value)
    if not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if size >= 1e4 else f"{value:,.1f}" if size >= 100 else _small(value)


def _small(value: float) -> str:
    return f"{value:.3f}" if abs(value) >= 1e-3 or value == 0 else f"{value:.2g}"


def signed(value: float) -> str:
    """A difference with its sign."""
    return ("+" if value >= 0 else "") + figure(value)


def span(score: Score) -> str:
    """A score with its interval."""
    return f"{figure(score.value)} [{figure(score.low)}, {figure(score.high)}]"


def lead(comparison: Comparison) -> str:
    """How far the winner leads in the deciding metric, with the interval."""
    return f"{signed(comparison.gain)} [{signed(comparison.low)}, {signed(comparison.high)}]"


def clock(seconds: float) -> str:
    """A duration as one says it.

    >>> clock(0.42), clock(12.34), clock(252), clock(5400)
    ('0.42 s', '12.3 s', '4 min 12 s', '1 h 30 min')
    """
    if not math.isfinite(seconds):
        return "–"
    if seconds < 59.95:
        return f"{seconds:.2g} s" if seconds < 1 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    return f"{whole // 3600:,} h" + (f" {whole % 3600 // 60} min" if whole % 3600 // 60 else "")


def size(count: float) -> str:
    """Bytes as one says them.

    >>> size(1_500_000), size(2.5e9)
    ('1.5 MB', '2.5 GB')
    """
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def count(number: int, one: str, many: str = "") -> str:
    """A number of things.

    >>> count(1, "plan"), count(1200, "plan"), count(2, "class", "classes")
    ('1 plan', '1,200 plans', '2 classes')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def sentence_case(text: str, upper: bool = True) -> str:
    """A remark as a sentence of one line.

    >>> sentence_case("nothing that was checked")
    'Nothing that was checked.'
    """
    line = clean(text).strip()
    line = line[:1].upper() + line[1:] if upper and line[:2].islower() else line
    return line if not line or line.endswith((".", "!", "?", "…")) else line + "."


def budget_words(budget: Budget) -> list[str]:
    """The bounds of a budget as the command line reads them.

    >>> budget_words(Budget(seconds=5400.0, trials=12))
    ['1h30m', '12trials']
    """
    whole = round(budget.seconds)
    clocked = "".join(
        f"{n}{unit}" for n, unit in ((whole // 3600, "h"), (whole % 3600 // 60, "m"), (whole % 60, "s")) if n
    )
    parts = [
        clocked,
        f"{budget.trials}trials" if budget.trials else "",
        f"{budget.epochs}epochs" if budget.epochs else "",
        f"{budget.bytes / 1e9:g}GB" if budget.bytes else "",
        f"{budget.kwh:g}kWh" if budget.kwh else "",
    ]
    return [part for part in parts if part]


def left_out(bad: Sequence[Bad]) -> str:
    """What was left out of the data, by reason; "" where nothing was.

    >>> left_out([Bad("train", "a.jpg", 0, "the file is empty"), Bad("test", "b.jpg", 0, "the file is empty")])
    '2 files and rows cannot be used and are left out, see quarantine.jsonl: the file is empty (2)'
    """
    if not bad:
        return ""
    reasons = Counter(clean(one.why) for one in bad).most_common()
    told = "; ".join(f"{brief(why, 120)} ({number:,})" for why, number in reasons[:REASONS])
    more = f"; {len(reasons) - REASONS:,} more reasons" if len(reasons) > REASONS else ""
    what = count(len(bad), "file or row", "files and rows")
    verbs = ("cannot be used and is", "cannot be used and are")[len(bad) > 1]
    return f"{what} {verbs} left out, see {QUARANTINE}: {told}{more}"


# ---------------------------------------------------------------- trials


def names(trials: Sequence[Trial]) -> list[str]:
    """What each trial is called; a number tells apart those of one label.

    >>> from regraft.waist import Cost
    >>> one = Trial(Plan("probe", ()), 0, (), (), Cost(1.0, 1), "", "")
    >>> names([one, one])
    ['probe', 'probe (2)']
    """
    seen: Counter[str] = Counter()
    made = []
    for trial in trials:
        label = brief(trial.label)
        seen[label] += 1
        made.append(label if seen[label] == 1 else f"{label} ({seen[label]})")
    return made


def score_of(trial: Trial, split: str) -> Score | None:
    """The deciding metric on a split: none where it was stopped too early, or trained on the rows of that split."""
    if split == "val" and trial.plan.fold == "all":
        return None
    return next((s for s in trial.scores if s.split == split), None)


def role(plan: Plan) -> str:
    """Which of the `ROLES` a plan has, "" for one that adapts the backbone.

    >>> role(Plan("scratch", (), init="random")), role(Plan("probe", ())), role(Plan("p", (), init="plain"))
    ('from scratch', 'as it is', 'plain features')
    """
    if plan.init != "pretrained":
        untrained = "random features" if plan.optimizer.whole else "from scratch"
        return untrained if plan.init == "random" else "plain features"
    return "" if sum(phase.epochs for phase in plan.phases) else "as it is"


def ranked(story: Story) -> list[int]:
    """The trials by their score on validation, the best first, those without one last."""

    def place(i: int) -> tuple[bool, bool, float]:
        score = score_of(story.trials[i], "val")
        if score is None or not math.isfinite(score.value):
            return (True, True, 0.0)
        return (not story.trials[i].whole, False, score.value if score.better == "lower" else -score.value)

    return sorted(range(len(story.trials)), key=place)


def remark(trial: Trial) -> str:
    """What a reader of a table should know of a trial: why it has no score, or was not run to its end."""
    if trial.plan.fold == "all":
        return "trained on the validation rows too, so these say nothing of it"
    return clean(trial.stopped)


@dataclass(frozen=True, slots=True)
class Baseline:
    """What one would have without adapting the backbone: its test score, or why there is none."""

    what: str
    name: str
    test: Score | None
    comparison: Comparison | None = None
    why: str = ""


def baselines(story: Story) -> list[Baseline]:
    """A constant guess, and the best trial of each role."""
    metric = _deciding(story)
    guess = next((s for s in story.verdict.baselines if s.metric == metric), None)
    made = [Baseline("constant guess", "the same answer for every row", guess, why="" if guess else "not recorded")]
    known, order = names(story.trials), ranked(story)
    against = {c.trial: c for c in story.verdict.comparisons}
    for what in ROLES:
        found = [i for i in order if role(story.trials[i].plan) == what]
        if found:
            trial = story.trials[found[0]]
            why = ITSELF if found[0] == story.verdict.winner else remark(trial)
            made.append(Baseline(what, known[found[0]], score_of(trial, "test"), against.get(found[0]), why))
        else:
            left = [s.why for s in story.account.skipped if role(s.plan) == what]
            made.append(Baseline(what, "–", None, why=clean(left[0]) if left else "not among the plans of this run"))
    return made


def _deciding(story: Story) -> str:
    return next((s.metric for s in story.winner.scores), "")


# ---------------------------------------------------------------- sentences


def tried(story: Story) -> str:
    """What was tried, in a sentence."""
    strategies = len({trial.plan.strategy for trial in story.trials})
    stopped = sum(not trial.whole for trial in story.trials)
    ways = count(strategies, "strategy", "strategies")
    made = f"{count(len(story.trials), 'plan')} of {ways}"
    if story.account.seconds:
        made += f" in {clock(story.account.seconds)}"
    made += f"; {stopped:,} of them stopped early, behind another rate of the same strategy" if stopped else ""
    left = len(story.account.skipped)
    return made + (f"; {count(left, 'plan')} left out" if left else "")


def spared(saved: Saved) -> str:
    """What the cache spared, in a sentence without a full stop; empty where it spared nothing.

    >>> spared(Saved(700, 9300, 41.5))
    'the frozen trunk ran on 700 rows instead of 9,300: 8,600 passes of a row avoided, about 41.5 s (computed)'
    """
    if not saved.avoided:
        return ""
    energy = f" and {saved.joules:,.0f} J" if saved.joules else ""
    return (
        f"the frozen trunk ran on {count(saved.ran, 'row')} instead of {saved.plain:,}: {saved.avoided:,} passes of a "
        f"row avoided, about {clock(saved.seconds)}{energy} (computed)"
    )


def spent(story: Story) -> list[str]:
    """How the budget was spent, in sentences; empty where the run kept no account."""
    account = story.account
    if not account.trials:
        return []
    allowed = budget_words(account.budget)
    bound = f"Allowed were {', '.join(allowed)}." if allowed else "No bound was set."
    told = [
        f"{count(account.trials, 'trial')} took {clock(account.seconds)} over all sittings, with "
        f"{count(account.epochs, 'epoch')} through the backbone. {bound}"
    ]
    if account.budget.kwh:
        told.append(f"It drew {drawn(account)}.")
    there = dict(story.data.rows)
    fewer = [f"{used:,} of {there[s]:,} {s}" for s, used in account.rows if s in there and used < there[s]]
    if fewer:
        told.append(f"Rows used: {', '.join(fewer)}; the clock did not allow more.")
    if account.saved and (text := spared(account.saved)):
        told.append(f"{sentence_case(text)} Its price is that of a pass timed on this machine before the race.")
    return told + [sentence_case(note) for note in account.notes]


def drawn(account: Account) -> str:
    """What a run drew, and how that is known.

    >>> drawn(Account(Budget(kwh=0.1), 9.0, 1, 0, (), kwh=0.01234))
    '0.012 kWh (estimated)'
    """
    return f"{account.kwh or 0.0:.2g} kWh ({'by the processor' if account.metered else 'estimated'})"


def reproduce(options: Options) -> str:
    """The command that asks for the same again: settings that differ from the defaults, quoted for a shell.

    Things that were in memory have no place on a command line: then it is the call in Python.

    >>> reproduce(Options("my photos", "minilm", knobs=(("probe.depth", "2"),), cache=False, seed=3))
    "regraft adapt 'my photos' --model minilm --probe.depth 2 --no-cache --seed 3"
    >>> reproduce(Options("<DataFrame>", "minilm", Reading(target="y"), seed=3))
    "regraft.adapt(data, model='minilm', target='y', seed=3)"
    """
    settings = _settings(options)
    if options.data.startswith("<") or options.model.startswith("<"):
        given = [repr(options.data) if not options.data.startswith("<") else "data"]
        given.append(f"model={options.model!r}" if not options.model.startswith("<") else "model=model")
        given += [f"{name}={value!r}" for name, value in settings]
        given += [f"knobs={dict(options.knobs)!r}"] if options.knobs else []
        return f"regraft.adapt({', '.join(given)})"
    words = ["regraft", "adapt", options.data, "--model", options.model]
    for one in dict(settings).get("strategies", ()):
        words += ["--strategy", str(one)]
    for knob, text in options.knobs:
        words += [f"--{knob}", text]
    for name, value in settings:
        words += _flag(name, value) if name != "strategies" else []
    return shlex.join(words)


def _settings(options: Options) -> list[tuple[str, Any]]:
    """Fields of a request that differ from their defaults, strategies first; a budget as its words."""
    made: list[tuple[str, Any]] = []
    if set(options.strategies) not in (set(), set(strategies_of(dataclasses.replace(options, strategies=())))):
        made.append(("strategies", options.strategies))
    for asked, usual in ((options.reading, Reading()), (options, Options("", ""))):
        for field in dataclasses.fields(asked):
            value = getattr(asked, field.name)
            if field.name in ("data", "model", "reading", "strategies", "knobs") or value == getattr(usual, field.name):
                continue
            made += [("budget", w) for w in budget_words(value)] if isinstance(value, Budget) else [(field.name, value)]
    return made


def _flag(name: str, value: Any) -> list[str]:
    """A setting as words of a command line: the flag is the field's name."""
    flag = "--" + name.replace("_", "-")
    if isinstance(value, bool):
        return [flag if value else "--no-" + name.replace("_", "-")]
    return [flag, ",".join(value) if isinstance(value, tuple) else str(value)]
