"""Transferability scores: each against its formula written out, what must not change them, and what cannot be."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from scipy.linalg import helmert
from scipy.optimize import minimize
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from torch import Tensor

from regraft.engine.folds import dealt
from regraft.errors import DataError
from regraft.planner.transfer import disagreement, scores

N = 40
SIZES = pytest.mark.parametrize("width", [6, 70], ids=["tall", "wide"])


def rows(width: int, n: int = N, noise: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features on unequal scales about a mean, and a target that they tell in part."""
    draw = np.random.default_rng(seed)
    plain = draw.normal(0, 1, (n, width))
    target = plain[:, :3] @ np.array([2.0, 1.0, -1.0]) + draw.normal(0, noise, n)
    return torch.from_numpy(plain * np.exp(draw.normal(0, 1, width)) + 2).float(), torch.from_numpy(target)


def thirds(target: Tensor) -> Tensor:
    """Classes 0, 1 and 2, of 60, 30 and 10 % of the rows."""
    return torch.bucketize(target, target.quantile(torch.tensor([0.6, 0.9], dtype=target.dtype)))


def names(n: int, each: int = 1) -> list[str]:
    return [str(i // each) for i in range(n)]


def table(x: Tensor, y: Tensor, groups: list[str] | None = None, source: Tensor | None = None) -> dict[str, float]:
    return dict(scores(x, y, groups or names(len(y)), 0, source))


# ---------------------------------------------------------------- the formulas written out


def judged(made: np.ndarray, y: np.ndarray) -> float:
    """Accuracy of scores [N, C], R² of numbers [N]."""
    if made.ndim == 2:
        return float(np.mean(made.argmax(1) == y))
    return float(1 - ((made - y) ** 2).sum() / ((y - y.mean()) ** 2).sum())


def plain_knn(x: np.ndarray, y: np.ndarray, groups: list[str], k: int) -> float:
    x = (x - x.mean(0)) / x.std(0)
    made = []
    for i in range(len(y)):
        others = [j for j in range(len(y)) if groups[j] != groups[i]]
        likeness = {j: x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j]) for j in others}
        near = sorted(others, key=lambda j: -likeness[j])[:k]
        if y.dtype.kind == "f":
            made.append(np.mean(y[near]))
            continue
        votes, sums = Counter(y[near]), Counter()
        for j in near:
            sums[y[j]] += likeness[j]
        best = max(votes, key=lambda c: (votes[c], sums[c]))
        made.append(np.eye(y.max() + 1)[best])
    return judged(np.array(made), y)


def plain_ridge(x: np.ndarray, y: np.ndarray, folds: np.ndarray) -> float:
    wanted = np.eye(y.max() + 1)[y] if y.dtype.kind != "f" else y[:, None]
    scale = ((x - x.mean(0)) ** 2).sum() / min(len(y) - 1, x.shape[1])
    best = -np.inf
    for alpha in scale * np.logspace(-4, 2, 25):
        made = np.empty(wanted.shape)
        for fold in np.unique(folds):
            out = folds == fold
            mean, centre = x[~out].mean(0), wanted[~out].mean(0)
            moved = x[~out] - mean
            weight = np.linalg.solve(moved.T @ moved + alpha * np.eye(x.shape[1]), moved.T @ (wanted[~out] - centre))
            made[out] = (x[out] - mean) @ weight + centre
        best = max(best, judged(made if wanted.shape[1] > 1 else made[:, 0], y))
    return best


def plain_h_score(x: np.ndarray, y: np.ndarray) -> float:
    n, width = x.shape
    x = x - x.mean(0)
    held = x.T @ x / n
    middle = np.trace(held) / width
    far = ((held - middle * np.eye(width)) ** 2).sum()
    noise = sum(((np.outer(row, row) - held) ** 2).sum() for row in x) / n**2
    shrunk = min(noise, far) / far
    means = np.array([x[y == label].mean(0) for label in y])
    whole = (1 - shrunk) * held + shrunk * middle * np.eye(width)
    return float(np.trace(np.linalg.inv(whole) @ ((1 - shrunk) * means.T @ means / n)))


def plain_logme(x: np.ndarray, column: np.ndarray) -> float:
    """The density of N - 1 contrasts at its maximum over both variances; no fixed point, no axes."""
    turn = helmert(len(x))
    gram, seen = turn @ x @ x.T @ turn.T / (x**2).mean(), turn @ column

    def short(logs: np.ndarray) -> float:
        inside = np.exp(logs[0]) * gram + np.exp(logs[1]) * np.eye(len(seen))
        fit = seen @ np.linalg.solve(inside, seen)
        return float(np.linalg.slogdet(inside)[1] + fit) / len(seen) / 2 + np.log(2 * np.pi) / 2

    starts = [(-8.0, -1.0), (-3.0, -4.0)]
    ends = [minimize(short, start, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9}) for start in starts]
    return -min(float(end.fun) for end in ends)


def plain_leep(source: np.ndarray, y: np.ndarray) -> float:
    n, total = len(y), 0.0
    joint = np.zeros((y.max() + 1, source.shape[1]))
    for i in range(n):
        for z in range(source.shape[1]):
            joint[y[i], z] += source[i, z] / n
    for i in range(n):
        said = [joint[y[i], z] / joint[:, z].sum() * source[i, z] for z in range(source.shape[1]) if source[i, z]]
        total += np.log(sum(said))
    return float(total / n)


@SIZES
@pytest.mark.parametrize("each", [1, 2], ids=["apart", "groups"])
def test_classes(width: int, each: int) -> None:
    x, target = rows(width)
    y, groups = thirds(target), names(N, each)
    found = table(x, y, groups)
    assert list(found) == ["knn", "ridge", "h_score", "logme", "nleep"]
    wide, label = x.double().numpy(), y.numpy()
    folds = np.arange(N) if each == 1 else dealt(y, groups, 0).numpy()
    assert found["knn"] == pytest.approx(plain_knn(wide, label, groups, 3))
    assert found["ridge"] == pytest.approx(plain_ridge(wide, label, folds))
    assert found["h_score"] == pytest.approx(plain_h_score(wide, label), rel=1e-4)
    columns = np.eye(3)[label].T
    assert found["logme"] == pytest.approx(np.mean([plain_logme(wide, column) for column in columns]), abs=1e-4)


@SIZES
@pytest.mark.parametrize("each", [1, 2], ids=["apart", "groups"])
def test_numbers(width: int, each: int) -> None:
    x, target = rows(width)
    y, groups = 1e6 + 300 * target, names(N, each)
    found = table(x, y, groups, torch.full((N, 2), 0.5))
    assert list(found) == ["knn", "ridge", "logme"]
    wide, number = x.double().numpy(), y.numpy()
    folds = np.arange(N) if each == 1 else dealt(y, groups, 0).numpy()
    assert found["knn"] == pytest.approx(plain_knn(wide, number, groups, 3))
    assert found["ridge"] == pytest.approx(plain_ridge(wide, number, folds), abs=1e-3)
    assert found["logme"] == pytest.approx(plain_logme(wide, (number - number.mean()) / number.std()), abs=1e-4)
    assert table(x, y.float(), groups)["ridge"] == pytest.approx(found["ridge"], abs=1e-3)


def test_what_the_checkpoint_says_itself() -> None:
    x, target = rows(6)
    y = thirds(target)
    draw = np.random.default_rng(1)
    source = draw.dirichlet(np.full(5, 0.3), N) * np.array([1.0, 1.0, 1.0, 1.0, 0.0])
    source /= source.sum(1, keepdims=True)
    found = table(x, y, source=torch.from_numpy(source).float())
    assert list(found)[-1] == "leep" and found["leep"] == pytest.approx(plain_leep(source, y.numpy()), abs=1e-5)
    shares = np.bincount(y) / N
    assert table(x, y, source=torch.ones(N, 1))["leep"] == pytest.approx((shares * np.log(shares)).sum())
    assert table(x, y, source=torch.eye(3)[y])["leep"] == pytest.approx(0.0)


@SIZES
def test_a_mixture_speaks_as_source_labels_do(width: int) -> None:
    x, target = rows(width)
    y = thirds(target)
    axes = PCA(0.8, svd_solver="full").fit_transform(x.double().numpy())
    axes /= np.sqrt(axes.var(0).mean())
    mixture = GaussianMixture(4, covariance_type="diag", random_state=0, reg_covar=1e-3).fit(axes)
    assert table(x, y)["nleep"] == pytest.approx(plain_leep(mixture.predict_proba(axes), y.numpy()), abs=1e-3)


# ---------------------------------------------------------------- what must not change them, and what must


@SIZES
def test_turning_moving_and_scaling_features_changes_nothing(width: int) -> None:
    x, target = rows(width)
    turn = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(0), dtype=torch.double))[0]
    for y in (thirds(target), target):
        one, other = table(x, y), table((7 * (x.double() - 1) @ turn).float(), y)
        for name in one.keys() - {"knn"}:
            assert other[name] == pytest.approx(one[name], abs=2e-3), name


def test_names_of_classes_and_the_order_of_rows_change_nothing() -> None:
    x, target = rows(6)
    y, order = thirds(target), torch.randperm(N, generator=torch.Generator().manual_seed(0))
    one = table(x, y)
    assert table(x, torch.tensor([7, 2, 4])[y]) == pytest.approx(one)
    other = table(x[order], y[order])
    assert {name: other[name] for name in ("knn", "ridge")} == {name: one[name] for name in ("knn", "ridge")}
    assert (other["h_score"], other["logme"]) == pytest.approx((one["h_score"], one["logme"]), rel=1e-4)
    assert scores(x, y, names(N), 0) == scores(x, y, names(N), 0)


def test_shuffled_targets_score_lower() -> None:
    x, target = rows(8, 120, noise=0.1)
    order = torch.randperm(120, generator=torch.Generator().manual_seed(0))
    for y in (thirds(target), target):
        source = torch.softmax(torch.stack((target, -target), 1), 1)
        true, noise = table(x, y, source=source), table(x, y[order], source=source)
        assert all(true[name] > noise[name] for name in true), (true, noise)


def test_twins_in_one_group_judge_nobody() -> None:
    x, target = rows(5, 8)
    y = (target > target.median()).long()
    doubled = table(x.repeat(2, 1), y.repeat(2), names(8) * 2)
    assert doubled["knn"] == table(x, y)["knn"] < 1.0, "one neighbour, then two of one group, of equal labels"
    draw = torch.Generator().manual_seed(1)
    x, noise = torch.randn(30, 50, generator=draw), torch.randperm(30, generator=draw) % 2
    grouped = table(x.repeat(6, 1), noise.repeat(6), names(30) * 6)
    alone = table(x.repeat(6, 1), noise.repeat(6))
    assert max(grouped["knn"], grouped["ridge"]) < 0.7 and min(alone["knn"], alone["ridge"]) > 0.9


def test_where_other_groups_have_fewer_rows_than_neighbours_are_asked_for() -> None:
    x, target = rows(6)
    groups = ["most"] * (N - 2) + ["a", "b"]
    for y in (thirds(target), target):
        assert table(x, y, groups)["knn"] == pytest.approx(plain_knn(x.double().numpy(), y.numpy(), groups, 3))


# ---------------------------------------------------------------- what is degenerate, what cannot be


@SIZES
@pytest.mark.parametrize("each", [1, 2])
def test_features_that_never_change_are_worth_nothing(width: int, each: int) -> None:
    _, target = rows(width)
    for y in (thirds(target), target):
        found = table(torch.full((N, width), 3.0), y, names(N, each))
        assert all(np.isfinite(value) for value in found.values()), found
        if y.is_floating_point():
            assert found["ridge"] <= 0
            assert found["logme"] == pytest.approx(-(np.log(2 * np.pi * N / (N - 1)) + 1) / 2)
        else:
            assert (found["h_score"], found["ridge"]) == (0.0, pytest.approx(0.6, abs=0.01))
            shares = np.bincount(y) / N
            assert found["nleep"] == pytest.approx((shares * np.log(shares)).sum())


def test_one_row_of_a_class_one_feature_few_rows() -> None:
    x, target = rows(70)
    y = (target == target.max()).long()
    found = table(x, y)
    assert all(np.isfinite(value) for value in found.values())
    assert found["knn"] == pytest.approx(plain_knn(x.double().numpy(), y.numpy(), names(N), 1))
    narrow = table(x[:, :1], y)
    assert narrow["h_score"] == pytest.approx(np.corrcoef(x[:, 0], y)[0, 1] ** 2, rel=1e-4), "nothing to shrink"
    for few in (x[:3], x[:3, :1]):
        assert all(np.isfinite(value) for value in table(few, torch.tensor([0, 0, 1])).values())


def test_features_that_tell_everything_score_finitely() -> None:
    for n in range(6, 30):
        y = torch.arange(n) % 2
        found = table(torch.stack((y.float(), 1 - y.float()), 1), y)
        assert found["knn"] == found["ridge"] == 1.0 and 4 < found["logme"] < 50
        assert found["nleep"] == pytest.approx(0.0, abs=1e-6)


def test_what_cannot_be_judged_is_refused() -> None:
    x, target = rows(6)
    y = thirds(target)
    for place, value in ((x, torch.nan), (target, torch.inf)):
        broken = place.clone()
        broken[[4, 9]] = value
        given = (broken, y) if place is x else (x, broken)
        with pytest.raises(DataError, match=r"2 of 40 rows are not finite · saw: rows 5, 10 · allowed: finite numbers"):
            table(*given)
    with pytest.raises(DataError, match="1 of 40 rows are not finite · saw: rows 40"):
        table(x, y, source=torch.tensor([[1.0]] * 39 + [[torch.nan]]))
    with pytest.raises(DataError, match="rows: 2, groups: 2 · allowed: 3 rows or more"):
        table(x[:2], torch.tensor([0, 1]))
    with pytest.raises(DataError, match="rows: 40, groups: 1 "):
        table(x, y, ["one"] * N)
    with pytest.raises(DataError, match="nothing to tell apart · saw: 2 in all 40 rows"):
        table(x, torch.full((N,), 2))


def test_where_scores_disagree() -> None:
    told = [
        ("stage 1", (("knn", 0.5), ("ridge", 0.9), ("logme", 0.1))),
        ("stage 2", (("logme", 0.3), ("knn", 0.8), ("ridge", 0.9), ("leep", -0.1))),
    ]
    assert disagreement(told) == (("knn", "stage 2"), ("ridge", "stage 1"), ("logme", "stage 2"))
    assert disagreement(told[1:]) == tuple((name, "stage 2") for name, _ in told[1][1])
    assert disagreement([]) == ()
