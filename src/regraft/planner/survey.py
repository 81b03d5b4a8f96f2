"""Gather the facts that advice rests on: data, backbone, machine, and what a second of trying shows."""

from __future__ import annotations

import time

import torch

from regraft.backbone.stages import Batch
from regraft.backbone.view import View
from regraft.engine import engines, trunk
from regraft.engine.predict import sides
from regraft.errors import ModelError, NoMemory, memory_watched
from regraft.kit import hardware, meter, shelf
from regraft.planner.sizes import BACKWARD
from regraft.waist import BackboneCard, Data, Encoder, MachineCard, Training

HALF = 1.2
"""From which gain on bfloat16 is taken."""
STEP_ROWS, STEP_S = 32, 1.0
"""Ways to train are timed on batches of so many rows, of fewer where a step would take longer."""


def machine(view: View, data: Data, encoder: Encoder, precision: str) -> MachineCard:
    """The machine and the choices made on it: threads, dtype, micro-batch, and which promise it can keep.

    Raises: NoMemory: not even one row fits.
    """
    micro = hardware.micro_batch(sum(stage.flops for stage in view.stages), hardware.threads())
    while True:
        try:
            return _machine(view, data, encoder, precision, micro)
        except NoMemory:
            if micro == 1:
                raise
            micro //= 2


def _machine(view: View, data: Data, encoder: Encoder, precision: str, micro: int) -> MachineCard:
    threads = hardware.threads()
    hardware.settle(threads)
    notes: list[str] = []
    half, inputs = False, view.inputs
    if precision == "auto":
        gain = hardware.bf16_gain()
        half = gain > HALF
        notes.append(f"bfloat16 is {gain:.2f} times as fast as float32 here: the trunk runs in {_name(half)}")
        modality = shelf.find("modalities", view.inputs.modality)
        inputs, told = modality.loosened(view.inputs, [*data.train, *data.val, *data.test])
        notes += [told] if told else []
    engine, training = "eager", Training()
    whole = trunk.Trunk(view, 0, encoder, micro)
    apart = sides(view.pooling, len(data.columns))
    kept: set[str] = set()
    forward_s = watts = 0.0
    for share, some in trunk.samples(encoder, data.train, whole, apart):
        begun = time.perf_counter()
        batch = encoder.tensors(some)
        prepared_s = time.perf_counter() - begun
        with memory_watched():
            drawn, since = meter.joules(), time.perf_counter()
            promised, ran_s = trunk.promise(view, batch)
            if drawn and (now := meter.joules() or 0.0) > drawn:  # counters start over at times
                watts = (now - drawn) / (time.perf_counter() - since)
            if precision == "auto" and not kept:
                engine, told = engines.fastest(view, batch, half)
                notes += [told] if told else []
                training, told = engines.training(view, _step(batch, ran_s), engine, half)
                notes += [told] if told else []
        kept.add(promised)
        forward_s += share * apart * (prepared_s + ran_s) / len(some)
    exact = kept == {"exact"}
    if not exact:
        notes.append("on this processor a row's last bits depend on its micro-batch: equal runs agree to rounding only")
    return MachineCard(
        processor=hardware.processor(),
        threads=threads,
        memory_bytes=hardware.memory_bytes(),
        device="cpu",
        dtype="bfloat16" if half else "float32",
        promise="exact" if exact and precision == "fp32" else "tolerance",
        micro_batch=micro,
        versions=hardware.versions(),
        notes=tuple(notes),
        forward_s=round(forward_s, 6),
        engine=engine,
        compiles=precision == "auto",
        watts=round(watts, 1),
        inputs=None if inputs == view.inputs else inputs,
        training=training,
    )


def _step(batch: Batch, ran_s: float) -> Batch:
    """A batch as large as one of training, or as fits into `STEP_S`: in a small one preparing weights counts most."""
    n = len(next(iter(batch.values())))
    rows = max(n, min(STEP_ROWS, int(STEP_S / (BACKWARD * ran_s / n))))
    return {name: value[torch.arange(rows) % n] for name, value in batch.items()}


def backbone(view: View, fingerprint: str) -> BackboneCard:
    """The backbone in numbers, under every pooling that it offers.

    Raises: ModelError: a weight is no finite number; it is named.
    """
    for name, _, weight in view.named():
        if wrong := int((~weight.isfinite()).sum()):
            raise ModelError(
                "the weights of this model are not all finite numbers",
                saw=f"{wrong:,} of {weight.numel():,} in {name}",
                allowed="finite weights",
                do="choose another checkpoint; this one was saved after its training had diverged, or is damaged",
            )
    norms = sum(1 for name, _, _ in view.buffers() if name.endswith("running_mean"))
    poolings = tuple(view.pooled(name).card() for name in view.calls)
    notes = [*view.notes]
    for one in poolings:
        if one.new:
            names = ", ".join(one.stages[i].name for i in one.new)
            notes.append(
                f"{one.pooling} pooling: the checkpoint lacks {names}: random at the start, trained with the head"
            )
    return BackboneCard(view.name, view.provider, fingerprint, view.inputs, norms, poolings, tuple(notes), view.labels)


def _name(half: bool) -> str:
    return "bfloat16" if half else "float32"
