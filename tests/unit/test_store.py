"""Run folders: a step is done once for equal inputs, names are safe and numbered, a missing run gets a hint."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from regraft.errors import UsageError
from regraft.kit import durable, store
from regraft.kit.store import Folder, existing, place, slug
from regraft.waist import Budget, Said


def made_runs(parent: Path, *names: str) -> Path:
    for name in names:
        Folder(parent / name).write("options", Budget())
    return parent


# ---------------------------------------------------------------- steps


def test_a_step_is_read_when_its_inputs_are_equal(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    done: list[int] = []

    def work() -> Budget:
        done.append(1)
        return Budget(seconds=len(done))

    first = folder.step("budget", Budget, work, "a", 1)
    assert Folder(tmp_path).step("budget", Budget, work, "a", 1) == first == Budget(seconds=1)
    assert folder.step("budget", Budget, work, "a", 2) == Budget(seconds=2)
    assert folder.step("budget", Budget, work, "a", 1) == Budget(seconds=3)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"inputs": 1}', b"\xff\xfe", b'{"inputs": "", "record": 3}'])
def test_a_step_whose_file_is_damaged_is_done_again(tmp_path: Path, content: bytes) -> None:
    folder = Folder(tmp_path)
    durable.write(tmp_path / "budget.json", content)
    assert folder.step("budget", Budget, lambda: Budget(trials=3)) == Budget(trials=3)
    assert folder.load("budget", Budget) == Budget(trials=3)


def test_a_record_of_another_shape_is_done_again(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.step("budget", Budget, lambda: Budget())
    held = json.loads((tmp_path / "budget.json").read_bytes())
    durable.write_json(tmp_path / "budget.json", held | {"record": {"seconds": "many", "years": 3}})
    assert folder.step("budget", Budget, lambda: Budget(trials=3)) == Budget(trials=3)


def test_a_missing_step_names_the_command_that_goes_on(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"not come that far · saw: no verdict\.json in .*adapt --resume"):
        Folder(tmp_path).load("verdict", Budget)
    assert not Folder(tmp_path).has("verdict")


def test_a_record_of_another_shape_is_refused_where_it_must_be_there(tmp_path: Path) -> None:
    durable.write_json(tmp_path / "budget.json", {"inputs": "", "record": {"years": 3, "seconds": "many"}})
    with pytest.raises(UsageError, match=r"budget\.json"):
        Folder(tmp_path).load("budget", Budget)


def test_events_are_lines_of_json(tmp_path: Path) -> None:
    for text in ("größe\n", "two"):
        Folder(tmp_path).log("Said", Said(text))
    lines = [json.loads(line) for line in (tmp_path / store.EVENTS).read_text("utf-8").splitlines()]
    assert [(line["event"], line["text"]) for line in lines] == [("Said", "größe\n"), ("Said", "two")]
    assert lines[0]["t"] <= lines[1]["t"]


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Ants & Bees/", "ants-bees"),
        ("蚂蚁", "data"),
        ("🐜🐝", "data"),
        ("Größe 5", "gr-e-5"),
        ("", "data"),
        ("..", "data"),
        ("-rf", "rf"),
        ("a" * 60, "a" * 40),
        ("v1.0_x", "v1.0_x"),
    ],
)
def test_slugs(text: str, name: str) -> None:
    assert slug(text) == name


@given(some.text())
def test_a_slug_is_always_safe(text: str) -> None:
    assert re.fullmatch(r"[a-z0-9]([a-z0-9._-]{0,38}[a-z0-9])?", slug(text))


def test_a_request_keeps_its_place_until_it_is_fresh(tmp_path: Path) -> None:
    key = "abcdef123456"
    assert place(tmp_path, "x", key, fresh=False).name == "x-abcdef"
    assert place(tmp_path, "x", key, fresh=True).name == "x-abcdef"
    for name in ("x-abcdef", "x-abcdef-2"):
        assert place(tmp_path, "x", key, fresh=True).name == name
        (tmp_path / name).mkdir()
        assert place(tmp_path, "x", key, fresh=False).name == name
    assert place(tmp_path, "x", key, fresh=True).name == "x-abcdef-3"
    assert place(tmp_path, "x", "ffffff", fresh=False).name == "x-ffffff"


# ---------------------------------------------------------------- existing runs


def test_a_run_that_is_there(tmp_path: Path) -> None:
    made_runs(tmp_path, "a-1")
    assert existing(tmp_path / "a-1") == tmp_path / "a-1"


def test_a_misspelt_run_gets_the_nearest_name(tmp_path: Path) -> None:
    made_runs(tmp_path, "ants-probe-111111", "bees-probe-222222")
    with pytest.raises(UsageError) as caught:
        existing(tmp_path / "ants-probe-11111")
    assert caught.value.what == "there is no run in this folder"
    assert caught.value.saw == str(tmp_path / "ants-probe-11111")
    assert caught.value.allowed == "ants-probe-111111, bees-probe-222222"
    assert caught.value.do == f"did you mean {tmp_path / 'ants-probe-111111'}?"


def test_a_run_in_a_place_without_runs(tmp_path: Path) -> None:
    for path in (tmp_path / "x", tmp_path / "no" / "x"):
        with pytest.raises(UsageError, match=r"no run.*it holds options\.json.*starts a run"):
            existing(path)
