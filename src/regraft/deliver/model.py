"""A bundle that was opened: it predicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from regraft.backbone import bundle as bundles
from regraft.deliver.inputs import expand
from regraft.engine.cache import Table
from regraft.engine.predict import Graft, outputs, sides
from regraft.engine.trunk import Trunk
from regraft.errors import ModelError
from regraft.kit import hardware, shelf, store
from regraft.waist import Bad, Bundle, Row, Task


@dataclass(slots=True)
class Model:
    """A bundle that was opened: `labels` in order, its record `told`, `predict`."""

    folder: Path
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    told: Bundle
    _graft: Graft
    _task: Task

    @property
    def literal(self) -> bool:
        """Whether a string is a cell itself, not the path of one."""
        found: bool = shelf.find("modalities", self.told.modality).LITERAL
        return found

    @classmethod
    def load(cls, folder: Path, module: Any = None) -> Model:
        """Open a bundle after comparing its bytes with its record.

        Args:
            module: The network, built as it was for the run, for a bundle of a network from your own code.
        Raises: ModelError: it is no bundle, was changed, or cannot be opened.
        """

        if not bundles.is_bundle(folder):
            raise ModelError(
                "there is no bundle here",
                saw=str(folder),
                allowed="a bundle's folder, or a run that shipped one",
                do="finish the run with regraft adapt --resume RUN; if its result was refused, report.md says why",
            )
        told = bundles.read(folder)
        provider = shelf.find("providers", told.provider)
        if module is not None and "reopen" in vars(provider):  # not where features without a network won
            view = provider.reopen(folder, module)
            bundles.wear(view, folder, told.inserts)
        else:
            view = shelf.find("providers", "bundle").load(str(folder))
        native, view = view.native, view.pooled(told.plan.pooling)
        view.inputs = told.inputs
        task = shelf.find("tasks", told.task).make(told.target)
        hardware.settle(hardware.threads())
        return cls(folder, told.target.labels, told.columns, told, Graft(view, native), task)

    def predict(
        self, cells: Any, left_out: list[Bad] | None = None, notes: list[str] | None = None
    ) -> list[dict[str, Any]]:
        """A dictionary per cell: `id` and the task's answer (`label`, `confidence`, `probabilities`; `value`, `low` …).

        Args:
            cells: A `Path` (a file, a folder with everything in it that the model reads, a table with the columns of
                training), a picture, an array, a text, a tuple of two texts, or a list of these. A string is a text for
                a model of texts, and a path for a model of pictures.
            left_out: Takes the files of folders and rows of tables that cannot be read; they get no answer.
            notes: Takes what is worth knowing of how tables were read.
        Raises: DataError: a cell cannot be read, and is not to be left out; it is named. UsageError: nothing was given,
            or a table lacks a column.
        """
        item = shelf.find("modalities", self.told.modality)
        rows = [Row(name, cell, None, "", name) for name, cell in expand(cells, item, self.columns, left_out, notes)]
        return [{"id": row.id, **answer} for row, answer in zip(rows, self.answers(self.outputs(rows)), strict=True)]

    @property
    def graft(self) -> Graft:
        """The network with its head."""
        return self._graft

    def answers(self, made: Tensor) -> list[dict[str, Any]]:
        """What the task makes of outputs, one for each row."""
        return self._task.answers(made, dict(self.told.calibration))

    def outputs(self, rows: Sequence[Row]) -> Tensor:
        """The model's outputs for rows, [N, …], in its task's form."""
        view = self._graft.view
        trunk = Trunk(view, 0, view.encoder(), self.told.micro_batch)
        return outputs(self._graft, Table(trunk, rows, None, sides(view.pooling, len(self.columns))))


def open_model(path: Path) -> Model:
    """The model of a bundle or of a run, to predict with.

    Raises: UsageError: there is no run; ModelError: it has no bundle, or a changed one.
    """
    if (path / "regraft.json").is_file():
        return Model.load(path)
    return Model.load(store.existing(path) / "bundle")
