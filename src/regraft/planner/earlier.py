"""Trials that a run beside this one has ended: they are taken over, since a trial follows from what it is made of.

What decides its bits is its address: the plan, the seed, the model, the rows of all splits in their order, the task,
the machine. A run that differs from an earlier one by a strategy more, or by other knobs of one of them, trains that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from regraft.errors import UsageError
from regraft.kit import durable, hardware
from regraft.kit.store import Folder
from regraft.waist import Epoch, Plan, Trial, fingerprint

if TYPE_CHECKING:
    from regraft.planner.course import Course

NOTE = "taken over from the run "


@dataclass
class Earlier:
    """What lies in the folders beside a run. `mark` is the model's fingerprint; without one there are no addresses.

    Nothing is taken where not `asked`. Trunks that compute in another way than the network stands have no address
    either: a clock may have chosen it.
    """

    course: Course
    mark: str = ""
    asked: bool = False
    _rows: str = field(default="", init=False)
    _found: dict[str, list[tuple[Path, Trial]]] = field(default_factory=dict, init=False)

    def address(self, plan: Plan) -> str:
        """What a trial's bits follow from, "" where something else may decide them."""
        course, machine = self.course, self.course.machine
        if not self.mark or not course.trunks.plainly or machine.promise != "exact":
            return ""
        if course.narrowed or machine.processor != hardware.processor():
            return ""  # part of it may have been computed in other sizes, or elsewhere
        data = course.data
        if not self._rows:
            splits = [[(row.key, row.y, row.group) for row in part] for part in (data.train, data.val, data.test)]
            self._rows = fingerprint(splits, data.target, data.columns, data.modality)
        more = [[row.key for row in data.unlabelled]] if plan.means and data.unlabelled else []
        return fingerprint(
            *more,
            (self.mark, course.view.inputs, self._rows, plan, course.seed),
            (course.task.name, [metric.name for metric in course.task.metrics]),
            (machine.processor, machine.threads, machine.micro_batch, machine.versions),
        )

    def begun(self, plan: Plan, enough: Callable[[Sequence[Epoch]], bool]) -> Trial | None:
        """A plan's trial as an earlier run had it when its curve was `enough`; None where none came so far."""
        for _, trial in self._all(plan):
            for size in range(1, len(trial.curve) + 1):
                if enough(trial.curve[:size]):
                    seconds = round(trial.cost.seconds * size / len(trial.curve), 3)
                    return replace(
                        trial, curve=trial.curve[:size], cost=replace(trial.cost, seconds=seconds), notes=_own(trial)
                    )
        return None

    def take(self, plan: Plan, place: Path, run: Path, ended: Sequence[Epoch] = (), why: str = "") -> Trial | None:
        """Copy the files of an equal trial into `place`, a folder of `run`; its record is written last.

        Without `ended` one that ran to its end is wanted; with it one that was ended after these epochs, now for `why`.
        """
        for folder, trial in self._all(plan):
            if not trial.whole or (trial.curve != tuple(ended) if why else trial.stopped):
                continue
            names, inside = [trial.predictions, trial.snapshot], place.relative_to(run)
            try:
                files = [(Path(name).name, Folder(folder).vouched(name).read_bytes()) for name in names]
            except (OSError, UsageError):
                continue  # it was removed or changed since: another one, or none
            for name, content in files:
                durable.write(place / name, content)
            made = replace(
                trial,
                predictions=str(inside / files[0][0]),
                snapshot=str(inside / files[1][0]),
                notes=(*_own(trial), f"{NOTE}{folder.name}"),
                stopped=why,
            )
            Folder(place).write("trial", made)
            return made
        return None

    def _all(self, plan: Plan) -> list[tuple[Path, Trial]]:
        """(run, trial) of all trials beside this run that have the plan's address."""
        address = self.address(plan) if self.asked else ""
        if not address:
            return []
        if address not in self._found:
            own, short = self.course.folder.path, fingerprint(plan, self.course.seed)[:6]
            some = sorted(own.parent.glob(f"*/trials/*-{plan.strategy}-{short}"))
            held = [(path.parents[1], Folder(path).read("trial", Trial)) for path in some if path.parents[1] != own]
            self._found[address] = [(run, trial) for run, trial in held if trial and trial.address == address]
        return self._found[address]


def _own(trial: Trial) -> tuple[str, ...]:
    """A trial's notes without the one that it was taken over."""
    return tuple(note for note in trial.notes if not note.startswith(NOTE))
