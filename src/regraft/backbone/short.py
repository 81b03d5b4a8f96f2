"""Networks that end after some of their blocks: each as a view of its own, several of them read in one pass."""

from __future__ import annotations

import copy
import dataclasses
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, nn

from regraft.backbone.patching import constant, watch
from regraft.backbone.stages import Batch
from regraft.backbone.state import ghost

if TYPE_CHECKING:
    from regraft.backbone.view import View


class Blocks(NamedTuple):
    """The list of a network's blocks: `path` of the list; `end(module, n)` leaves the first n of them in a module.

    What the module says of itself says so afterwards, too: it is saved as its own library does.
    """

    path: str
    end: Callable[[nn.Module, int], None]


def ends_of(view: View) -> tuple[int, ...]:
    """The stages of a view after which its network may end, one for each block; none where it must stay whole.

    Each block has to be a stage of its own and to give what the others give; what was merged into the last one, such as
    a norm, may follow any of them.
    """
    if view.row is None or view.side:
        return ()
    members = view.seams.members
    paths = [f"{view.row.path}.{name}" for name, _ in view.module.get_submodule(view.row.path).named_children()]
    found = [i for i, some in enumerate(members) if some[0] in paths]
    alone = all(len(members[i]) == 1 for i in found[:-1])
    alike = all(view.seams.shapes[i] == view.seams.shapes[found[0]] for i in found)
    return tuple(found) if alone and alike and [members[i][0] for i in found] == paths else ()


def shortened(view: View, blocks: int) -> View:
    """The view of the network that ends after so many of its blocks: the same weights in memory, modules of its own."""
    assert view.row is not None
    ends = ends_of(view)
    told, last, highest = view.card().short(blocks), ends[blocks - 1], ends[-1]
    left = [i for i in range(len(view.stages)) if i not in ends[blocks:]]
    twin = copy.copy(view)
    shared: dict[int, Any] = {id(t): t for t in (*view.module.parameters(), *view.module.buffers())}
    twin.module, twin.lock, twin.blocks = copy.deepcopy(view.module, shared), threading.RLock(), blocks
    view.row.end(twin.module, blocks)
    members = [list(view.seams.members[i]) for i in left]
    layouts = [view.seams.layouts[i] for i in left]
    shapes = [view.seams.shapes[i] for i in left]
    members[last] += view.seams.members[highest][1:]
    layouts[last] = view.seams.layouts[highest]
    mains = [view.seams.mains[i] for i in left]
    twin.seams = view.seams._replace(members=members, mains=mains, layouts=layouts, shapes=shapes)
    twin.paths = [some[-1] for some in members]
    twin.stages = tuple(dataclasses.replace(s, path=p) for s, p in zip(told.stages, twin.paths, strict=True))
    return twin


def fan(view: View, batch: Batch, ends: Sequence[View]) -> list[Tensor]:
    """Features of a view, then those of views of the same network that end earlier, in one pass of the first.

    The bits are those of a pass for each: what follows their last block runs on what that one pass gave there.
    """
    n = len(next(iter(batch.values())))
    seen: dict[str, Any] = {}
    held: dict[str, Any] = dict.fromkeys(_last(end) for end in ends)
    whole = view.called(batch, {path: watch(path, "", seen, n, held) for path in _paths(view)})
    return [whole, *(_ended(end, batch, held[_last(end)], seen) for end in ends)]


def _ended(view: View, batch: Batch, value: Any, seen: dict[str, Any]) -> Tensor:
    """Features of a view whose last block gives this value; what runs before it is replaced by ghosts."""
    n, last = len(next(iter(batch.values()))), _last(view)
    given = {path: ghost(seen[path], n, 1) for path in _paths(view)[: _paths(view).index(last)]} | {last: value}
    return view.called(batch, {path: constant(one, path in view.seams.written) for path, one in given.items()})


def _paths(view: View) -> list[str]:
    """All members of all stages, in the order they run."""
    return [path for some in view.seams.members for path in some]


def _last(view: View) -> str:
    """The path of the last block that a view keeps."""
    return view.seams.members[ends_of(view)[-1]][0]
