"""Against a constant guess: the whole interval must lie above it."""

from __future__ import annotations

import pytest

from regraft.checks.chance import check
from regraft.waist import Cost, Evidence, Phase, Plan, Score, Status, Trial

PLAN = Plan("probe", (Phase(1, 0, (("*", 1.0),)),))


def evidence(value: float, low: float, high: float) -> Evidence:
    scores = (Score("accuracy", "val", 0.1, 0.0, 0.2, 40), Score("accuracy", "test", value, low, high, 50))
    winner = Trial(PLAN, 0, scores, (), Cost(1.0, 1), "", "")
    guess = (Score("balanced_accuracy", "test", 0.2, 0.2, 0.2, 50), Score("accuracy", "test", 0.5, 0.5, 0.5, 50))
    return Evidence(winner, (winner,), guess, {})


@pytest.mark.parametrize(
    ("value", "low", "high", "status"),
    [(0.8, 0.7, 0.9, "pass"), (0.6, 0.5, 0.7, "warn"), (0.45, 0.4, 0.6, "warn"), (0.3, 0.2, 0.4, "fail")],
)
def test_the_interval_decides(value: float, low: float, high: float, status: Status) -> None:
    found = check(evidence(value, low, high))
    assert (found.check, found.status, found.value, found.interval) == ("chance", status, value, (low, high))
    assert found.threshold == 0.5 and bool(found.advice) == (status != "pass")


def test_the_evidence_names_metric_rows_and_guess() -> None:
    assert check(evidence(0.8, 0.7, 0.9)).evidence == (
        "accuracy 0.800 [0.700, 0.900] on 50 test rows, a constant guess has 0.500"
    )
