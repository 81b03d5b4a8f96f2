"""What was foreseen: drawn with the numbers of its tables, beside what came; absent where nothing was asked for."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
import stories

from regraft.deliver import foreseen, page, report
from regraft.deliver.words import figure
from regraft.planner.advise import Depth


def words(svg: str) -> list[str]:
    """All texts of a figure, titles of marks included; it is well-formed."""
    root = ElementTree.fromstring(svg)
    assert root.get("role") == "img"
    return [part.text or "" for part in root.iter()]


def boxes(svg: str) -> list[tuple[float, float, float, float]]:
    """About where the texts of a figure lie."""
    found = []
    for part in ElementTree.fromstring(svg).iter("text"):
        kind, wide = (part.get("class") or "").split(), 6.2 * len(part.text or "")
        x, y = float(part.get("x") or 0), float(part.get("y") or 0)
        start = x - (wide if "end" in kind else wide / 2 if "mid" in kind else 0)
        found.append((start, y - 9, start + wide, y + 1))
    return found


def overlaps(svg: str) -> list[tuple[int, int]]:
    some = list(enumerate(boxes(svg)))
    return [
        (i, k)
        for i, a in some
        for k, b in some
        if i < k and a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
    ]


class Tables(HTMLParser):
    """The captions of a page's tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.inside, self.captions = False, list[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.inside = tag == "caption" or (self.inside and tag == "span")

    def handle_data(self, data: str) -> None:
        if self.inside and data.strip():
            self.captions.append(data)


def test_a_run_without_advice_has_no_such_section() -> None:
    told = stories.ants_bees()
    for text in (page.write_page(told), report.write_report(told)):
        assert "foreseen" not in text.lower()
    with_it = page.write_page(stories.foreseen())
    rest = re.sub(r'<section id="foreseen".*?</section>\n\n', "", with_it, flags=re.DOTALL)
    rest = rest.replace('<li><a href="#foreseen">What was foreseen</a></li>', "")
    assert rest == page.write_page(told), "and nothing else of the page changes"


def test_scores_by_depth_are_drawn_with_the_numbers_of_their_table() -> None:
    told = foreseen.looked(stories.advice().survey)
    grid, panels = told["depths"], told["panels"]
    assert [panel["name"] for panel in panels] == list(grid.head[2:]) and len(grid.rows) == 4
    for column, panel in enumerate(panels, 2):
        drawn = words(panel["svg"])
        for row in grid.rows[:3]:
            assert f"after {row[0]}: {row[column]}" in drawn
        assert any(one.endswith(f"; with random weights {grid.rows[3][column]}") for one in drawn)
        assert not overlaps(panel["svg"])
    assert grid.marked == (2,) and grid.rows[2][0] == "features"


def test_depths_that_lie_close_are_not_labelled_twice() -> None:
    seen = stories.advice().survey
    near = tuple(
        dataclasses.replace(one, share=share) for one, share in zip(seen.depths, (0.95, 0.97, 1.0), strict=True)
    )
    told = foreseen.looked(dataclasses.replace(seen, depths=near))
    assert not any(overlaps(panel["svg"]) for panel in told["panels"])
    alone = foreseen.looked(
        dataclasses.replace(seen, depths=(Depth("features", 1.0, (("knn", 0.5),)),), untrained=None)
    )
    assert len(alone["panels"]) == 1 and "0.500" in words(alone["panels"][0]["svg"])


@pytest.mark.parametrize("narrow", [False, True])
def test_the_label_curve_is_drawn_with_the_numbers_of_its_table(narrow: bool) -> None:
    told = foreseen.looked(stories.advice().survey)
    svg = told["labels"].narrow if narrow else told["labels"].svg
    drawn = words(svg)
    assert [row[0] for row in told["reached"].rows] == ["18", "46", "91", "183", "229", "458", "916"]
    for rows, _, value, interval in told["reached"].rows:
        low, high = interval.split(" to ")
        assert f"{rows} rows: {value} [{low}, {high}]" in drawn and value in drawn
    bands = [part.get("class") for part in ElementTree.fromstring(svg) if "band" in (part.get("class") or "")]
    assert bands == ["band", "band far"] and not overlaps(svg)


def test_expectations_add_the_gain_and_widen() -> None:
    seen = stories.advice().survey
    assert seen.labels is not None
    now, twice, four = foreseen.reached(seen).rows[-3:]
    assert now[2] == figure(0.943) and twice[2] == figure(0.943 + 0.009) and four[2] == figure(0.943 + 0.015)
    wide = [float(row[3].split(" to ")[1]) - float(row[3].split(" to ")[0]) for row in (now, twice, four)]
    assert wide == sorted(wide) and all(float(row[3].split(" to ")[1]) <= 1 for row in (now, twice, four))


def test_forecast_stands_beside_fact_for_plans_that_were_run_to_their_end() -> None:
    story = stories.foreseen()
    seconds, memory = foreseen.came(story)
    assert [row[0] for row in seconds.rows] == ["full lr 0.0003", "probe c 0.1", "probe c 1"], "losers are left out"
    assert seconds.rows[1] == ("probe c 0.1", "6.0 s", "5.1 s", "85 %", "1 of 1") and seconds.marked == (1,)
    told = foreseen.told(story)
    for grid, drawing in ((seconds, told["seconds_drawn"]), (memory, told["memory_drawn"])):
        for svg in (drawing.svg, drawing.narrow):
            texts = [one.replace(".0 s", " s") for one in words(svg)]
            for row in grid.rows:
                assert f"{row[1]} → {row[2]}".replace(".0 s", " s") in texts
            assert not overlaps(svg)


def test_what_won_is_told_with_the_way_that_it_went() -> None:
    assert dict(foreseen.terms(stories.foreseen()))["What won"] == "probe c 0.1: train a head on frozen features"


def test_every_picture_has_its_table_on_the_page_and_in_markdown() -> None:
    text, captions = report.write_report(stories.foreseen()), Tables(page.write_page(stories.foreseen())).captions
    for part in ("Scores of the features after", "Accuracy of a head", "Time of each plan", "Memory of the process"):
        assert part in text and any(one.startswith(part) for one in captions)


def test_too_few_rows_to_look_at_leave_a_page_with_what_there_is() -> None:
    story = stories.dimly_foreseen()
    told = foreseen.told(story)
    assert told["panels"] == [] and told["labels"] is None and not told["depths"].rows
    assert "30 training rows were looked at" in page.write_page(story) and "What was foreseen" in report.write_report(
        story
    )
