"""Choose among backbones: one sample of rows through each of them, transferability scores side by side, LogME ranks."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from torch import Tensor, nn

from regraft.backbone.view import View
from regraft.engine import freeze
from regraft.engine.cache import Table, fits
from regraft.engine.heads import features
from regraft.engine.predict import Graft, sides
from regraft.engine.trunk import Trunk
from regraft.errors import ModelError, RegraftError
from regraft.planner import profile, survey
from regraft.planner.request import choose_task, prepare
from regraft.planner.transfer import disagreement, scores
from regraft.waist import Data, Encoder, Event, MachineCard, Options, Row, Said, fingerprint

PASSES_S = 20.0
"""What one pass of the sample through every network may take together."""
DECIDES = "logme"
"""The score that ranks. Right answers on a few hundred rows (knn, ridge) are equal for several good networks, so ranks
made of them swap: Kendall's tau with the oracle was 0.92 for LogME, 0.84 for the mean of four ranks (bench 8)."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A backbone as the sample showed it.

    `size` is its rank by weights, the largest first, `rank` that by LogME, where it applies; of equals the middle rank
    counts. `asis` is the accuracy of its own labels. `same` names the candidate with the same trunk, whose features
    these are; `seconds` are those of the pass and the scores.
    """

    name: str
    params: int
    scores: tuple[tuple[str, float], ...]
    asis: float | None
    same: str
    seconds: float
    size: float = 0.0
    rank: float = 0.0


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A model that cannot be used with the data, with what is wrong and what was seen."""

    name: str
    what: str
    saw: str


@dataclass(frozen=True, slots=True)
class Choice:
    """Backbones by their rank on so many rows, the best first, and what is no backbone for such data."""

    rows: int
    candidates: tuple[Candidate, ...]
    left_out: tuple[LeftOut, ...]
    seconds: float

    @property
    def best(self) -> Candidate:
        return self.candidates[0]

    @property
    def by(self) -> str:
        """What ranks: a score, or for targets that no score knows the size."""
        return DECIDES if DECIDES in dict(self.best.scores) else "size"

    @property
    def error(self) -> float | None:
        """The standard error of the best one's accuracy on so few rows; None for numbers and where nothing is known."""
        told = dict(self.best.scores)
        if "h_score" not in told:
            return None
        return math.sqrt(told["ridge"] * (1 - told["ridge"]) / self.rows)

    @property
    def close(self) -> tuple[str, ...]:
        """The others whose ridge head is within that error of the best one's, or above it."""
        least = dict(self.best.scores)["ridge"] - self.error if self.error is not None else math.inf
        return tuple(one.name for one in self.candidates[1:] if dict(one.scores).get("ridge", -1.0) >= least)

    @property
    def largest(self) -> str:
        """What a list ordered by size puts first."""
        return min(self.candidates, key=lambda one: one.size).name

    @property
    def split(self) -> tuple[tuple[str, str], ...]:
        """(score, the candidate that it puts first) of every score that does not put the best one first."""
        told = disagreement([(one.name, one.scores) for one in self.candidates])
        return tuple((score, name) for score, name in told if name != self.best.name)


class Opened(NamedTuple):
    """A backbone that was opened and timed; `trunk` is the fingerprint of all that its features follow from.

    Where all of them together would take too much memory, `view` is None: it is opened again.
    """

    view: View | None
    encoder: Encoder
    machine: MachineCard
    trunk: str
    params: int


class Sample(NamedTuple):
    """The rows that every backbone is judged by, with what they are to be told apart by."""

    data: Data
    rows: list[Row]
    targets: Tensor
    groups: list[str]
    seed: int


def choose(
    options: Options, data: Data, queries: Mapping[str, Any], named: Collection[str]
) -> Generator[Event, None, Choice]:
    """Rank models, name → query; those that are not among the `named` may turn out to be unusable.

    A trunk that several checkpoints share is run once. The sample is what one pass through all trunks may take.

    Raises: ModelError: none can be used; for one that was named, as its provider.
    """
    begun, task = time.monotonic(), choose_task(data.target, options)
    opened: dict[str, Opened] = {}
    left_out: list[LeftOut] = []
    found: list[Candidate] = []
    seen: dict[str, tuple[str, Tensor]] = {}
    for name, query in queries.items():
        with _unless(name in named, left_out, name):
            opened[name] = _opened(options, data, query, list(opened.values()))
        yield Said(f"{name}: {f'{opened[name].params:,} weights' if name in opened else left_out[-1].what}")
    trunks = {one.trunk: one.machine.forward_s for one in opened.values()}
    rows = profile.sample(data, sum(trunks.values()), PASSES_S, options.seed)
    targets, groups = task.encode([row.y for row in rows]), [row.group or row.key for row in rows]
    sample = Sample(data, rows, targets, groups, options.seed)
    if opened:
        yield Said(f"looking at {len(rows):,} rows on their way through {len(trunks):,} networks")
    for name in list(opened):
        one = opened.pop(name)  # its memory is free from here on
        with _unless(name in named, left_out, name):
            view = one.view or prepare(options, data, queries[name])[0]
            found.append(_judged(name, one._replace(view=view), sample, seen))
    if not found:
        raise ModelError(
            "none of these models can be used with this data",
            saw="; ".join(f"{one.name}: {one.what} ({one.saw})" for one in left_out),
            allowed=f"models for data like {data.name}",
            do="choose another --zoo, or name a model with --model",
        )
    return Choice(len(rows), ranked(found), tuple(left_out), round(time.monotonic() - begun, 2))


@contextlib.contextmanager
def _unless(named: bool, left_out: list[LeftOut], name: str) -> Iterator[None]:
    """Note why a model cannot be used, unless it was asked for by name: then that is an error."""
    try:
        yield
    except RegraftError as error:
        if named:
            raise
        left_out.append(LeftOut(name, error.what, error.saw))


def ranked(found: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Candidates with their ranks, the best first; of equal ranks the one with fewer weights.

    Where there are no scores the largest comes first.

    >>> told = ("a", 9, (("logme", 0.5),)), ("b", 4, (("logme", 0.7),))
    >>> made = [Candidate(name, params, scores, None, "", 0.0) for name, params, scores in told]
    >>> [(one.name, one.size, one.rank) for one in ranked(made)]
    [('b', 2.0, 1.0), ('a', 1.0, 2.0)]
    """
    sizes = _ranks([one.params for one in found])
    told = [dict(one.scores).get(DECIDES) for one in found]
    ranks = _ranks([value for value in told if value is not None]) if None not in told else sizes
    made = [replace(one, size=size, rank=rank) for one, size, rank in zip(found, sizes, ranks, strict=True)]
    return tuple(sorted(made, key=lambda one: (one.rank, one.params)))


def _ranks(values: Sequence[float]) -> list[float]:
    """1 for the highest; equal ones share the middle of their ranks."""
    return [1 + sum(v > value for v in values) + (values.count(value) - 1) / 2 for value in values]


def _opened(options: Options, data: Data, query: Any, before: Sequence[Opened]) -> Opened:
    """Open a backbone and time it, unless one with its trunk was timed before."""
    view, encoder, _ = prepare(options, data, query)
    params = survey.backbone(view, "").params  # weights that are no numbers are refused
    trunk = _trunk(view)
    machine = next((one.machine for one in before if one.trunk == trunk), None)
    machine = machine or survey.machine(view, data, encoder, "fp32")
    held = sum(one.params for one in before if one.view) + params
    return Opened(view if fits(4 * held) else None, encoder, machine, trunk, params)


def _judged(name: str, one: Opened, sample: Sample, seen: dict[str, tuple[str, Tensor]]) -> Candidate:
    """A backbone's features of the sample, or those of one before with the same trunk, and what they are worth."""
    begun, view, same = time.monotonic(), one.view, ""
    assert view is not None, "opened"
    if one.trunk in seen:
        same, made = seen[one.trunk]
    else:
        trunk = Trunk(view, 0, one.encoder, one.machine.micro_batch)
        table = Table(trunk, sample.rows, None, sides(view.pooling, len(sample.data.columns)))
        made = features(Graft(view, nn.Identity()), table).float()
        seen[one.trunk] = name, made
    told: tuple[tuple[str, float], ...] = ()
    if profile.judged(sample.targets, sample.groups):
        own = profile.native(view, made)
        told = scores(made, sample.targets, sample.groups, sample.seed, None if own is None else own.softmax(1))
    asis = profile.as_is(view, made, sample.targets, sample.data.target.labels)
    return Candidate(name, one.params, told, asis, same, round(time.monotonic() - begun, 2))


def _trunk(view: View) -> str:
    """A fingerprint of all that features follow from: weights, buffers, network, reading and preparation."""
    held: dict[str, Tensor] = {f"p/{name}": weight for name, _, weight in view.named()}
    held |= {f"b/{name}": buffer for name, _, buffer in view.buffers()}
    return fingerprint(freeze.hashes(held), view.config, view.reading, view.inputs)
