"""Advice kept in a folder: its record, and two pages that say the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import stories

from regraft.deliver import advice
from regraft.errors import UsageError
from regraft.kit.store import Folder
from regraft.planner.advise import Advice
from regraft.waist import Facts
from tests.unit.test_page import ATTRIBUTES, TAGS, Seen

COMMAND = "regraft adapt 'photos/ants bees' --model models/mobilenet"


def facts() -> Facts:
    story = stories.ants_bees()
    return Facts(story.data, story.backbone, story.machine)


def test_advice_is_kept_as_a_record_and_two_pages(tmp_path: Path) -> None:
    found = stories.advice()
    assert advice.keep(tmp_path / "kept", facts(), found, COMMAND) == tmp_path / "kept" / "advice.html"
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["advice.html", "advice.json", "advice.md"]
    folder = Folder(tmp_path / "kept")
    assert folder.load("advice", Advice) == found and folder.damaged() is None
    held = json.loads((tmp_path / "kept/advice.json").read_text("utf-8"))
    held["record"]["way"] = "scratch"
    (tmp_path / "kept/advice.json").write_text(json.dumps(held), "utf-8")
    assert folder.read("advice", Advice) is None, "a change is noticed"


@pytest.mark.parametrize("stage", ["layer 7", *stories.EVIL])
@pytest.mark.parametrize("labels", [True, False])
def test_the_page_is_whole_and_holds_no_markup_from_names(stage: str, labels: bool) -> None:
    seen = Seen(advice.write_page(facts(), stories.advice(stage, labels), COMMAND))
    assert seen.open == []
    for tag, attributes in seen.elements:
        assert tag in TAGS and set(attributes) <= {*ATTRIBUTES}, (tag, attributes)
    ids = [attributes["id"] for _, attributes in seen.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_both_say_which_way_why_and_what_it_takes() -> None:
    found = stories.advice()
    text = advice.write_text(facts(), found, COMMAND)
    shown = " ".join(" ".join(Seen(advice.write_page(facts(), found, COMMAND)).texts).split())
    first = found.first
    for part in ("Begin with probe c 1", f"{COMMAND} --strategy {first.strategy}", "E1", "229 training rows", "0.943"):
        assert part in text and part in shown
    assert "All rules" in shown and "full lr 0.0003" in text and "6.0 s" in text


def test_a_run_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "options.json").write_text("{}", "utf-8")
    with pytest.raises(
        UsageError, match=rf"holds a run, .* saw: {tmp_path} · .* adapt --advice keeps advice in its run"
    ):
        advice.keep(tmp_path, facts(), stories.advice(), COMMAND)
    assert [path.name for path in tmp_path.iterdir()] == ["options.json"]
