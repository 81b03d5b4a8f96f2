"""The oracle of bench 8: eleven plans at two rates each, run to their ends on eight pairs of data and network.

A plan runs at most 15 epochs, with its strategy's own early stopping, by the engine as a user runs it: the cache is on,
and what it makes is what a plain loop makes. A head by cross-validation has no rate and runs once; the network as it is
has two ways in place of two rates: its own labels or the classes' names, where these serve, and centroids. For the
ranking of backbones five networks run two cheap plans on five sets of pictures.

bench/oracle/PAIR.json keeps each trial as it ends: a line for each epoch (phase, epoch, loss on the training rows and
on validation, metric there), the class that it answers to each row of validation and test with the weights of its best
epoch, its seconds, and its cost in forward equivalents. That is how many passes of one row through the whole network a
loop without a cache takes: with f the share of a pass's FLOP below the frontier, E epochs, N rows to train on and M to
validate on, E (N (f + 3 (1 - f)) + M); N + M where features are read once; M where nothing is learned from rows.

With `--precision auto` steps may run in bfloat16, as they would for a user who asks for that; which they did is kept
with each trial. Scores are float32, and the cost counts passes, not seconds.

Run it again to go on: a trial is skipped where the plan, the rows and the network are those that it was run with. What
a plan of an earlier version does not say is as it was then, which is the default.

    python bench/oracle.py [--quick] [--minutes 50] [--pair ants_bees--mobilenet_v2_1.0_224] [--precision auto]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results import HERE, SHARED, machine, versions
from torch import Tensor, nn
from torch.nn import functional

from regraft.data.open import card, open_data
from regraft.data.split import thin
from regraft.errors import Diverged
from regraft.kit import durable
from regraft.kit.store import Folder, record
from regraft.planner import survey
from regraft.planner.course import Course
from regraft.planner.propose import propose
from regraft.planner.request import prepare
from regraft.waist import Epoch, Facts, Finished, InputSpec, Options, Plan, Reading, fingerprint, plain

ORACLE = HERE / "oracle"
EPOCHS, HEAD_EPOCHS, RATES = 15, 5, 2
"""Of a plan, of these those of the head alone where that comes first, and rates of a plan."""
MOST = {"val": 100, "test": 300}
RESNET20 = "resnet20_cifar10"
PLANS: dict[str, tuple[str, dict[str, Any]]] = {
    "asis": ("asis", {}),
    "probe by path": ("probe", {"by": "path"}),
    "probe": ("probe", {"epochs": EPOCHS}),
    "partial 1": ("partial", {"depth": 1, "epochs": EPOCHS}),
    "partial 2": ("partial", {"depth": 2, "epochs": EPOCHS}),
    "partial 4": ("partial", {"depth": 4, "epochs": EPOCHS}),
    "gradual": ("gradual", {"by": "lpft", "epochs": EPOCHS - HEAD_EPOCHS}),
    "unfreeze": ("gradual", {"by": "unfreeze", "epochs": EPOCHS - HEAD_EPOCHS}),
    "layerwise": ("layerwise", {"epochs": EPOCHS}),
    "full": ("full", {"epochs": EPOCHS}),
    "scratch": ("scratch", {"by": "random", "epochs": EPOCHS}),
}
CHEAP = ("probe by path", "partial 1")
"""What backbones are ranked by."""


@dataclass(frozen=True)
class Pair:
    """Data and a network by their folders, the most rows to train on (0 for all), and which plans run."""

    data: str
    model: str
    rows: int
    plans: tuple[str, ...] = tuple(PLANS)

    @property
    def name(self) -> str:
        return f"{self.data.replace('/', '_')}--{self.model}{'' if self.plans == tuple(PLANS) else '--cheap'}"

    @property
    def text(self) -> bool:
        return bool(list((SHARED / "data" / self.data).glob("*.csv")))


PAIRS = (
    Pair("pneumonia_xray28", RESNET20, 800),
    Pair("product_reviews_cr", "all_minilm_l6_v2", 300),
    Pair("trec_questions", "all_minilm_l6_v2", 500),
    Pair("flowers_sharp", "mobilenet_v1_0.75_224", 0),
    Pair("ants_bees", "mobilenet_v2_1.0_224", 0),
    Pair("aerial_scenes", "mobilenet_v2_1.0_224_inat_bird", 150),
    Pair("steel_defects", "mobilenet_v2_1.0_224", 150),
    Pair("medical_abstracts", "all_minilm_l6_v2", 100),
)
"""The cheapest first; 195 rows of ants_bees are there to train on and 245 of flowers_sharp."""
BACKBONES = (
    "mobilenet_v2_1.0_224",
    "mobilenet_v1_0.75_224",
    "mobilenet_v2_1.0_224_inat_bird",
    "mobilenet_v2_1.0_224_inat_insect",
    RESNET20,
)
SETS = ("ants_bees", "flowers_sharp", "aerial_scenes", "office_caltech/webcam", "flowers5")
RANKED = tuple(Pair(data, model, 250, CHEAP) for data in SETS for model in BACKBONES)


# ---------------------------------------------------------------- data and networks


class Block(nn.Module):
    """A residual block without weights in its shortcut (option A of He et al., 2016)."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.stride, self.extra = stride, (cout - cin) // 2
        self.conv1, self.bn1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False), nn.BatchNorm2d(cout)
        self.conv2, self.bn2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False), nn.BatchNorm2d(cout)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        skip = x[:, :, :: self.stride, :: self.stride]
        return functional.relu(y + functional.pad(skip, (0, 0, 0, 0, self.extra, self.extra)))


def resnet20() -> tuple[nn.Module, InputSpec]:
    """ResNet-20 trained on CIFAR-10, and how it reads pictures: squeezed to 32 × 32."""
    from safetensors.torch import load_file

    def layer(a: int, b: int, stride: int) -> nn.Sequential:
        return nn.Sequential(Block(a, b, stride), Block(b, b, 1), Block(b, b, 1))

    parts = {"conv1": nn.Conv2d(3, 16, 3, 1, 1, bias=False), "bn1": nn.BatchNorm2d(16), "relu": nn.ReLU()}
    parts |= {"layer1": layer(16, 16, 1), "layer2": layer(16, 32, 2), "layer3": layer(32, 64, 2)}
    parts |= {"pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), "linear": nn.Linear(64, 10)}
    net = nn.Sequential(OrderedDict(parts))
    net.load_state_dict(load_file(SHARED / "models" / RESNET20 / "model.safetensors"))
    return net.eval(), InputSpec("image", (3, 32, 32), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass
class Opened:
    """A pair ready to run: what all plans share, the facts, and the fingerprints of rows and network."""

    pair: Pair
    course: Course
    facts: Facts
    rows: str
    model: str

    @property
    def fingerprint(self) -> str:
        return fingerprint([self.rows, self.model])

    @property
    def counts(self) -> dict[str, int]:
        return {split: len(getattr(self.course.data, split)) for split in ("train", "val", "test")}


def opened(pair: Pair, place: Path, precision: str = "fp32") -> Opened:
    """Data and network of a pair, as `regraft advise` and `adapt` open them; fewer rows where they are capped."""
    source = str(SHARED / "data" / pair.data)
    query: Any = resnet20() if pair.model == RESNET20 else str(SHARED / "models" / pair.model)
    reading = Reading(target="label" if pair.text else "")
    data = open_data(source, 0, reading)
    most = {"train": pair.rows or len(data.train)} | MOST
    some = {name: thin(getattr(data, name), limit, 0, cover=name == "train") for name, limit in most.items()}
    data = dataclasses.replace(data, **some)
    view, encoder, task = prepare(Options(source, pair.model, reading), data, query)
    card_of = survey.machine(view, data, encoder, precision)
    mark = _mark(SHARED / "models" / pair.model)
    facts = Facts(card(data), survey.backbone(view, mark), card_of)
    course = Course(view, data, task, encoder, card_of, Folder(place / "course"), 0)
    keys = [[(row.key, str(row.y)) for row in getattr(data, name)] for name in ("train", "val", "test")]
    return Opened(pair, course, facts, fingerprint(keys), mark)


def _mark(model: Path) -> str:
    """A digest of a network's weights."""
    return fingerprint([durable.file_digest(path) for path in sorted(model.glob("*.safetensors"))])


def plans(facts: Facts, names: Sequence[str], epochs: int = EPOCHS) -> list[tuple[str, Plan]]:
    """Plans by name at their first two rates, none of more than so many epochs in all."""
    made = []
    for name in names:
        strategy, asked = PLANS[name]
        told = {knob: min(value, epochs) if knob == "epochs" else value for knob, value in asked.items()}
        knobs = [(f"{strategy}.{knob}", str(value)) for knob, value in told.items()]
        found = propose(facts, [strategy], knobs, raced=True)
        found = [plan for plan in found if plan.reading == found[0].reading]
        made += [(name, _within(plan)) for plan in found[:RATES]]
    return made


def _within(plan: Plan) -> Plan:
    """A plan whose first phase of several is cut, so that all are `EPOCHS` at most."""
    first, *rest = plan.phases
    return dataclasses.replace(plan, phases=(dataclasses.replace(first, epochs=HEAD_EPOCHS), *rest)) if rest else plan


# ---------------------------------------------------------------- trials


def equivalents(course: Course, plan: Plan, curve: Sequence[Epoch]) -> float:
    """A trial's cost in forward equivalents of a loop without a cache; see above."""
    n, m = len(course.data.train), len(course.data.val)
    if plan.optimizer.whole or not any(phase.epochs for phase in plan.phases):
        return float(m if plan.start in ("labels", "names") else n + m)
    flops = [stage.flops for stage in course.view.pooled(plan.reading).stages]
    found = 0.0
    for number, phase in enumerate(plan.phases):
        epochs, f = sum(line.phase == number for line in curve), sum(flops[: phase.frontier]) / sum(flops)
        found += epochs * (n * (f + 3 * (1 - f)) + m)
    return round(found, 1)


def trial(run: Opened, number: int, name: str, plan: Plan) -> dict[str, Any]:
    """One plan run to its end, as a record."""
    begun, course = time.perf_counter(), run.course
    told = {"name": name, "label": plan.label, "plan": plain(plan)}
    try:
        made = next(event.trial for event in course.trial(number, plan) if isinstance(event, Finished))
    except Diverged as error:
        curve = course.curve(number, plan)
        return told | {"failed": str(error), "equivalents": equivalents(course, plan, curve)}
    answers = {split: digits(course.outputs(made, split).argmax(1).tolist()) for split in ("val", "test")}
    lines = [[e.phase, e.epoch, *(round(v, 6) for v in (e.train_loss, e.val_loss, e.metric))] for e in made.curve]
    losses = {split: loss(course, course.outputs(made, split), split) for split in answers}
    durable.remove(course.place(number, plan))
    return told | {
        "curve": lines,
        "answers": answers,
        "loss": losses,
        "equivalents": equivalents(course, plan, made.curve),
        "seconds": round(time.perf_counter() - begun, 2),
        "trainable": made.cost.trainable,
        "training": f"{course.machine.training.engine} in {course.machine.training.dtype}",
        "notes": list(made.notes),
    }


def loss(course: Course, made: Tensor, split: str) -> float:
    """The mean loss of answers."""
    truth = course.task.encode([row.y for row in getattr(course.data, split)])
    return round(float(functional.cross_entropy(made, truth)), 6)


def digits(classes: Sequence[int]) -> str:
    """Class indices below ten as a digit for each row."""
    assert max(classes) < 10
    return "".join(map(str, classes))


def share(answers: str, truth: str) -> float:
    """The share of rows that are answered right."""
    return sum(a == b for a, b in zip(answers, truth, strict=True)) / len(truth)


def read(pair: Pair) -> dict[str, Any]:
    """What is kept of a pair, empty where there is nothing."""
    path = ORACLE / f"{pair.name}.json"
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def done(run: Opened) -> dict[str, Any] | None:
    """What is kept of a pair where all of it is there, of these rows and this network; says so where not."""
    held = read(run.pair)
    there = {one["name"] for one in held["trials"]} if held else set()
    if (
        there.issuperset(run.pair.plans)
        and len(held["trials"]) == held["of"]
        and held["fingerprint"] == run.fingerprint
    ):
        return held
    print(f"{run.pair.name}: the oracle is not done: python bench/oracle.py --pair {run.pair.name}")
    return None


def write(pair: Pair, held: dict[str, Any]) -> None:
    """Keep a pair: a trial a line."""
    trials = ",\n".join("  " + json.dumps(one, ensure_ascii=False) for one in held["trials"])
    head = json.dumps({k: v for k, v in held.items() if k != "trials"}, ensure_ascii=False, indent=1)
    text = head.removesuffix("\n}") + f',\n "trials": [\n{trials}\n ]\n}}\n'
    durable.write(ORACLE / f"{pair.name}.json", text.encode())


def mark_of(told: Mapping[str, Any]) -> str:
    """The fingerprint that a kept trial's plan has now."""
    return fingerprint(record(Plan, told["plan"]))


def lacking(held: dict[str, Any], wanted: Sequence[tuple[str, Plan]]) -> Iterator[tuple[int, str, Plan]]:
    """The plans that have no trial yet."""
    there = {mark_of(one) for one in held["trials"]}
    yield from ((i, name, plan) for i, (name, plan) in enumerate(wanted) if fingerprint(plan) not in there)


def work(pair: Pair, place: Path, until: float, quick: bool = False, precision: str = "fp32") -> bool:
    """Run what lacks of a pair; returns whether all is there."""
    os.environ["REGRAFT_CACHE"] = str(place / "cache")
    if quick:
        pair = dataclasses.replace(pair, rows=32, plans=("asis", *CHEAP))
    run = opened(pair, place, precision)
    wanted = plans(run.facts, pair.plans, 2 if quick else EPOCHS)
    truth = {split: digits(_truth(run.course, split)) for split in ("val", "test")}
    here = {"pair": pair.name, "data": pair.data, "model": pair.model, "rows": run.counts, "of": len(wanted)}
    here |= {"fingerprint": run.fingerprint, "labels": list(run.course.data.target.labels)}
    here |= {"params": run.facts.backbone.params, "truth": truth, "machine": machine(), "versions": versions()}
    before = {} if quick else read(pair)
    marks = {fingerprint(plan) for _, plan in wanted}
    same = before.get("fingerprint") == here["fingerprint"]
    held = here | {"trials": [one for one in before.get("trials", []) if same and mark_of(one) in marks]}
    for number, name, plan in lacking(held, wanted):
        if time.monotonic() > until:
            return False
        one = trial(run, number, name, plan)
        held["trials"].append(one)
        if not quick:
            write(pair, held)
        scored = {s: share(one["answers"][s], truth[s]) for s in truth} if "answers" in one else {}
        told = ", ".join(f"{split} {value:.3f}" for split, value in scored.items()) or one["failed"]
        more = f"{len(one.get('curve', []))} epochs, {one.get('seconds', 0):.0f} s, {one['equivalents']:,.0f} passes"
        print(f"  {pair.name}: {plan.label}: {told}; {more}", flush=True)
    return True


def _truth(course: Course, split: str) -> list[int]:
    made: list[int] = course.task.encode([row.y for row in getattr(course.data, split)]).tolist()
    return made


def main() -> int:
    parse = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parse.add_argument("--quick", action="store_true", help="a look at one pair: 32 rows, cheap plans; nothing is kept")
    parse.add_argument("--minutes", type=float, default=50.0, help="begin no trial after so many")
    parse.add_argument("--pair", default="", help="this one alone, by the name of its file")
    parse.add_argument("--precision", choices=("fp32", "auto"), default="fp32", help="auto: steps as is fastest here")
    given = parse.parse_args()
    every = {pair.name: pair for pair in (*RANKED, *PAIRS)}
    if given.pair and given.pair not in every:
        parse.error(f"no pair is called {given.pair}: there are {', '.join(every)}")
    chosen = [every[given.pair]] if given.pair else list(every.values())
    if given.quick:
        chosen = [every[given.pair]] if given.pair else [PAIRS[0]]
    until, late = time.monotonic() + 60 * given.minutes, []
    for pair in chosen:
        if not all((SHARED / kind / name).is_dir() for kind, name in (("data", pair.data), ("models", pair.model))):
            print(f"skipped: {pair.name}: absent")
            continue
        if time.monotonic() > until:
            late.append(pair.name)
            continue
        with tempfile.TemporaryDirectory() as place:
            if not work(pair, Path(place), until, given.quick, given.precision):
                late.append(pair.name)
    if late:
        print(f"not done: {', '.join(late)}; run it again")
    return 0


if __name__ == "__main__":
    sys.exit(main())
