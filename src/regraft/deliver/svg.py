"""The parts that figures are drawn of: scales, ticks, marks, text; and the SVG around them. Every text is escaped."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from typing import Literal

from markupsafe import Markup

from regraft.deliver.words import clean

Shape = Literal["circle", "square", "triangle", "wedge", "diamond"]
GLYPH = 6.7
"""Pixels of a character at 12 pixels, a little more than most have."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing with its caption; `narrow` is the same for a small screen, `fixed` ones scroll in their own box."""

    svg: Markup
    caption: str
    narrow: Markup | None = None
    fixed: bool = False


@dataclass(frozen=True, slots=True)
class Scale:
    """From values to pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        a, b, v = self.low, self.high, min(max(value, self.low), self.high)
        part = math.log(v / a) / math.log(b / a) if self.log else (v - a) / (b - a)
        return self.start + part * (self.end - self.start)


def levels(ys: Scale, left: float, right: float) -> list[str]:
    """Lines across a plot at round values, each with its number."""
    made = []
    for value in ticks(ys.low, ys.high, 6):
        y = px(ys(value))
        made.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y}" y2="{y}"/>')
        made.append(text(left - 8, ys(value) + 4, tick(value), "tick end"))
    return made


def marker(x: float, y: float, shape: Shape, winner: bool, told: str) -> str:
    """A mark with a title; the winner's is filled, with a ring around it."""
    kind, r = ("mark win", 6.0) if winner else ("mark", 5.0)
    corners: dict[Shape, list[tuple[float, float]]] = {
        "square": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
        "triangle": [(0, -1.2), (1.1, 0.9), (-1.1, 0.9)],
        "wedge": [(0, 1.2), (1.1, -0.9), (-1.1, -0.9)],
        "diamond": [(0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)],
    }
    title = f"<title>{esc(told)}</title>"
    ring = f'<circle class="ring" cx="{px(x)}" cy="{px(y)}" r="{r + 5}"/>' if winner else ""
    if shape != "circle":
        path = " ".join(f"{px(x + r * dx)},{px(y + r * dy)}" for dx, dy in corners[shape])
        return f'{ring}<polygon class="{kind}" points="{path}">{title}</polygon>'
    return f'{ring}<circle class="{kind}" cx="{px(x)}" cy="{px(y)}" r="{px(r)}">{title}</circle>'


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers between two values, about `most` of them.

    >>> ticks(0.83, 1.0, 4)
    [0.85, 0.9, 0.95, 1.0]
    """
    if not high > low:
        return [low]
    rough = (high - low) / most
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * k for k in (1, 2, 2.5, 5, 10) if unit * k >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def tick(value: float) -> str:
    """A value beside an axis."""
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:g}"


def apart(low: float, high: float) -> tuple[float, float]:
    """A range with some room around it; 0 stays an end."""
    gap = (high - low) * 0.05 or abs(high) * 0.05 or 0.5
    return low - (gap if low != 0 else 0), high + gap


def finite(value: float, instead: float) -> float:
    """A value, or another one where it is no number."""
    return value if math.isfinite(value) else instead


def px(value: float) -> str:
    """Pixels with at most one digit behind the point."""
    return f"{value:.1f}".removesuffix(".0")


def esc(text: str) -> str:
    """Text that is no markup."""
    return escape(clean(text), quote=True)


def text(x: float, y: float, text: str, kind: str = "lab") -> str:
    """A text at a place; `kind` are its classes in the style sheet."""
    return f'<text class="{kind}" x="{px(x)}" y="{px(y)}">{esc(text)}</text>'


def svg(name: str, title: str, desc: str, size: tuple[int, int], body: str | Iterable[str], fixed: bool = False) -> str:
    """A picture with its title and description; `fixed` ones keep their size, others fill their place."""
    w, h = size
    own = f' width="{w}" height="{h}"' if fixed else ""
    key = esc(name)
    return (
        f'<svg role="img" aria-labelledby="{key}-t" aria-describedby="{key}-d" viewBox="0 0 {w} {h}"{own}>'
        f'<title id="{key}-t">{esc(title)}</title><desc id="{key}-d">{esc(desc)}</desc>{"".join(body)}</svg>'
    )
