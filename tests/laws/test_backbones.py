"""Law: every architecture we name opens, is probed and trained in part, frozen as it says, packed and opened alone.

Each is a random tiny checkpoint in Hugging Face layout. What is compared: the graft in memory, the bundle opened by us,
and the bundle opened by its own library in a fresh process (one for all bundles, which would cost most of the time).
"""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from regraft.backbone import bundle as bundles
from regraft.data.open import card, open_data
from regraft.deliver import native, pack
from regraft.deliver.model import Model
from regraft.engine import freeze
from regraft.engine.predict import sides
from regraft.kit.store import Folder
from regraft.planner import survey
from regraft.planner.course import Course
from regraft.planner.propose import propose
from regraft.planner.request import find_provider, prepare
from regraft.waist import BackboneCard, Data, Facts, Opening, Options, PhaseDone, Plan, Reading, Trial, plain
from tests import checkpoints, places

QUICK = ("vit", "resnet", "bert", "distilbert", "roberta", "gpt2", "llama", "bare distilbert", "bare roberta", "minilm")
NAMES = [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in checkpoints.ALL]
KNOBS = [("probe.epochs", "1"), ("probe.batch", "8"), ("partial.epochs", "1"), ("partial.batch", "8")]
KNOBS += [("partial.depth", "1")]
pytestmark = pytest.mark.timeout(900)


@functools.cache
def place() -> Path:
    """A folder for checkpoints, data and runs of this process."""
    held = tempfile.TemporaryDirectory(prefix="regraft-backbones-")
    KEPT.append(held)
    return Path(held.name)


KEPT: list[Any] = []


@functools.cache
def rows(modality: str) -> Data:
    """Few rows to learn from: three colours as pictures, or as words."""
    root = place() / "data" / modality
    if modality == "image":
        return open_data(places.pictures(root, train=4, val=3, test=2))
    return open_data(places.texts(root, train=12, val=9, test=9), 0, Reading(task="classify"))


@dataclass
class Done:
    """A course with the plans that ran on it, and a bundle of each."""

    course: Course
    body: BackboneCard
    trials: list[Trial]
    verified: list[int]
    bundles: list[Path]


@functools.cache
def done(name: str) -> Done:
    """The checkpoint of that name adapted by probe and partial, under every pooling, and packed."""
    folder = place() / name.replace(" ", "-")
    checkpoints.ALL[name](folder)
    data = rows("image" if name in checkpoints.SEEING else "text")
    view, encoder, task = prepare(Options("data", str(folder)), data, str(folder))
    machine = dataclasses.replace(survey.machine(view, data, encoder, "fp32"), micro_batch=4)
    course = Course(view, data, task, encoder, machine, Folder(place() / f"{folder.name}-run"), 0)
    body = survey.backbone(view, "mark")
    found = Done(course, body, [], [], [])
    for number, plan in enumerate(plans(course, body)):
        for event in course.trial(number, plan):
            if isinstance(event, PhaseDone):
                found.verified.append(event.verified)
        found.trials.append(event.trial)  # type: ignore[union-attr]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pack, "_self_test", lambda *_: None)  # one process for all bundles does that below
            pack.pack(course, found.trials[-1], "base")
        kept = course.folder.path / f"kept-{number}"
        found.bundles.append(Path(shutil.copytree(course.folder.path / "bundle", kept)))
    return found


def plans(course: Course, body: BackboneCard) -> list[Plan]:
    """Probe and partial under each pooling that the backbone offers."""
    facts = Facts(card(course.data), body, course.machine)
    return [
        plan
        for pooled in body.poolings
        for plan in propose(
            facts,
            ["probe", "partial"],
            [*KNOBS, ("probe.pooling", pooled.pooling), ("partial.pooling", pooled.pooling)],
        )
    ]


# ---------------------------------------------------------------- what is frozen, what trains


@pytest.mark.parametrize("name", NAMES)
def test_it_is_opened_trained_and_frozen_as_the_plan_says(name: str) -> None:
    made = done(name)
    wanted = ["native"] if name in checkpoints.SEEING else ["native", "mean"]
    assert sorted(p.pooling for p in made.body.poolings) == sorted(wanted)
    assert len(made.trials) == 2 * len(wanted)
    for trial, verified in zip(made.trials, made.verified, strict=True):
        start, end = made.course.graft(trial.plan), made.course.restore(trial)
        phase = trial.plan.phases[0]
        trained = freeze.trainable(start.view, start.head, phase)
        assert verified == len(freeze.frozen(start.view, start.head, phase)) > 0
        assert trial.cost.trainable == sum(p.numel() for p, _ in trained.values())
        moved = {
            n
            for (n, _, a), (_, _, b) in zip(start.view.named(), end.view.named(), strict=True)
            if not torch.equal(a, b)
        }
        assert moved <= set(trained) and not moved & {n for n, i, _ in start.view.named() if i < phase.frontier}
        assert bool(moved) == (len(trained) > len(list(start.head.parameters())))
        assert any(not torch.equal(a, b) for a, b in zip(start.head.parameters(), end.head.parameters(), strict=True))
        buffers = zip(start.view.buffers(), end.view.buffers(), strict=True)
        assert [n for (n, _, a), (_, _, b) in buffers if not torch.equal(a, b)] == []


LACKING = {"bare distilbert": "pre_classifier", "bare roberta": "classifier", "minilm": "pooler"}


@pytest.mark.parametrize("name", NAMES)
def test_layers_that_the_checkpoint_lacks_are_named_said_and_trained(name: str) -> None:
    made = done(name)
    lacking = {p.pooling: [p.stages[i].name for i in p.new] for p in made.body.poolings if p.new}
    said = [note for note in made.body.notes if "lacks" in note]
    if name not in LACKING:
        assert not lacking and not said
        return
    assert lacking == {"native": [LACKING[name]]}
    assert said == [f"native pooling: the checkpoint lacks {LACKING[name]}: random at the start, trained with the head"]
    probe = next(t for t in made.trials if t.plan.strategy == "probe" and t.plan.pooling == "native")
    start, end = made.course.graft(probe.plan), made.course.restore(probe)
    assert probe.plan.phases[0].rates == (("head/*", 1.0), (f"{LACKING[name]}/*", 1.0))
    moved = {
        n.split("/")[0]
        for (n, _, a), (_, _, b) in zip(start.view.named(), end.view.named(), strict=True)
        if not torch.equal(a, b)
    }
    assert moved == {LACKING[name]}
    assert made.body.poolings[0].pooling == "mean", "a checkpoint without its neck is read by its tokens' mean"


@pytest.mark.parametrize("name", ["bare distilbert", "bare roberta", "minilm"])
def test_what_is_lacking_starts_the_same_in_every_process(name: str) -> None:
    folder = place() / name.replace(" ", "-")
    first = done(name).course.view
    torch.manual_seed(99)
    again = find_provider(str(folder)).load(str(folder), "text")
    for (n, _, a), (_, _, b) in zip(first.pooled("native").named(), again.pooled("native").named(), strict=True):
        assert torch.equal(a, b), n


# ---------------------------------------------------------------- packed and opened again


@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_opened_again_predicts_what_was_trained(name: str) -> None:
    made = done(name)
    cells = [row.cell for row in made.course.data.test]
    for trial, folder in zip(made.trials, made.bundles, strict=True):
        from safetensors.numpy import load_file

        logits = torch.from_numpy(load_file(made.course.folder.path / trial.predictions)["test"])
        wanted = made.course.task.answers(logits, {})
        answers = Model.load(folder).predict(cells)
        for ours, theirs in zip(answers, wanted, strict=True):
            assert ours["label"] == theirs["label"]
            assert_near(ours["probabilities"], theirs["probabilities"], 1e-5)


@pytest.mark.parametrize("name", ["gpt2", "llama", "bare gpt2"])
def test_a_place_without_room_for_a_bias_gets_a_head_without_one(name: str) -> None:
    from safetensors import safe_open

    made = done(name)
    for trial, folder in zip(made.trials, made.bundles, strict=True):
        told = bundles.read(folder)
        biased = trial.plan.pooling == "mean"
        head = made.course.graft(trial.plan).head
        assert (dict(head.named_parameters()).get("bias") is not None) == biased
        if not biased:
            assert told.opening.library == "transformers"
            with safe_open(folder / "model.safetensors", "pt") as file:
                assert [key for key in file.keys() if key.startswith("score.")] == ["score.weight"]  # noqa: SIM118
                exact = dict(made.course.restore(trial).head.named_parameters())["weight"]
                assert torch.equal(file.get_tensor("score.weight"), exact)


ALONE = """\
outputs, kept_folder = [], folder
for job in inputs:
    job = __import__("json").loads(open(job).read())
    loaded = __import__("safetensors.torch").torch.load_file(job["golden"])
    batches = [{} for _ in range(job["sides"])]
    for key, tensor in loaded.items():
        batches[int(key.split("/")[0])][key.split("/")[1]] = tensor
    space = {"folder": job["folder"], "batches": batches, "torch": torch}
    exec(job["check"], space)
    cells = {"folder": job["folder"], "inputs": job["cells"], "torch": torch}
    exec(job["use"], cells)
    outputs.append({"made": space["made"].tolist(), "outputs": cells["outputs"]})
"""


def alone(names: list[str], tmp: Path) -> list[tuple[str, Done, int, dict[str, Any]]]:
    """What each bundle's own library says of golden batches and of test rows, from one process without regraft."""
    jobs: list[tuple[str, Done, int]] = [(name, done(name), i) for name in names for i in range(len(done(name).trials))]
    files = []
    for number, (_, made, i) in enumerate(jobs):
        told = bundles.read(made.bundles[i])
        apart = sides(told.plan.pooling, len(told.columns))
        batches = pack.golden_batches(made.course.restore(made.trials[i]), pack.ROWS, apart)
        golden = tmp / f"{number}.safetensors"
        save_file({f"{s}/{n}": t.contiguous() for s, batch in enumerate(batches) for n, t in batch.items()}, golden)
        cells = [row.cell for row in made.course.data.test]
        job = {"folder": str(made.bundles[i]), "golden": str(golden), "sides": apart}
        job |= {"check": told.opening.check, "use": told.opening.use, "cells": [plain_cell(c) for c in cells]}
        files.append(tmp / f"{number}.json")
        files[-1].write_text(json.dumps(job))
    _, found = native.run(Opening("transformers", ALONE, ""), "", "", 0, files, 1)
    assert found is not None
    return [(*job, said) for job, said in zip(jobs, found, strict=True)]


def plain_cell(cell: Any) -> Any:
    return str(cell) if isinstance(cell, Path) else cell


def compare(names: list[str], tmp: Path) -> None:
    for name, made, i, said in alone(names, tmp):
        told = bundles.read(made.bundles[i])
        wanted = np.array(told.golden)
        gap = np.abs(np.array(said["made"]).reshape(wanted.shape) - wanted).max()
        assert gap <= 1e-4 * max(1.0, np.abs(wanted).max()), (name, made.trials[i].label, gap)
        answers = Model.load(made.bundles[i]).predict([row.cell for row in made.course.data.test])
        for ours, theirs in zip(answers, said["outputs"], strict=True):
            assert_near(ours["probabilities"], theirs, 1e-4)


def assert_near(ours: dict[str, float], theirs: dict[str, float], tolerance: float) -> None:
    assert ours.keys() == theirs.keys()
    assert max(abs(ours[label] - theirs[label]) for label in ours) <= tolerance


def test_their_own_library_says_the_same_without_us(tmp_path: Path) -> None:
    compare([name for name in checkpoints.ALL if name in QUICK], tmp_path)


@pytest.mark.slow
def test_their_own_library_says_the_same_without_us_for_the_rest(tmp_path: Path) -> None:
    compare([name for name in checkpoints.ALL if name not in QUICK], tmp_path)


def test_records_of_such_bundles_read_back(tmp_path: Path) -> None:
    """What was packed is what regraft.json says, and a fresh record equals it."""
    made = done("bert")
    for folder in made.bundles:
        told = bundles.read(folder)
        held = json.loads((folder / bundles.NAME).read_text("utf-8"))
        assert held.pop(bundles.ITSELF) and held == json.loads(json.dumps(plain(told)))
