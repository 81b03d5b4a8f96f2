"""The page: whole, self-contained, readable with and without eyes, and harmless whatever the data's names are."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
import stories

from regraft.deliver import page
from regraft.deliver.story import Story
from regraft.waist import Bad, Flag

MAKERS = [stories.ants_bees, stories.hostile, stories.numbers, stories.sets, stories.bare]
MAKERS += [stories.foreseen, stories.dimly_foreseen]
VOID = {"meta", "link", "img", "br"}
TAGS = re.findall(
    r"\S+",
    "html head meta title link style body a header p h1 h2 h3 bdi main div span dl dt dd nav ul li section figure "
    "figcaption table caption thead tbody tr th td details summary strong blockquote img pre code footer small svg "
    "desc text line circle polygon polyline rect",
)
ATTRIBUTES = re.findall(
    r"\S+",
    "lang charset http-equiv content name rel href class id role aria-label aria-labelledby aria-describedby tabindex "
    "scope dir src alt viewbox width height x y x1 x2 y1 y2 cx cy r rx points transform fill-opacity",
)


class Seen(HTMLParser):
    """What a browser would make of a page: its elements, attributes, texts, and whether they nest."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len(dict(attrs)), (tag, attrs)
        self.elements.append((tag, {k: v or "" for k, v in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def seen(make: Callable[[], Story]) -> Seen:
    return Seen(page.write_page(make()))


@pytest.mark.parametrize("make", MAKERS)
def test_no_element_and_no_attribute_comes_from_the_data(make: Callable[[], Story]) -> None:
    found = seen(make)
    assert found.open == []
    for tag, attributes in found.elements:
        assert tag in TAGS and set(attributes) <= {*ATTRIBUTES}, (tag, attributes)


@pytest.mark.parametrize("make", MAKERS)
def test_nothing_is_fetched_and_nothing_runs(make: Callable[[], Story]) -> None:
    found = seen(make)
    csp = [a["content"] for t, a in found.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert csp == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    ids = {a["id"] for _, a in found.elements if "id" in a}
    for _, attributes in found.elements:
        href, src = attributes.get("href", "data:,"), attributes.get("src", "data:image/jpeg;base64,")
        assert href == "data:," or (href[0] == "#" and href[1:] in ids)
        assert re.fullmatch(r"data:image/jpeg;base64,[A-Za-z0-9+/=]*", src)
    style = Path(page.__file__).with_name("page.css").read_text("utf-8")
    assert "url(" not in style and "@import" not in style


@pytest.mark.parametrize("make", MAKERS)
def test_the_page_can_be_heard_and_walked(make: Callable[[], Story]) -> None:
    found = seen(make)
    ids = Counter(a["id"] for _, a in found.elements if "id" in a)
    assert set(ids.values()) == {1}
    for tag, attributes in found.elements:
        for name in ("aria-labelledby", "aria-describedby"):
            assert attributes.get(name, next(iter(ids))) in ids
        if tag == "svg":
            assert attributes["role"] == "img"
        if tag == "th":
            assert attributes["scope"] in ("col", "row")
        if tag == "img":
            assert attributes["alt"]
    names = [tag for tag, _ in found.elements]
    assert names.count("table") == names.count("caption") and names.count("h1") == 1 == names.count("main")
    assert dict(found.elements)["html"]["lang"] == "en"


def test_the_answer_comes_first() -> None:
    text = " ".join(" ".join(seen(stories.ants_bees).texts).split())
    place = [text.index(part) for part in ("✓ Ship", "probe c 0.1 won", "Why", "What it is worth", "What was tried")]
    assert place == sorted(place)


@pytest.mark.parametrize(
    "told",
    [
        "constant guess",
        "from scratch",
        "no insert fits this network",
        "behind full lr 0.0003 after 5 epochs",
        "118 epochs",
        "within chance",
        "2 rows were dropped",
        "A Processor",
        "regraft adapt 'photos/ants bees' --model models/mobilenet --budget 20m --seed 7",
        "first_line = 1",
        "regraft predict runs/ants-bees-1a2b3c picture.jpg",
    ],
)
def test_what_a_reader_asks_for_is_there(told: str) -> None:
    assert told in " ".join(seen(stories.ants_bees).texts)


def test_pictures_and_texts_of_mistakes_are_shown() -> None:
    assert sum(tag == "img" for tag, _ in seen(stories.ants_bees).elements) == 9
    assert "Somebody is cooking." in "".join(seen(stories.numbers).texts)
    assert sum(tag == "img" for tag, _ in seen(stories.hostile).elements) == 0, "what is no base64 is no picture"


def test_findings_about_the_data_are_told_with_the_rows_beside_each_other() -> None:
    told = stories.ants_bees()
    assert told.examined is not None
    text = " ".join(seen(lambda: told).texts)
    assert "Nothing was found" in text
    flag = Flag("near", "warn", 1, 397, "1 pair of almost equal pictures", ("a ~ b",), "remove one", ("b",), ("a", "b"))
    alike = tuple(stories.picture(i) for i in range(2))
    more = dataclasses.replace(told, flags=(flag,), examined=dataclasses.replace(told.examined, alike=alike))
    found = seen(lambda: dataclasses.replace(more, bad=(Bad("train", "x", 0, "the file is empty"),)))
    text = " ".join(found.texts)
    assert "1 pair of almost equal pictures" in text and "remove one" in text and "1 of 397" in text
    assert "the file is empty (1)" in text and sum(tag == "img" for tag, _ in found.elements) == 11


def test_of_many_classes_the_most_confused_are_drawn() -> None:
    found = seen(stories.hostile)
    assert sum(tag == "rect" for tag, _ in found.elements) == 400
    assert "the 20 most often confused of 77" in "".join(found.texts)


def test_a_refused_run_offers_nothing_to_use() -> None:
    text = "".join(seen(stories.bare).texts)
    assert "✕ Refused" in text and "Nothing is shipped" in text and "regraft predict" not in text


def test_the_same_story_is_the_same_page() -> None:
    assert page.write_page(stories.ants_bees()) == page.write_page(stories.ants_bees())
    page.write_page(stories.hostile()).encode("utf-8")


# ---------------------------------------------------------------- colours


def luminance(colour: tuple[float, ...]) -> float:
    """Relative luminance as WCAG 2.2 defines it."""
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def schemes() -> list[dict[str, tuple[float, ...]]]:
    """The colours of the light, the dark and the printed page, each 0 to 1."""
    style = Path(page.__file__).with_name("page.css").read_text("utf-8")
    made = []
    for block in re.findall(r":root \{([^}]*)\}", style):
        found = re.findall(r"--([\w-]+): #([0-9a-f]{3,6});", block)
        full = {name: value if len(value) == 6 else "".join(c * 2 for c in value) for name, value in found}
        made.append({n: tuple(int(v[i : i + 2], 16) / 255 for i in (0, 2, 4)) for n, v in full.items()})
    assert len(made) == 3
    return made


@pytest.mark.parametrize("scheme", range(3))
def test_text_has_enough_contrast(scheme: int) -> None:
    colours = schemes()[scheme]
    for ground in ("paper", "card", "accent-soft"):
        for ink in ("ink", "soft"):
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    for ink in ("accent", "warn", "fail"):
        assert contrast(colours[ink], colours["paper"]) >= 4.5, ink
    full = tuple((a + b) / 2 for a, b in zip(colours["heat"], colours["paper"], strict=True))
    assert contrast(colours["ink"], full) >= 4.5, "the fullest cell"
