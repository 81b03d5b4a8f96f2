"""What more labels would bring: forecasts against rows really drawn, no promise from noise, groups kept together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from torch import Tensor
from torch.nn import functional

from regraft.engine.ridge import basis, ridge
from regraft.errors import DataError
from regraft.planner.labels import ENOUGH, LAW, POWERS, Gain, Labels, Reached, _laws, efficiency, sentence

Drawn = tuple[Tensor, Tensor]


def clusters(n: int, seed: int, apart: float = 3.0, classes: int = 4, width: int = 40) -> Drawn:
    """Rows of Gaussian classes whose centres are about so far from the middle."""
    centres = np.random.default_rng(7).normal(0, apart / math.sqrt(width), (classes, width))
    draw = np.random.default_rng(seed)
    y = draw.permutation(np.arange(n) % classes)
    return torch.from_numpy(centres[y] + draw.normal(0, 1, (n, width))).float(), torch.from_numpy(y)


def numbers(n: int, seed: int, noise: float = 1.0, width: int = 40) -> Drawn:
    """Rows with a linear truth, of variance 1 where it is not noise."""
    rule = np.random.default_rng(7).normal(0, 1 / math.sqrt(width), width)
    draw = np.random.default_rng(seed)
    x = draw.normal(0, 1, (n, width))
    return torch.from_numpy(x).float(), torch.from_numpy(x @ rule + noise * draw.normal(0, 1, n)).float()


def alone(n: int) -> list[str]:
    return [str(i) for i in range(n)]


def curve(drawn: Drawn, groups: Sequence[str] | None = None, seed: int = 0) -> Labels:
    x, y = drawn
    found = efficiency(x, y, groups or alone(len(y)), seed)
    assert found is not None
    return found


def measured(drawn: Drawn, fresh: Drawn) -> float:
    """The metric on fresh rows of a ridge head on drawn ones."""
    (x, y), (seen, truth) = drawn, fresh
    classes = not y.is_floating_point()
    wanted = functional.one_hot(y).float() if classes else y[:, None]
    held = basis(x)
    path = ridge(held, wanted, float(held.squares.mean()) * torch.logspace(-4, 2, 13))
    best = int((path.outputs - wanted[:, :, None]).square().mean((0, 1)).argmin())
    made = seen @ path.weight[best].T + path.bias[best]
    if classes:
        return float((made.argmax(1) == truth).double().mean())
    return float(1 - (made[:, 0] - truth).square().mean() / truth.var(correction=0))


@pytest.mark.parametrize(("world", "rows"), [(clusters, 100), (clusters, 200), (numbers, 100), (numbers, 300)])
def test_what_twice_the_rows_bring_is_what_was_forecast(world: Callable[[int, int], Drawn], rows: int) -> None:
    fresh, off, seen = world(4000, 99), [], []
    for seed in range(6):
        x, y = world(4 * rows, seed)
        found = curve((x[:rows], y[:rows]))
        once, twice, fourfold = (measured((x[: k * rows], y[: k * rows]), fresh) for k in (1, 2, 4))
        off += [
            (100 * (twice - once) - found.twice.points) / found.twice.spread,
            (100 * (fourfold - once) - found.fourfold.points) / found.fourfold.spread,
        ]
        seen.append((found.now.low <= once <= found.now.high, found.twice.points, 100 * (twice - once)))
    assert max(map(abs, off)) < 3
    assert np.mean(np.abs(off) < 2) > 0.8
    assert sum(inside for inside, *_ in seen) >= 4
    _, said, true = np.mean(seen, 0)
    assert true > 0.5, "nothing to forecast"
    assert 0.4 * true < said < 2.5 * true


def test_points_rise_with_rows_and_say_how_many() -> None:
    found = curve(clusters(200, 0))
    assert [point.rows for point in found.points] == [16, 40, 80, 160]
    values = [point.value for point in found.points]
    assert values == sorted(values) and values[-1] > values[0] + 0.1
    assert all(point.low <= point.value <= point.high for point in (*found.points, found.now))
    assert found.now.rows == 200 and found.metric == "accuracy"
    a, b, c = found.curve
    for point in (*found.points[1:], found.now):
        assert point.value == pytest.approx(1 - a - b * point.rows**-c, abs=0.05)
    assert found.twice.points > 100 * b * (200**-c - 400**-c) - 1e-9  # less falls to a law with a floor
    assert found.twice.spread > LAW * found.twice.points > 0
    assert found.fourfold.points > found.twice.points
    assert sentence(found).startswith("twice the labels would bring +")
    # as wide as of 160 rows that are right or wrong
    width = 1.96 * math.sqrt(values[-1] * (1 - values[-1]) / 160)
    assert width < found.points[-1].high - found.points[-1].low < 4 * width


def test_all_rows_are_expected_to_do_no_worse_than_some() -> None:
    # with 200 features errors first fall slowly, as no power law does: its start must not count for more than its end
    drawn = [curve(clusters(300, seed, apart=3.0, classes=6, width=200), seed=seed) for seed in range(5)]
    assert all(found.now.value > found.points[-1].value for found in drawn)


@pytest.mark.parametrize(("floor", "fall"), [(0.1, 0.6), (0.0, 0.3), (0.3, 0.05)])
def test_laws_are_those_of_least_squares_that_are_not_negative(floor: float, fall: float) -> None:
    draw, sizes = np.random.default_rng(0), np.array([16.0, 40.0, 80.0, 160.0])
    errors, weights = np.abs(floor + sizes**-fall + draw.normal(0, 0.1, (20, 4))), draw.exponential(size=4)
    a, b, c = _laws(sizes, errors, weights)
    assert (a[1] == 0).all() and (a[0] > 0).any() and (b >= 0).all()
    made = a[..., None] + b[..., None] * sizes ** -c[..., None]
    ours = np.sqrt((made - errors) ** 2 @ weights)
    root = np.sqrt(weights)
    for j, height in enumerate((1.0, 0.0)):
        for i, error in enumerate(errors):
            columns = [np.stack([np.full(4, height), sizes**-power], 1) for power in POWERS[:, 0]]
            assert ours[j, i] == pytest.approx(min(nnls(one * root[:, None], error * root)[1] for one in columns))


def test_classes_far_apart_have_enough_labels() -> None:
    found = curve(clusters(400, 0, apart=20.0))
    assert found.points[-1].value == 1.0
    assert 0.98 < found.points[-1].low < 1.0, "a row that comes may be the first that is wrong"
    assert found.twice.points + 1.96 * found.twice.spread < ENOUGH and found.twice.spread > 0
    assert sentence(found).startswith("you have enough labels: twice as many would bring +0.0 ± 0.")


def test_noise_is_promised_nothing() -> None:
    told = []
    for seed in range(6):
        draw = torch.Generator().manual_seed(seed)
        found = curve((torch.randn(300, 60, generator=draw), torch.randint(4, (300,), generator=draw)))
        assert abs(found.now.value - 0.25) < 0.1 and found.now.low - 0.05 < 0.25 < found.now.high + 0.05
        assert 0 <= found.twice.points < 1.3 * found.twice.spread
        told.append(sentence(found))
    assert sum(one.startswith("it cannot be told whether more labels would help: ") for one in told) >= 5


def test_rows_of_one_group_are_on_one_side() -> None:
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(120, 200, generator=draw), torch.randint(2, (120,), generator=draw)
    both, names = (x.repeat(2, 1), y.repeat(2)), alone(120) * 2
    assert curve(both).points[-1].value > 0.75, "copies give labels away, or this shows nothing"
    grouped = curve(both, names).points[-1]
    assert grouped.rows == 192 and 0.35 < grouped.value < 0.65


def test_the_penalty_is_not_chosen_on_copies() -> None:
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(120, 100, generator=draw), torch.randn(120, generator=draw)
    found = curve((x.repeat(2, 1), y.repeat(2)), alone(120) * 2)
    assert found.points[-1].value > -0.3  # a head that learns its rows by heart has about -3


def test_whole_groups_make_a_part() -> None:
    x, y = clusters(200, 0)
    single, copied = curve((x, y)).points[0], curve((x.repeat(5, 1), y.repeat(5)), alone(200) * 5).points[0]
    assert copied.rows == 5 * single.rows == 80
    assert abs(copied.value - single.value) < 0.06  # 80 rows, of 16 that differ; of 80 that do it would be 0.86


def test_few_rows_hold_many_classes() -> None:
    draw = torch.Generator().manual_seed(0)
    y = torch.arange(160) % 40
    x = 3 * torch.randn(40, 60, generator=draw)[y] + torch.randn(160, 60, generator=draw)
    found = curve((x, y)).points[0]
    assert found.rows == 13 and found.value > 0.25  # 13 rows of 40 classes: as many of them are known, at most a third


def test_numbers_with_a_linear_truth() -> None:
    found = curve(numbers(400, 0, noise=0.5))
    assert found.metric == "r2"
    assert found.now.low < 0.8 < found.now.high + 0.05  # 1 / (1 + 0.5²), less what 400 rows leave to learn
    assert sentence(found).endswith(" points of R²")
    exact = curve(numbers(400, 0, noise=0.0))
    assert exact.now.value == pytest.approx(1.0, abs=1e-3)
    assert sentence(exact).startswith("you have enough labels: ")


def test_a_seed_gives_one_answer_and_another_seed_another() -> None:
    drawn = clusters(120, 0)
    assert curve(drawn) == curve(drawn)
    assert curve(drawn) != curve(drawn, seed=1)


@pytest.mark.parametrize(
    ("rows", "classes", "copies", "enough"),
    [(62, 2, 1, False), (63, 2, 1, True), (62, 2, 2, False), (200, 1, 1, False), (200, 150, 1, True)],
)
def test_too_few_rows_have_no_curve(rows: int, classes: int, copies: int, enough: bool) -> None:
    x, y = clusters(rows, 0, classes=classes, width=5)
    names = alone(rows) * copies
    assert (efficiency(x.repeat(copies, 1), y.repeat(copies), names, 0) is not None) == enough


def test_one_number_for_all_rows_has_no_curve() -> None:
    assert (
        efficiency(torch.randn(80, 3, generator=torch.Generator().manual_seed(0)), torch.ones(80), alone(80), 0) is None
    )


@pytest.mark.parametrize("side", ["features", "targets"])
def test_rows_that_are_not_finite_are_refused(side: str) -> None:
    x, y = numbers(80, 0)
    (x if side == "features" else y)[3] = math.nan
    with pytest.raises(DataError, match=r"1 of 80 .* not finite(.|\n)*rows 4 \(nan\)"):
        efficiency(x, y, alone(80), 0)


SENTENCES = [
    ((2.1, 0.8), "twice the labels would bring +2.1 ± 0.8 points of accuracy"),
    ((0.2, 0.3), "you have enough labels: twice as many would bring +0.2 ± 0.3 points of accuracy"),
    (
        (0.5, 0.6),
        "it cannot be told whether more labels would help: twice as many would bring +0.5 ± 0.6 points of accuracy",
    ),
    ((0.5, 0.25), "you have enough labels: twice as many would bring +0.5 ± 0.2 points of accuracy"),
    ((0.6, 0.3), "twice the labels would bring +0.6 ± 0.3 points of accuracy"),
]


@pytest.mark.parametrize(("twice", "said"), SENTENCES)
def test_sentences(twice: tuple[float, float], said: str) -> None:
    now = Reached(200, 0.8, 0.75, 0.85)
    assert sentence(Labels("accuracy", (), (0.1, 1.0, 0.5), now, Gain(*twice), Gain(3.5, 1.5))) == said
