"""Against a constant guess: the whole interval must be better, whichever way is better."""

from __future__ import annotations

import pytest

from regraft.checks.chance import check
from regraft.waist import Cost, Evidence, Finding, Phase, Plan, Score, Status, Trial

PLAN = Plan("probe", (Phase(1, 0, (("*", 1.0),)),))


def evidence(value: float, low: float, high: float, chance: float = 0.5) -> Evidence:
    scores = (Score("accuracy", "val", 0.1, 0.0, 0.2, 40), Score("accuracy", "test", value, low, high, 50))
    winner = Trial(PLAN, 0, scores, (), Cost(1.0, 1), "", "")
    guess = (Score("balanced_accuracy", "test", 0.2, 0.2, 0.2, 50), Score("accuracy", "test", *[chance] * 3, 50))
    return Evidence(winner, (winner,), guess, {})


def of_errors(value: float, low: float, high: float, chance: float) -> Finding:
    winner = Trial(PLAN, 0, (Score("rmse", "test", value, low, high, 50, "lower"),), (), Cost(1.0, 1), "", "")
    return check(Evidence(winner, (winner,), (Score("rmse", "test", *[chance] * 3, 50, "lower"),), {}))


@pytest.mark.parametrize(
    ("value", "low", "high", "status"),
    [(0.8, 0.7, 0.9, "pass"), (0.6, 0.5, 0.7, "warn"), (0.45, 0.4, 0.6, "warn"), (0.3, 0.2, 0.4, "fail")],
)
def test_the_interval_decides(value: float, low: float, high: float, status: Status) -> None:
    found = check(evidence(value, low, high))
    assert (found.check, found.status, found.value, found.interval) == ("chance", status, value, (low, high))
    assert found.threshold == 0.5 and bool(found.advice) == (status != "pass")


@pytest.mark.parametrize(
    ("value", "low", "high", "status"),
    [(0.8, 0.7, 0.9, "pass"), (1.3, 1.2, 1.46, "warn"), (1.5, 1.4, 1.6, "warn"), (1.9, 1.5, 2.5, "fail")],
)
def test_an_error_must_lie_below(value: float, low: float, high: float, status: Status) -> None:
    found = of_errors(value, low, high, 1.46)
    assert (found.status, found.value, found.interval, found.threshold) == (status, value, (low, high), 1.46)
    assert bool(found.advice) == (status != "pass")


def test_the_evidence_names_metric_rows_and_guess() -> None:
    assert check(evidence(0.8, 0.7, 0.9)).evidence == (
        "accuracy 0.800 [0.700, 0.900] on 50 test rows, a constant guess has 0.500"
    )
    assert of_errors(12345.678, 12000.0, 13000.0, 20000.0).evidence == (
        "rmse 1.235e+04 [1.2e+04, 1.3e+04] on 50 test rows, a constant guess has rmse 2e+04"
    )


def test_a_score_that_a_constant_guess_wins_is_no_verdict() -> None:
    for found in (check(evidence(0.9, 0.8, 0.95, chance=1.0)), of_errors(0.2, 0.1, 0.3, 0.0)):
        assert found.status == "warn" and found.advice.startswith("decide by a metric that no constant guess can win")
