"""Every block of every page has a way to be tested, every link leads somewhere, and the rules of comparing hold."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from tests.docs import pages, running
from tests.docs.pages import ANY, ROOT, Block
from tests.docs.test_commands import STAGES as SMALL
from tests.docs.test_guides import STAGES as REAL
from tests.unit.test_recipes import COMMANDS

PAGES = pages.names()
BLOCKS = [block for page in PAGES for block in pages.blocks(page)]
RECIPES = "docs/recipes/"
"""Pages whose commands tests/unit/test_recipes.py and tests/journeys/test_recipes.py read and run."""


def at(block: Block) -> str:
    return f"{block.page}:{block.line}"


@pytest.mark.parametrize("block", BLOCKS, ids=at)
def test_no_block_is_silently_untested(block: Block) -> None:
    assert block.kind, f"{at(block)}: neither a command, python, json nor toml: say <!-- not run: why --> above it"
    if block.kind in ("commands", "python") and not block.page.startswith(RECIPES):
        assert block.page in SMALL | REAL, f"{block.page} is run nowhere: give it a stage"


def test_what_is_not_run_is_little_and_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    told = [f"{at(block)}: {block.note}: {block.why}" for block in BLOCKS if block.note]
    with capsys.disabled():
        print("", f"{len(BLOCKS)} blocks in {len(PAGES)} pages, {len(told)} with a note:", *told, sep="\n  ")
    assert len(told) <= len(BLOCKS) / 4


def test_the_recipes_are_all_read_by_their_own_tests() -> None:
    told = [block for block in BLOCKS if block.page.startswith(RECIPES)]
    commands = [s.command for b in told for s in pages.sessions(b) if s.command.startswith("regraft adapt ")]
    assert len(commands) == len(COMMANDS)
    assert [at(b) for b in told if b.text.split()[0] not in ("regraft", "python")] == []


def test_json_and_toml_can_be_read() -> None:
    for block in BLOCKS:
        if block.kind == "json":
            json.loads(block.text.replace(ANY, "null"))
        elif block.kind == "toml":
            tomllib.loads(block.text)


def test_examples_of_configuration_are_taken(tmp_path: Path) -> None:
    for block in BLOCKS:
        if block.kind == "toml":
            (tmp_path / "regraft.toml").write_text(block.text, "utf-8")
            code, printed = running.said(["config", "show", "--config", str(tmp_path / "regraft.toml")])
            assert code == 0, f"{at(block)}\n" + "\n".join(printed)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    broken = []
    for link in pages.links(text):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (ROOT / page).parent / path if path else ROOT / page
        there = target.exists() and (not anchor or anchor in pages.anchors(target.read_text("utf-8")))
        broken += [] if there else [link]
    assert broken == []


@pytest.mark.parametrize("page", PAGES)
def test_every_page_is_reached_from_the_readme(page: str) -> None:
    seen, todo = set(), [ROOT / "README.md"]
    while todo:
        at = todo.pop().resolve()
        if at not in seen and at.suffix == ".md" and at.is_file():
            seen.add(at)
            todo += [at.parent / link.partition("#")[0] for link in pages.links(at.read_text("utf-8"))]
    assert (ROOT / page).resolve() in seen


def test_the_list_of_exit_codes_is_that_of_the_errors() -> None:
    from regraft import errors

    stated = re.findall(r"^\| (\d+) \|", (ROOT / "docs/when_wrong.md").read_text("utf-8"), flags=re.MULTILINE)
    kinds = [errors.RegraftError, *errors.RegraftError.__subclasses__()]
    raised = {kind.code for kind in kinds if kind is not errors.Interrupted} | {0, 130, 143}
    assert {int(code) for code in stated} == raised


# ---------------------------------------------------------------- the rules


def test_blocks_are_found_with_their_notes() -> None:
    text = (
        "a\n```\nregraft demo\n```\n<!-- not run: it draws -->\n```\nphotos/\n```\n```python\nx = 1\n```\n```\n- x\n```"
    )
    found = list(pages.parsed("p.md", text))
    assert [(b.line, b.kind, b.why) for b in found] == [
        (2, "commands", ""),
        (6, "not run", "it draws"),
        (9, "python", ""),
        (12, "", ""),
    ]


def test_sessions_are_commands_with_their_output() -> None:
    block = Block("p.md", 1, "", "$ regraft a \\\n  --b\none\n\ntwo\n$ regraft c")
    (first, other) = pages.sessions(block)
    assert (first.command, first.output) == ("regraft a --b", ["one", "", "two"])
    assert (other.command, other.output) == ("regraft c", None)
    assert [s.command for s in pages.sessions(Block("p.md", 1, "", "regraft a\nregraft b"))] == [
        "regraft a",
        "regraft b",
    ]


PRINTED = ["4 rows", "run runs/a-b-0a1b2c", "  step 3/9: loss 0.5", "a  0.91 [0.8, 1.0]", "done"]


@pytest.mark.parametrize(
    ("page", "wrong"),
    [
        (["5 rows", "run runs/x-y-aaaaaa", "a 0.2 [1, 2]", "done"], ""),
        (["4 rows", "…", "done"], ""),
        (["4 …", "…"], ""),
        (["4 lines", "…"], "printed was     4 rows"),
        (["4 rows", "run runs/x-y-aaaaaa", "a 0.2 [1, 2]"], "more is printed: done"),
        (["4 rows", "…", "done", "and more"], "(nothing more)"),
        (["4 rows", "…", "finished"], "(nothing more)"),
    ],
)
def test_output_is_compared_by_shape_and_order(page: list[str], wrong: str) -> None:
    told = pages.differs(page, PRINTED)
    assert wrong in told and bool(told) == bool(wrong)


@pytest.mark.parametrize(
    ("page", "fresh"),
    [
        (["5 rows", "…", "a 0.2 [1, …", "done"], ["4 rows", "…", "a 0.2 [1, …", "done"]),
        (["5 rows", "stale", "a 0.2 [1, 2]"], ["4 rows", "run runs/a-b-0a1b2c", "a  0.91 [0.8, 1.0]", "done"]),
        (["5 rows", "…"], ["4 rows", "…"]),
    ],
)
def test_a_page_is_mended_line_by_line(page: list[str], fresh: list[str]) -> None:
    assert pages.mended(page, PRINTED) == fresh and pages.differs(fresh, PRINTED) == ""


def test_json_is_compared_by_its_keys() -> None:
    real = '{"schema": 1, "ok": true, "trials": [{"plan": 1}], "run": "a"}'
    assert pages.matches('{"schema": 1, "ok": true, "trials": […], "run": …}', real)
    assert not pages.matches('{"ok": true, "schema": 1}', real)
    assert not pages.matches('{"schema": 1, "error": …}', real)


def test_races_are_made_cheap_and_nothing_else_is() -> None:
    assert running.cheaper(["adapt", "a", "--budget", "5m", "--json"]) == ["adapt", "a", "--json", *running.CHEAP]
    assert running.cheaper(["adapt", "a"]) == ["adapt", "a", *running.CHEAP]
    assert running.cheaper(["adapt", "a", "--strategy", "probe"]) == []
    rows = ["adapt", "a", "--strategy", "probe", "--max-rows", "2000"]
    assert running.cheaper(rows) == [*rows, "--max-rows", "160"]
    assert running.cheaper(["adapt", "a", "--strategy", "probe", "--budget", "1m"]) == [
        *("adapt", "a", "--strategy", "probe"),
        *running.CHEAP,
    ]
    assert running.cheaper(["adapt", "a", "--dry-run"]) == running.cheaper(["predict", "runs/RUN"]) == []


RACED = [
    "9 rows",
    "note",
    "run runs/a-b-0a1b2c",
    "found",
    "1/3 probe lr 0.1",
    "ship: probe lr 0.1 · it leads",
    "report  runs/a-b-0a1b2c",
]


@pytest.mark.parametrize(
    ("page", "wrong"),
    [
        (RACED, ""),
        (
            [
                *RACED[:5],
                "2/3 full lr 0.1",
                "left out: full lr 1: no",
                "warn: full lr 0.1 · equal",
                "report  runs/b-c-111111",
            ],
            "",
        ),
        ([*RACED, "advice"], "is not printed: advice"),
        ([RACED[0], *RACED[2:]], ""),
        ([RACED[0], "other", *RACED[2:]], ""),
        ([*RACED[:3], *RACED[4:]], "is not on the page: found"),
        (["7 lines", *RACED[1:]], "the page begins   # lines"),
        (RACED[:-1], "is not on the page: report"),
        ([*RACED[:4], "…", *RACED[-2:]], ""),
    ],
)
def test_a_cheap_race_is_compared_but_for_the_race(page: list[str], wrong: str) -> None:
    told = running.differing(page, RACED)
    assert wrong in told and bool(told) == bool(wrong)


def test_links_and_anchors_are_read_as_forges_do() -> None:
    assert pages.links("[a](x.md#y) `[no](code)` [`c`](z.py)\n```\n[no](block)\n```\n") == ["x.md#y", "z.py"]
    assert pages.anchors("# What it is: a `test`\n```\n# no\n```\n") == {"what-it-is-a-test"}
