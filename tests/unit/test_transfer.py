"""Against the same network from scratch: paired on the test rows, skipped where there is nothing to compare."""

from __future__ import annotations

import numpy as np
import pytest

from regraft.checks.transfer import check
from regraft.waist import Cost, Evidence, Init, Phase, Plan, Status, Trial

N = 100


def trial(init: Init) -> Trial:
    return Trial(Plan("p", (Phase(1, 0, (("*", 1.0),)),), init=init), 0, (), (), Cost(1.0, 1), "", "")


def evidence(ours: float, theirs: float, *, winner: int = 0) -> Evidence:
    """Our trial is right on the first `ours` of the rows, the one from scratch on the last `theirs`."""
    at = np.arange(N)
    arrays = {"y": np.ones(N, int), "seed": np.array(3), "winner": np.array(winner)}
    arrays |= {"pred/0": (at < ours * N).astype(int), "pred/1": (at >= N - theirs * N).astype(int)}
    trials = (trial("pretrained"), trial("random"))
    return Evidence(trials[winner], trials, (), arrays)


@pytest.mark.parametrize(
    ("ours", "theirs", "status"), [(0.9, 0.5, "pass"), (0.62, 0.6, "warn"), (0.6, 0.6, "warn"), (0.3, 0.8, "fail")]
)
def test_the_paired_difference_decides(ours: float, theirs: float, status: Status) -> None:
    found = check(evidence(ours, theirs))
    assert found.status == status and found.value == pytest.approx(ours - theirs)
    assert found.interval[0] <= found.value <= found.interval[1]
    assert found.evidence.startswith(f"{ours - theirs:+.3f} [") and bool(found.advice) == (status != "pass")


def test_equal_seeds_give_equal_intervals() -> None:
    assert check(evidence(0.7, 0.6)) == check(evidence(0.7, 0.6))


def test_without_a_trial_from_scratch_it_is_skipped() -> None:
    given = evidence(0.9, 0.5)
    found = check(Evidence(given.winner, given.trials[:1], (), given.arrays))
    assert (found.status, found.evidence) == ("skip", "no trial from scratch was run")
    assert found.advice == "add --strategy scratch to know"


def test_a_winner_from_scratch_is_not_compared_with_itself() -> None:
    found = check(evidence(0.9, 0.5, winner=1))
    assert (found.status, found.evidence) == ("skip", "the winner itself starts at random")
