"""Transferability scores: how well features of a pretrained network suit a target, before anything is trained.

Every score is higher for better features of the same rows and the same target. Only "knn" and "ridge" are shares of
right answers (R² for numbers) to rows that were held out, rows of one group together; the others are computed on all
rows at once and know of no groups. Their values mean nothing alone: they rank candidates.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from regraft.engine.folds import Rows, at_once, dealt, unseen
from regraft.engine.penalties import COUNT, RIDGE
from regraft.engine.ridge import Basis, basis, ridge
from regraft.engine.solve import ALIKE, SHOWN
from regraft.errors import DataError

NEIGHBOURS = 20
LEAST = 3
"""Rows below which nothing can be said."""
STEPS, STILL, BOUND = 200, 1e-6, 1e10
"""The fixed point of LogME: most steps, the relative change that ends it, and how far from the mean square it looks."""
ENERGY, COMPONENTS, FILLED, FLOOR = 0.8, 5, 10, 1e-3
"""NLEEP: the share of variance that its axes hold, components a class, rows a component, what is added to variances."""


def scores(
    features: Tensor, targets: Tensor, groups: Sequence[str], seed: int, source: Tensor | None = None
) -> tuple[tuple[str, float], ...]:
    """(name, value) of "knn", "ridge", "h_score", "logme", "nleep" and "leep", in this order, as far as they apply.

    Numbers have "knn", "ridge" and "logme" alone; "leep" asks for `source`. Ridge, H-score, LogME and NLEEP share one
    eigendecomposition of the centred features.

    Args:
        features: [N, D], float32.
        targets: [N], class indices or numbers.
        groups: A name for each row; rows of one name never judge each other.
        seed: Deals folds where groups have several rows, and starts the Gaussian mixture.
        source: [N, Z], probabilities of the checkpoint's own labels.
    Raises: DataError: what is not finite, fewer than three rows or two groups, or targets that are all the same.
    Cost: products of N · D · min(N, D) and N² · D, and N² numbers held: above 10,000 rows sample first.

    >>> x, y = torch.tensor([[0.0], [0.2], [0.3], [5.0], [5.1], [5.3]]), torch.tensor([0, 0, 0, 1, 1, 1])
    >>> found = dict(scores(x, y, list("abcdef"), 0))
    >>> list(found), found["knn"], round(found["logme"], 2)
    (['knn', 'ridge', 'h_score', 'logme', 'nleep'], 1.0, 1.33)
    """
    _require_sound(features, targets, groups, source)
    classes = not targets.is_floating_point()
    if classes:
        targets = targets.unique(return_inverse=True)[1]
        wanted = functional.one_hot(targets).double()
    else:
        spread, mean = torch.std_mean(targets.double(), correction=0)
        targets = (targets.double() - mean) / spread
        wanted = targets[:, None]
    held = basis(features)
    if torch.equal(features.amin(0), features.amax(0)):
        held = held._replace(rows=torch.zeros_like(held.rows))  # an axis along which nothing spreads tells nothing
    apart = len(set(groups)) == len(groups)
    folds = dealt(targets, groups, seed)
    rows = Rows(features, targets, wanted.float(), torch.ones(len(targets)), folds, True, apart)
    found = [("knn", _neighbours(rows, groups)), ("ridge", _ridge(held, rows))]
    if classes:
        found.append(("h_score", _h_score(held, wanted)))
    found.append(("logme", _logme(held, wanted)))
    if classes:
        found.append(("nleep", _leep(_mixture(held, wanted.shape[1], seed), wanted)))
    if classes and source is not None:
        found.append(("leep", _leep(source.double(), wanted)))
    return tuple(found)


def disagreement(told: Sequence[tuple[str, tuple[tuple[str, float], ...]]]) -> tuple[tuple[str, str], ...]:
    """(score, the candidate that it puts first) for each score that all candidates have; the first one of equal ones.

    >>> disagreement([("a", (("knn", 0.5), ("logme", 1.0))), ("b", (("knn", 0.7), ("logme", 0.2), ("leep", -1.0)))])
    (('knn', 'b'), ('logme', 'a'))
    """
    tables = [(candidate, dict(values)) for candidate, values in told]
    shared = [name for name, _ in told[0][1] if all(name in table for _, table in tables)] if told else []
    return tuple((name, max(tables, key=lambda one: one[1][name])[0]) for name in shared)


def _right(outputs: Tensor, rows: Rows) -> float:
    """Accuracy of outputs [N, C]; of numbers R², the share of the variance that is explained."""
    if rows.targets.is_floating_point():
        return float(1 - (outputs[:, 0] - rows.targets).square().sum() / rows.targets.square().sum())
    return float((outputs.argmax(1) == rows.targets).double().mean())


def _neighbours(rows: Rows, groups: Sequence[str]) -> float:
    """What the k nearest rows of other groups answer: a vote of classes, the mean of numbers.

    Near is what has a high cosine, each feature about its mean and in units of its standard deviation. k is half the
    root of N, 20 at most, and no more than the smallest class has rows. Equal votes go to the more similar class.
    Reference: Cover & Hart, Nearest neighbor pattern classification, 1967.
    """
    k = max(1, min(NEIGHBOURS, round(math.sqrt(len(groups)) / 2)))
    classes = not rows.targets.is_floating_point()
    if classes:
        k = min(k, int(rows.targets.bincount().min()))
    spread, mean = torch.std_mean(rows.features.double(), 0, correction=0)
    spread[spread <= ALIKE * mean.abs()] = torch.inf
    unit = functional.normalize((rows.features.double() - mean) / spread, dim=1).float()
    named: dict[str, int] = {}
    whose = torch.tensor([named.setdefault(group, len(named)) for group in groups])
    near = (unit @ unit.T).masked_fill_(whose[:, None] == whose, -torch.inf).topk(k)
    there = near.values.isfinite().double()
    # a class's similarities add up to less than a vote
    votes = there * (1 + (near.values.double().nan_to_num(neginf=0) + 1) / (4 * k)) if classes else there
    made = (rows.wanted[near.indices].double() * votes[:, :, None]).sum(1)
    return _right(made / votes.sum(1, keepdim=True), rows)


def _ridge(held: Basis, rows: Rows) -> float:
    """The best of a path of penalties by what ridge heads answer to rows that they were not fitted to.

    Each row is left out alone; where groups have several rows, a fifth of the groups is.
    """
    alphas = float(held.squares.mean()) * torch.logspace(*RIDGE, COUNT)
    if rows.apart:
        made = (ridge(held, rows.wanted, some).outputs for some in alphas.split(at_once(rows)))
        return max(_right(some[..., i], rows) for some in made for i in range(some.shape[2]))
    rest = [rows.folds != fold for fold in range(int(rows.folds.max()) + 1)]
    paths = [ridge(basis(rows.features[kept]), rows.wanted[kept], alphas) for kept in rest]
    weight, bias = (torch.stack(parts, 1) for parts in zip(*((path.weight, path.bias) for path in paths), strict=True))
    return max(_right(some[..., i], rows) for some in unseen(rows, weight, bias) for i in range(some.shape[2]))


def _h_score(held: Basis, wanted: Tensor) -> float:
    """The trace of S⁻¹ (1 - a) B: B the covariance of class means, S that of features shrunk by a to its mean variance.

    a is that of Ledoit & Wolf; covariances are sums over N. It lies between 0 and the number of classes less 1.
    Reference: Bao et al., An information-theoretic approach to transferability in task transfer learning, ICIP 2019;
    Ibrahim, Ponomareva & Mazumder, Newer is not always better, 2021; Ledoit & Wolf, A well-conditioned estimator for
    large-dimensional covariance matrices, 2004.
    """
    n, width = len(wanted), len(held.axes)
    rows, squares = held.rows.double(), held.squares.double()
    whole, energy = squares.sum() / n, squares.square().sum() / n**2
    apart = energy - whole.square() / width
    noise = ((rows.square() @ squares).square().sum() / n - energy) / n
    shrunk = float((noise / apart).clamp(0, 1)) if apart > 0 else 0.0
    between = squares * ((rows.T @ wanted).square() / wanted.sum(0)).sum(1) / n
    return float((1 - shrunk) * (between / ((1 - shrunk) * squares / n + shrunk * whole / width)).sum())


def _logme(held: Basis, wanted: Tensor) -> float:
    """The log evidence per row of a Bayesian linear model y ~ N(b + Xw, 1/β), w ~ N(0, 1/α), at its best α and β.

    The mean over columns: one for each class, or the one of numbers in units of their standard deviation. Unlike in
    the papers there is an intercept b, of flat prior, which takes the place of one row: what is left is LogME of the
    N - 1 contrasts of the rows, and no constant added to a feature changes it. For λ = α/β the best β is known, and
    the best λ is a fixed point.
    Reference: You et al., LogME, ICML 2021; You et al., Ranking and tuning pre-trained models, JMLR 2022.
    """
    n, squares = len(wanted) - 1, held.squares.double()[:, None]
    wanted = wanted - wanted.mean(0)
    along = (held.rows.double().T @ wanted).square()
    left = (wanted.square().sum(0) - along.sum(0)).clamp(min=0)
    middle = float(squares.mean())
    ratio = torch.full_like(left, middle)
    for _ in range(STEPS):
        share = ratio / (squares + ratio)
        used, free = (1 - share).sum(0), share.sum(0) + n - len(squares)
        error, norm = left + (along * share.square()).sum(0), (along * share.square() * squares).sum(0) / ratio.square()
        last, ratio = ratio, (used * error / (free * norm)).clamp(middle / BOUND, middle * BOUND)
        if torch.allclose(ratio, last, rtol=STILL, atol=0):
            break
    error = left + (along * ratio / (squares + ratio)).sum(0)
    evidence = n * (n / error).log() - (squares / ratio).log1p().sum(0) - n * (1 + math.log(2 * math.pi))
    return float(evidence.mean() / (2 * n))


def _mixture(held: Basis, classes: int, seed: int) -> Tensor:
    """Shares [N, V] of each row in V components of a Gaussian mixture, on the axes that hold 80 % of the variance.

    There are five components for each class, but no more than a tenth of the rows, and two at least. Covariances are
    diagonal along the axes, in units of their mean variance.
    Reference: Li et al., Ranking neural checkpoints, CVPR 2021 (NLEEP).
    """
    from sklearn.mixture import GaussianMixture

    squares = held.squares.double().flip(0)
    kept = int((squares.cumsum(0) < ENERGY * squares.sum()).sum()) + 1
    rows = held.rows.double().flip(1)[:, :kept] * (squares[:kept] / squares[:kept].mean() * len(held.rows)).sqrt()
    count = max(2, min(COMPONENTS * classes, len(rows) // FILLED))
    mixture = GaussianMixture(count, covariance_type="diag", random_state=seed, reg_covar=FLOOR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer different rows than components, or steps that ran out
        return torch.from_numpy(mixture.fit(rows.numpy()).predict_proba(rows.numpy()))


def _leep(source: Tensor, wanted: Tensor) -> float:
    """The mean log-likelihood of classes where each source label z speaks by P(class | z), as it is on these rows.

    Reference: Nguyen et al., LEEP: a new measure to evaluate transferability, ICML 2020.
    """
    joint = source.T @ wanted
    given = joint / joint.sum(1, keepdim=True).clamp(min=torch.finfo(torch.double).tiny)
    return float((source @ given * wanted).sum(1).log().mean())


def _require_sound(features: Tensor, targets: Tensor, groups: Sequence[str], source: Tensor | None) -> None:
    """Go on only with finite numbers, enough rows, and targets that differ.

    Raises: DataError.
    """
    sound = features.isfinite().all(1) & targets.isfinite()
    if source is not None:
        sound &= source.isfinite().all(1)
    wrong = (~sound).nonzero().flatten().tolist()
    if wrong:
        raise DataError(
            f"features or targets of {len(wrong):,} of {len(sound):,} rows are not finite",
            saw="rows " + ", ".join(str(i + 1) for i in wrong[:SHOWN]),
            allowed="finite numbers",
            do="look at these rows, and leave them out if they are not sound",
        )
    if len(groups) < LEAST or len(set(groups)) < 2:
        raise DataError(
            "too few rows to judge features by",
            saw=f"rows: {len(groups)}, groups: {len(set(groups))}",
            allowed=f"{LEAST} rows or more, of two groups or more",
            do="give more rows",
        )
    if bool((targets == targets[0]).all()):
        raise DataError(
            "every row has the same target: there is nothing to tell apart",
            saw=f"{targets[0].item():g} in all {len(targets):,} rows",
            allowed="two values or more",
            do="give rows of other classes, or another target",
        )
