"""Stories of runs made by hand: numbers as real runs have them, hostile names, numbers and sets of labels."""

from __future__ import annotations

import base64
import dataclasses
import io
import math
import random
from pathlib import Path

import numpy as np
from PIL import Image

from regraft.deliver.story import Story
from regraft.planner import rules
from regraft.planner.advise import Advice, Depth, Priced, Survey
from regraft.planner.labels import Gain, Labels, Reached
from regraft.planner.price import Memory, Price
from regraft.waist import (
    Account,
    BackboneCard,
    Bad,
    Budget,
    Comparison,
    Cost,
    DataCard,
    Epoch,
    Examined,
    Example,
    Finding,
    Flag,
    Init,
    InputSpec,
    MachineCard,
    Opening,
    Optimizer,
    Options,
    Phase,
    Plan,
    Pooled,
    Reading,
    Score,
    Settings,
    Skipped,
    Stage,
    Target,
    Trial,
    Verdict,
)

EVIL = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "\u202eright to left\u2066\x00\x1b[31m",
    "a\nnew\r\nline\u2028here",
    "| cell | [link](https://example.org) `code` **bold** # head",
    "</title></style></svg><iframe>",
    "x" * 300,
    "",
    "&lt;b&gt; {{ 7 * 7 }} {% raw %}",
    "\ud800",
    "مرحبا بالعالم",
)
"""Names as data may have them: markup, attributes, controls, newlines, Markdown, very long, empty, templates."""
STAGES = (
    Stage("embeddings", "embedder", 2_000, 10**7, 400_000),
    *(Stage(f"layer {i}", f"encoder.layer.{i}", 120_000 + 9_000 * i, 2 * 10**7, 200_000) for i in range(16)),
)
OPENING = Opening("transformers", "first_line = 1\noutputs = [second_line]", "made = None")
MACHINE = MachineCard(
    processor="A Processor (64 bit)",
    threads=2,
    memory_bytes=8 * 10**9,
    device="cpu",
    dtype="float32",
    promise="exact",
    micro_batch=8,
    versions=(("regraft", "0.1.0"), ("torch", "2.10.0"), ("transformers", "5.5.0")),
)


def body(name: str = "mobilenet_v2_1.0_224", modality: str = "image") -> BackboneCard:
    """A backbone of 17 stages."""
    return BackboneCard(
        name, "transformers", "b" * 64, InputSpec(modality, (3, 224, 224)), 52, (Pooled("native", STAGES, 1280, 0),)
    )


def score(metric: str, split: str, value: float, n: int, better: str = "higher") -> Score:
    """A score with an interval of a plausible width."""
    wide = 1.96 * math.sqrt(max(value * (1 - value), 0.01) / n) if better == "higher" else value * 1.4 / math.sqrt(n)
    return Score(metric, split, value, value - wide, min(value + wide, 1.0 if better == "higher" else 1e9), n, better)  # type: ignore[arg-type]


def curve(epochs: int, reached: float, seed: int = 0, phases: int = 1) -> tuple[Epoch, ...]:
    """A learning curve that rises to `reached` while its losses fall."""
    draw, made = random.Random(seed), []
    for i in range(epochs):
        part = 1 - math.exp(-3 * (i + 1) / epochs)
        made.append(
            Epoch(
                phase=i * phases // epochs,
                epoch=i,
                train_loss=0.7 * (1 - part) + 0.02,
                val_loss=0.7 * (1 - part * reached) + 0.05 * draw.random(),
                metric=0.5 + (reached - 0.5) * part + 0.01 * draw.random(),
            )
        )
    return tuple(made)


def trial(
    strategy: str,
    val: float,
    seconds: float,
    *,
    knobs: Settings = (),
    init: Init = "pretrained",
    epochs: int = 20,
    stopped: str = "",
) -> Trial:
    """A trial of a classifier on 61 validation and 153 test rows; one that was stopped has no score on test."""
    phases = 2 if strategy == "gradual" else 1
    plan = Plan(
        strategy=strategy,
        phases=tuple(Phase(epochs, 17 - 4 * p, (("head/*", 1.0),), patience_epochs=5) for p in range(phases)),
        knobs=knobs,
        init=init,
        optimizer=Optimizer(lr=float(dict(knobs).get("lr", 1e-3))),
    )
    scores = [score("accuracy", "val", val, 61)] + ([] if stopped else [score("accuracy", "test", val - 0.012, 153)])
    return Trial(
        plan=plan,
        seed=0,
        scores=tuple(scores),
        curve=curve(epochs, val, len(strategy) + int(seconds), phases) if epochs else (),
        cost=Cost(seconds, int(2562 * (1 + seconds)), peak_bytes=int(8e8 + seconds * 1e6)),
        predictions="" if stopped else "p",
        snapshot="" if stopped else "w",
        stopped=stopped,
    )


BEHIND = "behind full lr 0.0003 after 5 epochs"


def ants_bees() -> Story:
    """Twelve trials over pictures of ants and bees."""
    trials = (
        trial("asis", 0.82, 2.1, knobs=(("by", "centroids"),), epochs=0),
        trial("plain", 0.66, 1.2, init="plain", epochs=0),
        trial("probe", 0.934, 4.8, knobs=(("c", 1.0),), epochs=1),
        trial("probe", 0.951, 5.1, knobs=(("c", 0.1),), epochs=1),
        trial("partial", 0.951, 31.0, knobs=(("depth", 2), ("lr", 1e-3))),
        trial("partial", 0.885, 9.0, knobs=(("depth", 2), ("lr", 3e-3)), epochs=5, stopped=BEHIND),
        trial("full", 0.967, 212.0, knobs=(("lr", 3e-4),), epochs=14),
        trial("full", 0.918, 61.0, knobs=(("lr", 1e-3),), epochs=5, stopped=BEHIND),
        trial("full", 0.77, 60.0, knobs=(("lr", 3e-3),), epochs=5, stopped=BEHIND),
        trial("layerwise", 0.967, 188.0, knobs=(("lr", 3e-4),), epochs=12),
        trial("gradual", 0.951, 240.0, knobs=(("lr", 3e-4),), epochs=18),
        trial("scratch", 0.59, 420.0, init="random", epochs=30),
    )
    compared = tuple(
        Comparison(i, 0.951 - t.score("val").value, -0.03 + 0.951 - t.score("val").value,
                   0.04 + 0.951 - t.score("val").value, 0.1, -0.02 if i in (4, 6, 9, 10) else 0.03, 0.2, 61)
        for i, t in enumerate(trials)
        if t.whole and i != 3
    )  # fmt: skip
    data = DataCard(
        name="ants_bees",
        modality="image",
        fingerprint="d" * 64,
        target=Target("label", "class", ("ants", "bees"), (98, 85)),
        rows=(("train", 183), ("val", 61), ("test", 153)),
        notes=("val split made: 61 training rows, 25% of each class, seed 0", "2 rows were dropped: equal content"),
    )
    findings = (
        Finding("chance", "pass", 0.94, (0.89, 0.97), 0.54, "accuracy 0.939 [0.89, 0.97], a guess has 0.542", ""),
        Finding("transfer", "warn", 0.3, (0.2, 0.4), 0.0, "+0.30 [+0.2, +0.4] right answers", "try another backbone"),
    )
    rule = "probe c 0.1 trains fewer weights, and full lr 0.0003 gains +0.016 [-0.033, +0.066] accuracy over it on 61 "
    return Story(
        run=Path("runs/ants-bees-1a2b3c"),
        options=Options("photos/ants bees", "models/mobilenet", budget=Budget(seconds=1200.0), seed=7),
        data=data,
        backbone=body(),
        machine=MACHINE,
        trials=trials,
        verdict=Verdict(
            "ship",
            3,
            rule + "validation rows: not significant",
            "nothing that was checked",
            (score("accuracy", "test", 0.542, 153),),
            findings,
            comparisons=compared,
        ),
        account=Account(
            budget=Budget(seconds=1200.0),
            seconds=1242.0,
            trials=12,
            epochs=118,
            rows=(("train", 183), ("val", 61), ("test", 153)),
            skipped=(Skipped(Plan("lora", (), (("lr", 1e-3),)), "no insert fits this network"),),
            notes=("the last plan was let finish",),
        ),
        examined=Examined(
            labels=("ants", "bees"),
            confusion=((66, 4), (5, 78)),
            examples=tuple(picture(i) for i in range(9)),
        ),
        opening=OPENING,
    )


def picture(i: int) -> Example:
    """A wrong answer with a small picture."""
    file = io.BytesIO()
    size = (96, 128, 3) if i % 2 else (128, 96, 3)
    Image.fromarray(np.random.default_rng(i).integers(0, 255, size, np.uint8)).save(file, "JPEG")
    truth, said = ("ants", "bees") if i % 2 else ("bees", "ants")
    return Example(
        f"test/{truth}/{i:04}.jpg", "", base64.b64encode(file.getvalue()).decode(), truth, said, 0.97 - i / 20
    )


def hostile(classes: int = 77) -> Story:
    """Texts whose classes, columns, names and remarks come from somebody who means harm."""
    labels = tuple([*EVIL, *(f"class {i} of many" for i in range(classes))][:classes])
    draw, told = random.Random(3), ants_bees()
    counts = [[0] * classes for _ in labels]
    for c in range(classes):
        counts[c][c] = 30
        for _ in range(10):
            counts[c][draw.randrange(classes)] += draw.randrange(3)
    evil = " ".join(EVIL)
    examples = tuple(
        Example(e, f"{e}\n{e}", '" onerror="x' if i % 2 else "", labels[i], labels[i + 1], 0.9)
        for i, e in enumerate(EVIL)
    )
    changed = dataclasses.replace(
        told.trials[3], notes=EVIL, plan=dataclasses.replace(told.trials[3].plan, strategy=evil)
    )
    stopped = dataclasses.replace(told.trials[7], stopped=evil)
    finding = Finding(EVIL[0], "fail", 0.0, (0.0, 0.0), 0.0, evil, evil)
    return dataclasses.replace(
        told,
        run=Path("runs/it's $HOME <b>"),
        options=Options(EVIL[1], EVIL[0], Reading(target=EVIL[5], text=EVIL[:2]), knobs=(("probe.c", EVIL[2]),)),
        data=DataCard(
            evil, "text", "d" * 64, Target(evil, "class", labels, (9,) * classes), told.data.rows, EVIL, EVIL[:2]
        ),
        backbone=dataclasses.replace(body(evil, "text"), notes=EVIL),
        machine=dataclasses.replace(MACHINE, processor=evil, notes=EVIL, versions=((EVIL[0], EVIL[1]),)),
        trials=(*told.trials[:3], changed, *told.trials[4:7], stopped, *told.trials[8:]),
        verdict=dataclasses.replace(
            told.verdict, rule=evil, against=evil, fallback=evil, findings=(finding,), decision="warn"
        ),
        account=dataclasses.replace(
            told.account, notes=EVIL, skipped=tuple(Skipped(Plan(e, (), init="random"), e) for e in EVIL)
        ),
        examined=Examined(labels, tuple(tuple(line) for line in counts), examples, alike=examples[:3]),
        opening=Opening("transformers", 'print("</code></pre><script>")\n```\n# head', ""),
        flags=tuple(Flag(e, "warn" if i % 2 else "note", i, 9, e, EVIL, e) for i, e in enumerate(EVIL)),
        bad=tuple(Bad("train", e, i, e) for i, e in enumerate(EVIL)),
    )


def numbers() -> Story:
    """A regression whose best error is the smallest, with one plan that diverged."""
    draw, told = random.Random(1), ants_bees()
    truths = [draw.gauss(2.6, 1.5) for _ in range(400)]
    pairs = tuple((t, t + draw.gauss(0, 0.6)) for t in truths)

    def as_error(t: Trial, i: int) -> Trial:
        factor = 1e5 if i == 8 else 1.0
        scores = [dataclasses.replace(score("rmse", s.split, factor * (1.6 - s.value), 400, "lower")) for s in t.scores]
        bent = [
            dataclasses.replace(
                e, metric=math.nan if i == 8 and e.epoch > 2 else 1.6 - e.metric, val_loss=e.val_loss**2
            )
            for e in t.curve
        ]
        return dataclasses.replace(t, scores=tuple(scores), curve=tuple(bent))

    worst = sorted(pairs, key=lambda p: -abs(p[0] - p[1]))[:12]
    guess = Score("rmse", "test", 1.5, 1.5, 1.5, 400, "lower")
    return dataclasses.replace(
        told,
        data=DataCard(
            "stsb",
            "text",
            "d" * 64,
            Target("score", "number", centre=2.6, spread=1.5),
            (("train", 5749), ("val", 1500), ("test", 1379)),
            columns=("sentence1", "sentence2"),
        ),
        trials=tuple(as_error(t, i) for i, t in enumerate(told.trials)),
        verdict=dataclasses.replace(told.verdict, baselines=(guess,)),
        examined=Examined(
            (),
            (),
            tuple(
                Example(str(i), "A man plays a guitar.\nSomebody is cooking.", "", f"{a:.6g}", f"{b:.6g}", 0.0)
                for i, (a, b) in enumerate(worst)
            ),
            pairs,
        ),
    )


def sets() -> Story:
    """Sets of labels."""
    told = ants_bees()
    target = Target("tags", "multi", ("ant", "b|e", "wasp", "moth"), (40, 30, 20, 9))
    return dataclasses.replace(
        told,
        data=dataclasses.replace(told.data, target=target),
        examined=Examined(
            target.labels,
            ((90, 3, 5, 55), (100, 2, 9, 42), (120, 8, 1, 24), (140, 0, 9, 4)),
            (Example("1.jpg", "", "", "ant, wasp", "none", 0.91),),
        ),
    )


def bare() -> Story:
    """A run of one plan, as an older version left it: no account, nothing examined, refused."""
    told = ants_bees()
    return dataclasses.replace(
        told,
        trials=told.trials[3:4],
        verdict=Verdict("refuse", 0, "the only plan that was run", "it loses to a guess", (), ()),
        account=Account(Budget(), 0.0, 0, 0, ()),
        examined=None,
        opening=None,
    )


def advice(stage: str = "layer 7", labels: bool = True) -> Advice:
    """What could have been foreseen of the ants and bees; without `labels` as for too few rows to look at."""

    def depth(name: str, share: float, value: float) -> Depth:
        scores = (("knn", value - 0.03), ("ridge", value), ("h_score", 9 * value), ("logme", value - 0.9))
        return Depth(name, share, scores)

    def priced(label: str, way: str, seconds: float, *alike: str) -> Priced:
        cost = Cost(seconds, int(1e4 * seconds), int(9e8 + seconds * 1e6), int(2e6), seconds * 1e-5, seconds * 0.005)
        price = Price(cost, 0.0, Memory(1, 1, 1, 1.0, 8), 1e9, 1e9, 10, 0.1, cache_bytes=10**6, notes=("all epochs",))
        return Priced(label.split()[0], label, way, price, alike=(label, *alike))

    points = ((18, 0.79, 0.70, 0.86), (46, 0.88, 0.83, 0.92), (91, 0.92, 0.88, 0.95), (183, 0.94, 0.90, 0.97))
    curve = Labels(
        "accuracy",
        tuple(Reached(*one) for one in points),
        (0.03, 0.9, 0.6),
        Reached(229, 0.943, 0.91, 0.97),
        Gain(0.9, 0.6),
        Gain(1.5, 1.1),
    )
    seen = Survey(
        rows=229 if labels else 30,
        depths=(depth("layer 3", 0.27, 0.71), depth(stage, 0.52, 0.90), depth("features", 1.0, 0.943))
        if labels
        else (),
        untrained=depth("random weights", 1.0, 0.62) if labels else None,
        shifts=(("norm 1", 0.2), (stage, 0.31)) if labels else (),
        similarity=0.77 if labels else None,
        chance=0.53 if labels else None,
        noise=0.01 if labels else None,
        labels=curve if labels else None,
        seconds=4.2,
    )
    fired = rules.rules(rules.Measured(rows=183, classes=2, params=2_200_000, similarity=0.77), rules.Needs())
    probe = priced("probe c 1", "extract", 6.0, "probe c 0.1")
    full = priced("full lr 0.0003", "tune", 260.0, "full lr 0.001", "full lr 0.003")
    way, why = rules.verdict(fired)
    return Advice(seen, (probe, full), fired, way, why, probe, (full.label,), "All rules\n- E1, few rows <b>")


def foreseen() -> Story:
    """The ants and bees with what was foreseen of them."""
    return dataclasses.replace(ants_bees(), advice=advice())


def dimly_foreseen() -> Story:
    """Hostile names, a stage among them, and too few rows to look at."""
    return dataclasses.replace(hostile(), advice=advice(EVIL[1], labels=False))
