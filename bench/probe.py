"""Bench 1: one probe from JPEG files, 30 epochs, against loops that run the frozen network in every epoch.

ants_bees as the article has it: a folder to train on and one to validate on (8 of its pictures are for test). The
article's loop is PyTorch's tutorial with the backbone as a fixed feature extractor: a pass for training and one for
validation in each epoch, SGD with momentum on the head, the best epoch kept; the network is in eval mode, so that
features are the same in every epoch. Trainer has the same parameters frozen. Batches, rate and pixels are the same.

Asserted first: regraft with its cache and without it ends with equal bits; losses of the epochs that the other sides
run, and answers on test that the article's loop would give, are those of regraft. Epochs of these loops repeat each
other, so they run `--epochs-run` of them and their seconds count for all; the head's other steps are taken on the
features of the first epoch, untimed. The limit is how often a row would go through the network over how often it does.

The fast side is the same plan with `--precision auto`. Asserted first is that 99.5 % of its answers on the rows to
validate and to test on are the exact side's. With a trunk ρ times as fast as eager float32, measured on the machine of
the run, its goal is 0.8 · 30 · ρ. Its limit is that of the exact side times what reading pictures beside such a trunk,
and compiling it once, leave of ρ; rows to validate and to test on go through in float32 whatever the trunk computes in.

    python bench/probe.py [--quick] [--rounds 3] [--only exact|fast] [--model NAME] [--again]
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import itertools
import math
import sys
import tempfile
from pathlib import Path

import peers
import torch
import works
from results import Comparison, keep, measured, ratios, turns
from torch.nn import functional

EPOCHS, EQUAL = 30, 0.995
MODELS = ("ResNet-18", "MobileNetV2")
EXACT, FAST = "regraft, exact", "regraft, fast"
ARTICLE, TRAINER = "the article's loop", "Trainer, backbone frozen"


def main() -> int:
    parse = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parse.add_argument("--quick", action="store_true")
    parse.add_argument("--rounds", type=int, default=3)
    parse.add_argument("--epochs-run", type=int, default=3)
    parse.add_argument("--only", choices=("exact", "fast"), help="one side of regraft's, not both in the same rounds")
    parse.add_argument("--model", choices=MODELS, help="one network of the two")
    parse.add_argument("--again", action="store_true")
    given = parse.parse_args()
    if given.quick:
        given.rounds, given.epochs_run = 1, 1
    print(peers.lacks() or "Trainer is here")
    for name in [given.model] if given.model else MODELS:
        work = f"probe on {name}, ants_bees, {EPOCHS} epochs"
        wanted = [side for side in (EXACT, FAST) if given.only is None or side.endswith(given.only)]
        if not given.again:
            wanted = [side for side in wanted if not all(measured(1, work, side, other) for other in others())]
        if not wanted:
            print(f"{work}: measured already")
            continue
        with tempfile.TemporaryDirectory() as place:
            race(name, work, wanted, given, Path(place))
    return 0


def others() -> list[str]:
    return [ARTICLE] if peers.lacks() else [ARTICLE, TRAINER]


def race(name: str, work: str, own: list[str], given: argparse.Namespace, place: Path) -> None:
    """One network: equal first, then regraft's `own` sides and the others in turns."""
    model = works.resnet18(place / "model") if name == "ResNet-18" else works.MOBILENET
    if not (works.SHARED / "data" / "ants_bees").exists() or not model.exists():
        print(f"skipped: {work}: its data or model is absent")
        return
    knobs = {"epochs": EPOCHS, "lr": 0.01, "optimizer": "sgd", "schedule": "constant", "decay": 0.0, "clip": 0.0}
    bench = works.open_bench(works.article(place / "data", most=8 * given.quick), model, "probe", knobs, place)
    plan, short = bench.work(), given.epochs_run
    if EXACT in own:
        held = stopped(bench, short if given.quick else EPOCHS)
        assert held.regraft()[1] == held.regraft(cached=False)[1], "weights differ between cached and uncached"
    wanted, said = bench.regraft()[0], replay(plan)
    alike = share(said, wanted.said)
    assert alike >= EQUAL, f"{alike:.1%} of the answers are equal"
    fast = bench.fast() if FAST in own else bench
    same = answers(fast.regraft()[0], wanted) if FAST in own else 1.0
    assert same >= EQUAL, f"{same:.1%} of the fast side's answers are the exact side's"
    ours = {EXACT: lambda: bench.regraft()[0], FAST: lambda: fast.regraft()[0]}
    sides = {side: ours[side] for side in own} | {ARTICLE: lambda: peers.plain(plan, short)}
    if not peers.lacks():
        sides[TRAINER] = lambda: peers.trainer(plan, short)
    counted: dict[str, list[float]] = {name: [] for name in others()}
    gaps, shares = [0.0], [same]

    def check(made: dict[str, peers.Made]) -> None:
        for other in others():
            gaps.append(peers.gap(made[other], wanted))
            assert gaps[-1] < 1e-3, f"{other}: losses differ by {gaps[-1]:.1g}"
            counted[other].append(made[other].seconds)
        if FAST in made:
            shares.append(answers(made[FAST], wanted))
            assert shares[-1] >= EQUAL, f"{shares[-1]:.1%} of the fast side's answers are the exact side's"

    seconds = turns(sides, given.rounds, check) | counted
    found = {"epochs that the other side ran": short, "equal answers on test": alike, "seconds": seconds}
    engine = works.fastest(fast.course)
    if FAST in own:
        print(f"{work}: {engine.told}")
    for side, other in itertools.product(own, others()):
        equal = {
            "what": "head with and without the cache, bit for bit; losses of the other side's epochs",
            "difference": f"none; {max(gaps):.1g} at most",
        }
        goal, limit, more = 27.0, bench.limit, found
        if side == FAST:
            equal = {"what": "share of answers that are the exact side's", "difference": f"{min(shares):.4f}"}
            goal, limit = 0.8 * EPOCHS * engine.rho, bench.limit * _gain(fast, engine)
            more = found | {"engine": engine.told}
        keep(
            Comparison(
                bench=1,
                work=work,
                side=side,
                against=other,
                ratios=ratios(seconds, side, other),
                goal=round(goal, 2),
                limit=round(limit, 2),
                equal=equal,
                quick=given.quick,
                more=more,
                rho=engine.rho,
                phi=engine.phi,
            )
        )


def _gain(fast: works.Bench, engine: works.Fast) -> float:
    """How many times as fast all rows can go through: those to score on go through in float32."""
    data = fast.course.data
    rows, scored = len(data.train), len(data.val) + len(data.test)
    exact = engine.whole if fast.course.trunks.ships else engine.eager
    return (rows + scored) / (rows / engine.whole + scored / exact)


def answers(made: peers.Made, wanted: peers.Made) -> float:
    """Of the rows to validate and to test on, how many are answered alike."""
    ours, theirs = ([one.said, one.judged] for one in (made, wanted))
    return share(torch.cat(ours), torch.cat(theirs))


def share(made: torch.Tensor, wanted: torch.Tensor) -> float:
    """How many answers are equal."""
    return float((made == wanted).double().mean())


def stopped(bench: works.Bench, epochs: int) -> works.Bench:
    """The same bench, its plan ended after so many epochs."""
    (phase,) = bench.plan.phases
    plan = dataclasses.replace(bench.plan, phases=(dataclasses.replace(phase, stop=epochs),))
    return dataclasses.replace(bench, plan=plan)


def replay(plan: peers.Work) -> torch.Tensor:
    """What the article's loop answers on test after all epochs: features that do not change are computed once."""
    net = plan.net()
    head, net.head = net.head, torch.nn.Identity()
    features = {split: peers.answers(plan, net, split) for split in plan.targets}
    rule = torch.optim.SGD(head.parameters(), plan.lr, plan.momentum)
    best, lowest = {}, math.inf
    for order in plan.orders:
        for index in order:
            rule.zero_grad()
            made = head(features["train"][index])
            (functional.cross_entropy(made, plan.targets["train"][index], reduction="sum") * net.scale).backward()
            rule.step()
        with torch.no_grad():
            loss = float(functional.cross_entropy(head(features["val"]), plan.targets["val"]))
        if loss < lowest:
            best, lowest = copy.deepcopy(head.state_dict()), loss
    head.load_state_dict(best)
    found: torch.Tensor = head(features["test"]).argmax(1)
    return found


if __name__ == "__main__":
    sys.exit(main())
