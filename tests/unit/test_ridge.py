"""Ridge for all penalties at once: scikit-learn's heads, and answers of refits without each row."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge, RidgeClassifierCV
from torch import Tensor
from torch.nn import functional

from regraft.engine.ridge import basis, ridge

PENALTIES = torch.tensor([1e-3, 0.3, 30.0, 3e3])


def rows(n: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = np.random.default_rng(seed)
    x = draw.normal(2, 1, (n, width)) * np.exp(draw.normal(0, 1, width))
    y = (x[:, :3] / x[:, :3].std(0) + draw.normal(0, 1, (n, 3))).argmax(1)
    return torch.from_numpy(x).float(), torch.from_numpy(y)


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("n", "width"), [(60, 9), (30, 80), (25, 24)])
def test_heads_and_answers_without_each_row_are_those_of_refits(
    n: int, width: int, weighted: bool, centred: bool
) -> None:
    x, y = rows(n, width)
    wanted = functional.one_hot(y, 3).float()
    weights = torch.tensor([0.4, 1.0, 1.7])[y] if weighted else None
    path = ridge(basis(x, weights, centred), wanted, PENALTIES)
    mass = None if weights is None else weights.double().numpy()
    for g, alpha in enumerate(PENALTIES.tolist()):
        make = lambda a=alpha: Ridge(a, fit_intercept=centred, solver="svd")  # noqa: E731
        whole = make().fit(x.double().numpy(), wanted.double().numpy(), mass)
        ours = x @ path.weight[g].T + path.bias[g]
        theirs = torch.from_numpy(whole.predict(x.double().numpy())).float()
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-4)
        for i in range(0, n, 7):
            rest = np.arange(n) != i
            head = make().fit(
                x[rest].double().numpy(), wanted[rest].double().numpy(), None if mass is None else mass[rest]
            )
            answer = torch.from_numpy(head.predict(x[i : i + 1].double().numpy()))[0].float()
            torch.testing.assert_close(path.outputs[i, :, g], answer, rtol=2e-3, atol=2e-3)


def test_the_penalty_that_scikit_learn_chooses() -> None:
    x, y = rows(300, 40)
    path = ridge(basis(x), functional.one_hot(y, 3).float(), PENALTIES)
    right = (path.outputs.argmax(1) == y[:, None]).double().mean(0)
    theirs = RidgeClassifierCV(PENALTIES.numpy(), scoring="accuracy").fit(x.double().numpy(), y.numpy())
    assert right.max().item() == pytest.approx(theirs.best_score_, abs=1e-9)
    assert float(PENALTIES[int(right.argmax())]) == pytest.approx(theirs.alpha_)


@pytest.mark.parametrize(("n", "width"), [(12, 5), (5, 12)])
def test_features_that_never_change_do_no_harm(n: int, width: int) -> None:
    x, wanted = torch.full((n, width), 3.0), torch.eye(2).repeat(n, 1)[:n]
    path = ridge(basis(x), wanted, PENALTIES)
    assert path.outputs.isfinite().all() and path.weight.abs().max() < 1e-4
    torch.testing.assert_close(path.bias[0], wanted.mean(0), rtol=0, atol=1e-4)
