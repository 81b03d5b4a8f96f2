"""What advice rests on, drawn as SVG: scores by depth, what more labels bring, what was foreseen beside what came."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from regraft.deliver.svg import GLYPH, Scale, apart, esc, levels, marker, px, svg, text, tick, ticks
from regraft.deliver.words import brief, figure

FAR = 10
"""Values this many times apart lie on a logarithmic axis."""


@dataclass(frozen=True, slots=True)
class Level:
    """A score of the features after a stage, which is reached with a share of the network's work."""

    stage: str
    share: float
    value: float


@dataclass(frozen=True, slots=True)
class Reach:
    """What so many rows reach, with an interval: measured, or expected."""

    rows: int
    value: float
    low: float
    high: float
    expected: bool = False


@dataclass(frozen=True, slots=True)
class Pair:
    """What was foreseen of a plan, and what came."""

    name: str
    foreseen: float
    came: float
    winner: bool = False


# ---------------------------------------------------------------- scores by depth


def depths(found: Sequence[Level], random: float | None, score: str, name: str) -> str:
    """One score of features by the share of the network's work that they take; the best depth is filled, with a ring.

    A dashed line is the same score of a network with random weights.
    """
    known = [one for one in found if math.isfinite(one.value)]
    width, height, left, right, bottom, top = 306, 184, 46, 242, 132, 32
    title = f"{brief(score, 30)} by depth"
    if not known:
        return svg(name, title, "No depth has this score.", (width, 60), text(10, 34, "nothing to draw"))
    values = [one.value for one in known] + ([random] if random is not None and math.isfinite(random) else [])
    xs, ys = Scale(0.0, 1.0, left, right), Scale(*apart(min(values), max(values)), bottom, top)
    made = _levels(ys, left, right)
    made.append(f'<line class="axis" x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    made += _ticks([(xs(one.share), f"{one.share:.0%}".replace("%", " %")) for one in reversed(known)], bottom + 17)
    made.append(text((left + right) / 2, height - 12, "share of the network's work", "cap mid"))
    best = max(known, key=lambda one: one.value)
    if random is not None and math.isfinite(random):
        y = px(ys(random))
        made.append(f'<line class="phase" x1="{left}" x2="{right}" y1="{y}" y2="{y}"/>')
        made.append(text(right + 14, ys(random) + 4, "random", "tick"))
    path = " ".join(f"{px(xs(one.share))},{px(ys(one.value))}" for one in known)
    made += [f'<polyline class="line" points="{path}"/>'] if len(known) > 1 else []
    for one in known:
        told = f"after {brief(one.stage, 40)}: {figure(one.value)}"
        made.append(marker(xs(one.share), ys(one.value), "circle", one is best, told))
    made.append(text(xs(best.share), ys(best.value) - 16, figure(best.value), "val mid halo strong"))
    desc = "; ".join(f"after {brief(one.stage, 40)} {figure(one.value)}" for one in known)
    desc += f"; with random weights {figure(random)}" if random is not None else ""
    return svg(name, title, desc, (width, height), "".join(made))


# ---------------------------------------------------------------- more labels


def labels(found: Sequence[Reach], metric: str, name: str, width: int = 720) -> str:
    """What heads reach by the rows that they were fitted to, in a band of 95 %: circles measured, diamonds expected.

    The axis of rows is logarithmic. The first that is expected is all rows, and is marked.
    """
    known = sorted((one for one in found if math.isfinite(one.value)), key=lambda one: one.rows)
    title = f"{brief(metric, 30)} by labelled rows"
    if len(known) < 2:
        return svg(name, title, "There is no curve.", (width, 60), text(10, 34, "nothing to draw"))
    height, left, right, top = 320, 54, width - 26, 34
    bottom = height - 46
    xs = Scale(known[0].rows, max(known[-1].rows, known[0].rows + 1), left + 20, right - 14, True)
    low, high = min(one.low for one in known), max(one.high for one in known)
    ys = Scale(*apart(low, high), bottom - 6, top + 16)
    measured, later = ([one for one in known if one.expected is far] for far in (False, True))
    made = [*levels(ys, left, right), text(left, 16, f"{brief(metric, 30)} of a head on the features", "cap")]
    made.append(f'<line class="axis" x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    ahead = [*measured[-1:], *later]
    made += [_band(some, xs, ys, kind) for some, kind in ((measured, "band"), (ahead, "band far")) if len(some) > 1]
    if later:
        x = xs(later[0].rows)
        made.append(f'<line class="phase" x1="{px(x)}" x2="{px(x)}" y1="{top}" y2="{bottom}"/>')
        made.append(text(x, top - 4, "your rows", "tick mid"))
    for some, kind in ((measured, "line win"), (ahead, "line dash")):
        path = " ".join(f"{px(xs(one.rows))},{px(ys(one.value))}" for one in some)
        made += [f'<polyline class="{kind}" points="{path}"/>'] if len(some) > 1 else []
    for one in known:
        x, y = xs(one.rows), ys(one.value)
        told = f"{one.rows:,} rows: {figure(one.value)} [{figure(one.low)}, {figure(one.high)}]"
        made.append(marker(x, y, "diamond" if one.expected else "circle", False, told))
        made.append(text(x, y + (20 if one.expected else -11), figure(one.value), "val mid halo"))
    first = [*later[:1], *reversed(later[1:]), *measured]
    made += _ticks([(xs(one.rows), f"{one.rows:,}") for one in first], bottom + 17)
    made.append(text((left + right) / 2, height - 8, "labelled training rows, logarithmic", "cap mid"))
    desc = "; ".join(f"{one.rows:,} rows {figure(one.value)}{', expected' if one.expected else ''}" for one in known)
    return svg(name, title, desc, (width, height), "".join(made))


def _band(some: Sequence[Reach], xs: Scale, ys: Scale, kind: str) -> str:
    """The area between the ends of intervals."""
    edge = [(xs(one.rows), ys(one.high)) for one in some] + [(xs(one.rows), ys(one.low)) for one in reversed(some)]
    return f'<polygon class="{kind}" points="{" ".join(f"{px(x)},{px(y)}" for x, y in edge)}"/>'


# ---------------------------------------------------------------- foreseen and came


def beside(rows: Sequence[Pair], told: Callable[[float], str], what: str, name: str, width: int = 720) -> str:
    """What was foreseen (diamonds) beside what came (circles), a row for each plan; the winner's is filled.

    The axis is logarithmic where values are far apart.
    """
    known = [row for row in rows if min(row.foreseen, row.came) > 0 and math.isfinite(row.foreseen + row.came)]
    if not known:
        return ""
    step, left, right = 44, 20, width - 20
    values = [value for row in known for value in (row.foreseen, row.came)]
    low, high = min(values), max(values)
    log = high >= FAR * low
    xs = Scale(low / 1.2, high * 1.2, left, right, True) if log else Scale(0.0, high * 1.08, left, right)
    bottom = step * len(known) + 4
    marks = _decades(xs.low, xs.high) if log else ticks(0.0, xs.high, 6 if width > 500 else 3)
    made = [f'<line class="grid" x1="{px(xs(v))}" x2="{px(xs(v))}" y1="4" y2="{bottom}"/>' for v in marks]
    made += _ticks([(xs(value), told(value) if value else "0") for value in marks], bottom + 16)
    for i, row in enumerate(known):
        y, a, b = step * i + 32.0, xs(row.foreseen), xs(row.came)
        strong, room = " strong" if row.winner else "", int((width - 164) / GLYPH)
        made.append(text(8, y - 15, brief(row.name, room), "lab halo" + strong))
        made.append(f'<line class="bar" x1="{px(a)}" x2="{px(b)}" y1="{px(y)}" y2="{px(y)}"/>')
        made.append(marker(a, y, "diamond", False, f"{brief(row.name)}: foreseen {told(row.foreseen)}"))
        made.append(marker(b, y, "circle", row.winner, f"{brief(row.name)}: {told(row.came)}"))
        made.append(text(width - 8, y - 15, f"{told(row.foreseen)} → {told(row.came)}", "val end halo" + strong))
    made.append(text((left + right) / 2, bottom + 36, what + (", logarithmic" if log else ""), "cap mid"))
    desc = "; ".join(f"{brief(r.name, 40)}: foreseen {told(r.foreseen)}, came {told(r.came)}" for r in known)
    return svg(name, f"{esc(what)}: foreseen and what came", desc, (width, bottom + 44), "".join(made))


# ---------------------------------------------------------------- axes


def _decades(low: float, high: float) -> list[float]:
    """1, 3, 10, 30 … between two values; of many decades, whole ones."""
    every = [k * 10.0**e for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1) for k in (1, 3)]
    found = [value for value in every if low <= value <= high]
    return found if len(found) <= 6 else [value for value in found if round(math.log10(value), 6).is_integer()]


def _levels(ys: Scale, left: float, right: float) -> list[str]:
    """As `levels`, for a small picture."""
    made = []
    for value in ticks(ys.low, ys.high, 3)[:4]:
        y = px(ys(value))
        made.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y}" y2="{y}"/>')
        made.append(text(left - 8, ys(value) + 4, tick(value), "tick end"))
    return made


def _ticks(wanted: Sequence[tuple[float, str]], y: float) -> list[str]:
    """Labels of an axis, the more important ones first: one that would touch an earlier one is left out."""
    made, taken = [], list[tuple[float, float]]()
    for x, told in wanted:
        half = len(told) * GLYPH / 2 + 3
        if all(x + half <= a or x - half >= b for a, b in taken):
            taken.append((x - half, x + half))
            made.append(text(x, y, told, "tick mid"))
    return made
