"""All that a report tells of a run: its records, read from the run folder alone."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from regraft.backbone import bundle as bundles
from regraft.kit import store
from regraft.waist import (
    Account,
    BackboneCard,
    Bad,
    Budget,
    DataCard,
    Examined,
    Flag,
    MachineCard,
    Opening,
    Options,
    Trial,
    Verdict,
)

if TYPE_CHECKING:
    from regraft.planner.advise import Advice
    from regraft.planner.choose import Choice

BUNDLE = "bundle"
QUARANTINE = "quarantine.jsonl"


@dataclass(frozen=True, slots=True)
class Story:
    """A finished run as its records tell it; `examined` and `opening` are None where there is nothing to tell.

    `flags` are findings about the data, `bad` what was left out of it; older runs have neither. `advice` is what was
    foreseen, where that was asked for.
    """

    run: Path
    options: Options
    data: DataCard
    backbone: BackboneCard
    machine: MachineCard
    trials: tuple[Trial, ...]
    verdict: Verdict
    account: Account
    examined: Examined | None = None
    opening: Opening | None = None
    flags: tuple[Flag, ...] = ()
    bad: tuple[Bad, ...] = ()
    advice: Advice | None = None
    choice: Choice | None = None

    @property
    def winner(self) -> Trial:
        return self.trials[self.verdict.winner]

    @property
    def shipped(self) -> bool:
        """Whether there is a bundle to use."""
        return self.verdict.decision != "refuse"


def read(path: Path, verdict: Verdict | None = None) -> Story:
    """The story of the run in `path`; its data and its backbone are not needed. `verdict` is one not yet written down.

    Raises: UsageError: the run is not finished, or another version wrote it; ModelError: its bundle was changed.
    """
    folder = store.Folder(path)
    bundle = path / BUNDLE
    return Story(
        run=path,
        options=folder.load("options", Options),
        data=folder.load("data", DataCard),
        backbone=folder.load("backbone", BackboneCard),
        machine=folder.load("machine", MachineCard),
        trials=tuple(folder.load("trials", list[Trial])),
        verdict=verdict or folder.load("verdict", Verdict),
        account=folder.load("account", Account) if folder.has("account") else Account(Budget(), 0.0, 0, 0, ()),
        examined=folder.load("examined", Examined) if folder.has("examined") else None,
        opening=bundles.read(bundle).opening if bundles.is_bundle(bundle) else None,
        flags=flags(path),
        bad=quarantined(path),
        advice=_advice(folder) if folder.has("advice") else None,
        choice=_choice(folder) if folder.has("choice") else None,
    )


def _choice(folder: store.Folder) -> Choice:
    from regraft.planner.choose import Choice

    return folder.load("choice", Choice)


def _advice(folder: store.Folder) -> Advice:
    """What was foreseen of a run; its records are torch's neighbours, so they are imported where there is one."""
    from regraft.planner.advise import Advice

    return folder.load("advice", Advice)


def flags(run: Path) -> tuple[Flag, ...]:
    """The findings about the data of a run; none where an older version made it."""
    folder = store.Folder(run)
    return tuple(folder.load("flags", list[Flag])) if folder.has("flags") else ()


def quarantined(run: Path) -> tuple[Bad, ...]:
    """What was left out of a run's data, from its quarantine; lines that are none are passed over."""
    found = []
    with contextlib.suppress(OSError):
        for line in (run / QUARANTINE).read_text("utf-8", "surrogatepass").split("\n"):
            with contextlib.suppress(ValueError, TypeError, KeyError):
                one = json.loads(line)
                found.append(Bad(str(one["split"]), str(one["file"]), int(one["row"]), str(one["why"])))
    return tuple(found)
