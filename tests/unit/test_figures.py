"""Figures: whole SVG whatever the numbers and the names, one title and description each, no text outside."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest
import stories
from hypothesis import given
from hypothesis import strategies as some

from regraft.deliver import figures, svg
from regraft.deliver.figures import Bar, Point
from regraft.waist import Epoch

SVG = "{http://www.w3.org/2000/svg}"
KNOWN = {"svg", "title", "desc", "text", "line", "circle", "polygon", "polyline", "rect"}
ATTRIBUTES = re.findall(
    r"\S+",
    "role aria-labelledby aria-describedby viewBox width height id class x y x1 x2 y1 y2 cx cy r rx points transform "
    "fill-opacity",
)


def whole(svg: str) -> ElementTree.Element:
    """The parsed figure: well-formed, named, of known parts alone, every number finite."""
    root = ElementTree.fromstring(svg)
    assert root.get("role") == "img"
    named = {part.get("id"): part for part in root if part.tag in ("title", "desc")}
    assert named[root.get("aria-labelledby")].text and named[root.get("aria-describedby")].text
    for part in root.iter():
        assert part.tag.removeprefix(SVG) in KNOWN and set(part.attrib) <= {*ATTRIBUTES}
        assert not {"nan", "inf", "-inf"} & set(" ".join(part.attrib.values()).replace(",", " ").split())
    return root


def texts(root: ElementTree.Element) -> list[str]:
    return [part.text or "" for part in root.iter("text")]


def point(i: int, seconds: float, value: float, winner: bool = False) -> Point:
    return Point(i, f"plan {i}", seconds, value, value - 0.05, value + 0.05, winner=winner)


# ---------------------------------------------------------------- score against cost


@pytest.mark.parametrize("width", [340, 720])
def test_the_winner_is_marked_by_shape_and_named(width: int) -> None:
    points = [point(1, 1.0, 0.7), point(2, 20.0, 0.9, True), point(3, 300.0, 0.8)]
    root = whole(figures.scatter(points, "accuracy", "higher", "s", width))
    assert sum("ring" in (p.get("class") or "") for p in root.iter()) == 1
    assert "2 plan 2" in texts(root) and "time, logarithmic" in texts(root)
    assert "time" in texts(whole(figures.scatter([point(1, 1.0, 0.7), point(2, 2.0, 0.8)], "f1", "higher", "s")))


def test_labels_do_not_cover_each_other() -> None:
    told = stories.ants_bees()
    points = [
        point(i + 1, t.cost.seconds, t.score("val").value, i == told.verdict.winner) for i, t in enumerate(told.trials)
    ]
    for width in (340, 720):
        root = whole(figures.scatter(points, "accuracy", "higher", "s", width))
        boxes = []
        for part in root.iter("text"):
            kind, text = part.get("class") or "", part.text or ""
            if "lab" in kind:
                w, x = len(text) * svg.GLYPH, float(part.get("x") or 0)
                left = x - (w if "end" in kind else w / 2 if "mid" in kind else 0)
                boxes.append((left, left + w, float(part.get("y") or 0)))
        assert len(boxes) >= 8
        for i, (a, b, y) in enumerate(boxes):
            assert a >= 0 and b <= width
            assert not any(a < d and c < b and abs(y - z) < 13 for c, d, z in boxes[i + 1 :])


def test_a_plan_that_is_far_off_does_not_squash_the_others() -> None:
    points = [point(i, float(i), 0.6 + i / 100) for i in range(1, 6)] + [point(6, 3.5, 9e6)]
    told = texts(whole(figures.scatter(points, "rmse", "lower", "s")))
    assert any("9,000,000, off the plot" in text for text in told)
    assert any("0.6" in text for text in told)


def test_no_score_draws_nothing() -> None:
    assert "nothing to draw" in texts(whole(figures.scatter([point(1, 1.0, math.nan)], "f1", "higher", "s")))
    assert figures.bars([Bar("a", math.nan, 0, 1)], "f1", "b") == "" == figures.truth([(math.nan, 1.0)], "t")


NUMBER = some.floats(allow_nan=True, allow_infinity=True, width=32)


@given(some.lists(some.tuples(some.floats(0, 1e6), NUMBER, NUMBER, NUMBER), min_size=1, max_size=6), some.booleans())
def test_any_numbers_make_a_whole_figure(rows: list[tuple[float, ...]], lower: bool) -> None:
    points = [Point(i, str(i), s, v, a, b) for i, (s, v, a, b) in enumerate(rows)]
    whole(figures.scatter(points, "m", "lower" if lower else "higher", "s"))
    if made := figures.bars([Bar(str(i), v, a, b) for i, (_, v, a, b) in enumerate(rows)], "m", "b"):
        whole(made)
    epochs = [Epoch(i // 2, i, v, a, b) for i, (_, v, a, b) in enumerate(rows)]
    whole(figures.curve(epochs, (0.0, 1.0), 0, "m", "c"))
    if made := figures.truth([(v, a) for _, v, a, _ in rows], "t"):
        whole(made)


# ---------------------------------------------------------------- curves, counts


def test_a_curve_tells_its_lines_and_phases_apart() -> None:
    root = whole(figures.curve(stories.curve(12, 0.9, phases=2), (0.5, 1.0), 7, "accuracy", "c"))
    assert {"train", "valid.", "phase 2", "loss"} <= set(texts(root))
    dashed = [line.get("class") for line in root.iter("polyline")]
    assert dashed == ["line win", "line dash", "line"]


def test_a_broken_curve_has_gaps() -> None:
    epochs = [Epoch(0, i, 1.0, math.nan if i == 3 else 1.0, 0.5) for i in range(8)]
    assert len(list(whole(figures.curve(epochs, (0, 1), 0, "f1", "c")).iter("polyline"))) == 4


def test_counts_are_written_in_their_cells() -> None:
    root = whole(figures.heat(["a", "b"], ["a", "b"], [[3, 1], [0, 1200]], "h", "Confusion"))
    assert {"3", "1", "0", "1,200", "truth ↓", "answer →"} <= set(texts(root))
    assert [r.get("class") for r in root.iter("rect")] == ["cell hit", "cell", "cell", "cell hit"]


def test_hostile_names_stay_text() -> None:
    evil = list(stories.EVIL)
    counts = [[1] * len(evil) for _ in evil]
    whole(figures.heat(evil, evil, counts, '"><b>', EVIL := evil[0]))
    whole(figures.heat(evil, ["x"], [[1]] * len(evil), "h", EVIL))
    points = [Point(i, e, 1.0 + i, 0.5, 0.4, 0.6, winner=i == 0) for i, e in enumerate(evil)]
    whole(figures.scatter(points, EVIL, "higher", "s"))
    whole(figures.bars([Bar(e, 0.5, 0.4, 0.6) for e in evil], EVIL, "b"))


@given(some.floats(-1e9, 1e9), some.floats(1e-6, 1e9), some.integers(2, 8))
def test_ticks_are_few_and_inside(low: float, gap: float, most: int) -> None:
    gap = max(gap, abs(low) / 1e6)
    made = svg.ticks(low, low + gap, most)
    assert len(made) <= most + 1 and all(low - gap / 100 <= t <= low + gap * 1.01 for t in made)
