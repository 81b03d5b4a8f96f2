"""Against the same network from scratch: paired on the test rows, skipped where there is nothing to compare."""

from __future__ import annotations

import numpy as np
import pytest

from regraft.checks.transfer import check
from regraft.waist import Cost, Evidence, Init, Phase, Plan, Status, Trial

N = 100
NONE = np.zeros(N, int)
HARM = "negative transfer: "


def trial(init: Init, held: str = "weights") -> Trial:
    return Trial(Plan("p", (Phase(1, 0, (("*", 1.0),)),), init=init), 0, (), (), Cost(1.0, 1), held, held)


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
    assert found.evidence.removeprefix(HARM).startswith(f"{ours - theirs:+.3f} [") and bool(found.advice) == (
        status != "pass"
    )


def of(y: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> Evidence:
    trials = (trial("pretrained"), trial("random"))
    arrays = {"y": y, "pred/0": ours, "pred/1": theirs, "seed": np.array(3), "winner": np.array(0)}
    return Evidence(trials[0], trials, (), arrays)


@pytest.mark.parametrize(("scale", "status"), [(0.5, "pass"), (1.0, "warn"), (2.0, "fail")])
def test_numbers_are_compared_by_their_absolute_errors(scale: float, status: Status) -> None:
    draw = np.random.default_rng(0)
    y, noise = draw.normal(50, 9, N).astype(np.float32), np.tile([1.0, -3.0], N // 2)
    found = check(of(y, (y + scale * noise).astype(np.float32), (y + noise).astype(np.float32)))
    assert found.status == status and found.value == pytest.approx(2 * (1 - scale), abs=1e-5)
    assert found.evidence.removeprefix(HARM).startswith(
        f"mean absolute error {2 * scale:.4g}, for the same network from scratch 2: a gain"
    )


def test_label_sets_are_compared_by_their_right_labels() -> None:
    y = np.tile(np.array([[1, 0, 0, 1]], np.float32), (N, 1))
    found = check(of(y, y > 0.5, np.zeros((N, 4), bool)))
    assert (found.status, found.value) == ("pass", 0.5)
    assert found.evidence == "+0.500 [+0.500, +0.500] right labels a row against the same network from scratch"


def test_equal_seeds_give_equal_intervals() -> None:
    assert check(evidence(0.7, 0.6)) == check(evidence(0.7, 0.6))


def test_without_a_trial_from_scratch_it_is_skipped() -> None:
    given = evidence(0.9, 0.5)
    found = check(Evidence(given.winner, given.trials[:1], (), given.arrays))
    assert (found.status, found.evidence) == ("skip", "no trial from scratch was run")
    assert found.advice == "add --strategy scratch to know"


@pytest.mark.parametrize(("ours", "theirs", "status"), [(0.9, 0.5, "pass"), (0.62, 0.6, "warn"), (0.3, 0.8, "warn")])
def test_where_a_trial_from_scratch_wins_the_best_pretrained_one_is_held_against_it(
    ours: float, theirs: float, status: Status
) -> None:
    """Nothing pretrained ships then, so nothing fails; that it harmed is said with its number."""
    found = check(evidence(ours, theirs, winner=1))
    assert found.status == status and found.value == pytest.approx(ours - theirs)
    assert found.evidence.startswith("negative transfer: ") == (found.interval[1] < 0) == (theirs == 0.8)
    assert f"p, the best that is pretrained: {ours - theirs:+.3f} [" in found.evidence


def test_a_pretrained_winner_that_loses_to_scratch_is_negative_transfer() -> None:
    assert check(evidence(0.3, 0.8)).evidence.startswith("negative transfer: -0.500 [-0.")


def test_without_a_pretrained_trial_it_is_skipped() -> None:
    scratch = trial("random")
    found = check(Evidence(scratch, (scratch,), (), evidence(0.9, 0.5).arrays | {"winner": np.array(0)}))
    assert (found.status, found.evidence) == ("skip", "no pretrained trial was run")
    assert found.advice == "add --strategy probe to know"


def test_a_trial_without_answers_is_not_compared_with() -> None:
    given = evidence(0.9, 0.5)
    stopped = trial("random", held="")
    found = check(Evidence(given.winner, (given.winner, stopped, given.trials[1]), (), given.arrays | {"pred/2": NONE}))
    assert found.value == pytest.approx(0.9)
    assert check(Evidence(given.winner, (given.winner, stopped), (), given.arrays)).status == "skip"


def test_where_a_model_without_a_network_wins_the_best_networks_are_compared() -> None:
    given = evidence(0.3, 0.8)
    trials = (*given.trials, trial("plain"))
    found = check(Evidence(trials[2], trials, (), given.arrays | {"winner": np.array(2), "pred/2": NONE}))
    assert found.status == "warn" and found.value == pytest.approx(-0.5)
    assert found.evidence.startswith("negative transfer: p, the best that is pretrained: -0.500 [")
