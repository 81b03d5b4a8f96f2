"""Logistic heads over a grid of penalties and folds: the minima that scikit-learn finds one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from torch import Tensor
from torch.nn import functional

from regraft.engine.logistic import logistic
from regraft.engine.ridge import basis

PENALTIES = torch.logspace(2, -2, 11)
WEIGHTS = torch.tensor([0.5, 1.0, 2.0])


def rows(n: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    draw = np.random.default_rng(seed)
    x = draw.normal(1, 1, (n, width)) * np.exp(draw.normal(0, 1, width))
    y = (x[:, :3] / x[:, :3].std(0) + draw.normal(0, 1, (n, 3))).argmax(1)
    return torch.from_numpy(x).float(), torch.from_numpy(y), torch.from_numpy(draw.integers(0, 4, n))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize(("n", "width"), [(240, 9), (48, 80)])
def test_every_head_is_the_minimum(n: int, width: int, centred: bool, weighted: bool) -> None:
    x, y, folds = rows(n, width)
    weights = WEIGHTS[y] if weighted else torch.ones(n)
    grid = logistic(basis(x, weights, centred), functional.one_hot(y, 3), PENALTIES, folds, flat=1e-5)
    assert grid.ended.all() and grid.weight.shape == (11, 4, 3, width)
    for g, alpha in enumerate(PENALTIES.tolist()):
        for fold in (0, 3) if g % 5 == 0 else ():
            inside = folds != fold
            xs, ys, mass = x[inside].double(), y[inside], weights[inside].double()
            theirs = LogisticRegression(
                C=1 / alpha, tol=1e-9, max_iter=1000, solver="newton-cholesky", fit_intercept=centred
            ).fit(xs.numpy(), ys.numpy(), mass.numpy())
            weight, bias = grid.weight[g, fold].double(), grid.bias[g, fold].double()

            def cost(
                w: Tensor, b: Tensor, xs: Tensor = xs, ys: Tensor = ys, mass: Tensor = mass, alpha: float = alpha
            ) -> float:
                each = functional.cross_entropy(xs @ w.T + b, ys, reduction="none")
                return float((each * mass).sum() + alpha / 2 * w.square().sum())

            best = cost(torch.from_numpy(theirs.coef_), torch.from_numpy(theirs.intercept_ + np.zeros(3)))
            assert cost(weight, bias) <= best + 1e-5 * n
            if alpha > 0.1:  # with less the objective is as good as flat, far from the training rows
                ours = (x.double() @ weight.T + bias).softmax(1)
                wanted = torch.from_numpy(theirs.predict_proba(x.double().numpy()))
                torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-2)


def test_one_penalty_without_folds() -> None:
    x, y, _ = rows(120, 5)
    grid = logistic(basis(x), functional.one_hot(y, 3), torch.tensor([1.0]), torch.full((120,), -1), flat=1e-5)
    theirs = LogisticRegression(tol=1e-8, max_iter=10_000).fit(x.double().numpy(), y.numpy())
    wanted = torch.from_numpy(theirs.predict_proba(x.double().numpy())).float()
    torch.testing.assert_close((x @ grid.weight[0, 0].T + grid.bias[0, 0]).softmax(1), wanted, rtol=0, atol=1e-3)


def test_chunks_and_order_of_penalties_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, folds = rows(100, 6)
    wanted = functional.one_hot(y, 3)
    first = logistic(basis(x), wanted, PENALTIES, folds, flat=1e-6)
    monkeypatch.setattr("regraft.engine.logistic.LARGEST", 3 * (100 + 16 * 7) * 4)
    second = logistic(basis(x), wanted, PENALTIES.flip(0), folds, flat=1e-6)
    for g in range(len(PENALTIES)):
        ours, theirs = (
            (x @ one.weight[i, 0].T + one.bias[i, 0]).softmax(1) for one, i in ((first, g), (second, 10 - g))
        )
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)


def test_it_says_which_heads_have_not_ended() -> None:
    x, y, folds = rows(100, 6)
    grid = logistic(basis(x), functional.one_hot(y, 3), PENALTIES, folds, flat=1e-6, most=2)
    assert not grid.ended.all() and grid.weight.isfinite().all()


def test_the_penalty_that_scikit_learn_chooses_by_cross_validation() -> None:
    """The guard of bench 3: the same folds, the same accuracies, the same choice."""
    x, y, folds = rows(400, 30, seed=3)
    grid = logistic(basis(x), functional.one_hot(y, 3), PENALTIES, folds)
    right = np.stack(
        [
            ((x[folds == k] @ grid.weight[:, k].transpose(1, 2) + grid.bias[:, k, None]).argmax(2) == y[folds == k])
            .double()
            .mean(1)
            .numpy()
            for k in range(4)
        ]
    )
    cuts = [((folds != k).nonzero().flatten().numpy(), (folds == k).nonzero().flatten().numpy()) for k in range(4)]
    theirs = LogisticRegressionCV(
        Cs=(1 / PENALTIES).double().numpy(),
        cv=cuts,
        tol=1e-9,
        solver="newton-cholesky",
        l1_ratios=(0,),
        use_legacy_attributes=False,
        scoring="accuracy",
    ).fit(x.double().numpy(), y.numpy())
    scores = theirs.scores_.reshape(4, -1)
    assert np.abs(right - scores).max() <= 0.011  # a row of a fold of about a hundred
    assert right.mean(0).max() == pytest.approx(scores.mean(0).max(), abs=0.003)
