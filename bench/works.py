"""What the benches of training run: data and a model opened, a plan, and the same plan in plain terms for other sides.

A side is timed from files to trained weights and answers for test; opening the data, which looks at each file, and
opening the model are done beforehand and shared by all sides.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import math
import os
import random
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import peers
import torch
from results import SHARED, Comparison, keep, measured, ratios, turns
from torch import nn

from regraft.data.open import card, open_data
from regraft.engine import compilers, engines
from regraft.engine.fit import batches, seed_of
from regraft.engine.freeze import trainable
from regraft.engine.predict import Graft
from regraft.engine.trunk import Trunk, groups, samples
from regraft.kit import durable, hardware, shelf
from regraft.kit.store import Folder
from regraft.planner import survey
from regraft.planner.course import Course
from regraft.planner.propose import propose
from regraft.planner.request import prepare
from regraft.waist import Facts, Finished, Options, Plan, Reading, Trial

CLOSE, HALVED = 0.01, 0.05
BATCH = 32
"""How many rows a training step is timed on."""
MINILM = SHARED / "models" / "all_minilm_l6_v2"
MOBILENET = SHARED / "models" / "mobilenet_v2_1.0_224"


@dataclass
class Bench:
    """A plan on data, to be run by regraft and by others; `place` is a folder for what they write."""

    course: Course
    plan: Plan
    model: Path
    place: Path

    def fast(self) -> Bench:
        """The same plan where exactness is not asked for: the machine is looked at once more."""
        c = self.course
        machine = survey.machine(c.view, c.data, c.encoder, "auto")
        return replace(self, course=replace(c, machine=machine, folder=Folder(self.place / "fast")))

    def regraft(self, cached: bool = True) -> tuple[peers.Made, bytes]:
        """The trial from an empty cache, and the bytes of its weights."""
        durable.remove(hardware.cache_folder())
        c, place = self.course, Path(tempfile.mkdtemp(dir=self.place))
        course = Course(c.view, c.data, c.task, c.encoder, c.machine, Folder(place), 0, cached)
        trial: Trial = next(event.trial for event in course.trial(0, self.plan) if isinstance(event, Finished))
        curve = trial.curve
        made = peers.Made([epoch.train_loss for epoch in curve], [epoch.val_loss for epoch in curve])
        made.said, made.judged = (course.outputs(trial, split).argmax(1) for split in ("test", "val"))
        return made, (course.folder.path / trial.snapshot).read_bytes()

    @property
    def limit(self) -> float:
        """How many times less work there is with each row through the trunk once, validation and test included.

        With f the trunk's share of the FLOP of a pass, N, M, T the rows to train, validate and test on, E epochs, and
        a trained part that costs c passes, three or, where its own weights stay and need no gradient, two:
        (E (N (f + c (1 - f)) + M) + M + T) / ((N + M + T) f + (1 - f) (E (c N + M) + M + T)).
        """
        n, m, t = (len(rows) for rows in (self.course.data.train, self.course.data.val, self.course.data.test))
        (phase,) = self.plan.phases
        flops = [stage.flops for stage in self.course.view.pooled(self.plan.reading).stages]
        f, e, c = sum(flops[: phase.frontier]) / sum(flops), phase.epochs, 2 if self.plan.inserts else 3
        return (e * (n * (f + c * (1 - f)) + m) + m + t) / ((n + m + t) * f + (1 - f) * (e * (c * n + m) + m + t))

    def _body(self, graft: Graft) -> Callable[[], nn.Module]:
        """How the native network is opened, with matrices that peft puts in where the plan has some: the same ones."""
        opened = body(self.model, self.course.data.modality, self.plan.blocks)
        if not self.plan.inserts:
            return opened
        (insert,) = self.plan.inserts
        place = self.place / "adapter"
        for name, data in shelf.find("inserts", insert.kind).files(graft.view, insert, graft.head, "").items():
            durable.write(place / name, data)

        def adapted() -> nn.Module:
            from peft import PeftModel

            made: nn.Module = PeftModel.from_pretrained(opened(), str(place), is_trainable=True).get_base_model()
            return made

        return adapted

    def work(self) -> peers.Work:
        """The plan in plain terms."""
        plan, course, data = self.plan, self.course, self.course.data
        (phase,), o = plan.phases, plan.optimizer
        graft = course.graft(plan)
        trunks = replace(course.trunks, cached=False)  # loops read their files in each epoch
        tables = {split: trunks.table(graft.view, 0, getattr(data, split)) for split in ("train", "val", "test")}
        orders = [
            batches(tables["train"].shapes, plan.batch, seed_of(0, "order", 0, epoch)) for epoch in range(phase.epochs)
        ]
        rates = {id(p): rate for p, rate in trainable(graft.view, graft.head, phase).values()}
        prefix = "" if data.modality == "image" else f"{graft.view.module.base_model_prefix}."
        native = {id(p): name.removeprefix(prefix) for name, p in graft.view.module.named_parameters()}
        shares = {native[i]: rate for i, rate in rates.items() if i in native}
        trained = {
            id(module) for k in range(phase.frontier, len(graft.view.stages)) for module in graft.view.members(k)
        }
        parts = graft.view.module.named_modules()
        moving = [name.removeprefix(prefix) for name, module in parts if id(module) in trained]
        total = phase.epochs * len(orders[0])
        warm = round(phase.warmup_frac * total)

        def factor(step: int) -> float:
            if step < warm:
                return (step + 1) / warm
            done = (step - warm) / max(1, total - warm)
            return 0.5 * (1 + math.cos(math.pi * done)) if phase.schedule == "cosine" else 1.0

        def share(name: str) -> float:
            return 1.0 if name.startswith("head.") else shares.get(ours(name.removeprefix("body.")), 0.0)

        return peers.Work(
            body=self._body(graft),
            path=graft.view.head,
            width=graft.view.dim,
            classes=len(data.target.labels),
            moving=tuple(moving),
            share=share,
            lr=o.lr,
            decay=o.weight_decay,
            momentum=o.momentum,
            clip=o.clip,
            adam=o.name == "adamw",
            epochs=phase.epochs,
            orders=orders,
            seeds=[[seed_of(0, "step", 0, e, i) for i in range(len(order))] for e, order in enumerate(orders)],
            batch=lambda split, index: dict(tables[split].batch(index)[0].state.inputs),
            targets={split: course.task.encode([row.y for row in getattr(data, split)]) for split in tables},
            judged={split: _judged(tables[split].shapes, plan.batch) for split in tables},
            factor=factor,
        )


def ours(name: str) -> str:
    """What regraft calls a weight of a network that peft has put LoRA into.

    >>> ours("layer.4.query.lora_A.default.weight"), ours("layer.4.query.base_layer.weight")
    ('layer.4.query.lora.A', 'layer.4.query.weight')
    """
    return re.sub(r"\.lora_([AB])\.default\.weight$", r".lora.\1", name).replace(".base_layer.", ".")


def _judged(shapes: Any, size: int) -> list[list[int]]:
    """All rows in batches of one shape, in their order."""
    found = groups(shapes).values()
    return [members[i : i + size] for members in found for i in range(0, len(members), size)]


def body(model: Path, modality: str, blocks: int = 0) -> Callable[[], nn.Module]:
    """How a native network is opened by transformers alone, whole or with its first blocks."""

    def opened() -> nn.Module:
        import transformers

        if modality == "image":
            made: nn.Module = transformers.AutoModelForImageClassification.from_pretrained(str(model))
        else:
            fewer = {"num_hidden_layers": blocks} if blocks else {}
            made = transformers.AutoModel.from_pretrained(str(model), add_pooling_layer=False, **fewer)
        return made

    return opened


def open_bench(data: Path, model: Path, strategy: str, knobs: dict[str, Any], place: Path, rows: int = 0) -> Bench:
    """Data and a model opened, and the first plan of a strategy with these knobs; early stopping is off."""
    os.environ["REGRAFT_CACHE"] = str(place / "cache")
    reading = Reading(max_rows=rows, target="label" if list(data.glob("*.csv")) else "")
    opened = open_data(str(data), 0, reading)
    view, encoder, task = prepare(Options(str(data), str(model), reading), opened, str(model))
    machine = survey.machine(view, opened, encoder, "fp32")
    facts = Facts(card(opened), survey.backbone(view, "bench"), machine)
    asked = ({"patience": knobs["epochs"]} if "epochs" in knobs else {}) | knobs
    plan = propose(facts, [strategy], [(f"{strategy}.{name}", str(value)) for name, value in asked.items()])[0]
    return Bench(Course(view, opened, task, encoder, machine, Folder(place / "course"), 0), plan, model, place)


@dataclass(frozen=True)
class Fast:
    """The engine of a run where exactness is not asked for: `rho` times as fast as eager float32, on a micro-batch.

    `phi` is the same of a training step. `whole` is how many times as fast reading and running each of the rows once
    can be, with rows read beside the trunk, and a compilation, where there is one, made first; `eager` is that without
    another engine.
    """

    rho: float
    phi: float
    whole: float
    eager: float
    told: str


def fastest(course: Course) -> Fast:
    """The best engine for all rows of a course, compiled where as many rows repay it, whatever the course runs with."""
    view, k = course.view, len(course.view.stages)
    exact = not course.machine.compiles
    machine = survey.machine(view, course.data, course.encoder, "auto") if exact else course.machine
    _, some = next(samples(course.encoder, course.data.train, Trunk(view, k, course.encoder, machine.micro_batch), 1))
    begun = time.perf_counter()
    batch = course.encoder.tensors(some)
    read_s = time.perf_counter() - begun
    own = engines.Engine(view, k, machine.engine, machine.dtype == "bfloat16")
    costs, rows = compilers.expected(), sum(len(getattr(course.data, split)) for split in ("train", "val", "test"))
    passes = math.ceil(rows / len(some))
    if machine.compiles:
        own.compile(batch, passes, costs)
    eager_s = engines.seconds(engines.eager(view, k), batch)
    own_s = engines.seconds(own, batch) if machine.engine != "eager" or own.in_half or own.compiler else eager_s
    compiled_s = costs[own.compiler] / passes if own.compiler else 0.0
    many = {name: torch.cat([value] * math.ceil(BATCH / len(value)))[:BATCH] for name, value in batch.items()}
    training, _ = engines.training(view, many, machine.engine, machine.dtype == "bfloat16")
    plain = read_s + eager_s
    trunk = " ".join(filter(None, (machine.engine, own.compiler, "in", machine.dtype)))
    return Fast(
        rho=round(eager_s / own_s, 3),
        phi=training.gain,
        whole=plain / (max(read_s, own_s) + compiled_s),
        eager=plain / max(read_s, eager_s),
        told=f"trunk {trunk}, training {training.engine} in {training.dtype}",
    )


# ---------------------------------------------------------------- a comparison with both other sides

SIDE, FAST, PLAIN, TRAINER = "regraft", "regraft, fast", "plain loop", "Trainer"


def arguments(told: str, rows: int = 0) -> argparse.Namespace:
    """What the benches are asked for; those that draw `rows` are told how many."""
    parse = argparse.ArgumentParser(description=told.splitlines()[0])
    parse.add_argument("--quick", action="store_true", help="a look, of less work")
    parse.add_argument("--rounds", type=int, default=3)
    parse.add_argument("--again", action="store_true", help="measure what is measured already")
    parse.add_argument("--only", default="", help="works that have this in their names")
    if rows:
        parse.add_argument("--rows", type=int, default=rows, help="rows to train and validate on")
    given = parse.parse_args()
    given.rounds = 1 if given.quick else given.rounds
    return given


def wanted(bench: int, work: str, given: argparse.Namespace, *needed: Path) -> bool:
    """Whether a comparison is still to be made and can be; says why where not."""
    if given.only not in work:
        return False
    others = [PLAIN] if peers.lacks() else [PLAIN, TRAINER]
    if absent := [path.name for path in needed if not path.exists()]:
        print(f"skipped: {work}: {', '.join(absent)} absent")
        return False
    if not given.again and all(measured(bench, work, SIDE, other) for other in others):
        print(f"{work}: measured already")
        return False
    return True


def race(
    number: int,
    work: str,
    bench: Bench,
    given: argparse.Namespace,
    goal: float,
    limit: float,
    own: bool = False,
    halved: float = 0.0,
) -> None:
    """regraft, the plain loop and Trainer in turns; with `own` Trainer draws and pads its own batches.

    regraft's fast side runs, too, where the machine trains faster in another way than the network stands: its goal is φ
    times as high, or `halved` where steps are faster in bfloat16. Its limit is at most φ times the exact one's, since
    scores and the weights' update stay float32.
    """
    plan, gaps, shares = bench.work(), {name: [0.0] for name in (SIDE, FAST, PLAIN, TRAINER)}, {}
    truth = plan.targets["test"]
    fast = bench.fast()
    pace, half = fastest(fast.course), fast.course.machine.training.dtype != "float32"
    print(f"{work}: rho {pace.rho:.2f}, phi {pace.phi:.2f}: {pace.told}")
    sides = {SIDE: lambda: bench.regraft()[0], PLAIN: lambda: peers.plain(plan)}
    if fast.course.machine.training.gain > 1:
        sides = {SIDE: sides[SIDE], FAST: lambda: fast.regraft()[0], PLAIN: sides[PLAIN]}
    if why := peers.lacks():
        print(why)
    else:
        sides[TRAINER] = lambda: peers.trainer(plan, own=own)

    def check(made: dict[str, peers.Made]) -> None:
        for name, one in made.items():
            assert one.said is not None
            shares[name] = float((one.said == truth).double().mean())
            if name != SIDE:
                gaps[name].append(peers.gap(one, made[SIDE]))
        assert max(gaps[PLAIN]) < CLOSE, f"losses differ by {max(gaps[PLAIN]):.1g}"
        assert max(gaps[FAST]) < (HALVED if half else CLOSE), f"losses differ by {max(gaps[FAST]):.1g}"
        if TRAINER in made and own:
            spread = 1.96 * (2 * 0.25 / len(truth)) ** 0.5
            assert abs(shares[TRAINER] - shares[SIDE]) <= spread, f"accuracies differ: {shares}"
        elif TRAINER in made:
            assert max(gaps[TRAINER]) < CLOSE, f"losses differ by {max(gaps[TRAINER]):.1g}"

    seconds = turns(sides, given.rounds, check)
    ours = [side for side in (SIDE, FAST) if side in sides]
    for side, other in itertools.product(ours, [name for name in sides if name not in ours]):
        apart = other == TRAINER and own
        what = "accuracy on test" if apart else "losses of all epochs"
        found = f"{abs(shares[other] - shares[side]):.3f}" if apart else f"{max(gaps[other] + gaps[side]):.1g} at most"
        gain = pace.phi if side == FAST else 1.0
        more = {"accuracy on test": shares, "seconds": seconds, "rows": {k: len(v) for k, v in plan.targets.items()}}
        keep(
            Comparison(
                bench=number,
                work=work,
                side=side,
                against=other,
                ratios=ratios(seconds, side, other),
                goal=halved if side == FAST and half and halved else round(goal * gain, 2),
                limit=round(gain * limit if limit else gain if side == FAST else 0.0, 2),
                equal={"what": what, "difference": found},
                quick=given.quick,
                more=more,
                rho=pace.rho,
                phi=pace.phi,
            )
        )


# ---------------------------------------------------------------- networks and data


def resnet18(place: Path) -> Path:
    """ResNet-18 with random weights in Hugging Face layout, for pictures of 224 pixels."""
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.manual_seed(0)
    sizes = {"embedding_size": 64, "hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2]}
    ResNetForImageClassification(ResNetConfig(**sizes, layer_type="basic", num_labels=2)).save_pretrained(place)
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": 224, "width": 224},
        "resample": 2,
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    }
    (place / "preprocessor_config.json").write_text(json.dumps(processor), "utf-8")
    return place


def bert(place: Path, blocks: int = 12) -> Path:
    """A BERT of `blocks` blocks, 384 wide, with random weights, MiniLM's tokenizer and no classifier."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(hidden_size=384, intermediate_size=1536, num_attention_heads=12, num_hidden_layers=blocks)
    BertModel(config, add_pooling_layer=False).save_pretrained(place)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(MINILM / name, place / name)
    return place


def sentences(place: Path, rows: dict[str, int]) -> Path:
    """Random text of 5 to 60 words in two classes, told by which words are frequent: a CSV for each split."""
    draw = random.Random(0)
    words = [word for word in json.loads((MINILM / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
             if word.isalpha() and len(word) > 3]  # fmt: skip
    place.mkdir()
    for split, count in rows.items():
        with open(place / f"{split}.csv", "w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(["text", "label"])
            for i in range(count):
                own = words[i % 2 : 400 : 2]
                told = [draw.choice(own if draw.random() < 0.3 else words) for _ in range(draw.randint(5, 60))]
                table.writerow([" ".join(told), "ab"[i % 2]])
    return place


def article(place: Path, tested: int = 8, most: int = 0) -> Path:
    """ants_bees as the article has it: `train` to train on, its other folder as `val`; a few of these are `test`."""
    source = SHARED / "data" / "ants_bees"
    for split in ("train", "test"):
        for folder in sorted((source / split).iterdir()):
            for i, file in enumerate(sorted(folder.iterdir())[: most or None]):
                other = "test" if split == "test" and i < tested // 2 else {"train": "train", "test": "val"}[split]
                target = place / other / folder.name / file.name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
    return place
