"""Law 5: stopped and resumed equals never stopped, at every step."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from regraft.waist import Finished, Plan, Step
from tests import places

PLANS = [
    ("probe", {"epochs": 3, "batch": 9}),
    ("partial", {"depth": 2, "epochs": 3, "batch": 9, "norm": "update", "smoothing": 0.1}),
    ("full", {"epochs": 2, "batch": 9, "norm": "update"}),
    ("layerwise", {"epochs": 2, "batch": 9, "optimizer": "sgd"}),
    ("contrast", {"epochs": 1, "batch": 14}),
    ("lora", {"last": 2, "rank": 3, "epochs": 2, "batch": 9, "dora": True}),
    ("gradual", {"by": "lpft", "epochs": 2, "batch": 14, "l2sp": 0.1, "ema": 0.8}),
    ("partial", {"depth": 1, "epochs": 2, "batch": 14, "delta": 0.1, "bss": 0.1, "ema": 0.8, "stochnorm": True}),
    ("scratch", {"by": "random", "epochs": 2, "batch": 9}),
    ("prototype", {}),
    ("scratch", {"by": "plain"}),
]
HEAD_EPOCHS = 3


def short(plan: Plan) -> Plan:
    """A plan of several phases with few epochs of its first one, the head's, which has a number of its own."""
    first, *rest = plan.phases
    return dataclasses.replace(plan, phases=(dataclasses.replace(first, epochs=HEAD_EPOCHS), *rest)) if rest else plan


@pytest.mark.parametrize(("strategy", "knobs"), PLANS, ids=lambda v: v if isinstance(v, str) else "")
def test_stopped_at_every_step(tmp_path: Path, strategy: str, knobs: dict[str, object]) -> None:
    whole = places.course(tmp_path, run="whole")
    chosen = short(places.plan(whole, strategy, **knobs))
    assert len(chosen.phases) == (2 if strategy == "gradual" else 1)
    steps = sum(isinstance(event, Step) for event in whole.trial(0, chosen))
    wanted = next(e.trial for e in whole.trial(0, chosen) if isinstance(e, Finished))
    for stop in range(1, steps + 1):
        course = places.course(tmp_path, run=f"stopped-{stop}")
        taken = 0
        work = course.trial(0, chosen)
        for event in work:
            taken += isinstance(event, Step)
            if taken == stop:
                work.close()
                break
        again = places.course(tmp_path, run=f"stopped-{stop}")
        left = [event for event in again.trial(0, chosen) if isinstance(event, Step)]
        assert len(left) == steps - stop, "steps were lost or taken twice"
        trial = places.finish(again, chosen)
        assert places.weights(again, trial) == places.weights(whole, wanted)
        assert trial.curve == wanted.curve and trial.scores == wanted.scores


def test_what_takes_no_step_is_stopped_before_and_after_it(tmp_path: Path) -> None:
    whole = places.course(tmp_path, run="whole")
    chosen = places.plan(whole, "asis")
    events = len(list(whole.trial(0, chosen)))
    wanted = places.finish(whole, chosen)
    for stop in range(1, events + 1):
        course = places.course(tmp_path, run=f"stopped-{stop}")
        work = course.trial(0, chosen)
        for _, _ in zip(range(stop), work, strict=False):
            pass
        work.close()
        again = places.course(tmp_path, run=f"stopped-{stop}")
        trial = places.finish(again, chosen)
        assert places.weights(again, trial) == places.weights(whole, wanted) and trial.scores == wanted.scores


@pytest.mark.parametrize(("strategy", "knobs"), [("partial", {"depth": 2}), ("lora", {"last": 1, "rank": 3})])
def test_texts_stopped_at_every_step(tmp_path: Path, strategy: str, knobs: dict[str, object]) -> None:
    """Dropout, batches of three sizes in random order, and a stage that starts at random."""
    made = lambda run: places.text_course(tmp_path, run=run)  # noqa: E731
    whole = made("whole")
    chosen = places.plan(whole, strategy, **knobs, epochs=2, batch=9, pooling="native")
    steps = sum(isinstance(event, Step) for event in whole.trial(0, chosen))
    wanted = places.finish(whole, chosen)
    assert steps == 12
    for stop in range(1, steps + 1):
        course = made(f"stopped-{stop}")
        work = course.trial(0, chosen)
        next(event for event in work if isinstance(event, Step) and event.step == stop)
        work.close()
        again = made(f"stopped-{stop}")
        assert len([event for event in again.trial(0, chosen) if isinstance(event, Step)]) == steps - stop
        trial = places.finish(again, chosen)
        assert places.weights(again, trial) == places.weights(whole, wanted)
        assert trial.curve == wanted.curve and trial.scores == wanted.scores and trial.calibration == wanted.calibration


def test_a_torn_snapshot_is_passed_over(tmp_path: Path) -> None:
    whole = places.course(tmp_path, run="whole")
    chosen = places.plan(whole, "partial", depth=1, epochs=2, batch=9)
    wanted = places.finish(whole, chosen)
    course = places.course(tmp_path, run="torn", every_s=0)
    work = course.trial(0, chosen)
    for event in work:
        if isinstance(event, Step) and event.step == 4:
            break
    work.close()
    newest = sorted((tmp_path / "torn").rglob("*.snapshot"))[-1]
    newest.write_bytes(newest.read_bytes()[:-10])
    again = places.course(tmp_path, run="torn")
    assert places.weights(again, places.finish(again, chosen)) == places.weights(whole, wanted)
    assert not newest.exists()


def test_a_finished_trial_with_changed_weights_is_run_again(tmp_path: Path) -> None:
    course = places.course(tmp_path)
    chosen = places.plan(course, "probe", epochs=2)
    trial = places.finish(course, chosen)
    wanted = places.weights(course, trial)
    path = course.folder.path / trial.snapshot
    path.write_bytes(wanted[:-1] + bytes([wanted[-1] ^ 1]))
    events = list(course.trial(0, chosen))
    assert any(isinstance(event, Step) for event in events)
    assert path.read_bytes() == wanted
