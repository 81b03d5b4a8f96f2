"""Numbers drawn as SVG text by pure functions; the page's style sheet has the colours, every text is escaped.

Each figure is one `<svg role="img">` with a title and a description. Nothing is said by colour alone: shapes, dashes
and words say it too. Sizes are in pixels of the viewBox.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from regraft.deliver.svg import GLYPH, Scale, Shape, apart, esc, finite, levels, marker, px, svg, text, tick, ticks
from regraft.deliver.words import brief, clock, figure
from regraft.waist import Epoch

Box = tuple[float, float, float, float]
TIMES = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60, 300, 600, 1800, 3600, 10800, 36000, 86400, 864000)
DECADES = (0.01, 0.1, 1, 10, 60, 600, 3600, 36000, 864000)
FAR = 20
"""A point that lies this many times farther from the best than the median does is drawn at the edge."""


@dataclass(frozen=True, slots=True)
class Point:
    """A trial in the plot of score against cost; the interval may be wider than the plot."""

    number: int
    name: str
    seconds: float
    value: float
    low: float
    high: float
    shape: Shape = "circle"
    winner: bool = False


@dataclass(frozen=True, slots=True)
class Bar:
    """A score with its interval in a row of its own."""

    name: str
    value: float
    low: float
    high: float
    winner: bool = False


# ---------------------------------------------------------------- score against cost


def scatter(points: Sequence[Point], metric: str, better: str, name: str, width: int = 720) -> str:
    """Score against seconds of work, each with its interval; the winner is filled, with a ring around it.

    The axis of time is logarithmic where the longest took ten times as long as the shortest. Points without a finite
    score are left out.
    """
    known = [p for p in points if math.isfinite(p.value) and math.isfinite(p.seconds)]
    height = 400 if width > 500 else 340
    title = f"Score against cost: {brief(metric)} on validation by time"
    if not known:
        return svg(name, title, "No trial has a score on validation.", (width, 60), text(10, 34, "nothing to draw"))
    left, right, top, bottom = 54, width - 14, 34, height - 46
    xs, ys = _times(known, left + 12, right - 12), _values(known, better, bottom - 8, top + 8)
    made = [*levels(ys, left, right), *_time_axis(xs, left, right, bottom, top)]
    made.append(text(left, 16, f"{brief(metric, 40)} on validation ({better} is better)", "cap"))
    made.append(text((left + right) / 2, height - 8, "time" + (", logarithmic" if xs.log else ""), "cap mid"))
    at = {p.number: (xs(p.seconds), ys(p.value)) for p in known}
    marks = [(x - 7, y - 7, x + 7, y + 7) for x, y in at.values()]
    lines = [(at[p.number][0] - 2, _end(ys, p, p.high), at[p.number][0] + 2, _end(ys, p, p.low)) for p in known]
    for p in sorted(known, key=lambda p: p.winner):
        made += _whisker(xs(p.seconds), ys, p)
    for p in sorted(known, key=lambda p: p.winner):
        told = f"{p.number} {brief(p.name)}: {figure(p.value)} [{figure(p.low)}, {figure(p.high)}], {clock(p.seconds)}"
        made.append(marker(xs(p.seconds), ys(p.value), p.shape, p.winner, told))
    for p in sorted(known, key=lambda p: not p.winner):
        made += _label(p, at[p.number][0], ys, marks, lines, (left, top, right, bottom))
    best = next((p for p in known if p.winner), known[0])
    desc = f"{len(known)} trials. {brief(best.name)} reaches {figure(best.value)} in {clock(best.seconds)}."
    return svg(name, title, desc, (width, height), "".join(made))


def _times(points: Sequence[Point], start: float, end: float) -> Scale:
    seconds = [max(p.seconds, 1e-3) for p in points]
    low, high = min(seconds), max(seconds)
    if high >= 10 * low:
        return Scale(low / 1.15, high * 1.15, start, end, True)
    return Scale(0.0, high * 1.1, start, end)


def _values(points: Sequence[Point], better: str, start: float, end: float) -> Scale:
    """The scale of scores: all intervals, but for what is so far off that nothing else could be told apart."""
    values = sorted((p.value for p in points), reverse=better == "higher")
    reach = FAR * abs(values[len(values) // 2] - values[0]) or math.inf
    near = [p for p in points if abs(p.value - values[0]) <= reach]
    low = min(min(finite(p.low, p.value), p.value) for p in near)
    high = max(max(finite(p.high, p.value), p.value) for p in near)
    gap = (high - low) * 0.04 or abs(high) * 0.05 or 1.0
    return Scale(low - gap, high + gap, start, end)


def _time_axis(xs: Scale, left: float, right: float, bottom: float, top: float) -> list[str]:
    marks = ticks(xs.low, xs.high, 4)
    if xs.log:
        decades, times = ([t for t in some if xs.low <= t <= xs.high] for some in (DECADES, TIMES))
        marks = (decades if len(decades) >= 3 else times) or [xs.low, xs.high]
    made = [f'<line class="axis" x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}"/>']
    end = -math.inf
    for mark in marks:
        x, told = xs(mark), clock(mark) if mark else "0"
        told = told.replace(".0 s", " s")
        made.append(f'<line class="grid" x1="{px(x)}" x2="{px(x)}" y1="{top}" y2="{bottom}"/>')
        if x - len(told) * GLYPH / 2 > end:
            made.append(text(x, bottom + 17, told, "tick mid"))
            end = x + len(told) * GLYPH / 2 + 6
    return made


def _whisker(x: float, ys: Scale, p: Point) -> list[str]:
    low, high = _end(ys, p, p.low), _end(ys, p, p.high)
    kind = "bar win" if p.winner else "bar"
    made = [f'<line class="{kind}" x1="{px(x)}" x2="{px(x)}" y1="{px(low)}" y2="{px(high)}"/>']
    caps = (low, high)
    return made + [f'<line class="{kind}" x1="{px(x - 4)}" x2="{px(x + 4)}" y1="{px(y)}" y2="{px(y)}"/>' for y in caps]


def _end(ys: Scale, p: Point, value: float) -> float:
    """Where an end of a trial's interval lies."""
    return ys(finite(value, p.value))


def _label(p: Point, x: float, ys: Scale, marks: list[Box], lines: list[Box], plot: Box) -> list[str]:
    """The trial's number and name where they cover nothing, its number alone, or nothing: the table has it.

    The winner's name may lie on the intervals of others.
    """
    full, bare, y = f"{p.number} {brief(p.name, 28)}", str(p.number), ys(p.value)
    if not ys.low <= p.value <= ys.high:
        full, bare = f"{full}: {figure(p.value)}, off the plot", f"{bare}: {figure(p.value)}"
    tries = [(full, [*marks, *lines]), (full, marks) if p.winner else (bare, [*marks, *lines]), (bare, marks)]
    for told, taken in tries:
        w, away = len(told) * GLYPH, 14 if p.winner else 11
        for dx, dy, anchor in (
            *((away, 4, ""), (-away, 4, " end"), (away - 2, -10, ""), (away - 2, 18, ""), (2 - away, -10, " end")),
            *((2 - away, 18, " end"), (0, -away - 2, " mid"), (0, away + 11, " mid")),
        ):
            start = x + dx - {"": 0, " end": w, " mid": w / 2}[anchor]
            box = (start, y + dy - 11, start + w, y + dy + 3)
            if box[0] < plot[0] or box[2] > plot[2] or box[1] < plot[1] or box[3] > plot[3]:
                continue
            if not any(_meet(box, other) for other in taken):
                marks.append(box)
                return [text(x + dx, y + dy, told, f"lab halo{anchor}" + (" strong" if p.winner else ""))]
    return []


def _meet(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


# ---------------------------------------------------------------- scores beside each other


def bars(rows: Sequence[Bar], metric: str, name: str, width: int = 720) -> str:
    """Scores with their intervals below each other, each under its name; the winner's is filled, with a ring."""
    known = [row for row in rows if math.isfinite(row.value)]
    if not known:
        return ""
    step, left, right = 46, 10, width - 74
    low = min(min(finite(r.low, r.value), r.value) for r in known)
    high = max(max(finite(r.high, r.value), r.value) for r in known)
    gap = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    xs = Scale(low - gap, high + gap, left, right)
    bottom = step * len(known) + 6
    made = []
    for value in ticks(xs.low, xs.high, 7 if width > 500 else 4):
        x = px(xs(value))
        made.append(f'<line class="grid" x1="{x}" x2="{x}" y1="4" y2="{bottom}"/>')
        made.append(text(xs(value), bottom + 16, tick(value), "tick mid"))
    for i, row in enumerate(known):
        y = step * i + 34.0
        kind = "bar win" if row.winner else "bar"
        a, b = xs(finite(row.low, row.value)), xs(finite(row.high, row.value))
        told = f"{brief(row.name)}: {figure(row.value)} [{figure(row.low)}, {figure(row.high)}]"
        made.append(
            text(left, y - 14, brief(row.name, int((right - left) / GLYPH)), "lab strong" if row.winner else "lab")
        )
        if b > a:
            made.append(f'<line class="{kind} thick" x1="{px(a)}" x2="{px(b)}" y1="{y}" y2="{y}"/>')
        made.append(marker(xs(row.value), y, "circle", row.winner, told))
        made.append(text(width - 8, y + 4, figure(row.value), "val end" + (" strong" if row.winner else "")))
    made.append(text((left + right) / 2, bottom + 36, f"{brief(metric, 30)} on the test split", "cap mid"))
    desc = "; ".join(f"{brief(r.name, 40)} {figure(r.value)}" for r in known)
    return svg(name, f"{brief(metric)} on the test split", desc, (width, bottom + 44), "".join(made))


# ---------------------------------------------------------------- learning curves


def curve(epochs: Sequence[Epoch], span: tuple[float, float], kept: int, metric: str, name: str) -> str:
    """One trial's learning curve: the score on validation above, both losses below, phases parted by lines.

    Args:
        span: The range of the score's axis, the same for all trials that are to be compared.
        kept: The epoch whose weights were kept, from 0 on: a dot.
    """
    width, height, left, right = 306, 214, 42, 258
    xs = Scale(0, max(1, len(epochs) - 1), left, right)
    upper = Scale(*apart(*span), 92, 24)
    losses = [v for e in epochs for v in (e.train_loss, e.val_loss) if math.isfinite(v)] or [0.0]
    lower = Scale(*apart(min(*losses, 0.0) if len(losses) > 1 else 0.0, max(losses)), 184, 120)
    made = [text(left, 12, f"{brief(metric, 22)} on validation", "cap"), text(left, 112, "loss", "cap")]
    for scale in (upper, lower):
        for value in (ticks(scale.low, scale.high, 3) or [scale.low])[:4]:
            y = px(scale(value))
            made.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y}" y2="{y}"/>')
            made.append(text(left - 6, scale(value) + 4, tick(value), "tick end"))
    for i, (one, other) in enumerate(pairwise(epochs)):
        if one.phase != other.phase:
            x = px(xs(i + 0.5))
            made.append(f'<line class="phase" x1="{x}" x2="{x}" y1="20" y2="184"/>')
            made.append(text(xs(i + 0.5) + 3, 30, f"phase {other.phase + 1}", "tick"))
    made.append(_line(epochs, xs, upper, lambda e: e.metric, "line win"))
    made.append(_line(epochs, xs, lower, lambda e: e.train_loss, "line dash"))
    made.append(_line(epochs, xs, lower, lambda e: e.val_loss, "line"))
    last = epochs[-1]
    ends = [(lower(v), told) for v, told in ((last.train_loss, "train"), (last.val_loss, "valid.")) if math.isfinite(v)]
    made += [text(right + 5, y + 4, told, "lab") for y, told in _parted(ends, 12)]
    best = epochs[kept]
    if math.isfinite(best.metric):
        made.append(marker(xs(kept), upper(best.metric), "circle", False, f"kept: epoch {kept + 1}"))
        made.append(text(right + 5, upper(best.metric) + 4, figure(best.metric), "val strong"))
    made.append(text(left, 204, "epoch 1", "tick") if len(epochs) > 1 else "")
    made.append(text(right, 204, str(len(epochs)) if len(epochs) > 1 else "one epoch", "tick end"))
    desc = (
        f"{len(epochs)} epochs. Epoch {kept + 1} was kept, with {brief(metric)} {figure(best.metric)} and a validation "
    )
    desc += f"loss of {figure(best.val_loss)}. Training loss: dashed, validation loss: solid."
    return svg(name, "Learning curve", desc, (width, height), "".join(made))


def _line(epochs: Sequence[Epoch], xs: Scale, ys: Scale, of: Callable[[Epoch], float], kind: str) -> str:
    """A line through the finite values, broken where there are none."""
    parts: list[list[str]] = [[]]
    for i, epoch in enumerate(epochs):
        if math.isfinite(of(epoch)):
            parts[-1].append(f"{px(xs(i))},{px(ys(of(epoch)))}")
        elif parts[-1]:
            parts.append([])
    lines = [f'<polyline class="{kind}" points="{" ".join(part)}"/>' for part in parts if len(part) > 1]
    alone = [part[0].split(",") for part in parts if len(part) == 1]
    return "".join(lines + [f'<circle class="dot" cx="{x}" cy="{y}" r="2.5"/>' for x, y in alone])


def _parted(ends: list[tuple[float, str]], gap: float) -> list[tuple[float, str]]:
    """Labels that would lie on each other moved apart."""
    made = sorted(ends)
    if len(made) == 2 and made[1][0] - made[0][0] < gap:
        middle = (made[0][0] + made[1][0]) / 2
        return [(middle - gap / 2, made[0][1]), (middle + gap / 2, made[1][1])]
    return made


# ---------------------------------------------------------------- mistakes


def heat(rows: Sequence[str], columns: Sequence[str], counts: Sequence[Sequence[int]], name: str, title: str) -> str:
    """Counts in cells, shaded by their share of the row; a diagonal, where there is one, is framed."""
    square, side = list(rows) == list(columns), 58 if len(columns) <= 5 else 42 if len(columns) <= 12 else 32
    across, down = [brief(c, 16) for c in columns], [brief(r, 22) for r in rows]
    flat = all(len(c) * GLYPH < side - 2 for c in across)
    left = max(max(len(r) for r in down) * GLYPH + 16, 62.0)
    top = 40.0 if flat else 34 + max(len(c) for c in across) * GLYPH * 0.72
    wide = left + side * len(columns) + (12 if flat else max(len(c) for c in across[-2:]) * GLYPH * 0.72)
    high = side * 0.8 if len(columns) > 5 else side * 0.9
    made = [text(left, 14, "answer →", "cap"), text(left - 10, top - 8, "truth ↓", "cap end")] if square else []
    for c, told in enumerate(across):
        x = left + side * (c + 0.5)
        turn = "" if flat else f' transform="rotate(-45 {px(x)} {px(top - 8)})"'
        made.append(f'<text class="lab{" mid" if flat else ""}" x="{px(x)}" y="{px(top - 8)}"{turn}>{esc(told)}</text>')
    for r, line in enumerate(counts):
        whole, y = sum(line) or 1, top + high * r
        made.append(text(left - 10, y + high / 2 + 4, down[r], "lab end"))
        for c, n in enumerate(line):
            x, kind = left + side * c, "cell hit" if square and r == c else "cell"
            told = esc(f"{down[r]} → {across[c]}: {n}")
            made.append(
                f'<rect class="{kind}" x="{px(x + 1)}" y="{px(y + 1)}" width="{side - 2}" height="{px(high - 2)}"'
                f' rx="3" fill-opacity="{0.5 * n / whole:.3f}"><title>{told}</title></rect>'
            )
            if n or len(columns) <= 5:
                made.append(text(x + side / 2, y + high / 2 + 4, f"{n:,}", "val mid" if n else "tick mid"))
    desc = f"{len(rows)} rows by {len(columns)} columns of counts; the tables below have them in words."
    size = (math.ceil(wide), math.ceil(top + high * len(rows) + 8))
    return svg(name, title, desc, size, "".join(made), fixed=True)


def truth(pairs: Sequence[tuple[float, float]], name: str) -> str:
    """Answers against truths; on the line they agree."""
    known = [(a, b) for a, b in pairs if math.isfinite(a) and math.isfinite(b)]
    if not known:
        return ""
    everything = [v for pair in known for v in pair]
    low, high = apart(min(everything), max(everything))
    xs, ys = Scale(low, high, 54, 350), Scale(low, high, 310, 14)
    made = levels(ys, 54, 350)
    for value in ticks(low, high, 4):
        made.append(text(xs(value), 328, tick(value), "tick mid"))
    made.append('<line class="phase" x1="54" y1="310" x2="350" y2="14"/>')
    made += [f'<circle class="dot" cx="{px(xs(a))}" cy="{px(ys(b))}" r="2.5"/>' for a, b in known]
    made += [text(202, 350, "truth", "cap mid"), text(60, 24, "answer", "cap"), text(346, 70, "equal", "tick end")]
    desc = f"{len(known)} test rows; on the dashed line answer and truth are equal."
    return svg(name, "Answer against truth", desc, (364, 358), "".join(made))
