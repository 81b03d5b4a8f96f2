"""Prices before training: what is counted is exact, what is estimated follows its figures, and nothing is changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from regraft.engine import cache
from regraft.engine.freeze import tensor_hash
from regraft.errors import UsageError
from regraft.planner import cards, timing
from regraft.planner.cards import CARDS, Card
from regraft.planner.course import Course
from regraft.planner.price import (
    LAUNCHED_S,
    LORA,
    QUANTISED,
    SCRATCH,
    USED,
    WATTS,
    Memory,
    Price,
    Rate,
    charged,
    elsewhere,
    fits,
    price,
    state_bytes,
)
from regraft.planner.timing import counted, key, timed
from regraft.waist import Cost, Optimizer, Plan, Training
from tests import places

CARD = Card("toy", 100e12, 400e12, 11_000_000_000, 1e12, 300, "2024-01", "a datasheet")
MEMORY = Memory(weights=4000, trained=4000, state=8000, row=50.0, batch=10)


def a_price(**changed: object) -> Price:
    """A price of round numbers."""
    made = Price(Cost(1.0, 1000), 0.0, MEMORY, flop=4e15, moved=1e12, launches=100, read_s=2.0)
    return replace(made, **changed)  # type: ignore[arg-type]


def priced(course: Course, plan: Plan) -> Price:
    """A plan's price from its own timed steps."""
    return price(course, plan, timed(course, [plan]), Rate())


def toy() -> tuple[timing.Graft, nn.Sequential]:
    """Layers 8 → 4 → 2 with a rectifier between, and a head 2 → 3 on them."""
    body = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))

    class View:
        module = body

    return timing.Graft(View(), nn.Linear(2, 3)), body  # type: ignore[arg-type]


# ---------------------------------------------------------------- what is counted


@pytest.mark.parametrize("rows", [1, 5, 10])
def test_what_autograd_saves_is_counted_once_without_weights(rows: int) -> None:
    graft, body = toy()
    found: dict[int, int] = {}
    with counted(graft, found):
        made = graft.head(body(torch.zeros(rows, 8)))
    made.sum().backward()
    # the input of the first layer, the rectifier's output (also the second layer's input), the features: 8 + 4 + 2
    assert sum(found.values()) == rows * 14 * 4


def test_saved_bytes_grow_with_the_batch(tmp_path: Path) -> None:
    course = places.course(tmp_path)
    few, many = (places.plan(course, "full", epochs=1, batch=batch) for batch in (9, 27))
    steps = timed(course, [few, many])
    one, other = (steps.of(plan, plan.phases[0]) for plan in (few, many))
    assert (one.rows, one.steps, other.rows, other.steps) == (9, 3, 27, 1)
    assert other.saved_bytes == pytest.approx(3 * one.saved_bytes, rel=0.02)
    deep, shallow = places.plan(course, "full", epochs=1), places.plan(course, "partial", epochs=1, depth=1)
    steps = timed(course, [deep, shallow])
    assert steps.of(deep, deep.phases[0]).row_bytes > steps.of(shallow, shallow.phases[0]).row_bytes > 0


def test_a_dear_step_is_timed_on_fewer_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    course = places.course(tmp_path)
    plan = places.plan(course, "full", epochs=1)
    whole = timed(course, [plan]).of(plan, plan.phases[0])
    monkeypatch.setattr(timing, "ENOUGH_S", 1e-9)
    part = timed(course, [plan]).of(plan, plan.phases[0])
    assert (part.rows, part.steps) == (whole.rows, whole.steps)
    assert part.saved_bytes == pytest.approx(whole.saved_bytes, rel=0.1)


ASKED = [("probe", {}), ("probe", {"by": "path"}), ("probe", {"by": "grid"}), ("partial", {}), ("full", {})]
ASKED += [
    ("probe", {"augment": "flip"}),
    ("asis", {}),
    ("scratch", {"by": "plain"}),
    ("full", {"optimizer": "sgd", "norm": "update"}),
]


@pytest.mark.parametrize(("strategy", "knobs"), ASKED)
def test_trainable_parameters_and_files_are_those_of_the_trial(
    tmp_path: Path, strategy: str, knobs: dict[str, str]
) -> None:
    course = places.course(tmp_path)
    trains = strategy not in ("asis", "scratch") and knobs.get("by") != "path"
    plan = places.plan(course, strategy, **({"epochs": 1} if trains else {}), **knobs)
    forecast = priced(course, plan).cost
    cost = places.finish(course, plan).cost
    assert forecast.trainable == cost.trainable
    assert cost.disk_bytes and forecast.disk_bytes
    assert 0 <= cost.disk_bytes - forecast.disk_bytes < 16_000  # the files' headers
    assert forecast.seconds > 0


@pytest.mark.parametrize(
    ("of", "strategy", "knobs"),
    [("number", "probe", {"by": "path"}), ("multi", "scratch", {"by": "plain"}), ("pairs", "partial", {"epochs": 1})],
)
def test_targets_and_pairs_of_texts_are_priced(tmp_path: Path, of: str, strategy: str, knobs: dict[str, str]) -> None:
    course = places.text_course(tmp_path, of)  # type: ignore[arg-type]
    plan = places.plan(course, strategy, **knobs)
    made = priced(course, plan)
    assert made.cost.trainable == places.finish(course, plan).cost.trainable > 0
    assert made.flop > 0 or plan.init == "plain"


def test_a_plan_of_phases_counts_each_weight_once(tmp_path: Path) -> None:
    course = places.text_course(tmp_path)
    plan = places.plan(course, "gradual", epochs=1)
    assert len(plan.phases) > 1
    made = priced(course, plan)
    assert made.cost.trainable == places.finish(course, plan).cost.trainable
    assert made.memory.trained == 4 * made.cost.trainable
    assert made.memory.state == 2 * made.memory.trained


def test_kinds_are_shared_by_plans_that_differ_in_rate_alone(tmp_path: Path) -> None:
    course = places.course(tmp_path)
    one, other = (places.plan(course, "partial", epochs=1, lr=lr) for lr in (1e-3, 1e-2))
    assert one != other
    assert len(timed(course, [one, other]).kinds) == 1
    assert key(one, one.phases[0]) != key(replace(one, batch=7), one.phases[0])


@pytest.mark.parametrize(
    ("rule", "share"),
    [(Optimizer("adamw"), 2), (Optimizer("sgd", momentum=0.9), 1), (Optimizer("sgd", momentum=0.0), 0)],
)
def test_optimizer_state_is_what_torch_keeps(rule: Optimizer, share: int) -> None:
    layer = nn.Linear(10, 10, bias=False)
    made = (
        torch.optim.AdamW(layer.parameters())
        if rule.name == "adamw"
        else torch.optim.SGD(layer.parameters(), lr=0.1, momentum=rule.momentum)
    )
    layer(torch.ones(1, 10)).sum().backward()
    made.step()
    held = sum(
        t.numel() * t.element_size()
        for state in made.state.values()
        for t in state.values()
        if torch.is_tensor(t) and t.ndim
    )
    assert state_bytes(rule, 400) == share * 400 == held


def test_steps_are_timed_as_the_machine_trains(tmp_path: Path) -> None:
    course = places.course(tmp_path)
    plan = places.plan(course, "full", epochs=1, clip=0)
    machine = replace(course.machine, training=Training("channels-last", "bfloat16", 1.5))
    plain, half = timed(course, [plan]), timed(replace(course, machine=machine), [plan])
    one, other = (steps.of(plan, plan.phases[0]) for steps in (plain, half))
    assert 0 < other.saved_bytes < one.saved_bytes  # activations of half the width


def test_the_network_of_the_caller_stays_as_it_is(tmp_path: Path) -> None:
    course = places.course(tmp_path)
    module, everything = course.view.module, [*course.view.module.parameters(), *course.view.module.buffers()]
    plans = [places.plan(course, "full", epochs=1, norm="update"), places.plan(course, "probe", epochs=1)]
    plans.append(places.plan(course, "partial", epochs=1))

    def seen() -> tuple[object, ...]:
        asked = [p.requires_grad for p in module.parameters()], [p.grad for p in module.parameters()]
        return [tensor_hash(t) for t in everything], *asked, [m.training for m in module.modules()]

    before, state = seen(), torch.random.get_rng_state()
    steps = timed(course, plans)
    for plan in plans:
        price(course, plan, steps, Rate())
    assert seen() == before
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not course.folder.path.exists()


# ---------------------------------------------------------------- seconds, energy, money


def test_seconds_follow_what_was_timed(tmp_path: Path) -> None:
    course = places.course(tmp_path)
    plan = places.plan(course, "partial", epochs=4)
    kind = timing.Timed(
        10.0, 1, 27, 2700, read_s=0.01, below_s=0.09, above_s=0.5, state_bytes=3e6, judged_s=0.5, made_s=2.0
    )
    steps = timing.Steps(1000, 7.0, {key(plan, plan.phases[0]): kind})
    rows, val, test = (len(some) for some in (course.data.train, course.data.val, course.data.test))
    made = price(course, plan, steps, Rate())
    once = (rows + val + test) * (0.01 + 0.09 + 0.01) + (val + test) * 0.5
    assert made.cost.seconds == pytest.approx(9.0 + once + 4 * (10.0 + val * 0.5), rel=1e-3)
    assert made.cache_bytes == (rows + val + test) * 3_000_000
    assert made.launches == 4 * 3  # a step an epoch through two stages and the head
    assert made.read_s == pytest.approx((rows + val + test) * 0.01)
    trained = 4 * made.cost.trainable
    held, packed = 2 * (rows + val) * 3_000_000, trained if made.cost.seconds < course.every_s else 8 * trained
    assert made.memory.held == held
    step = 2 * trained + 2 * trained + round(SCRATCH * 2700)
    assert made.cost.peak_bytes == 1000 + made.memory.copies + held + step + packed


@pytest.mark.parametrize("share", [1.0, 0.25, 0.0])
def test_rows_that_stay_in_memory_are_read_once_and_take_their_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    course = places.course(tmp_path)
    plan = places.plan(course, "full", epochs=4)
    kind = timing.Timed(10.0, 1, 27, 2700, 0.01, 0.0, 0.5, 0.0, judged_s=0.2, input_bytes=1000.0)
    rows, val, test = (len(some) for some in (course.data.train, course.data.val, course.data.test))
    every = rows + val + test
    monkeypatch.setattr(cache, "room", lambda: round(share * every * 1000))
    made = price(course, plan, timing.Steps(0, 0.0, {key(plan, plan.phases[0]): kind}), Rate())
    reads = 4 * (rows + val) + val + test
    assert made.read_s == pytest.approx(0.01 * (share * every + (1 - share) * reads))
    assert made.memory.held == round(share * every * 1000)
    judged = 4 * val * 0.2 + (val + test) * 0.5
    assert made.cost.seconds == pytest.approx(made.read_s + 4 * 10.0 + judged, abs=0.01)


def test_energy_carbon_and_money() -> None:
    made = charged(a_price(), 7200, 500, Rate(money=3.0, grams=400))
    assert (made.cost.seconds, made.cost.kwh, made.cost.grams_co2, made.money) == (7200, 1.0, 400.0, 6.0)


def test_power_is_the_rate_s_the_measured_or_a_stated_figure(tmp_path: Path) -> None:
    course = places.course(tmp_path)
    plan = places.plan(course, "probe", epochs=1)
    steps = timed(course, [plan])
    for watts, asked, drawn in ((0.0, 90.0, 90.0), (70.0, 90.0, 90.0), (70.0, 0.0, 70.0), (0.0, 0.0, WATTS)):
        machine = replace(course.machine, watts=watts, threads=1)
        made = price(replace(course, machine=machine), plan, steps, Rate(watts=asked))
        assert made.cost.kwh == pytest.approx(made.cost.seconds * drawn / 3.6e6)
        assert any("power is not measured" in note for note in made.notes) == (not watts and not asked)


# ---------------------------------------------------------------- named cards


def test_elsewhere_is_the_slower_of_arithmetic_and_bandwidth() -> None:
    rest = 100 * LAUNCHED_S + 2.0
    there = elsewhere(a_price(), CARD, Rate(money=2.0))
    assert there.cost.seconds == pytest.approx(4e15 / 100e12 / USED + rest)
    assert there.cost.kwh == pytest.approx(there.cost.seconds * 300 / 3.6e6)
    assert there.money == pytest.approx(there.cost.seconds / 1800)
    assert there.cost.trainable == 1000
    assert there.notes[0] == "estimated at 40% of the published peaks of toy (a datasheet, 2024-01)"
    twice = elsewhere(a_price(), replace(CARD, fp32=200e12), Rate()).cost.seconds
    assert twice - rest == pytest.approx((there.cost.seconds - rest) / 2)
    assert elsewhere(a_price(half=True), CARD, Rate()).cost.seconds == pytest.approx(10 / USED + rest)
    moving = a_price(moved=100e12)
    assert elsewhere(moving, CARD, Rate()).cost.seconds == pytest.approx(100 / USED + rest)
    assert elsewhere(moving, replace(CARD, bandwidth=2e12), Rate()).cost.seconds == pytest.approx(50 / USED + rest)


def test_memory_on_a_card_leaves_out_this_process() -> None:
    big = replace(MEMORY, base=10**9, held=10**9, packed=10**9, copies=10**9)
    assert big.on(10) == MEMORY.on(10) == 4000 + 3 * 4000 + 8000 + SCRATCH * 500
    assert elsewhere(a_price(memory=big), CARD, Rate()).cost.peak_bytes == CARD.reserved_bytes + round(MEMORY.on(10))
    assert MEMORY.on(0, adapters=True) == pytest.approx(4000 + LORA * 4000 * 5)
    assert MEMORY.on(0, adapters=True, each=QUANTISED) == pytest.approx(4000 * QUANTISED / 4 + LORA * 4000 * 5)


def test_what_is_needed_grows_with_the_network() -> None:
    found = []
    for weights in (1e8, 1.5e9, 3e9, 2e10, 1e11):
        trained = int(weights)
        memory = Memory(trained, trained, 2 * trained, row=1e8, batch=32)
        found.append(fits(a_price(memory=memory), CARD))
    assert [fit.need for fit in found] == ["fits", "smaller batch", "LoRA", "quantised LoRA", "sharding"]
    assert found[0] == ("fits", 32, 1)
    assert found[1].batch == int((10e9 - 6 * 1.5e9) / (SCRATCH * 1e8))
    assert found[-1].cards == 61


def test_a_frozen_network_needs_no_adapters() -> None:
    frozen = Memory(weights=int(3e9), trained=1000, state=2000, row=0.0, batch=32)
    assert fits(a_price(memory=frozen), CARD).need == "fits"
    assert fits(a_price(memory=replace(frozen, weights=int(3e10))), CARD).need == "quantised LoRA"


def test_the_table_of_cards_is_whole() -> None:
    assert set(CARDS) == {"h200", "h100", "a100-80g", "l4", "rtx-4090", "cpu-16"}
    for card in CARDS.values():
        assert card.bf16 > card.fp32 > card.bandwidth > card.memory_bytes > card.reserved_bytes > card.watts > 0
        assert len(card.date) == 7 and card.source
    assert cards.find("l4") is CARDS["l4"]
    with pytest.raises(UsageError, match="there is no card of that name") as error:
        cards.find("a100-80")
    assert error.value.do == "did you mean a100-80g?"
