"""Errors: a code per kind, four parts, and the nearest name as a hint."""

from __future__ import annotations

import pytest

from regraft import errors
from regraft.errors import Interrupted, RegraftError, near, unknown


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("RegraftError", 1),
        ("UsageError", 2),
        ("DataError", 3),
        ("ModelError", 4),
        ("ResourceError", 5),
        ("BudgetError", 6),
        ("GateError", 7),
    ],
)
def test_each_kind_has_its_exit_code(name: str, code: int) -> None:
    kind = getattr(errors, name)
    assert kind("what").code == code and issubclass(kind, RegraftError)


def test_an_error_tells_its_parts_in_order() -> None:
    error = RegraftError("it broke", saw="3", allowed="1 or 2", do="choose 2")
    assert error.lines() == ["it broke", "saw: 3", "allowed: 1 or 2", "do: choose 2"]
    assert str(error) == "it broke · saw: 3 · allowed: 1 or 2 · do: choose 2"


def test_empty_parts_leave_no_line() -> None:
    assert RegraftError("it broke", do="mend it").lines() == ["it broke", "do: mend it"]


def test_an_interruption_carries_the_signal() -> None:
    assert Interrupted("stopped").code == 130
    assert Interrupted("stopped", "go on", code=143).code == 143


@pytest.mark.parametrize(("name", "guess"), [("partail", "partial"), ("prob", "probe"), ("zzz", ""), ("", "")])
def test_near_names_are_guessed_and_far_ones_are_not(name: str, guess: str) -> None:
    assert near(name, ["partial", "probe", "scratch"]) == guess


def test_an_unknown_name_far_from_all_gets_the_choices() -> None:
    error = unknown("colour", "zzz", ["red", "blue"])
    assert error.lines() == [
        "there is no colour of that name",
        "saw: 'zzz'",
        "allowed: blue, red",
        "do: choose one of the 2 above",
    ]
