"""The rules of thumb of five articles on how to adapt: which fire, and what measurements overrule them.

The articles give numbers for rows only. Every other threshold is ours, with its reason beside it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from regraft.errors import unknown

FEW, MANY = 500, 10_000
"""Rows: the articles' own numbers. Between them they name no way."""
THOUSANDS, TENS_OF_THOUSANDS = 2_000, 20_000
"""Rows: the least that "a few thousand" and "tens of thousands" can mean."""
SMALL, LARGE, HUGE = 30_000_000, 300_000_000, 1_000_000_000
"""Weights: ResNet-50 is small, BERT-large and ViT-L are large; of "billions" an article speaks."""
PER_ROW = LARGE / TENS_OF_THOUSANDS
"""Weights a row above which rows are few: 15,000, which is SMALL over THOUSANDS, too."""
CLOSE, FAR, OTHER = 0.8, 0.6, 0.4
"""Similarity: close, far, another domain altogether. Photographs were at 0.82 to 0.85 of a network trained on such,
pictures from above at 0.75, upscaled small ones, steel and X-rays at 0.51 to 0.59. A head's score counts for more."""
WIDE, BARE = 0.10, 0.03
"""Accuracy: a gap that a hundred rows can show, and one that several hundred cannot."""
CEILING = 0.02
"""Accuracy: as near as this to what the labels allow, there is next to nothing to gain."""
CLEAN, NOISY = 0.03, 0.10
"""Wrong labels: about the mean and the worst of ten much used test sets (Northcutt et al. 2021)."""
EPOCHS, AMPLE = 3, 10
"""Epochs of a short fine-tuning, and how many such runs an ample budget allows, since rates want to be tried."""
WATTS = 100.0
"""What turns an energy budget into seconds: about what a computer draws under load."""
JOULES, WIDTH = 3.6e6, 100
"""In a kWh; and columns of the text."""

ARTICLES = {
    "WhaleFlux": "an introduction to both, without a title, by WhaleFlux",
    "Shieldbase AI": "“Fine-Tuning vs Transfer Learning”, Shieldbase AI, 2025",
    "fxis.ai": "an introduction to pretrained models, without a title, by fxis.ai",
    "Deciding between": "the article that begins “Deciding between transfer learning and fine-tuning”",
    "Kumar": "“Transfer Learning vs Fine Tuning: Differences”, Ajitesh Kumar",
}
"""The articles by the short titles that sources name."""

GOALS = ("accuracy", "speed", "stability", "cost")
WAYS = {
    "asis": "use the network as it is",
    "extract": "train a new head on frozen features",
    "tune": "fine-tune the network",
    "peft": "train small added parts (LoRA, adapters, prompts)",
    "scratch": "train from scratch",
    "race": "names no way",
}


@dataclass(frozen=True, slots=True)
class Needs:
    """What the user said: a goal, budgets of time and energy, where answers are computed; empty or 0 is "not said".

    Raises: UsageError: no such goal.
    """

    goal: str = ""
    seconds: float = 0.0
    serve_on: str = ""
    many_tasks: bool = False
    kwh: float = 0.0

    def __post_init__(self) -> None:
        if self.goal and self.goal not in GOALS:
            raise unknown("goal", self.goal, GOALS)


@dataclass(frozen=True, slots=True)
class Measured:
    """What the survey measured, None where it could not; accuracies, shares and the similarity are in [0, 1].

    `similarity` is 1 for data as close as the network's own. `probe` is the leave-one-out accuracy of a head on frozen
    features, `untrained` the same on a random network of equal shape, `chance` the share of the largest class, `asis`
    the accuracy of the checkpoint's own answers, `noise` the share of wrong labels. `labels_kept` says whether all
    classes are the checkpoint's own; `full_epoch_s` and `memory_fits` are of fine-tuning all layers.
    """

    rows: int
    classes: int
    params: int
    similarity: float | None = None
    probe: float | None = None
    chance: float | None = None
    untrained: float | None = None
    asis: float | None = None
    noise: float | None = None
    labels_kept: bool | None = None
    full_epoch_s: float | None = None
    memory_fits: bool | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """A criterion with its source, what it looks at, and when it names which way; the first that holds is taken."""

    id: str
    criterion: str
    source: str
    value: Callable[[Measured, Needs], str]
    names: Mapping[str, Callable[[Measured, Needs], bool]]


@dataclass(frozen=True, slots=True)
class Fired:
    """A rule held against a case; one that does not fire has the way that it would name, "race" where it names none."""

    id: str
    criterion: str
    verdict: str
    fires: bool
    value: str
    source: str
    overruled: str = ""

    @property
    def stands(self) -> bool:
        """Whether it fires, names a way, and nothing overrules it."""
        return self.fires and not self.overruled and self.verdict != "race"


def _rows(m: Measured, n: Needs) -> str:
    return f"{m.rows:,} rows"


def _size(m: Measured, n: Needs) -> str:
    weights = f"{m.params / 1e6:,.1f} million" if m.params >= 1e6 else f"{m.params:,}"
    return f"{weights} weights" + (", more than memory allows to fine-tune" if m.memory_fits is False else "")


def _sizes(m: Measured, n: Needs) -> str:
    return f"{m.rows:,} rows for {_size(m, n)}"


def _similarity(m: Measured, n: Needs) -> str:
    return "similarity not measured" if m.similarity is None else f"similarity {m.similarity:.2f} of at most 1"


def _domain(m: Measured, n: Needs) -> str:
    return "; ".join(filter(None, (f"{_similarity(m, n)}, {m.rows:,} rows", nothing_carried(m))))


def _goal(m: Measured, n: Needs) -> str:
    return f"your goal is {n.goal}" if n.goal else "no goal was said"


def _labels(m: Measured, n: Needs) -> str:
    if m.labels_kept is None:
        return "not known whether the network knows your labels"
    return "the network knows all your labels" if m.labels_kept else "not all your labels are known to the network"


def _noise(m: Measured, n: Needs) -> str:
    return ("wrong labels not measured" if m.noise is None else f"{m.noise:.0%} wrong labels") + f", {m.rows:,} rows"


def _own(m: Measured, n: Needs) -> str:
    if m.asis is None or m.probe is None:
        return "the network's own answers were not measured beside a new head"
    return f"the network's own answers are right on {m.asis:.0%} of the rows, a new head on {m.probe:.0%}"


def _compute(m: Measured, n: Needs) -> str:
    told = ["your goal is cost"] if n.goal == "cost" else []
    told += ["fine-tuning does not fit into memory"] if m.memory_fits is False else []
    told += [f"a budget of {_time(_allowed(n))}" if _allowed(n) else "no budget was said"]
    forecast = "not forecast" if m.full_epoch_s is None else f"about {_time(EPOCHS * m.full_epoch_s)}"
    return ", ".join((*told, f"{EPOCHS} epochs of fine-tuning: {forecast}"))


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:,.1f}".removesuffix(".0") + " min"


def _within(value: float | None, low: float = -inf, high: float = inf) -> bool:
    """Whether a value was measured and is at least `low` and below `high`."""
    return value is not None and low <= value < high


def _gain(value: float | None, other: float | None) -> float | None:
    """How far a value is above another, free of the last bits; None where either was not measured."""
    return None if value is None or other is None else round(value - other, 9)


def _allowed(n: Needs) -> float:
    """Seconds that may be spent, 0 for any."""
    return min((some for some in (n.seconds, n.kwh * JOULES / WATTS) if some), default=0.0)


def _short(m: Measured, n: Needs) -> bool:
    too_long = m.full_epoch_s is not None and 0 < _allowed(n) < EPOCHS * m.full_epoch_s
    return too_long or n.goal == "cost" or m.memory_fits is False


def _ample(m: Measured, n: Needs) -> bool:
    return m.full_epoch_s is not None and 0 < AMPLE * EPOCHS * m.full_epoch_s <= _allowed(n)


def nothing_carried(m: Measured) -> str:
    """What the network has learned is of next to no use here: evidence in words, empty where it does not hold."""
    return _probed(m) if _within(_gain(m.probe, m.untrained), high=BARE) else ""


def carried_over(m: Measured) -> str:
    """What the network has learned is of use here: as above."""
    return _probed(m) if all(_within(_gain(m.probe, low), WIDE) for low in (m.untrained, m.chance)) else ""


def at_ceiling(m: Measured) -> str:
    """Frozen features leave next to nothing to gain: as above."""
    most = 1 - (m.noise or 0.0)
    near = _within(_gain(m.probe, most), -CEILING)
    return f"{_probed(m)}; the labels allow about {most:.0%}" if near and carried_over(m) else ""


def falls_short(m: Measured) -> str:
    """Frozen features are of use, and leave a clear gap to what the labels allow: as above."""
    most = 1 - (m.noise or 0.0)
    wide = _within(_gain(most, m.probe), WIDE)
    return f"{_probed(m)}; the labels allow about {most:.0%}" if wide and carried_over(m) else ""


def asis_beaten(m: Measured) -> str:
    """A new head is clearly better than the network's own answers: as above."""
    return _own(m, Needs()) if _within(_gain(m.probe, m.asis), WIDE) else ""


def _probed(m: Measured) -> str:
    chance = "" if m.chance is None else f", always naming the largest class on {m.chance:.0%}"
    untrained = f"on those of an untrained network on {m.untrained:.0%}"
    return f"a head on frozen features is right on {m.probe:.0%} of the rows, {untrained}{chance}"


OVERRULES: tuple[tuple[tuple[str, ...], Callable[[Measured], str]], ...] = (
    (("tune", "scratch"), at_ceiling),
    (("E1 extract", "E5 extract", "E6 extract", "E18 extract"), falls_short),
    (("scratch", "E19 tune"), carried_over),
    (("E6 extract",), nothing_carried),
    (("asis",), asis_beaten),
)
"""What evidence overrules: a way, whichever rule names it, or one that a certain rule names."""


def against(measured: Measured) -> set[str]:
    """Of "extract" and "tune", the one that what was measured speaks against; never both, as a head is near or short.

    >>> against(Measured(rows=800, classes=2, params=11_700_000, probe=0.7, untrained=0.5, chance=0.5))
    {'extract'}
    """
    return {way for way, evidence in (("extract", falls_short), ("tune", at_ceiling)) if evidence(measured)}


# fmt: off
RULES = (
    Rule("E1", "100–500 rows, or fewer", "“The target dataset is small (e.g., 100–500 samples)” (WhaleFlux)",
         _rows, {"extract": lambda m, n: m.rows <= FEW}),
    Rule("E2", "10,000 rows or more",
         "“large enough to support deeper training (e.g., 10,000+ samples)” (WhaleFlux)",
         _rows, {"tune": lambda m, n: m.rows >= MANY}),
    Rule("E3", "a few thousand rows may do to fine-tune a small network",
         "“For smaller models, a few thousand labeled examples may be enough” (Deciding between)",
         _sizes, {"race": lambda m, n: THOUSANDS <= m.rows < MANY and m.params <= SMALL}),
    Rule("E4", "a large network wants tens of thousands of rows to be fine-tuned",
         "“usually benefit from tens of thousands of samples or more” (Deciding between)",
         _sizes, {"extract": lambda m, n: m.params >= LARGE and m.rows < TENS_OF_THOUSANDS,
                  "tune": lambda m, n: m.params >= LARGE and m.rows >= TENS_OF_THOUSANDS}),
    Rule("E5", "few rows for the size of the network",
         "“the larger the model, the more data you need for effective fine-tuning” (Deciding between)",
         _sizes, {"extract": lambda m, n: m.params > PER_ROW * m.rows}),
    Rule("E6", "close to what the network has learned from",
         "“The target task is closely related to the source task” (WhaleFlux; fxis.ai; Deciding between)",
         _similarity, {"extract": lambda m, n: _within(m.similarity, CLOSE)}),
    Rule("E7", "far from what the network has learned from",
         "“The target task differs significantly from the source task” (WhaleFlux; Deciding between)",
         _similarity, {"tune": lambda m, n: _within(m.similarity, high=FAR)}),
    Rule("E8", "far and with rich data, or another domain altogether",
         "“only when the task is highly unique and rich in data”, “If the domains are entirely different” (fxis.ai)",
         _domain, {"scratch": lambda m, n: _within(m.similarity, high=FAR if m.rows >= MANY else OTHER)
                   or bool(nothing_carried(m))}),
    Rule("E9", "subtly different from what the network has learned from",
         "“when there are subtle differences between the source and target tasks” (fxis.ai)",
         _similarity, {"tune": lambda m, n: _within(m.similarity, FAR, CLOSE)}),
    Rule("E10", "little compute, or ample",
         "“Computational resources are limited” (WhaleFlux; Shieldbase AI), “Sufficient compute” (Deciding between)",
         _compute, {"extract": _short, "tune": _ample}),
    Rule("E11", "accuracy matters most",
         "“High precision is critical” (WhaleFlux; Shieldbase AI; fxis.ai; Deciding between)",
         _goal, {"tune": lambda m, n: n.goal == "accuracy"}),
    Rule("E12", "urgency", "“When speed to market is essential” (Shieldbase AI; fxis.ai)",
         _goal, {"extract": lambda m, n: n.goal == "speed"}),
    Rule("E13", "stability", "“when you want stable performance without heavy tuning” (Deciding between)",
         _goal, {"extract": lambda m, n: n.goal == "stability"}),
    Rule("E14", "a very large network", "“Useful when full fine-tuning is too costly” (Deciding between)",
         _size, {"peft": lambda m, n: m.params >= HUGE or m.memory_fits is False}),
    Rule("E15", "one network for many tasks",
         "“Flexible for deploying the same backbone across many tasks” (Deciding between)",
         lambda m, n: "many tasks" if n.many_tasks else "one task", {"peft": lambda m, n: n.many_tasks}),
    Rule("E16", "the business wants one thing done well, or many things",
         "“Fine-tuning offers specificity, while transfer learning provides versatility” (Shieldbase AI)",
         lambda m, n: "not asked", {}),
    Rule("E17", "expertise and time at hand",
         "“Evaluate computational power, expertise, and time constraints” (Shieldbase AI)",
         lambda m, n: "not asked", {}),
    Rule("E18", "reliable labels, many of which deep adaptation wants",
         "“When a high-quality, domain-specific dataset is available” (Shieldbase AI; Deciding between)",
         _noise, {"extract": lambda m, n: _within(m.noise, NOISY),
                  "tune": lambda m, n: m.noise is not None and m.noise <= CLEAN and m.rows >= MANY}),
    Rule("E19", "objective changed, or kept",
         "“modifying the objective function”, “using the same objective function” (Kumar)",
         _labels, {"tune": lambda m, n: m.labels_kept is False, "asis": lambda m, n: m.labels_kept is True}),
    Rule("E20", "the network as it is falls short",
         "“where a generic model underperforms without customization” (Deciding between)",
         _own, {"tune": lambda m, n: bool(asis_beaten(m))}),
    Rule("E21", "every way is a trade-off of scope, data, compute, adaptability and overfitting risk",
         "“Higher (more parameters adjusted, especially with small data)” "
         "(WhaleFlux; Shieldbase AI; Deciding between; Kumar)",
         lambda m, n: "the table of trade-offs", {"race": lambda m, n: True}),
)
# fmt: on


def rules(measured: Measured, needs: Needs) -> tuple[Fired, ...]:
    """Hold every rule against what was measured and said.

    >>> first, *_ = rules(Measured(rows=300, classes=2, params=11_700_000), Needs())
    >>> first.verdict, first.fires, first.value
    ('extract', True, '300 rows')
    """
    return tuple(_held(rule, measured, needs) for rule in RULES)


def _held(rule: Rule, m: Measured, n: Needs) -> Fired:
    way = next((way for way, holds in rule.names.items() if holds(m, n)), "")
    told = [evidence(m) for names, evidence in OVERRULES if way and {way, f"{rule.id} {way}"} & {*names}]
    named = way or next(iter(rule.names), "race")
    overruled = next(filter(None, told), "")
    return Fired(rule.id, rule.criterion, named, bool(way), rule.value(m, n), rule.source, overruled)


def verdict(fired: Sequence[Fired]) -> tuple[str, str]:
    """The way to which the rules that stand point, "race" where they are silent or contradict each other; and why.

    >>> verdict(rules(Measured(rows=1200, classes=2, params=11_700_000), Needs()))
    ('race', '1,200 rows: between 500 and 10,000 the articles name no way')
    """
    ways: dict[str, list[Fired]] = {}
    for one in fired:
        if one.stands:
            ways.setdefault(one.verdict, []).append(one)
    told = "; ".join(_said(way, those) for way, those in ways.items())
    counts = [one for one in fired if one.id in ("E1", "E2")]
    if counts and not any(one.fires for one in counts):
        silent = f"{counts[0].value}: between {FEW:,} and {MANY:,} the articles name no way"
        return "race", f"{silent}; of the other rules, {told}" if told else silent
    if len(ways) > 1:
        return "race", f"the rules contradict each other: {told}"
    if not ways:
        overruled = any(one.overruled for one in fired)
        return "race", "what was measured overrules every rule that fires" if overruled else "no rule names a way"
    return next(iter(ways)), told


def _said(way: str, those: Sequence[Fired]) -> str:
    ids = ", ".join(one.id for one in those)
    values = "; ".join(dict.fromkeys(one.value for one in those))
    return f"{ids} {'says' if len(those) == 1 else 'say'} “{WAYS[way]}” ({values})"


SENSES = (
    "“Transfer learning” means two things. In the broad sense it is any reuse of a pretrained network, fine-tuning "
    "included. In the narrow sense, which some of the articles use, it is one way of several: the network stays frozen "
    "(none of its weights change), and a new last layer, the head, is trained on what it makes of your data, the "
    "features. This is also called feature extraction. Fine-tuning, in contrast, goes on training the network itself."
)
TRADE_OFFS = (
    ("way", "scope: what is trained", "data", "compute", "adaptability", "overfitting risk"),
    ("as it is", "nothing", "none", "lowest", "none", "none"),
    ("head on frozen features", "the last layer", "small sets do", "low", "limited", "lower"),
    ("fine-tuning", "some or all layers", "larger sets", "higher", "higher", "higher"),
    ("small added parts", "the added parts", "between the two", "between", "between", "between"),
    ("from scratch", "all, from random", "largest sets", "highest", "highest", "highest"),
)


def explain(measured: Measured, needs: Needs, fired: Sequence[Fired]) -> str:
    """All of it for a reader who knows no jargon: what there is to choose from, what fired and why, what follows."""
    way, reason = verdict(fired)
    classes = f" in {measured.classes:,} classes" if measured.classes else ""
    widths = [max(map(len, column)) for column in zip(*TRADE_OFFS, strict=True)]
    loud, quiet = ([_line(one) for one in fired if one.fires is fires] for fires in (True, False))
    follows = "Here a race decides." if way == "race" else f"The rules that stand point one way, to {WAYS[way]}."
    parts = (
        f"Your data: {measured.rows:,} rows, which are examples with their labels{classes}. The network: "
        f"{_size(measured, needs)}, the numbers that it has learned from other data. {_wanted(needs)}",
        SENSES,
        "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in TRADE_OFFS),
        "Small added parts (LoRA, adapters, prompts) are trained while the network around them stays frozen. From "
        "scratch means that nothing learned before is used. Overfitting is learning examples by heart. The articles "
        "compare the second way and the third; the other lines are ours.",
        "Rules that fire, what they looked at and where they are from:\n" + "\n".join(loud),
        "Rules that do not fire:\n" + "\n".join(quiet),
        "Where the rules are silent or contradict each other, none of them decides: a race does. It tries the ways on "
        "your data, judges them by rows that were kept aside, and takes the cheapest that no other clearly beats.",
        f"{follows} {reason[0].upper()}{reason[1:]}.",
        "The articles:\n" + "\n".join(f"- {short}: {title}" for short, title in ARTICLES.items()),
    )
    return "\n\n".join(part if "\n" in part else textwrap.fill(part, WIDTH, break_on_hyphens=False) for part in parts)


def _wanted(n: Needs) -> str:
    told = [f"your goal is {n.goal}"] if n.goal else []
    told += [f"training may take {_time(n.seconds)}"] if n.seconds else []
    told += (
        [f"training may draw {n.kwh:g} kWh, about {_time(n.kwh * JOULES / WATTS)} at {WATTS:.0f} W"] if n.kwh else []
    )
    told += ["one network shall serve many tasks"] if n.many_tasks else []
    told += [f"answers are computed on {n.serve_on}, where all ways with this network cost alike"] if n.serve_on else []
    return f"You said: {'; '.join(told)}." if told else "You said nothing of a goal, a budget or later use."


def _line(one: Fired) -> str:
    told = f"- {one.id}, {one.criterion}"
    told += f": {WAYS[one.verdict]}. Here: {one.value}. Source: {one.source}." if one.fires else f": {one.value}"
    told += f" Overruled by what was measured: {one.overruled}." if one.overruled else ""
    return textwrap.fill(told, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
