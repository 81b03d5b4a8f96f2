"""Pack a graft into a bundle in its native layout, and prove in a fresh process that it predicts the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from regraft.backbone import bundle as bundles
from regraft.backbone.state import State
from regraft.deliver import native, report
from regraft.engine import freeze
from regraft.engine.cache import Table
from regraft.engine.predict import Graft, outputs, sides
from regraft.engine.trunk import Side, Trunk
from regraft.errors import RegraftError, Unproven
from regraft.kit import durable, hardware, shelf
from regraft.planner.course import Course
from regraft.waist import Bundle, Data, Encoder, Insert, Plan, Row, Trial

GOLDEN_SEED = 20
ROWS = 2
"""So many rows of noise test a bundle, three times over: more would prove no more."""
TOLERANCE = 1e-4
SCORE_TOLERANCE = 1e-3
SHOWN, SHOWN_S = 8, 1.0
"""The most test rows that a bundle is tested on, and the seconds that they may take on one side."""
LINK = "bundle"
GOLDEN = "golden.safetensors"
TRIED = "tried"
"""A folder beside the bundles with what one of them is tested on, while it is."""
Answers = Sequence[Mapping[str, Any]]


def pack(course: Course, trial: Trial, base: str, tried: bool = True) -> Bundle:
    """Write `run/bundle-<n>`, test it, and let `run/bundle` name it; the one before stays until then.

    Without `tried` it is only read back by regraft, in this process: for a model that leads while others still run.

    Raises: Unproven: the reloaded bundle predicts something else; nothing is shipped then.
    """
    graft, task, data, machine, run = (
        course.restore(trial),
        course.task,
        course.data,
        course.machine,
        course.folder.path,
    )
    number = 1 + max((int(p.name[7:]) for p in run.glob("bundle-*") if p.name[7:].isdigit()), default=0)
    final = run / f"bundle-{number}"
    apart = course.trunks.sides(graft.view)
    size = sum(t.numel() * t.element_size() for t in graft.view.module.state_dict().values())
    with durable.folder(final, size) as part:
        wanted = golden(graft, ROWS, apart)
        beside = settle(trial.plan, graft, task.fold(graft.head), base, part)
        opening = native.completed(graft.view.export(task.fold(graft.head), data.target, str(part)), beside)
        bundles.wear(graft.view, part, beside)
        durable.write(part / "README.md", report.model_card(trial, data, base, opening).encode("utf-8", "replace"))
        bundle = Bundle(
            schema=bundles.SCHEMA,
            name=run.name,
            modality=data.modality,
            task=task.name,
            target=data.target,
            inputs=graft.view.inputs,
            plan=trial.plan,
            provider=opening.provider or graft.view.provider,
            base=base,
            scores=trial.scores,
            golden_seed=GOLDEN_SEED,
            golden=tuple(tuple(row) for row in wanted.tolist()),
            micro_batch=machine.micro_batch,
            versions=hardware.versions(),
            files=tuple(durable.sums(part).items()),
            opening=opening,
            columns=data.columns,
            calibration=trial.calibration,
            inserts=beside,
        )
        bundles.write(part, bundle)
        _self_test(part, bundle, graft, course, tried)
    durable.point(run / LINK, final.name)
    for old in run.glob("bundle-*"):
        if old.name != final.name:
            durable.remove(old)
    return bundle


def attempt(course: Course, trial: Trial) -> None:
    """Test the bundle that this trial was packed into without being tried: it is not written again.

    Raises: Unproven: it predicts something else than the trial's model; nothing is shipped then.
    """
    link = course.folder.path / LINK
    folder = link.resolve()
    graft = course.restore(trial)
    for insert in trial.plan.inserts:
        if bundles.merges(insert):
            shelf.find("inserts", insert.kind).merge(graft.view)
    try:
        _self_test(folder, bundles.read(folder), graft, course, True)
    except RegraftError:
        durable.remove(link)
        durable.remove(folder)
        raise


def settle(plan: Plan, graft: Graft, head: nn.Module, base: str, part: Path) -> tuple[Insert, ...]:
    """Keep what was put into the network in files of its own beside the bundle's, and leave the network without it.

    What can be is merged into the weights; where normalisation statistics moved too, it alone would not give the model,
    and there are no such files.

    Returns: What is no part of the weights, in the order of its folders.
    """
    view, inserts = graft.view, (*graft.view.worn, *plan.inserts)
    beside = tuple({insert.kind: insert for insert in inserts if not bundles.merges(insert)}.values())
    merged = [insert for insert in inserts if bundles.merges(insert)]
    whole = all(phase.norm == "keep" for phase in plan.phases)
    for number, insert in [*enumerate(merged, len(beside)), *enumerate(beside)]:
        item = shelf.find("inserts", insert.kind)
        if whole or insert in beside:
            for name, data in item.files(view, insert, head, base).items():
                durable.fill(part / bundles.adapter(number) / name, data)
        if insert in merged:
            item.merge(view)
        else:
            item.take_out(view)
    return beside


def _moved(encoder: Encoder, by: float) -> Encoder:
    """The encoder with so much added to every number that it makes."""
    if not by:
        return encoder
    moved = lambda parts: {n: t + by if t.is_floating_point() else t for n, t in encoder.tensors(parts).items()}  # noqa: E731
    return replace(encoder, tensors=moved)


def golden_batches(graft: Graft, rows: int, apart: int) -> list[dict[str, Tensor]]:
    """Rows of seeded noise for each side of a row: a test that carries none of the user's data."""
    return [graft.view.noise(rows, GOLDEN_SEED + side) for side in range(apart)]


def golden(graft: Graft, rows: int, apart: int = 1) -> Tensor:
    """Outputs for the golden batches."""
    states = [Side(State(None, {}, batch), 1) for batch in golden_batches(graft, rows, apart)]
    with torch.no_grad(), freeze.mode(graft.view, graft.head, None):
        return graft.forward(states, 0)


def _shown(data: Data, row_s: float) -> list[Row]:
    """Some test rows that a library can be given as they are, the longest text among them; fewer that take long."""
    most = max(ROWS, min(SHOWN, int(SHOWN_S / max(row_s, 1e-6))))
    plain_cells = [row for row in data.test if isinstance(row.cell, (str, Path, tuple))]
    some = plain_cells[:: max(1, len(plain_cells) // most)][:most]
    if plain_cells and not isinstance(plain_cells[0].cell, Path):
        some.append(max(plain_cells, key=lambda row: len("".join(row.cell))))
    return some


def _self_test(part: Path, bundle: Bundle, graft: Graft, course: Course, tried: bool) -> None:
    """Compare what the bundle's own library says with what we say: golden batches, then some test rows.

    Its process runs beside what we do in this one. What it says may be as far from our answers as these move where so
    much is added to every input as libraries prepare them apart.
    """
    machine = course.machine
    rows, encoder = _shown(course.data, machine.forward_s) if tried else [], course.trunks.encoder_of(graft.view)
    cells = [row.cell for row in rows]
    apart = sides(bundle.plan.pooling, len(bundle.columns))
    batches = golden_batches(graft, ROWS, apart)
    made, told = None, None

    def answers(by: float) -> Answers:
        if not rows:
            return []
        trunk = Trunk(graft.view, 0, _moved(encoder, by), machine.micro_batch)
        found = outputs(graft, Table(trunk, rows, None, apart))
        return course.task.answers(found, dict(bundle.calibration))

    if tried:
        place = course.folder.path / TRIED
        file = place / GOLDEN
        durable.remove(place)
        try:
            durable.fill(file, save({f"{i}/{name}": t for i, batch in enumerate(batches) for name, t in batch.items()}))
            given = _portable(place, bundle.modality, cells)
            with ThreadPoolExecutor(1) as beside:
                asked = (bundle.opening, str(part), str(file), apart, given, machine.threads)
                theirs_later = beside.submit(native.run, *asked)
                ours, own = answers(0.0), _reopened(part, bundle, graft, batches)
                made, told = theirs_later.result()
        finally:
            durable.remove(place)
    else:
        ours, own = [], _reopened(part, bundle, graft, batches)
    wanted = torch.tensor(bundle.golden)
    ways = [("regraft", own)]
    ways += [("its own library", made)] if made is not None else []
    for who, theirs in ways:
        gap = float((torch.tensor(theirs).reshape(wanted.shape) - wanted).abs().max())
        if not gap <= TOLERANCE * max(1.0, float(wanted.abs().max())):
            raise Unproven(
                f"the bundle, opened by {who}, predicts something else than the model that was trained",
                saw=f"outputs differ by {gap:g}",
                allowed=f"{TOLERANCE:g} of the largest output",
                do="report this; the run keeps the trained weights",
            )
    if told is None:
        return
    apart_at = [i for i in range(max(len(ours), len(told))) if not _agree(ours[i : i + 1], told[i : i + 1])]
    grain = shelf.find("modalities", bundle.modality).grain(graft.view.inputs) if apart_at else 0.0
    near = [answers(by) for by in (grain, -grain)] if grain and len(ours) == len(told) else []
    for i in apart_at:
        if near and _agree(ours[i : i + 1], told[i : i + 1], [moved[i] for moved in near]):
            continue
        raise Unproven(
            "the lines in the bundle's README give another answer than the model that was trained",
            saw=f"for {str(cells[i])[:60] if i < len(cells) else 'nothing'}: {str(told[i : i + 1])[:120]}",
            allowed=f"{str(ours[i : i + 1])[:200]}, to {SCORE_TOLERANCE:g} or what rounded inputs make",
            do="report this; the run keeps the trained weights",
        )


def _portable(place: Path, modality: str, cells: Sequence[Any]) -> list[Any]:
    """Cells for a library that reads files alone and knows no archives: each file as one that all read alike."""
    given = list(cells)
    for i, cell in enumerate(cells):
        if isinstance(cell, Path):
            given[i] = place / f"given-{i}"
            durable.fill(given[i], shelf.find("modalities", modality).portable(cell))
    return given


def _agree(ours: Answers, told: Sequence[Any], near: Answers = ()) -> bool:
    """Whether an answer and what a library said of the same input hold the same labels with the same scores.

    These may be as far apart as answers to inputs `near` this one are.
    """
    if len(ours) != 1 or len(told) != 1:
        return False
    scores = _scores(ours[0])
    said = told[0] if isinstance(told[0], dict) else {"": told[0]}
    size = max(1.0, *(abs(value) for value in scores.values()))
    around = [_scores(one) for one in near]
    return scores.keys() == said.keys() and all(
        abs(value - said[name]) <= max(SCORE_TOLERANCE * size, *(abs(value - one[name]) for one in around), 0.0)
        for name, value in scores.items()
    )


def _scores(answer: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an answer by their labels; of a value by nothing."""
    found: dict[str, float] = answer.get("probabilities") or {"": answer["value"]}
    return found


def _reopened(part: Path, bundle: Bundle, graft: Graft, batches: list[dict[str, Tensor]]) -> list[list[float]]:
    """Outputs of the bundle as regraft reads it back; a network from the user's own code is taken from memory."""
    provider = shelf.find("providers", bundle.provider)
    if "reopen" in vars(provider):
        bare = graft.view.clone(0) if bundle.inserts else graft.view
        for insert in bundle.inserts:
            shelf.find("inserts", insert.kind).take_out(bare)
        view = provider.reopen(part, bare.module)
    else:
        view = provider.load(str(part), bundle.modality)
    bundles.wear(view, part, bundle.inserts)
    twin = Graft(view.pooled(bundle.plan.pooling), view.native)
    with torch.no_grad(), freeze.mode(twin.view, twin.head, None):
        made: list[list[float]] = twin.forward([Side(State(None, {}, batch), 1) for batch in batches], 0).tolist()
    return made
