"""What hangs on the base of a family: taken in from elsewhere, made whole again, merged, removed."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from regraft.backbone import bundle as bundles
from regraft.backbone import shared
from regraft.deliver import borrowed, family, pack
from regraft.deliver.borrowed import CONFIG, KIND, is_adapter
from regraft.engine.predict import Graft
from regraft.errors import ModelError, UsageError
from regraft.kit import durable, shelf, store
from regraft.waist import Bundle, Insert

if TYPE_CHECKING:
    from torch import nn

    from regraft.backbone.view import View

OWN = 0.75
"""A bundle of which more is its own was made of another backbone: norms and biases that nobody trained are alike."""


def adapter_of(place: Path) -> Path:
    """An adapter's folder: itself, or the one in a bundle or a run.

    Raises: UsageError: there is none.
    """
    for folder in (place, place / bundles.ADAPTER, place / pack.LINK / bundles.ADAPTER):
        if is_adapter(folder):
            return folder
    raise UsageError(
        "there is no adapter here",
        saw=str(place),
        allowed=f"a folder with {CONFIG}, or a run or bundle whose winner has inserts",
        do="check the path",
    )


def export(folder: Path, task: str, out: Path) -> Bundle:
    """Write a task's bundle with all of its files into the new folder `out`: it needs no base from then on.

    Raises: UsageError: no such task, or the folder is there; ModelError: a bundle or the base was changed.
    """
    place = family.bundle_of(folder, family.read(folder).member(task))
    _free(out)
    whole = shared.whole(place) if shared.is_shared(place) else place.resolve()
    with durable.folder(out) as part:
        for path in sorted(p for p in whole.rglob("*") if p.is_file()):
            durable.fill(part / path.relative_to(whole), path.read_bytes())
    return bundles.read(out)


def remove(folder: Path, task: str) -> int:
    """Take a task out of a family, and its run or bundle with it; the bytes that are free again.

    Raises: UsageError: no such task.
    """
    family.read(folder)
    with durable.lock(folder / ".lock", f"the family {folder}"):
        told = family.read(folder)
        member = told.member(task)
        freed = family.size_of(folder / member.place)
        store.Folder(folder).write(family.RECORD, replace(told, tasks=tuple(t for t in told.tasks if t != member)))
        durable.remove(folder / member.place)
    return freed


def add(folder: Path, source: Path, task: str, labels: Sequence[str] = ()) -> None:
    """Take a run, a bundle or an adapter of peft into a family as a task.

    At least a quarter of a bundle's weights must be those of the base; an adapter's layers must be there in the base's
    shapes. `labels` name the outputs of an adapter's head, which its files do not say.

    Raises: UsageError: the name is taken or no name, or labels are missing; ModelError: it belongs to another base.
    """
    family.read(folder)
    whole = source / pack.LINK if bundles.is_bundle(source / pack.LINK) else source
    with durable.lock(folder / ".lock", f"the family {folder}"):
        told = family.read(folder)
        if task != store.slug(task) or task in [one.task for one in told.tasks] or (folder / task).exists():
            raise UsageError(
                "a task cannot have this name",
                saw=task,
                allowed="lower-case letters, digits, dots, dashes; a name that no task has",
                do="choose another --task",
            )
        try:
            if bundles.is_bundle(whole):
                _copy(folder, whole, folder / task / "bundle-1")
            else:
                _packed(folder, adapter_of(source), task, tuple(labels))
            link = folder / task / pack.LINK
            durable.point(link, "bundle-1")
            before = _weights(link)
            family.join(folder, task, folder / task)
            if (own := _weights(link)) > OWN * before:
                raise _other(source, folder, f"{own / before:.0%} of its weights are not those of the base")
        except BaseException:
            _take_back(folder, told, task)
            raise


def merged(sources: Sequence[Path], weights: Sequence[float], rank: int, out: Path) -> None:
    """Write the weighted sum of adapters of one network into the new folder `out`, as peft has it.

    By their ranks, one after the other, it is exact; with a `rank` it is the nearest of that rank (SVD). A head is the
    first one's.

    Raises: UsageError: the folder is there, or weights and adapters are not as many; ModelError: no plain LoRA, or
    adapters of different networks.
    """
    if len(sources) < 1 or len(weights) not in (0, len(sources)):
        raise UsageError(
            "each adapter has one weight", f"{len(sources)} adapters, {len(weights)} weights", "as many", "--weight 0.5"
        )
    _free(out)
    usual = [1 / len(sources)] * len(sources)
    files = shelf.find("inserts", KIND).combined([adapter_of(one) for one in sources], weights or usual, rank)
    with durable.folder(out) as part:
        for name, data in files.items():
            durable.fill(part / name, data)


def _free(out: Path) -> None:
    if out.exists():
        raise UsageError("this folder is there already", str(out), "a new one", "choose another --out")


def _copy(folder: Path, bundle: Path, place: Path) -> None:
    """A whole copy of a bundle, for the family to share."""
    whole = shared.whole(bundle) if shared.is_shared(bundle) else bundle.resolve()
    bundles.read(whole)
    with durable.folder(place) as part:
        for path in sorted(p for p in whole.rglob("*") if p.is_file()):
            durable.fill(part / path.relative_to(whole), path.read_bytes())


def _weights(folder: Path) -> int:
    """The bytes of weights in a bundle."""
    endings = (shared.WEIGHTS, shared.OWN)
    return sum(path.stat().st_size for path in folder.resolve().rglob("*") if path.suffix in endings)


def _take_back(folder: Path, told: family.Family, task: str) -> None:
    store.Folder(folder).write(family.RECORD, told)
    durable.remove(folder / task)


def _packed(folder: Path, adapter: Path, task: str, labels: tuple[str, ...]) -> None:
    """Pack the base with an adapter of peft merged into it as a bundle, the adapter beside it."""
    base = shared.read_base(folder / family.BASE)
    view: View = shelf.find("providers", base.provider).load(str(folder / family.BASE), base.modality)
    item = shelf.find("inserts", KIND)
    pooling = item.load(view, adapter)
    view = view.pooled(pooling) if pooling in view.calls else view
    borrowed.check_head(view.native if pooling else None, labels, adapter)
    head: nn.Linear = view.native  # type: ignore[assignment]
    config = json.loads((adapter / CONFIG).read_bytes())
    inserts = (Insert(KIND, (), int(config.get("r", 0)), ""),)
    told = borrowed.record(view, task, labels, base.name, inserts)
    graft = Graft(view, head)
    with durable.folder(folder / task / "bundle-1") as part:
        for name in sorted(path.name for path in adapter.iterdir() if path.is_file()):
            durable.fill(part / bundles.ADAPTER / name, (adapter / name).read_bytes())
        item.merge(view)
        golden = pack.golden(graft, pack.ROWS, 1)
        opening = view.export(head, told.target, str(part))
        text = f"# {task}\n\nAn adapter of peft on {base.name}, merged.\n\n```python\n{opening.use}\n```\n"
        durable.fill(part / "README.md", text.encode("utf-8", "replace"))
        made = replace(
            told,
            provider=opening.provider or view.provider,
            golden=tuple(tuple(row) for row in golden.tolist()),
            files=tuple(durable.sums(part).items()),
            opening=opening,
        )
        bundles.write(part, made)


def _other(source: Path, folder: Path, why: str) -> ModelError:
    base = shared.read_base(folder / family.BASE)
    return ModelError(
        "this belongs to another backbone",
        saw=f"{source}: {why}",
        allowed=f"what was made of {base.name}, fingerprint {base.mark[:12]}…",
        do="make a family for its own: regraft adapt A B --model MODEL",
    )


def labels_of(text: str) -> tuple[str, ...]:
    """Labels with commas between them."""
    return tuple(part.strip() for part in re.split(",", text) if part.strip())
