"""Against what needs no network: paired with the best plain trial on the test rows, skipped where there is none."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from regraft.checks.plain import check
from regraft.kit import shelf
from regraft.waist import Cost, Evidence, Init, Phase, Plan, Score, Status, Trial

N = 100


def trial(init: Init, val: float = 0.5, whole: bool = True) -> Trial:
    score = Score("accuracy", "val", val, 0.0, 1.0, N, "higher")
    held = "weights" if whole else ""
    return Trial(Plan("p", (Phase(1, 0, (("*", 1.0),)),), init=init), 0, (score,), (), Cost(1.0, 1), held, held)


def evidence(ours: float, *others: tuple[Trial, float], winner: int = 0) -> Evidence:
    """Our trial is right on the first `ours` of the rows, the others on the last so many; losers have no answers."""
    at = np.arange(N)
    arrays = {"y": np.ones(N, int), "seed": np.array(3), "winner": np.array(winner)}
    arrays["pred/0"] = (at < ours * N).astype(int)
    arrays |= {
        f"pred/{i}": (at >= N - right * N).astype(int) for i, (made, right) in enumerate(others, 1) if made.whole
    }
    trials = (trial("pretrained"), *(made for made, _ in others))
    return Evidence(trials[winner], trials, (), arrays)


@pytest.mark.parametrize(
    ("ours", "theirs", "status"), [(0.9, 0.5, "pass"), (0.62, 0.6, "warn"), (0.6, 0.6, "warn"), (0.3, 0.8, "warn")]
)
def test_a_gain_that_may_be_none_is_a_warning(ours: float, theirs: float, status: Status) -> None:
    found = check(evidence(ours, (trial("plain"), theirs)))
    assert (found.check, found.status) == ("plain", status) and found.value == pytest.approx(ours - theirs)
    assert found.interval[0] <= found.value <= found.interval[1]
    assert found.evidence.endswith("right answers against a linear model without any network")
    assert ("TF-IDF" in found.advice) == (status == "warn")


def test_the_best_on_validation_among_those_with_answers_is_the_one_to_beat() -> None:
    stopped, better, worse = trial("plain", 0.99, whole=False), trial("plain", 0.7), trial("plain", 0.6)
    given = evidence(0.9, (worse, 0.2), (stopped, 0.0), (trial("random", 0.9), 0.9), (better, 0.5))
    assert check(given).value == pytest.approx(0.4)


def test_numbers_are_compared_by_their_absolute_errors() -> None:
    y = np.linspace(0, 9, N).astype(np.float32)
    arrays = {"y": y, "pred/0": y + 1, "pred/1": y - 3, "seed": np.array(3), "winner": np.array(0)}
    found = check(Evidence(trial("pretrained"), (trial("pretrained"), trial("plain")), (), arrays))
    assert found.status == "pass"
    assert found.evidence.startswith("mean absolute error 1, for a linear model without any network 3: a gain of +2")


def test_without_a_plain_trial_it_is_skipped() -> None:
    for given in (evidence(0.9), evidence(0.9, (trial("plain", whole=False), 0.0), (trial("random"), 0.5))):
        found = check(given)
        assert (found.status, found.evidence) == ("skip", "no trial without a network was run")
        assert found.advice == "add --strategy scratch to know"


def test_a_plain_winner_beats_every_network_that_was_tried() -> None:
    found = check(evidence(0.5, (trial("plain"), 0.9), winner=1))
    assert found.status == "skip" and found.value == pytest.approx(-0.4) and found.interval[1] < 0
    said = "the winner itself needs no network: negative transfer: p, the best that is pretrained, has -0.400 [-0."
    assert found.evidence.startswith(said) and found.evidence.endswith("] right answers against it")


def test_a_plain_winner_that_is_as_good_as_a_network_is_no_harm() -> None:
    found = check(evidence(0.62, (trial("plain"), 0.6), winner=1))
    assert found.status == "skip" and found.interval[1] > 0 and "negative" not in found.evidence
    alone = check(dataclasses.replace(evidence(0.5, (trial("plain"), 0.9), winner=1), trials=(trial("plain"),) * 2))
    assert alone.evidence == "the winner itself needs no network: no pretrained network was tried"


def test_the_shelf_holds_it() -> None:
    assert shelf.find("checks", "plain").NEEDS == ("predictions",)
