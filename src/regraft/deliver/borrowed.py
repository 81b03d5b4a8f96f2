"""A folder of peft as a model: merged into the network that it was trained in, with its head; nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from regraft.backbone import bundle as bundles
from regraft.deliver import pack
from regraft.deliver.model import Model
from regraft.engine.predict import Graft
from regraft.errors import UsageError
from regraft.kit import hardware, shelf
from regraft.planner.request import find_provider
from regraft.waist import Bundle, Insert, Opening, Phase, Plan, Target

if TYPE_CHECKING:
    from regraft.backbone.view import View

CONFIG = "adapter_config.json"
KIND = "lora"
"""The file in inserts/ that reads and writes peft's folders."""
ROWS = 32


def is_adapter(place: Path) -> bool:
    """Whether peft saved this folder, rather than regraft beside a bundle."""
    return (place / CONFIG).is_file()


def open_adapter(folder: Path, arch: str = "", labels: Sequence[str] = ()) -> Model:
    """The model that an adapter makes of the network `arch`, or of the one that its configuration names.

    Args:
        labels: What the outputs of the head mean, in its order; as the network's own configuration says if left out.
    Raises: UsageError: no folder of peft, no network, no head, or labels that are missing; ModelError: the adapter is
        for another network.
    """
    if not is_adapter(folder):
        raise UsageError(
            "there is no adapter here", str(folder), f"a folder with {CONFIG}", "leave out --arch and --labels"
        )
    view: View = find_provider(folder).load(folder, "", arch)
    named = tuple(labels) or view.labels
    check_head(view.native, named, folder)
    told = record(view, folder.resolve().name, named, view.name)
    hardware.settle(hardware.threads())
    task = shelf.find("tasks", told.task).make(told.target)
    return Model(folder, told.target.labels, told.columns, told, Graft(view, view.native), task)


def check_head(head: Any, labels: Sequence[str], adapter: Path) -> None:
    """Refuse an adapter whose outputs nobody can name.

    Raises: UsageError: it brings no head, or one of other outputs than there are labels.
    """
    if not isinstance(head, nn.Linear):
        raise UsageError(
            "this adapter brings no head",
            saw=str(adapter),
            allowed="modules_to_save with the network's head, or head.safetensors beside it",
            do=f"adapt with it: regraft adapt DATA --model {adapter} --arch MODEL",
        )
    if len(labels) != head.out_features:
        raise UsageError(
            "the labels are not as many as the outputs of this adapter's head",
            saw=", ".join(labels) or "none",
            allowed=f"{head.out_features}, in the head's order",
            do="--labels a,b,c",
        )


def record(view: View, name: str, labels: tuple[str, ...], base: str, inserts: tuple[Insert, ...] = ()) -> Bundle:
    """The record of a classifier that was not trained here: no scores, no files yet."""
    literal = shelf.find("modalities", view.inputs.modality).LITERAL
    plan = Plan(KIND, (Phase(0, 0, ()),), pooling=view.pooling, inserts=inserts)
    return Bundle(
        schema=bundles.SCHEMA,
        name=name,
        modality=view.inputs.modality,
        task="classify",
        target=Target("label", "class", labels, (0,) * len(labels)),
        inputs=view.inputs,
        plan=plan,
        provider=view.provider,
        base=base,
        scores=(),
        golden_seed=pack.GOLDEN_SEED,
        golden=(),
        micro_batch=ROWS,
        versions=hardware.versions(),
        files=(),
        opening=Opening("", "", ""),
        columns=("text",) if literal else (),
    )
