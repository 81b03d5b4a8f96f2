"""Gather the facts that advice rests on: data, backbone, machine, and what a second of trying shows."""

from __future__ import annotations

from regraft.backbone.view import GLUE, View
from regraft.engine import cache
from regraft.engine.cache import Encode
from regraft.kit import hardware
from regraft.waist import BackboneCard, Data, MachineCard


def machine(view: View, data: Data, encode: Encode, precision: str) -> MachineCard:
    """The machine and the choices made on it: threads, dtype, micro-batch, and which promise it can keep."""
    flops = sum(stage.flops for stage in view.stages)
    micro = hardware.micro_batch(flops)
    threads = hardware.threads()
    hardware.settle(threads)
    notes: list[str] = []
    half = False
    if precision == "auto":
        gain = hardware.bf16_gain()
        half = gain > 1.2
        notes.append(f"bfloat16 is {gain:.2f} times as fast as float32 here: the trunk runs in {_name(half)}")
    first = [data.train[i % len(data.train)].cell for i in range(micro)]
    kept = cache.promise(view, encode(first))
    if kept != "exact":
        notes.append("on this processor a row's last bits depend on its micro-batch: equal runs agree to rounding only")
    return MachineCard(
        processor=hardware.processor(),
        threads=threads,
        memory_bytes=hardware.memory_bytes(),
        device="cpu",
        dtype="bfloat16" if half else "float32",
        promise="exact" if kept == "exact" and not half else "tolerance",
        micro_batch=micro,
        versions=hardware.versions(),
        notes=tuple(notes),
    )


def backbone(view: View, fingerprint: str) -> BackboneCard:
    """The backbone in numbers."""
    norms = sum(1 for name, _, _ in view.buffers() if name.endswith("running_mean"))
    glue = sum(p.numel() for name, _, p in view.named() if name.startswith(GLUE + "/"))
    return BackboneCard(
        view.name, view.provider, fingerprint, view.stages, view.dim, view.inputs, norms, glue, view.notes
    )


def _name(half: bool) -> str:
    return "bfloat16" if half else "float32"
