"""A story is what a run's records say, and its words are short, honest and harmless."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import stories
from hypothesis import given
from hypothesis import strategies as some

from regraft.deliver import story, words
from regraft.errors import ModelError, UsageError
from regraft.kit import store
from regraft.planner.request import strategies_of
from regraft.waist import Bad, Budget, Flag, Options, Plan, Reading, Skipped, plain

PARTS = ("options", "data", "backbone", "machine", "trials", "verdict", "account", "examined")


def kept(told: story.Story, path: Path) -> Path:
    """The records of a story as a run folder has them."""
    for name in PARTS:
        if (value := getattr(told, name)) is not None:
            store.Folder(path).write(name, list(value) if name == "trials" else value)
    return path


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("make", [stories.ants_bees, stories.numbers, stories.sets, stories.bare])
def test_a_story_is_read_back_as_it_was(make: Callable[[], story.Story], tmp_path: Path) -> None:
    told = dataclasses.replace(make(), opening=None)
    found = story.read(kept(told, tmp_path))
    again, first = (json.dumps(plain(one), default=str) for one in (dataclasses.replace(found, run=told.run), told))
    assert again == first


def test_an_older_run_has_no_account_and_nothing_examined(tmp_path: Path) -> None:
    kept(stories.ants_bees(), tmp_path)
    for name in ("account", "examined"):
        (tmp_path / f"{name}.json").unlink()
    found = story.read(tmp_path)
    assert (found.account.trials, found.account.budget, found.examined, found.opening) == (0, Budget(), None, None)
    assert words.spent(found) == []


def test_findings_and_what_was_left_out_are_read_from_the_run(tmp_path: Path) -> None:
    """Half a line of a quarantine, as a kill may leave it, is passed over."""
    kept(stories.ants_bees(), tmp_path)
    assert (story.read(tmp_path).flags, story.read(tmp_path).bad) == ((), ())
    flag = Flag("near", "warn", 1, 9, "a pair", ("a ~ b",), "remove one", ("b",), ("a", "b"))
    store.Folder(tmp_path).write("flags", [flag])
    bad = Bad("train", "a\n\ud800.jpg", 3, "the file is empty")
    line = json.dumps(plain(bad), ensure_ascii=False).encode("utf-8", "surrogatepass")
    (tmp_path / "quarantine.jsonl").write_bytes(line + b'\n{"split": "tr')
    found = story.read(tmp_path)
    assert (found.flags, found.bad) == ((flag,), (bad,))


def test_what_was_left_out_is_told_by_reason() -> None:
    bad = [Bad("train", f"{i}.jpg", 0, f"reason {i % 8}\x1b[31m") for i in range(20)]
    told = words.left_out(bad)
    assert told.startswith("20 files and rows cannot be used and are left out, see quarantine.jsonl: reason 0")
    assert "(3)" in told and told.endswith("; 2 more reasons") and "\x1b" not in told
    assert words.left_out(bad[:1]).startswith("1 file or row cannot be used and is left out") and not words.left_out([])


def test_a_run_that_is_not_finished_is_refused(tmp_path: Path) -> None:
    kept(stories.ants_bees(), tmp_path)
    (tmp_path / "verdict.json").unlink()
    with pytest.raises(UsageError, match="has not come that far"):
        story.read(tmp_path)


def test_a_bundle_that_was_changed_is_refused(tmp_path: Path) -> None:
    kept(stories.ants_bees(), tmp_path)
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "regraft.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot be read"):
        story.read(tmp_path)


# ---------------------------------------------------------------- trials


def test_the_best_on_validation_comes_first_and_what_was_stopped_last() -> None:
    told = stories.ants_bees()
    order = words.ranked(told)
    whole = [told.trials[i].whole for i in order]
    values = [told.trials[i].score("val").value for i in order if told.trials[i].whole]
    assert whole == sorted(whole, reverse=True) and values == sorted(values, reverse=True)
    errors = stories.numbers()
    first, *_, last = words.ranked(errors)
    assert errors.trials[first].score("val").value < 0.7 and last == 8, "the smallest error is the best"


def test_baselines_are_found_by_what_they_are() -> None:
    found = words.baselines(stories.ants_bees())
    assert [(b.what, b.name) for b in found] == [
        ("constant guess", "the same answer for every row"),
        ("as it is", "asis centroids"),
        ("random features", "–"),
        ("from scratch", "scratch"),
        ("plain features", "plain"),
    ]
    assert all(b.test is not None for b in found if b.name != "–") and found[3].comparison is not None


def test_a_baseline_that_is_missing_says_why() -> None:
    told = stories.bare()
    assert {b.why for b in words.baselines(told)} == {"not recorded", "not among the plans of this run"}
    left = Skipped(Plan("scratch", (), init="random"), "the clock")
    told = dataclasses.replace(told, account=dataclasses.replace(told.account, skipped=(left,)))
    assert words.baselines(told)[3].why == "the clock"


def test_a_trial_that_saw_the_validation_rows_has_no_score_on_them() -> None:
    trial = stories.ants_bees().trials[3]
    refit = dataclasses.replace(trial, plan=dataclasses.replace(trial.plan, fold="all"))
    assert words.score_of(refit, "val") is None and words.score_of(refit, "test") == trial.score("test")
    assert "trained on the validation rows" in words.remark(refit)


def test_what_was_tried_and_spent_is_told() -> None:
    told = stories.ants_bees()
    assert words.tried(told).startswith("12 plans of 8 strategies in 20 min 42 s; 3 of them stopped early")
    (spent, note) = words.spent(told)
    assert "118 epochs" in spent and "Allowed were 20m." in spent and note == "The last plan was let finish."
    fewer = dataclasses.replace(told, account=dataclasses.replace(told.account, rows=(("train", 90),)))
    assert "Rows used: 90 of 183 train; the clock did not allow more." in words.spent(fewer)


# ---------------------------------------------------------------- the command


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ""),
        ({"strategies": strategies_of(Options("", ""))}, ""),
        ({"strategies": ("probe", "my.own")}, "--strategy probe --strategy my.own"),
        ({"seed": 3, "cache": False}, "--no-cache --seed 3"),
        ({"budget": Budget(seconds=5400.0)}, "--budget 1h30m"),
        ({"refit": "all", "precision": "auto"}, "--refit all --precision auto"),
        ({"reading": Reading(text=("a", "b"), max_rows=9)}, "--text a,b --max-rows 9"),
        ({"knobs": (("full.lr", "0.1"),), "max_tokens": 64}, "--full.lr 0.1 --max-tokens 64"),
    ],
)
def test_the_command_has_what_differs_from_the_defaults(changes: dict[str, object], expected: str) -> None:
    options = dataclasses.replace(Options("d", "m"), **changes)  # type: ignore[arg-type]
    assert words.reproduce(options) == f"regraft adapt d --model m {expected}".strip()


@given(some.text(max_size=30).filter(lambda text: not text.startswith("<")))
def test_any_path_is_one_word_of_the_command(path: str) -> None:
    assert shlex.split(words.reproduce(Options(path, "m"))) == ["regraft", "adapt", path, "--model", "m"]


def test_things_in_memory_are_repeated_in_python() -> None:
    made = words.reproduce(Options("<DataFrame>", "<ResNet>", budget=Budget(trials=3), knobs=(("probe.c", "1"),)))
    assert made == "regraft.adapt(data, model=model, budget='3trials', knobs={'probe.c': '1'})"


@pytest.mark.parametrize("text", ["30s", "5m", "1h30m", "12trials", "20epochs", "8GB", "0.1kWh"])
def test_a_budget_reads_back_as_it_was_given(text: str) -> None:
    (made,) = words.budget_words(Budget.parse(text))
    assert Budget.parse(made) == Budget.parse(text)


# ---------------------------------------------------------------- words


@given(some.text())
def test_clean_text_is_one_line_that_any_file_holds(text: str) -> None:
    made = words.clean(text)
    made.encode("utf-8")
    assert len(made) == len(text) and len(made.splitlines()) <= 1 and not set(made) & words.BIDI


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.0, 1e-9, 0.5, 123.45, 1e9])
def test_every_number_has_words(value: float) -> None:
    assert 0 < len(words.figure(value)) < 20 and 0 < len(words.clock(abs(value))) < 20


def test_a_remark_becomes_a_sentence() -> None:
    assert words.sentence_case("") == "" and words.sentence_case("A note.") == "A note."
    assert words.sentence_case("a note", upper=False) == "a note."
