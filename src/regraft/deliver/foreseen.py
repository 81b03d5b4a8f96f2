"""What advice foresaw, as words, tables and pictures; after a run beside what came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from regraft.deliver import curves, grids, words
from regraft.deliver.curves import Level, Pair, Reach
from regraft.deliver.grids import Grid
from regraft.deliver.story import Story
from regraft.deliver.svg import Figure
from regraft.deliver.words import brief, clean, clock, figure, size
from regraft.waist import Trial

if TYPE_CHECKING:
    from regraft.planner.advise import Advice, Depth, Priced, Survey

NAMES = {"knn": "nearest neighbours", "ridge": "ridge head", "h_score": "H-score", "logme": "LogME", "nleep": "NLEEP"}
"""Scores by the names that readers know; the first two are shares of right answers, or R² for numbers."""
WAYS = {
    "asis": "Use the network as it is",
    "extract": "Train a head on frozen features",
    "tune": "Fine-tune the network",
    "peft": "Train small added parts",
    "scratch": "Train from scratch",
    "plain": "A model without a network, or on an untrained one",
    "race": "Let a race decide",
}
Z = 1.96


# ---------------------------------------------------------------- words


def sentences(seen: Survey) -> list[str]:
    """What a survey showed, in words."""
    from regraft.planner.labels import sentence
    from regraft.planner.rules import CLOSE, FAR

    told = [f"{seen.rows:,} training rows were looked at in {seen.seconds:.0f} s"]
    if seen.head is not None and seen.chance is not None:
        told.append(f"a head on the features: {seen.head:.3f} leave-one-out; the largest class is {seen.chance:.3f}")
    if seen.asis is not None:
        told.append(f"the network as it is, by its own labels: {seen.asis:.3f}, nothing trained")
    if (peak := seen.peak) is not None:
        told.append(
            f"features after {peak.stage}, at {peak.share:.0%} of the work, suit a head best "
            f"({dict(peak.scores)['ridge']:.3f}): what follows serves other data"
        )
    if seen.similarity is not None:
        near = "close to" if seen.similarity >= CLOSE else "beside" if seen.similarity >= FAR else "far from"
        told.append(f"the rows are {near} what the network was trained on: similarity {seen.similarity:.2f}")
    if seen.noise is not None:
        told.append(f"about {seen.noise:.1%} of the labels look wrong" if seen.noise else "no label looks wrong")
    if seen.labels is not None:
        told.append(sentence(seen.labels))
    if seen.split:
        told.append("scores do not agree: " + ", ".join(f"{name} puts {stage} first" for name, stage in seen.split))
    return told


def terms(story: Story) -> list[tuple[str, str]]:
    """Which way advice pointed, and which way the winner went."""
    found, won = story.advice, story.winner
    assert found is not None
    own = next((one for one in found.priced if won.label in (one.label, *one.alike)), None)
    went = f"{words.names(story.trials)[story.verdict.winner]}" + (f": {_lower(WAYS[own.way])}" if own else "")
    return [*answer(found), ("What won", clean(went))]


def answer(found: Advice) -> list[tuple[str, str]]:
    """Which way to go, why, and with which plan to begin."""
    told = [("Which way", WAYS[found.way]), ("Why", words.sentence_case(found.why)), ("Begin with", found.first.label)]
    return [*told, ("Race it against", ", ".join(found.others))] if found.others else told


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _expected(seen: Survey) -> list[Reach]:
    """The label-efficiency curve: what was measured, and what is expected of all rows, of twice and of four times them.

    The ends of an expected interval have the widths of the score at all rows and of the gain, added in squares.
    """
    found = seen.labels
    if found is None:
        return []
    now, made = found.now, [Reach(one.rows, one.value, one.low, one.high) for one in found.points]
    made.append(Reach(now.rows, now.value, now.low, now.high, True))
    for times, gain in ((2, found.twice), (4, found.fourfold)):
        value, spread = now.value + gain.points / 100, Z * gain.spread / 100
        low, high = (
            value + sign * ((now.value - end) ** 2 + spread**2) ** 0.5 for sign, end in ((-1, now.low), (1, now.high))
        )
        made.append(Reach(times * now.rows, min(value, 1.0), low, min(high, 1.0), True))
    return made


# ---------------------------------------------------------------- tables


def prices(found: Advice) -> Grid:
    """What a plan of each kind takes at most, here and on the card that was asked about."""
    paid, there = (any(one) for one in zip(*((p.here.money, p.there) for p in found.priced), strict=True))
    head = ("plan", "way", "weights trained", "time", "memory", "disk", "kWh", "g CO₂")
    rows = []
    for one in found.priced:
        cost = one.here.cost
        row = [
            one.label,
            _lower(WAYS[one.way]),
            f"{cost.trainable:,}",
            clock(cost.seconds),
            _held(cost.peak_bytes or 0),
        ]
        row += [
            size((cost.disk_bytes or 0) + one.here.cache_bytes),
            f"{cost.kwh or 0:.2g}",
            f"{cost.grams_co2 or 0:.2g}",
        ]
        row += [f"{one.here.money:,.2f}"] if paid else []
        row += [clock(one.there.cost.seconds), one.fit.need, str(one.fit.batch)] if one.there and one.fit else []
        rows.append(tuple(row))
    more = (*(("money",) if paid else ()), *(("time there", "fits", "batch") if there else ()))
    right = [i for i, name in enumerate((*head, *more)) if name not in ("plan", "way", "fits")]
    return Grid(
        caption="What a plan of each kind takes at most, whatever its rate. Marked is the one to begin with.",
        head=(*head, *more),
        rows=tuple(rows),
        right=tuple(right),
        marked=tuple(i for i, one in enumerate(found.priced) if one.label == found.first.label),
    )


def tables(seen: Survey) -> tuple[Grid, Grid]:
    """Scores by depth, and the label-efficiency curve."""
    return depths(seen), reached(seen)


def depths(seen: Survey) -> Grid:
    """Scores of features by the stage after which they are taken."""
    rows = [*seen.depths, *([seen.untrained] if seen.untrained else [])]
    names = [name for name, _ in seen.depths[0].scores] if seen.depths else []
    best = max(range(len(seen.depths)), key=lambda i: dict(seen.depths[i].scores).get("ridge", 0.0), default=0)
    return Grid(
        caption="Scores of the features after a stage, higher is better. Nearest neighbours and the ridge head answer "
        "each row without it; the other scores rank depths and mean nothing alone. Marked is the head's best depth.",
        head=("features after", "share of the work", *(NAMES.get(name, name) for name in names)),
        rows=tuple((brief(d.stage, 60), _share(d.share), *(figure(value) for _, value in d.scores)) for d in rows),
        right=tuple(range(1, 2 + len(names))),
        marked=(best,) if seen.depths else (),
    )


def reached(seen: Survey) -> Grid:
    """The label-efficiency curve in numbers."""
    name = metric(seen)
    return Grid(
        caption=f"{name[:1].upper()}{name[1:]} of a head on the features by the rows that it is fitted to, with "
        "95 % intervals.",
        head=("rows", "", name, "95 % interval"),
        rows=tuple(
            (f"{one.rows:,}", _what(one, seen), figure(one.value), f"{figure(one.low)} to {figure(one.high)}")
            for one in _expected(seen)
        ),
        right=(0, 2, 3),
    )


def _what(one: Reach, seen: Survey) -> str:
    if not one.expected:
        return "measured"
    now = seen.labels.now.rows if seen.labels else 0
    return "expected of all rows" if one.rows == now else f"expected of {one.rows // max(1, now)} times as many"


def fired(found: Advice, fires: bool) -> Grid:
    """The rules that fire, or those that do not, with what they looked at."""
    rows = [one for one in found.fired if one.fires is fires and (one.verdict != "race" or not fires)]
    return grids.trimmed(
        Grid(
            caption="Rules that fire." if fires else "Rules that do not fire, with the way that they would name.",
            head=("rule", "criterion", "names", "here", "source", "overruled by"),
            rows=tuple(
                (one.id, one.criterion, _lower(WAYS[one.verdict]), clean(one.value), one.source, clean(one.overruled))
                for one in rows
            ),
            long=not fires,
        )
    )


def shifts(seen: Survey) -> Grid:
    """How far the rows are from the network's own data, layer by layer."""
    return Grid(
        caption="How far what a normalisation layer takes is from the statistics that it carries, in standard "
        f"deviations. Similarity is e to the minus mean: {figure(seen.similarity or 0.0)}.",
        head=("layer", "shift"),
        rows=tuple((brief(name, 80), figure(value)) for name, value in seen.shifts),
        right=(1,),
        long=True,
    )


def ran(story: Story) -> list[tuple[int, Trial, Priced]]:
    """The trials that were run to their end, the best first, each with what was foreseen of it."""
    priced = story.advice.priced if story.advice else ()
    found = []
    for i in words.ranked(story):
        trial = story.trials[i]
        own = next((one for one in priced if trial.label in (one.label, *one.alike)), None)
        if own is not None and trial.whole and not trial.stopped:
            found.append((i, trial, own))
    return found


def came(story: Story) -> tuple[Grid, Grid]:
    """Forecast beside fact, of seconds and of memory."""
    known, some = words.names(story.trials), ran(story)
    marked = tuple(k for k, (i, _, _) in enumerate(some) if i == story.verdict.winner)
    seconds = Grid(
        caption="Time of each plan: what was foreseen for all of its epochs, and what its trial took.",
        head=("plan", "foreseen", "took", "share", "epochs"),
        rows=tuple(
            (
                known[i],
                clock(own.here.cost.seconds),
                clock(trial.cost.seconds),
                _share(trial.cost.seconds / own.here.cost.seconds if own.here.cost.seconds else 0.0),
                _epochs(trial),
            )
            for i, trial, own in some
        ),
        right=(1, 2, 3, 4),
        marked=marked,
    )
    memory = Grid(
        caption="Memory of the process: what was foreseen, and the peak of each trial.",
        head=("plan", "foreseen", "peak", "share"),
        rows=tuple(
            (known[i], _held(foreseen), _held(peak), _share(peak / foreseen)) for i, foreseen, peak in _peaks(some)
        ),
        right=(1, 2, 3),
        marked=tuple(k for k, (i, _, _) in enumerate(_peaks(some)) if i == story.verdict.winner),
    )
    return seconds, memory


def _peaks(some: Sequence[tuple[int, Trial, Priced]]) -> list[tuple[int, int, int]]:
    """(trial, foreseen, peak) in bytes, where both are known."""
    return [
        (i, own.here.cost.peak_bytes, trial.cost.peak_bytes)
        for i, trial, own in some
        if own.here.cost.peak_bytes and trial.cost.peak_bytes
    ]


def _epochs(trial: Trial) -> str:
    most = sum(phase.epochs for phase in trial.plan.phases)
    return f"{len(trial.curve)} of {most}" if most and not trial.plan.optimizer.whole else "–"


def _share(part: float) -> str:
    return f"{part:.0%}".replace("%", " %")


def metric(seen: Survey) -> str:
    """What the label-efficiency curve is in."""
    name = seen.labels.metric if seen.labels else ""
    return {"r2": "R²"}.get(name, name)


# ---------------------------------------------------------------- pictures


def told(story: Story) -> dict[str, Any]:
    """The section of a report; empty where no advice was asked for."""
    if story.advice is None:
        return {}
    seconds, memory = came(story)
    return {
        **looked(story.advice.survey),
        "lede": words.sentence_case(sentences(story.advice.survey)[0], upper=False) + " Then the race began.",
        "terms": terms(story),
        "seconds": seconds,
        "memory": memory,
        "seconds_drawn": _beside(story, "time"),
        "memory_drawn": _beside(story, "memory"),
    }


def looked(seen: Survey) -> dict[str, Any]:
    """The depth profile and the label-efficiency curve, each with its table."""
    grid = depths(seen)
    names = [name for name, _ in seen.depths[0].scores] if seen.depths else []
    untrained = dict(seen.untrained.scores) if seen.untrained else {}
    panels = [
        {
            "name": NAMES.get(name, name),
            "svg": Markup(
                curves.depths(_levels(seen.depths, name), untrained.get(name), NAMES.get(name, name), f"depth-{name}")
            ),
        }
        for name in names
    ]
    expected = _expected(seen)
    labels = None
    if expected:
        wide, narrow = (Markup(curves.labels(expected, metric(seen), f"labels-{w}", w)) for w in (720, 340))
        caption = "Circles are measured, diamonds expected; bands are 95 % intervals. "
        labels = Figure(wide, caption + "Measured are heads that leave a fifth of the rows out.", narrow)
    from regraft.planner.labels import sentence

    return {
        "panels": panels,
        "depths": grid,
        "labels": labels,
        "gain": words.sentence_case(sentence(seen.labels)) if seen.labels else "",
        "reached": reached(seen),
    }


def _peak(seen: Survey) -> str:
    last = "A ring marks the best depth; the dashed line is the same network with random weights."
    return last


def _levels(found: Sequence[Depth], name: str) -> list[Level]:
    return [Level(one.stage, one.share, dict(one.scores)[name]) for one in found]


def _beside(story: Story, what: str) -> Figure | None:
    """Forecast beside fact, drawn."""
    known, some, won = words.names(story.trials), ran(story), story.verdict.winner
    pairs = [Pair(known[i], own.here.cost.seconds, trial.cost.seconds, i == won) for i, trial, own in some]
    if what == "memory":
        pairs = [Pair(known[i], foreseen, peak, i == won) for i, foreseen, peak in _peaks(some)]
    form = _held if what == "memory" else _clock
    wide, narrow = (curves.beside(pairs, form, what, f"came-{what}-{w}", w) for w in (720, 340))
    caption = "Diamonds were foreseen, circles came; filled with a ring: the winner."
    return Figure(Markup(wide), caption, Markup(narrow)) if wide else None


def _held(count: float) -> str:
    """Memory as the table of trials has it."""
    return size(count) if count >= 1e10 else f"{count / 1e6:,.0f} MB"


def _clock(seconds: float) -> str:
    return clock(seconds).replace(".0 s", " s")
