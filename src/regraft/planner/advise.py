"""Advice before anything is trained: what a few passes over some rows show, and what the rules of thumb make of it."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from regraft.engine.cache import Table
from regraft.engine.trunk import Trunk
from regraft.errors import ModelError
from regraft.planner import profile, rules
from regraft.planner.cards import Card
from regraft.planner.choose import Choice
from regraft.planner.course import Course
from regraft.planner.families import families
from regraft.planner.labels import Labels, efficiency
from regraft.planner.noise import FEWEST, noise
from regraft.planner.price import Fit, Price, Rate, elsewhere, fits, price
from regraft.planner.rules import Fired, Measured, Needs
from regraft.planner.sizes import BACKWARD
from regraft.planner.timing import ENOUGH_S, Steps, timed
from regraft.planner.transfer import disagreement, scores
from regraft.waist import Event, Facts, Plan, Row, Said

PASS_S = 20.0
"""What a pass over the rows that are looked at may take."""
NATIVE = "features"
HERE = Rate()


@dataclass(frozen=True, slots=True)
class Depth:
    """Transferability scores of features after a stage, which is reached with a share of the network's work."""

    stage: str
    share: float
    scores: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Survey:
    """What a look at the network on some training rows showed.

    `depths` end with the features that a head takes; `untrained` are those of a network of this shape with random
    weights. `shifts` tell how far the rows are from the network's own data, layer by layer, in standard deviations;
    `similarity` is e to the minus mean shift. `asis` is the accuracy of the checkpoint's own labels, where it knows all
    that the data has. `labels` is what more of them would bring. None, or nothing, where it cannot be told of this
    network or target.
    """

    rows: int
    depths: tuple[Depth, ...]
    untrained: Depth | None
    shifts: tuple[tuple[str, float], ...]
    similarity: float | None
    chance: float | None
    noise: float | None
    labels: Labels | None
    seconds: float
    asis: float | None = None

    @property
    def head(self) -> float | None:
        """What a head on the features reaches, each row answered by one without it."""
        return dict(self.depths[-1].scores).get("ridge") if self.depths else None

    @property
    def peak(self) -> Depth | None:
        """The depth after which features stop serving: nearest neighbours and a head both do best there, not later."""
        told = dict(disagreement([(depth.stage, depth.scores) for depth in self.depths]))
        first = told.get("ridge", NATIVE)
        if first == NATIVE or told.get("knn") != first:
            return None
        return next(depth for depth in self.depths if depth.stage == first)

    @property
    def split(self) -> tuple[tuple[str, str], ...]:
        """(score, the stage that it puts first); none where all agree."""
        told = disagreement([(depth.stage, depth.scores) for depth in self.depths])
        return told if len({stage for _, stage in told}) > 1 else ()


@dataclass(frozen=True, slots=True)
class Priced:
    """A plan, the way that it goes, what it takes here at most, and on the card that was asked about.

    `alike` are the labels of all plans of its kind, whatever their rate: they take the same.
    """

    strategy: str
    label: str
    way: str
    here: Price
    there: Price | None = None
    fit: Fit | None = None
    alike: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Advice:
    """Which way to go and why: the plan to begin with, `first`, and those that a race should hold against it, `others`.

    `priced` has a plan of each kind, whatever its rate. `choice` is how the `model` was chosen among several.
    """

    survey: Survey
    priced: tuple[Priced, ...]
    fired: tuple[Fired, ...]
    way: str
    why: str
    first: Priced
    others: tuple[str, ...]
    explained: str
    model: str = ""
    choice: Choice | None = None


def advise(
    facts: Facts, course: Course, plans: Sequence[Plan], needs: Needs, rate: Rate = HERE, card: Card | None = None
) -> Generator[Event, None, Advice]:
    """Look, price the plans, hold the rules against both, and name a plan to begin with and those to race it against.

    `rate` is that of this machine, or of `card` where one is named.
    """
    seen = yield from survey(course)
    kinds = families(plans, 0)
    plans = [family[0][1] for family in kinds]
    yield Said(f"timing a few steps of {len(plans)} plan{'s' * (len(plans) > 1)}")
    steps, stages = timed(course, plans), len(facts.backbone.stages)
    priced = tuple(
        replace(_priced(course, plan, steps, rate, card), alike=tuple(one.label for _, one in family))
        for plan, family in zip(plans, kinds, strict=True)
    )
    deepest = min((one for one in plans if way_of(one, stages) == "tune"), key=lambda one: one.trunk, default=None)
    whole = deepest if deepest is not None and not deepest.trunk else None
    measured = Measured(
        rows=facts.train_rows,
        classes=len(facts.data.target.labels),
        params=facts.backbone.params,
        similarity=seen.similarity,
        probe=seen.head,
        chance=seen.chance,
        untrained=dict(seen.untrained.scores).get("ridge") if seen.untrained else None,
        asis=seen.asis,
        noise=seen.noise if seen.rows >= FEWEST else None,
        labels_kept=any(plan.start == "labels" for plan in plans),
        full_epoch_s=epoch_s(steps, whole) if whole else None,
        memory_fits=priced[plans.index(whole)].here.memory.here <= course.machine.memory_bytes if whole else None,
    )
    fired = rules.rules(measured, needs)
    way, why = rules.verdict(fired)
    against = rules.against(measured)
    named = [one.verdict for one in fired if one.stands] if way == "race" else [way]
    named = named or [one for one in ("extract", "tune") if one not in against]
    reach = {plan.label: plan.trunk if "extract" in against else 0 for plan in plans}  # much to gain: the deepest first
    place = {one.way: named.index(one.way) if one.way in named else len(named) for one in priced}
    ranked = sorted(priced, key=lambda one: (place[one.way], reach[one.label]))
    wanted = [one for one in ranked if one.way in (*named, "extract")] or ranked
    return Advice(
        survey=seen,
        priced=priced,
        fired=fired,
        way=way,
        why=why,
        first=wanted[0],
        others=tuple(one.label for one in wanted[1:]),
        explained=rules.explain(measured, needs, fired),
    )


def epoch_s(steps: Steps, plan: Plan) -> float:
    """Seconds of the dearest epoch of a plan: its first ones may train a head alone."""
    return max(steps.of(plan, phase).epoch_s for phase in plan.phases if phase.epochs)


def way_of(plan: Plan, stages: int) -> str:
    """The way that a plan goes, in the words of the rules; "plain" where no network is trained, pretrained or not."""
    if plan.init != "pretrained":
        return "plain" if plan.init == "plain" or plan.optimizer.whole else "scratch"
    if plan.inserts:
        return "peft"
    if not any(phase.epochs for phase in plan.phases) and not plan.optimizer.whole:
        return "asis"
    return "extract" if plan.trunk == stages else "tune"


def _priced(course: Course, plan: Plan, steps: Steps, rate: Rate, card: Card | None) -> Priced:
    way, here = way_of(plan, len(course.view.pooled(plan.reading).stages)), price(course, plan, steps, rate)
    if card is None:
        return Priced(plan.strategy, plan.label, way, here)
    return Priced(plan.strategy, plan.label, way, here, elsewhere(here, card, rate), fits(here, card))


def survey(course: Course) -> Generator[Event, None, Survey]:
    """One pass of some training rows through the network and one through a random network, and what they show."""
    begun = time.monotonic()
    task, view = course.task, course.view
    rows = profile.sample(course.data, course.machine.forward_s, PASS_S, course.seed)
    yield Said(f"looking at {len(rows):,} rows on their way through the network")
    seen = profile.look(view, course.table(view, 0, rows))
    targets, groups = task.encode([row.y for row in rows]), [row.group or row.key for row in rows]
    judged = profile.judged(targets, groups)
    flops = [stage.flops for stage in view.stages]

    def depth(layer: profile.Layer) -> Depth:
        name = NATIVE if layer is seen.layers[-1] else layer.name
        share = sum(flops[: layer.stage + 1]) / max(1, sum(flops))
        return Depth(name, round(share, 3), scores(layer.features, targets, groups, course.seed))

    depths = tuple(depth(layer) for layer in seen.layers) if judged else ()
    untrained = None
    if judged:
        yield Said("the same through a network of this shape with random weights")
        untrained = _untrained(course, rows, targets, groups)
    shifts = tuple((shift.name, round(shift.value, 4)) for shift in seen.shifts)
    mean = sum(value for _, value in shifts) / len(shifts) if shifts else None
    classes = targets.bincount() if judged and not targets.is_floating_point() else None
    return Survey(
        rows=len(rows),
        depths=depths,
        untrained=untrained,
        shifts=shifts,
        similarity=None if mean is None else round(math.exp(-mean), 4),
        chance=None if classes is None else round(float(classes.max() / classes.sum()), 4),
        noise=noise(seen.layers[-1].features, targets, groups) if judged else None,
        labels=efficiency(seen.layers[-1].features, targets, groups, course.seed) if judged else None,
        seconds=round(time.monotonic() - begun, 2),
        asis=profile.as_is(view, seen.layers[-1].features, targets, course.data.target.labels),
    )


def takes(course: Course, plans: Sequence[Plan]) -> float:
    """About how many seconds advice takes: two passes of some rows, and a few steps of each kind of plan."""
    row_s, kinds = course.machine.forward_s, families(plans, 0)
    steps = [min(2 * ENOUGH_S, 2 * (1 + BACKWARD) * family[0][1].batch * row_s) for family in kinds]
    return 2 * len(profile.sample(course.data, row_s, PASS_S, course.seed)) * row_s + sum(steps)


def _untrained(course: Course, rows: Sequence[Row], targets: Tensor, groups: Sequence[str]) -> Depth | None:
    """The scores of features that a random network makes; None where the provider cannot start one at random."""
    view = course.view.clone(0)
    try:
        view.randomise(course.seed)
    except ModelError:
        return None
    trunk = Trunk(view, 0, course.encoder, course.machine.micro_batch)
    table = Table(trunk, rows, None, course.trunks.sides(view))
    return Depth(
        "random weights", 1.0, scores(profile.look(view, table).layers[-1].features, targets, groups, course.seed)
    )
