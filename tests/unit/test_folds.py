"""Folds: classes in their shares, groups on one side, and what heads answer to rows that they did not see."""

from __future__ import annotations

import torch

from regraft.engine.folds import Rows, dealt, unseen


def names(n: int) -> list[str]:
    return [str(i) for i in range(n)]


def test_rows_of_one_group_and_classes_are_dealt_out() -> None:
    y = torch.tensor([0] * 50 + [1] * 25 + [2] * 5)
    alone = dealt(y, names(80), 1)
    for label, each in ((0, 10), (1, 5), (2, 1)):
        assert alone[y == label].bincount(minlength=5).tolist() == [each] * 5
    assert not torch.equal(alone, dealt(y, names(80), 2)), "the seed draws"
    paired = dealt(y, [str(i // 2) for i in range(80)], 1)
    assert all(paired[i] == paired[i + 1] for i in range(0, 80, 2))
    assert paired.bincount().max() <= 18


def test_each_row_is_answered_by_the_heads_without_its_fold() -> None:
    draw = torch.Generator().manual_seed(0)
    x, folds = torch.randn(8, 3, generator=draw), torch.arange(8) % 2
    weight, bias = torch.randn(5, 2, 4, 3, generator=draw), torch.randn(5, 2, 4, generator=draw)
    rows = Rows(x, folds, torch.zeros(8, 4), torch.ones(8), folds, True, True)
    made = torch.cat(list(unseen(rows, weight, bias)), 2)
    for row, head in ((0, 0), (3, 4), (6, 2)):
        fold = folds[row]
        torch.testing.assert_close(made[row, :, head], weight[head, fold] @ x[row] + bias[head, fold])
