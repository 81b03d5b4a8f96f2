"""Find the stages and the head of a network by tracing it: no names are known beforehand.

Stages are the longest row of same-class siblings that holds most of the weights, and the modules with weights before
and after it. A candidate whose output is not all that later ones see is no cut and is merged with the next: the
autograd graph of one pass tells.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from regraft.backbone.state import leaves
from regraft.errors import ModelError

Batch = Mapping[str, Tensor]
Call = Callable[[nn.Module, Batch], Tensor]
WORTH_OPENING = 0.01


class Seams(NamedTuple):
    """Where a network can be cut: the members of each stage in the order they run, the last one being the cut.

    `mains` are the members that stages are named after, `written` those whose output is overwritten in place later,
    `layouts` the order in memory of the dimensions of what a cut gives, largest stride first, `shapes` its shapes for
    one row, `idle` the parameters outside all stages that the features do not depend on.
    """

    members: list[list[str]]
    mains: list[str]
    written: set[str]
    layouts: list[list[list[int]]]
    shapes: list[list[torch.Size]]
    idle: set[str]


def outline(module: nn.Module, call: Call, example: Batch) -> tuple[nn.Module, Batch]:
    """The network and the example without numbers, to trace in no time; themselves where the network needs numbers."""
    try:
        bare = copy.deepcopy(module).to("meta")
        batch = {name: tensor.to("meta") for name, tensor in example.items()}
        with torch.no_grad():
            call(bare, batch)
    except (RuntimeError, NotImplementedError, TypeError, ValueError):  # a forward that looks at values
        return module, example
    return bare, batch


def find_head(module: nn.Module, classes: int, call: Callable[[], Tensor]) -> str:
    """Path of the native head: the linear layer with `classes` outputs that runs last.

    Raises: ModelError: there is none; the linear layers that ran are shown.
    """
    ran: list[tuple[str, nn.Linear]] = []
    hooks = [
        m.register_forward_hook(lambda _m, _a, _o, name=name, m=m: ran.append((name, m)))
        for name, m in module.named_modules()
        if isinstance(m, nn.Linear)
    ]
    with removed(hooks), torch.no_grad():
        call()
    fitting = [name for name, m in ran if m.out_features == classes]
    if not fitting or ran[-1][0] != fitting[-1]:
        raise ModelError(
            "the head of this model was not found",
            saw=", ".join(f"{n} ({m.out_features})" for n, m in ran[-3:]) or "no linear layers",
            allowed=f"a last linear layer with {classes} outputs",
            do="use a checkpoint with a linear classification head",
        )
    return fitting[-1]


def find_stages(module: nn.Module, call: Call, example: Batch) -> Seams:
    """Find the stages of a network by tracing it on two or more rows and on one.

    A norm joins the stage before it. Modules that give one table for all rows, or nothing that the features see, are
    no members: they are glue, as is whatever runs more than once.

    Raises: ModelError: no module with weights runs once.
    """
    n = len(next(iter(example.values())))
    assert n > 1, "one row would not tell what is shared by all rows"
    trace = _Trace(module, call, example)
    single = _Trace(module, call, {name: tensor[:1] for name, tensor in example.items()})
    alive = _reached(trace.end, set())
    dead = {p for p in trace.order if trace.nodes[p] and not trace.nodes[p] & alive}
    tables = {p for p in trace.order if trace.shapes[p] and trace.shapes[p] == single.shapes[p]}
    trace.order = [p for p in trace.order if p not in dead | tables]
    paths = _open(trace, "")
    if not paths:
        raise ModelError(
            "no stages were found in this network",
            saw=f"{type(module).__name__} with {len(trace.order)} modules that run once",
            allowed="a network with a row of blocks of one class",
            do="choose another model, or report this one",
        )
    uncut = _crossed(trace, paths)
    for path in paths:
        shapes = zip(trace.shapes[path], single.shapes[path], strict=True)
        if not all(many == one or (many[0], one[0], *many[1:]) == (n, 1, *one[1:]) for many, one in shapes):
            uncut.add(path)
    uncut |= {before for before, p in itertools.pairwise(paths) if p not in uncut and _is_norm(trace.modules[p])}
    members: list[list[str]] = [[]]
    for path in paths:
        members[-1].append(path)
        if path not in uncut and path != paths[-1]:
            members.append([])
    mains = [max(stage, key=lambda p: _heft(trace.modules[p])) for stage in members]
    used = {id(node.variable) for node in alive if "AccumulateGrad" in type(node).__name__}
    ours = {id(p) for stage in members for path in stage for p in trace.modules[path].parameters()}
    idle = {name for name, p in module.named_parameters() if id(p) not in used | ours}
    cuts = [stage[-1] for stage in members]
    return Seams(
        members, mains, trace.written, [trace.layouts[c] for c in cuts], [single.shapes[c] for c in cuts], idle
    )


class _Trace:
    """One pass with gradients: the modules that ran exactly once in the order they began, and what they gave."""

    def __init__(self, module: nn.Module, call: Call, example: Batch) -> None:
        self.modules = dict(module.named_modules())
        self.shapes: dict[str, list[torch.Size]] = {}
        self.nodes: dict[str, set[Any]] = {}
        self.layouts: dict[str, list[list[int]]] = {}
        began: Counter[str] = Counter()
        versions: dict[str, list[tuple[Tensor, int]]] = {}

        def ended(name: str, found: list[Tensor]) -> None:
            self.shapes[name] = [t.shape for t in found]
            self.nodes[name] = {t.grad_fn for t in found} - {None}
            self.layouts[name] = [sorted(range(t.ndim), key=[-s for s in t.stride()].__getitem__) for t in found]
            versions[name] = [(t, t._version) for t in found]

        hooks = []
        for name, m in self.modules.items():
            hooks.append(m.register_forward_pre_hook(lambda _m, _a, name=name: began.update([name])))
            hooks.append(m.register_forward_hook(lambda _m, _a, out, name=name: ended(name, leaves(out))))
        with removed(hooks), gradients(module, True), torch.enable_grad():
            one = torch.ones((), requires_grad=True)
            inputs = {k: v * one.to(v) if v.is_floating_point() else v for k, v in example.items()}
            self.end = call(module, inputs).grad_fn
        self.order = [name for name, count in began.items() if name and count == 1]
        self.fed = {t.grad_fn for t in inputs.values()} - {None}
        self.written = {name for name, found in versions.items() if any(t._version > v for t, v in found)}


def _open(trace: _Trace, folder: str) -> list[str]:
    """Paths to cut inside `folder`: its row and what runs around it, opened in turn; the folder itself if none hold."""
    held, whole = _weights(trace.modules[folder]), _weights(trace.modules[""])
    row = _longest_row(trace, folder) if held >= WORTH_OPENING * whole else []
    if folder and not row:
        return [folder]
    trunks = {folder} | {path[:i] for path in row for i, c in enumerate(path) if c == "." and i > len(folder)}
    ran, paths = set(trace.order), list[str]()
    for name in trace.order:
        if name in row:
            paths.append(name)
        elif name not in trunks and _weights(trace.modules[name]):
            above = _parent(name)
            while above and above not in ran:
                above = _parent(above)
            if above in trunks:
                paths += _open(trace, name)
    return [folder] if folder and _crossed(trace, paths) & set(row) else paths


def _longest_row(trace: _Trace, folder: str) -> list[str]:
    """The longest list of same-class siblings inside `folder` that run once each and hold most of its weights.

    Lookup tables do not count: the embeddings of many words would outweigh any row of blocks.
    """
    rows: dict[tuple[str, type], list[str]] = defaultdict(list)
    for name in trace.order:
        if name.startswith(folder and f"{folder}.") and _weights(trace.modules[name]):
            rows[_parent(name), type(trace.modules[name])].append(name)
    held = {key: sum(_weights(trace.modules[n], False) for n in row) for key, row in rows.items() if len(row) > 1}
    total = _weights(trace.modules[folder], False)
    for share in (0.5,) if folder else (0.5, 0.25, 0.1):
        fitting = [rows[key] for key in held if held[key] >= max(1, share * total)]
        if fitting:
            return max(fitting, key=lambda row: (len(row), row[0].count(".")))
    return []


def _crossed(trace: _Trace, paths: Sequence[str]) -> set[str]:
    """Those of `paths` that are no cut: the input, or the output of an earlier one, reaches the features around it."""
    found = set()
    for i, path in enumerate(paths[:-1]):
        walls = trace.nodes[path]
        below = trace.fed.union(*(trace.nodes[p] for p in paths[:i])) - walls
        if not walls or below & _reached(trace.end, walls):
            found.add(path)
    return found


def _reached(end: Any, walls: set[Any]) -> set[Any]:
    """All nodes of the graph that `end` was made from, going no further than `walls`."""
    todo, met = [end], set()
    while todo:
        node = todo.pop()
        if node is not None and node not in met and node not in walls:
            met.add(node)
            todo += [following for following, _ in node.next_functions]
    return met


def _weights(module: nn.Module, lookups: bool = True) -> int:
    """How many parameters a module holds, with or without those of lookup tables."""
    parts = [m for m in module.modules() if lookups or not isinstance(m, nn.Embedding)]
    return sum(p.numel() for p in {p for m in parts for p in m.parameters(recurse=False)})


def _heft(module: nn.Module) -> tuple[int, int]:
    """What a stage is named after: matrices before lookup tables before norms."""
    return 0 if _is_norm(module) else _weights(module, False), _weights(module)


def _is_norm(module: nn.Module) -> bool:
    """Whether a module holds vectors alone: a normalisation, a scale."""
    return all(p.ndim < 2 for p in module.parameters())


def normalises(module: nn.Module) -> bool:
    """Whether a module is a normalisation layer: it holds vectors alone, and its class says so, whoever wrote it.

    >>> normalises(nn.LayerNorm(2)), normalises(nn.BatchNorm2d(2)), normalises(nn.Linear(2, 2))
    (True, True, False)
    """
    return "norm" in type(module).__name__.lower() and _is_norm(module)


@contextlib.contextmanager
def removed(hooks: Sequence[Any]) -> Iterator[None]:
    """Remove the hooks when the block ends."""
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextlib.contextmanager
def gradients(module: nn.Module, wanted: bool) -> Iterator[None]:
    """Let every parameter ask for a gradient, or none, while the block runs."""
    kept = [(p, p.requires_grad) for p in module.parameters()]
    try:
        for p, _ in kept:
            p.requires_grad = wanted and p.is_floating_point()
        yield
    finally:
        for p, old in kept:
            p.requires_grad = old


def _parent(path: str) -> str:
    return path.rpartition(".")[0]
