"""Pack a graft into a bundle in its native layout, and prove in a fresh process that it predicts the same."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy
import torch

from regraft.backbone import bundle as bundles
from regraft.deliver import report
from regraft.engine import freeze
from regraft.engine.predict import Graft
from regraft.errors import RegraftError
from regraft.kit import durable, hardware
from regraft.waist import Bundle, Data, MachineCard, Task, Trial, plain

GOLDEN_SEED = 20
TOLERANCE = 1e-4
SHOWN = 8
LINK = "bundle"


def pack(graft: Graft, trial: Trial, task: Task, data: Data, machine: MachineCard, run: Path, base: str) -> Bundle:
    """Write `run/bundle-<n>`, test it, and let `run/bundle` name it; the one before stays until then.

    Raises: RegraftError: the reloaded bundle predicts something else; nothing is shipped then.
    """
    number = 1 + max((int(p.name[7:]) for p in run.glob("bundle-*") if p.name[7:].isdigit()), default=0)
    final = run / f"bundle-{number}"
    with durable.folder(final) as part:
        graft.view.export(graft.head, data.target.labels, str(part))
        wanted = golden(graft, machine.micro_batch)
        told = report.model_card(trial, data, base)
        durable.write(part / "README.md", told.encode())
        bundle = Bundle(
            schema=bundles.SCHEMA,
            name=run.name,
            modality=data.modality,
            task=task.name,
            target=data.target,
            inputs=graft.view.inputs,
            plan=trial.plan,
            base=base,
            scores=trial.scores,
            golden_seed=GOLDEN_SEED,
            golden=tuple(tuple(row) for row in wanted.tolist()),
            micro_batch=machine.micro_batch,
            versions=hardware.versions(),
            files=tuple(durable.sums(part).items()),
        )
        durable.write_json(part / bundles.NAME, plain(bundle))
        _self_test(part, bundle, machine, data, wanted)
    durable.point(run / LINK, final.name)
    for old in run.glob("bundle-*"):
        if old.name != final.name:
            durable.remove(old)
    return bundle


def golden(graft: Graft, micro: int) -> torch.Tensor:
    """Outputs for a micro-batch of seeded noise: a test that carries none of the user's data."""
    noise = numpy.random.default_rng(GOLDEN_SEED).standard_normal((micro, *graft.view.inputs.shape), numpy.float32)
    with torch.no_grad(), freeze.mode(graft.view, graft.head, None):
        made: torch.Tensor = graft.head(graft.view.run({"pixel_values": torch.from_numpy(noise)}))
    return made


def _self_test(part: Path, bundle: Bundle, machine: MachineCard, data: Data, wanted: torch.Tensor) -> None:
    pictures = [str(row.cell) for row in data.test[:: max(1, len(data.test) // SHOWN)]][:SHOWN]
    found = _native(part, bundle, machine, pictures)
    gap = float((torch.tensor(found["logits"]) - wanted).abs().max())
    if not gap <= TOLERANCE * max(1.0, float(wanted.abs().max())):
        raise RegraftError(
            "the bundle, opened by its own library, predicts something else than the model that was trained",
            saw=f"outputs differ by {gap:g}",
            allowed=f"{TOLERANCE:g} of the largest output",
            do="report this; the run keeps the trained weights",
        )
    named = {label["label"] for label in found["pipeline"]}
    if strange := sorted(named - set(data.target.labels)):
        raise RegraftError(
            "the bundle's pipeline names labels that are not in the data",
            saw=", ".join(strange),
            allowed=", ".join(data.target.labels),
            do="report this",
        )


def _native(
    part: Path, bundle: Bundle, machine: MachineCard, pictures: Sequence[str]
) -> dict[str, list[dict[str, str]]]:
    script = Path(__file__).with_name("native.py")
    numbers = [str(n) for n in (bundle.golden_seed, bundle.micro_batch, machine.threads)]
    made = subprocess.run(
        [sys.executable, "-I", str(script), str(part), *numbers, *pictures],
        input=json.dumps(bundle.inputs.shape),
        capture_output=True,
        text=True,
        check=False,
        env=hardware.child_environment(),
    )
    if made.returncode:
        raise RegraftError(
            "the bundle cannot be opened by its own library",
            saw=made.stderr.strip().splitlines()[-1] if made.stderr.strip() else f"exit {made.returncode}",
            do="report this; the run keeps the trained weights",
        )
    found: dict[str, list[dict[str, str]]] = json.loads(made.stdout.strip().splitlines()[-1])
    return found
