"""Several tasks on one backbone: a run for each in one folder, from one cache; what ships lies there once."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from regraft import flow
from regraft.errors import Unproven, UsageError
from regraft.flow import Run
from regraft.kit import durable, store
from regraft.planner.request import Source, resolved, sharing
from regraft.waist import Event, Options, Said, fingerprint


@dataclass(frozen=True, slots=True)
class Tasks:
    """The runs of several tasks by their names, and the folder that they and their backbone lie in.

    `failed` are tasks whose bundle, opened by its own library, was not the model that was trained: they ship nothing.
    """

    folder: Path
    runs: Mapping[str, Run]
    failed: Mapping[str, Unproven] = field(default_factory=dict)

    def predict(self, cells: Any) -> list[dict[str, Any]]:
        """Answers of all tasks to each cell, from one pass of the backbone: `id`, "<task>.label" and so on."""
        from regraft.deliver.family import open_family

        return open_family(self.folder).predict(cells)


def steps(
    options: Options, data: Mapping[str, Any], out: Path, *, fresh: bool = False, model: Any = None
) -> Generator[Event, None, Tasks]:
    """A run for each of `data`, task → data, all with these options, as events; returns the runs.

    The folder is named after the model: further tasks come to those that are there. A result that was refused, or whose
    bundle fails its test, ships nothing, and its task is not one of the family's.

    Raises: as `flow.steps`; UsageError: a task's name is no name of a folder.
    """
    if wrong := next((name for name in data if name != store.slug(name)), ""):
        raise UsageError(
            "this is no name for a task", saw=wrong, allowed="lower-case letters, digits, dots, dashes", do="rename it"
        )
    options = resolved(sharing(options))
    source = Source(options.model if model is None else model)
    mark = source.mark
    name = f"many-{store.slug(Path(options.model).name)}"
    folder = store.place(out, name, fingerprint(mark, options.arch), fresh=fresh)
    from regraft.deliver import native

    runs: dict[str, Run] = {}
    failed: dict[str, Unproven] = {}
    with durable.lock(folder / ".lock", f"the family {folder}"), native.one_process():
        durable.sweep(folder)
        for number, (task, one) in enumerate(data.items()):
            yield Said(f"task {number + 1} of {len(data)}: {task}")
            itself = isinstance(one, (str, Path))
            told = replace(options, data=str(one) if itself else f"<{type(one).__name__}>")
            try:
                runs[task] = yield from flow.steps(told, folder, data=None if itself else one, model=source)
            except Unproven as error:
                failed[task] = error
                yield Said(f"{task} does not ship: {error}")
                continue
            yield from _joined(folder, task, runs[task], source, options)
    return Tasks(folder, runs, failed)


def names(paths: list[str]) -> dict[str, str]:
    """Task → path, each called after its file or folder; of equal names the later ones are numbered.

    >>> names(["a/photos/", "b/photos", "reviews.csv"])
    {'photos': 'a/photos/', 'photos-2': 'b/photos', 'reviews': 'reviews.csv'}
    """
    found: dict[str, str] = {}
    for path in paths:
        name = first = store.slug(Path(path).stem if Path(path).suffix else Path(path).name)
        number = 1
        while name in found:
            number += 1
            name = f"{first}-{number}"
        found[name] = path
    return found


def _joined(folder: Path, task: str, run: Run, source: Source, options: Options) -> Generator[Event, None, None]:
    """Take what all tasks share out of a run's bundle."""
    from regraft.deliver import family

    if run.verdict.decision == "refuse":
        yield Said(f"{task} was refused: it ships nothing")
        return
    if not family.is_family(folder):
        view = source.view(run.data.modality, options.arch)
        plan = run.winner.plan
        told = family.Family(Path(options.model).name, source.mark)
        family.begin(folder, told, view.pooled(plan.pooling) if plan.init == "pretrained" else view)
    family.join(folder, task, run.folder)
