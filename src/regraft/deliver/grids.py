"""The tables of a report, as text in cells: the page and the Markdown show the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from regraft.deliver import words
from regraft.deliver.story import Story
from regraft.deliver.words import brief, clean, clock, count, figure, lead, signed, span
from regraft.waist import Epoch, Examined, Phase, Plan, Trial

MOST_CLASSES = 20
MOST_PAIRS = 15
MOST_EPOCHS = 400
MOST_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Grid:
    """A table: what it shows, its columns, its rows; `right` are columns of numbers, `marked` the winner's rows.

    The first column that is no number names its row. `long` tables are folded away on the page.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: tuple[int, ...] = ()
    marked: tuple[int, ...] = ()
    long: bool = False

    @property
    def names(self) -> int:
        """The column that names a row."""
        return next((i for i in range(len(self.head)) if i not in self.right), 0)


def trimmed(grid: Grid) -> Grid:
    """The same without a last column that says nothing."""
    if any(row[-1] for row in grid.rows):
        return grid
    return replace(grid, head=grid.head[:-1], rows=tuple(row[:-1] for row in grid.rows))


# ---------------------------------------------------------------- what was tried


def trials(story: Story) -> Grid:
    """Every trial, the best on validation first."""
    order, known = words.ranked(story), words.names(story.trials)
    metric = next((s.metric for s in story.winner.scores), "score")
    rows = []
    for i in order:
        trial = story.trials[i]
        val, test = words.score_of(trial, "val"), words.score_of(trial, "test")
        remarks = ["winner"] if i == story.verdict.winner else []
        remarks += [part for part in (words.role(trial.plan), words.remark(trial)) if part]
        rows.append(
            (
                str(i + 1),
                known[i],
                span(val) if val else "–",
                span(test) if test else "–",
                clock(trial.cost.seconds),
                f"{trial.cost.trainable:,}",
                f"{trial.cost.peak_bytes / 1e6:,.0f} MB" if trial.cost.peak_bytes else "–",
                "; ".join(remarks),
            )
        )
    return Grid(
        caption=f"All plans that were run, the best on validation first. Scores are {metric} with 95 % intervals.",
        head=("#", "plan", "validation", "test", "time", "weights trained", "peak memory", "remark"),
        rows=tuple(rows),
        right=(0, 2, 3, 4, 5, 6),
        marked=(order.index(story.verdict.winner),),
    )


def comparisons(story: Story) -> Grid:
    """The winner against each other trial, paired on the same validation rows."""
    known, scores = words.names(story.trials), [s for s in story.winner.scores if s.split == "val"]
    metric, rows = scores[0].metric if scores else "the metric", story.verdict.comparisons
    return Grid(
        caption=f"How much better {known[story.verdict.winner]} is than each other plan, paired on the same "
        f"{rows[0].n if rows else 0:,} validation rows; the intervals hold for all of them at once (95 %). "
        "Above zero the winner is better.",
        head=("against", f"lead in {metric}", "loss saved per row", "difference"),
        rows=tuple(
            (
                known[c.trial],
                lead(c),
                f"{signed(c.loss)} [{signed(c.loss_low)}, {signed(c.loss_high)}]",
                "clear" if c.significant else "within chance",
            )
            for c in sorted(rows, key=lambda c: c.gain)
            if 0 <= c.trial < len(known)
        ),
        right=(1, 2),
        long=len(rows) > MOST_PAIRS,
    )


def baselines(story: Story) -> Grid:
    """The winner beside what one would have without adapting anything."""
    test, found = words.score_of(story.winner, "test"), words.baselines(story)
    metric = test.metric if test else "score"
    rows = [
        ("adapted, the winner", words.names(story.trials)[story.verdict.winner], span(test) if test else "–", "", "")
    ]
    for each in found:
        score = "–"
        if each.test is not None:
            guess = each.test.low == each.test.high == each.test.value
            score = figure(each.test.value) if guess else span(each.test)
        rows.append((each.what, each.name, score, lead(each.comparison) if each.comparison else "–", each.why))
    return trimmed(
        Grid(
            caption=f"The winner beside what one would have without it: {metric} on the test split, 95 % intervals; "
            "the winner's lead is paired, on validation.",
            head=("what", "how", "test", "winner's lead", "remark"),
            rows=tuple(rows),
            right=(2, 3),
            marked=(0,),
        )
    )


def skipped(story: Story) -> Grid:
    """What was not run."""
    left = story.account.skipped
    return Grid(
        caption="Plans that were not run, and why.",
        head=("plan", "why"),
        rows=tuple((brief(s.plan.label), clean(s.why)) for s in left),
        long=len(left) > MOST_PAIRS,
    )


def phases(plan: Plan) -> Grid:
    """What a plan does, phase by phase."""
    return Grid(
        caption="What the winner does, phase by phase. A share is of the learning rate.",
        head=("phase", "epochs at most", "frozen stages", "trains, at which share", "schedule", "stops"),
        rows=tuple(
            (str(n + 1), str(p.epochs), str(p.frontier), _rates(p), p.schedule, _stops(p))
            for n, p in enumerate(plan.phases)
        ),
        right=(1, 2),
    )


def _rates(phase: Phase) -> str:
    return ", ".join(f"{clean(pattern)} × {rate:g}" for pattern, rate in phase.rates) or "nothing"


def _stops(phase: Phase) -> str:
    if phase.stop:
        return f"after {count(phase.stop, 'epoch')}"
    return f"after {count(phase.patience_epochs, 'epoch')} without gain" if phase.patience_epochs else "at its end"


# ---------------------------------------------------------------- learning curves


def curves(story: Story) -> Grid:
    """A line for each trial's learning curve."""
    known, rows, marked = words.names(story.trials), list[tuple[str, ...]](), list[int]()
    for i in words.ranked(story):
        trial = story.trials[i]
        if trial.curve:
            marked += [len(rows)] if i == story.verdict.winner else []
            first, last = trial.curve[0], trial.curve[-1]
            rows.append(
                (
                    known[i],
                    str(len(trial.curve)),
                    f"{figure(first.train_loss)} → {figure(last.train_loss)}",
                    f"{figure(first.val_loss)} → {figure(last.val_loss)}",
                    figure(best(trial).metric),
                )
            )
    return Grid(
        caption="Learning curves in numbers: losses of the first and the last epoch, the best score on validation.",
        head=("plan", "epochs", "training loss", "validation loss", "best on validation"),
        rows=tuple(rows),
        right=(1, 2, 3, 4),
        marked=tuple(marked),
    )


def epochs(story: Story) -> Grid:
    """Every epoch of every trial; of very many, each n-th."""
    known = words.names(story.trials)
    every = [(i, n, e) for i in words.ranked(story) for n, e in enumerate(story.trials[i].curve)]
    step = -(-len(every) // MOST_EPOCHS) or 1
    return Grid(
        caption="Every epoch." if step == 1 else f"Every {step}th epoch.",
        head=("plan", "phase", "epoch", "training loss", "validation loss", "score on validation"),
        rows=tuple(
            (known[i], str(e.phase + 1), str(n + 1), figure(e.train_loss), figure(e.val_loss), figure(e.metric))
            for i, n, e in every[::step]
        ),
        right=(1, 2, 3, 4, 5),
        long=True,
    )


def best(trial: Trial) -> Epoch:
    """The epoch with the best score on validation."""
    lower = any(s.better == "lower" for s in trial.scores[:1])
    return min(trial.curve, key=lambda e: e.metric if lower else -e.metric)


# ---------------------------------------------------------------- mistakes


def confused(examined: Examined, sets: bool, most: int = MOST_CLASSES) -> list[int]:
    """The classes to show, in their order: all, or of many the ones most often confused."""
    counts = examined.confusion
    if sets:
        sizes = [wrongly + missed for _, wrongly, missed, _ in counts]
    else:
        sizes = [sum(row) + sum(line[c] for line in counts) - 2 * row[c] for c, row in enumerate(counts)]
    return sorted(sorted(range(len(sizes)), key=lambda c: (-sizes[c], c))[:most])


def pairs(examined: Examined) -> Grid:
    """The most frequent mistakes."""
    found = [(n, t, a) for t, line in enumerate(examined.confusion) for a, n in enumerate(line) if n and a != t]
    found.sort(key=lambda each: (-each[0], each[1:]))
    shown = found[:MOST_PAIRS]
    return Grid(
        caption="The most frequent mistakes on the test split"
        + (f": {len(shown)} of {len(found)} kinds." if len(found) > len(shown) else "."),
        head=("truth", "answer", "rows", "of the truth's rows"),
        rows=tuple(
            (brief(examined.labels[t]), brief(examined.labels[a]), f"{n:,}", share(n, sum(examined.confusion[t])))
            for n, t, a in shown
        ),
        right=(2, 3),
    )


def by_class(examined: Examined, sets: bool) -> Grid:
    """How well each class is found; for sets of labels, each label."""
    rows: list[tuple[str, ...]] = []
    for c, label in enumerate(examined.labels):
        line = examined.confusion[c]
        if sets:
            _, wrongly, missed, right = line
            true, answered = missed + right, wrongly + right
        else:
            right, true, answered = line[c], sum(line), sum(other[c] for other in examined.confusion)
        rows.append(
            (brief(label), f"{true:,}", f"{answered:,}", f"{right:,}", share(right, true), share(right, answered))
        )
    noun = "label" if sets else "class"
    return Grid(
        caption=f"Test rows by {noun}: how many are of it, how many were answered as it, how many of these rightly.",
        head=(noun, "true", "answered", "right", "of the true found", "of the answered right"),
        rows=tuple(rows),
        right=(1, 2, 3, 4, 5),
        long=len(rows) > MOST_CLASSES,
    )


def examples(examined: Examined) -> Grid:
    """The rows that were answered most wrongly."""
    numbers = bool(examined.numbers)
    rows = []
    for e in examined.examples:
        last = off(e.y, e.said) if numbers else share(e.confidence, 1)
        rows.append((brief(e.id), brief(e.y), brief(e.said), last, brief(e.text, 160) if e.text else ""))
    texts = any(e.text for e in examined.examples)
    head = ("row", "truth", "answer", "off by" if numbers else "confidence", "text")
    return Grid(
        caption="Rows of the test split with the largest errors."
        if numbers
        else "Rows of the test split that were answered wrongly, the surest first.",
        head=head if texts else head[:-1],
        rows=tuple(rows if texts else (row[:-1] for row in rows)),
        right=(1, 2, 3) if numbers else (3,),
    )


def errors(pairs: Sequence[tuple[float, float]]) -> Grid:
    """How large the errors are, by quantiles."""
    sizes = sorted(abs(said - y) for y, said in pairs)

    def at(q: float) -> str:
        return figure(sizes[min(len(sizes) - 1, int(q * len(sizes)))]) if sizes else "–"

    return Grid(
        caption=f"Size of the errors of the {len(sizes):,} test rows shown above.",
        head=("share of rows", "error at most"),
        rows=tuple((f"{q:.0%}".replace("%", " %"), at(q)) for q in (0.25, 0.5, 0.75, 0.9)),
        right=(1,),
    )


def share(part: float, whole: float) -> str:
    """A part of a whole in per cent.

    >>> share(1, 3), share(0, 0)
    ('33.3 %', '–')
    """
    return f"{100 * part / whole:.1f} %" if whole else "–"


def off(y: str, said: str) -> str:
    """How far an answer is from the truth."""
    try:
        return signed(float(said) - float(y))
    except ValueError:
        return "–"


# ---------------------------------------------------------------- what it rests on


def checks(story: Story) -> Grid:
    """What was asked of the winner before it ships."""
    return trimmed(
        Grid(
            caption="What was asked of the winner before it ships.",
            head=("check", "status", "finding", "advice"),
            rows=tuple((f.check, f.status, clean(f.evidence), clean(f.advice)) for f in story.verdict.findings),
        )
    )


def flags(story: Story) -> Grid:
    """What was found about the data, warnings first."""
    order = sorted(story.flags, key=lambda flag: flag.status != "warn")
    return Grid(
        caption="What was found about the data before anything was trained on it. A warning means that the scores, or "
        "what is learned, may be wrong.",
        head=("what", "status", "count", "such as", "what to do"),
        rows=tuple(
            (
                brief(flag.text, 300),
                clean(flag.status),
                f"{flag.count:,} of {flag.of:,}",
                "; ".join(brief(one, 120) for one in flag.examples[:MOST_EXAMPLES]),
                brief(flag.advice, 300),
            )
            for flag in order
        ),
        right=(2,),
    )


def splits(story: Story) -> Grid:
    """Rows of each split."""
    used, whole = dict(story.account.rows), sum(n for _, n in story.data.rows)
    what = {"train": "what plans learn from", "val": "chooses between plans", "test": "read once, at the end"}
    return Grid(
        caption="Rows of each split.",
        head=("split", "rows", "share", "used", "what for"),
        rows=tuple(
            (name, f"{n:,}", share(n, whole), f"{used.get(name, n):,}", what.get(name, ""))
            for name, n in story.data.rows
        ),
        right=(1, 2, 3),
    )


def classes(story: Story) -> Grid:
    """Training rows of each class."""
    target = story.data.target
    known = zip(target.labels, target.counts, strict=False)
    whole = sum(n for name, n in story.data.rows if name == "train")
    return Grid(
        caption="Training rows of each label." if target.kind == "multi" else "Training rows of each class.",
        head=("label" if target.kind == "multi" else "class", "rows", "share"),
        rows=tuple((brief(label), f"{n:,}", share(n, whole)) for label, n in known),
        right=(1, 2),
        long=len(target.labels) > 10,
    )


def stages(story: Story) -> Grid:
    """The backbone's stages."""
    return Grid(
        caption="The backbone's stages, from the input on; work and output are per example.",
        head=("stage", "name", "parameters", "MFLOP", "output"),
        rows=tuple(
            (str(i), brief(s.name, 60), f"{s.params:,}", f"{s.flops / 1e6:,.1f}", f"{s.out_bytes / 1e3:,.1f} kB")
            for i, s in enumerate(story.backbone.stages)
        ),
        right=(0, 2, 3, 4),
        long=True,
    )


def versions(story: Story) -> Grid:
    """What the run was made with."""
    return Grid(
        caption="Versions of what it was made with.",
        head=("package", "version"),
        rows=tuple((clean(name), clean(version)) for name, version in story.machine.versions),
        long=True,
    )
