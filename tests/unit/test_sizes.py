"""Sizes: families are cut to a budget, epochs by half, then rates, then what is left; nothing is cut in silence."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from regraft.planner.sizes import Pace, planned, reached, refitted, shortened, sized, through
from regraft.waist import Cost, Epoch, Filled, Phase, Plan, Trial
from tests import places

STAGES = 4
HEAD = Phase(30, STAGES, (("head/*", 1.0),), patience_epochs=5)
DEEP = Phase(20, 0, (("*", 1.0),))
FULL = [(i, Plan("full", (DEEP,), (("lr", 10.0**-i),))) for i in range(3)]
LPFT = Plan("gradual", (HEAD, DEEP))


def test_epochs_through_the_backbone_are_what_counts() -> None:
    assert planned(FULL[0][1], STAGES) == 20 and planned(LPFT, STAGES) == 20
    assert planned(Plan("probe", (HEAD,)), STAGES) == 30 and through(Plan("probe", (HEAD,)), STAGES) == []
    curve = [Epoch(0, i, 1, 1, 1) for i in range(7)] + [Epoch(1, i, 1, 1, 1) for i in range(2)]
    assert reached(LPFT, STAGES, curve) == 2 and reached(Plan("probe", (HEAD,)), STAGES, curve) == 9
    assert planned(Plan("asis", (Phase(0, STAGES, ()),)), STAGES) == 0
    assert through(Plan("scratch", (Phase(1, 0, (("head/*", 1.0),)),), init="plain"), STAGES) == []


@pytest.mark.parametrize(
    ("allowed", "rates", "epochs"),
    [
        (100.0, 3, 20),  # 7 + 7 + 20 fit
        (34.0, 3, 20),
        (33.9, 2, 20),  # 7 + 20
        (27.0, 2, 20),
        (26.0, 1, 20),
        (19.0, 3, 11),  # half the epochs for all three: 4 + 4 + 11
        (18.0, 3, 10),
        (17.9, 2, 12),
        (13.9, 1, 13),
        (9.0, 1, 9),
        (1.0, 1, 1),
        (0.9, 0, 0),
        (0.0, 0, 0),
    ],
)
def test_a_family_is_cut_to_what_it_may_take(allowed: float, rates: int, epochs: int) -> None:
    turn = sized(FULL, STAGES, allowed, "too dear")
    assert len(turn.plans) == len(turn.numbers) == rates and len(turn.skipped) == 3 - rates
    assert all(plan.phases[0].epochs == epochs for plan in turn.plans)
    assert all(one.why == "too dear" for one in turn.skipped)


def test_phases_are_shortened_in_proportion_and_a_head_is_left_alone() -> None:
    plan = Plan("gradual", (HEAD, Phase(8, 2, ()), Phase(12, 0, ())))
    assert [phase.epochs for phase in shortened(plan, 10, STAGES).phases] == [30, 4, 6]
    assert [phase.epochs for phase in shortened(plan, 1, STAGES).phases] == [30, 1, 1]
    assert shortened(plan, 20, STAGES) == plan


def test_a_refit_repeats_what_was_best() -> None:
    def ended(losses: list[tuple[int, float]]) -> Trial:
        curve = tuple(Epoch(phase, i, 1.0, loss, 0.5) for i, (phase, loss) in enumerate(losses))
        return Trial(LPFT, 0, (), curve, Cost(1, 1), "p", "w")

    again = refitted(ended([(0, 0.9), (0, 0.5), (0, 0.6), (1, 0.4), (1, 0.3), (1, 0.35)]))
    assert [(phase.epochs, phase.stop) for phase in again.phases] == [(30, 2), (20, 2)] and again.fold == "all"
    assert again.phases[0].frontier == STAGES
    worse = refitted(ended([(0, 0.5), (1, 0.6), (1, 0.7)]))
    assert [(phase.epochs, phase.stop) for phase in worse.phases] == [(30, 1), (0, 0)], "it made nothing better"


def test_a_forecast_learns_from_what_ran(tmp_path: Path) -> None:
    course = places.course(tmp_path)
    pace, full, probe = Pace(course), places.plan(course, "full"), places.plan(course, "probe")
    assert pace.row_s > 0 and pace.epoch(full) > pace.epoch(probe) > 0
    before = pace.epoch(full)
    pace.learn(full, Epoch(0, 0, 1, 1, 1), 2 * before)
    assert pace.epoch(full) == pytest.approx(2 * before)
    cost = pace.fixed(probe)
    pace.ran(probe, Filled(4, 64, 64), 64 * 2 * pace.row_s)
    assert pace.fixed(probe) > cost
    pace.filled(probe)
    assert pace.fixed(probe) == pace.closing(probe), "the trunk is there now"


def test_every_view_is_a_pass_of_the_trunk(tmp_path: Path) -> None:
    course = places.course(tmp_path)
    course.machine = dataclasses.replace(course.machine, forward_s=0.5)
    pace = Pace(course)
    plain, varied = (
        places.plan(course, "probe", augment=how, views=views) for how, views in (("none", 0), ("crop", 4))
    )
    assert pace.fixed(varied) == pytest.approx(pace.fixed(plain) + 3 * 0.5 * len(course.data.train))
    pace.filled(plain)
    assert pace.fixed(plain) < 0.5 * len(course.data.train) < pace.fixed(varied), "other rows than the plain ones"
    pace.filled(varied)
    assert pace.fixed(varied) == pace.fixed(plain)
