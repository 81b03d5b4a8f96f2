"""What a run that was stopped has so far: finished trials, the leading one, seconds, a usable bundle; from disk."""

from __future__ import annotations

import contextlib
import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from regraft.backbone import bundle as bundles
from regraft.deliver import runs
from regraft.errors import ModelError
from regraft.kit import store
from regraft.waist import Bundle, Score, Trial, plain


@dataclass(frozen=True, slots=True)
class SoFar:
    """A run in the middle: `seconds` are those spent so far as far as they were kept, `bundle` is "" without one.

    `leader` is the place of the leading trial among `trials`, -1 where none is finished.
    """

    run: str
    trials: tuple[Trial, ...]
    begun: int
    leader: int
    seconds: float
    bundle: str

    @property
    def resume(self) -> str:
        """The command that goes on with it."""
        return f"regraft adapt --resume {shlex.quote(self.run)}"


def own(out: Path) -> Path | None:
    """The run that `out` is or that lies below it and this process worked on last, by the number in its lock."""
    held = [path for path in (out / runs.LOCK, *out.glob(f"*/{runs.LOCK}")) if _holder(path) == os.getpid()]
    newest = max(held, key=lambda path: path.stat().st_mtime, default=None)
    return newest.parent if newest and runs.is_run(newest.parent) else None


def so_far(path: Path) -> SoFar:
    """What the run at `path` has."""
    trials: list[Trial] = []
    places = sorted((path / "trials").glob("*-*"), key=lambda place: (len(place.name.partition("-")[0]), place.name))
    for place in places:
        if (trial := store.Folder(place).read("trial", Trial)) is not None:
            trials.append(trial)
    seconds = store.Folder(path).read("clock", float) or 0.0
    packed: Bundle | None = None
    with contextlib.suppress(ModelError):  # there is none yet
        packed = bundles.read(path / "bundle")
    leader = _leader(trials, packed)
    return SoFar(str(path), tuple(trials), len(places), leader, seconds, str(path / "bundle") if packed else "")


def facts(found: SoFar) -> dict[str, object]:
    """The same for scripts."""
    told = [
        {"label": t.label, "validation": plain(validation(t)), "seconds": t.cost.seconds, "stopped": t.stopped}
        for t in found.trials
    ]
    leader = found.trials[found.leader].label if found.leader >= 0 else ""
    parts = {"run": found.run, "trials": told, "begun": found.begun, "leader": leader}
    return {**parts, "seconds": found.seconds, "bundle": found.bundle, "next": [found.resume]}


def validation(trial: Trial) -> Score | None:
    """A trial's deciding score on validation, None where it has none."""
    return next((score for score in trial.scores if score.split == "val"), None)


def _leader(trials: list[Trial], packed: Bundle | None) -> int:
    """The trial whose model is packed, else the one with the best score on validation; -1 for none."""
    for i, trial in enumerate(trials):
        if packed and trial.plan == packed.plan:
            return i
    scored = [
        (score.value * (1 if score.better == "higher" else -1), -i)
        for i, trial in enumerate(trials)
        if trial.whole and (score := validation(trial))
    ]
    return -max(scored)[1] if scored else -1


def _holder(lock: Path) -> int:
    """The process whose number stands in a lock."""
    try:
        return int(lock.read_bytes()[:40].split()[0])
    except (OSError, ValueError, IndexError):
        return 0
