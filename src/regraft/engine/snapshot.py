"""Save and restore a fit between two steps: one self-checking file, the newest that is whole counts.

What is paused for a while may wait in memory instead, as long as a kill would lose no more than the clock allows.
"""

from __future__ import annotations

import copy
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from regraft.kit import durable
from regraft.kit.meter import Meter
from regraft.waist import Epoch

KEPT = 2
EVERY_S = 30.0

Held = tuple["Progress", dict[str, Tensor]]


@dataclass
class Progress:
    """Where a fit stands. Random numbers need no place here: each step draws its own from the seed and its number."""

    phase: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    loss_rows: int = 0
    best_loss: float | None = None
    waited: int = 0
    curve: list[Epoch] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class Waiting:
    """Paused fits in memory, by folder: at most so many bytes, and so many seconds of work that a kill would lose."""

    most_bytes: int
    most_s: float = EVERY_S
    fits: dict[Path, tuple[Held, float]] = field(default_factory=dict)

    def takes(self, folder: Path, held: Held, unsaved_s: float) -> bool:
        """Keep a fit that has run for so many seconds since it was last written; False where that is too much."""
        self.fits.pop(folder, None)
        others = [(one, seconds) for one, seconds in self.fits.values()]
        if unsaved_s + sum(seconds for _, seconds in others) >= self.most_s:
            return False
        if sum(t.nbytes for one in (held, *(one for one, _ in others)) for t in one[1].values()) > self.most_bytes:
            return False
        self.fits[folder] = held, unsaved_s
        return True

    def write(self) -> None:
        """Write all that waits; their folders have it from then on."""
        while self.fits:
            folder, ((progress, tensors), _) = self.fits.popitem()
            Keeper(folder, Meter(spent_s=progress.seconds)).save(progress, tensors)


class Keeper:
    """Snapshots of one trial in a folder, on a clock; `every_s` 0 saves at each step (tests do).

    `meter` counts the trial's seconds over all sittings. With `waiting` a paused fit stays in memory where it may.
    """

    def __init__(self, folder: Path, meter: Meter, every_s: float = EVERY_S, waiting: Waiting | None = None) -> None:
        self.folder, self.meter, self.every_s, self.waiting = folder, meter, every_s, waiting
        self._last = time.monotonic()
        self._ended: Held | None = None

    def due(self) -> bool:
        """Whether the clock asks for a snapshot now."""
        return time.monotonic() - self._last >= self.every_s

    def save(self, progress: Progress, tensors: dict[str, Tensor]) -> None:
        """Write a snapshot, then drop all but the newest two."""
        progress.seconds = self.meter.seconds()
        told = json.dumps(asdict(progress))
        data = save({name: t.detach().contiguous() for name, t in tensors.items()}, {"progress": told})
        place = f"{progress.step:09d}-{progress.phase}-{len(progress.curve):05d}"  # a score follows the step it scores
        path = self.folder / f"{place}-{durable.digest(data)[:32]}.snapshot"
        durable.write(path, data)
        _told[path] = told
        for old in self._all()[KEPT:]:
            durable.remove(old)
            _told.pop(old, None)
        self._last, self._ended = time.monotonic(), None
        if self.waiting is not None:
            self.waiting.fits.pop(self.folder, None)

    def pause(self, progress: Progress, tensors: dict[str, Tensor]) -> None:
        """Keep a fit that goes on later, in memory where it may wait there; its tensors are not changed any more."""
        progress.seconds, self._ended = self.meter.seconds(), None
        unsaved_s = time.monotonic() - self._last
        if self.due() or self.waiting is None or not self.waiting.takes(self.folder, (progress, tensors), unsaved_s):
            self.save(progress, tensors)

    def end(self, progress: Progress, tensors: dict[str, Tensor]) -> None:
        """Have what a phase ended with for `load`, until the next begins; what is due is written."""
        if self.due():
            self.save(progress, tensors)
        self._ended = progress, tensors

    def load(self) -> Held | None:
        """What waits in memory, else the newest snapshot whose bytes are what its name says, or None."""
        held = self._ended
        if held is None and self.waiting is not None and self.folder in self.waiting.fits:
            held, unsaved_s = self.waiting.fits[self.folder]
            self._last = time.monotonic() - unsaved_s
        if held is not None:
            return copy.deepcopy(held[0]), held[1]
        durable.sweep(self.folder)
        for path in self._all():
            if durable.file_digest(path)[:32] != path.stem.rsplit("-", 1)[1]:
                durable.remove(path)
                continue
            with safe_open(path, framework="pt") as file:
                _told[path] = file.metadata()["progress"]
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            return _progress(_told[path]), tensors
        return None

    def progress(self) -> Progress | None:
        """Where the fit stands, as `load` says; what this process has written or read already is not read for it."""
        if self.waiting is not None and self.folder in self.waiting.fits:
            return copy.deepcopy(self.waiting.fits[self.folder][0][0])
        newest = next(iter(self._all()), None)
        if newest in _told:
            return _progress(_told[newest])
        found = self.load()
        return found[0] if found else None

    def clear(self) -> None:
        """Remove the snapshots of a trial that is finished."""
        for path in self._all():
            _told.pop(path, None)
        if self.waiting is not None:
            self.waiting.fits.pop(self.folder, None)
        durable.remove(self.folder)

    def _all(self) -> list[Path]:
        return sorted(self.folder.glob("*.snapshot"), reverse=True)


_told: dict[Path, str] = {}
"""Snapshots that this process has written or read, and what they say of their progress."""


def _progress(told: str) -> Progress:
    held: dict[str, Any] = json.loads(told)
    held["curve"] = [Epoch(**line) for line in held["curve"]]
    return Progress(**held)


def optimizer_state(optimizer: torch.optim.Optimizer, names: list[str]) -> dict[str, Tensor]:
    """An optimizer's tensors as "optimizer/<parameter>/<entry>"."""
    state = optimizer.state_dict()["state"]
    return {f"optimizer/{names[i]}/{k}": v for i, held in state.items() for k, v in held.items() if torch.is_tensor(v)}


def restore_optimizer(optimizer: torch.optim.Optimizer, names: list[str], tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_state` took out, laid in memory as the parameters: fused rules rely on it."""
    held = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimizer/"):
            name, entry = key.removeprefix("optimizer/").rsplit("/", 1)
            number = names.index(name)
            alike = tensor.shape == held[number].shape
            laid = torch.empty_like(held[number], dtype=tensor.dtype).copy_(tensor) if alike else tensor
            state.setdefault(number, {})[entry] = laid
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
