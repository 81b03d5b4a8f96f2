"""See a pretrained network as ordered stages that can be cut, without rewriting it.

The split law: `run(x, start=k, state=run(x, stop=k)) == run(x)` for every frontier k, bit for bit in eval mode.
For a cut at k, stage k-1 returns the stored state, earlier stages return a ghost (a zero-stride tensor of the right
shape and dtype: no memory, no work), and the model's own forward runs whatever lies between.

Stages are found, not typed in: the longest row of same-class siblings that holds most of the weights, and the modules
with weights before and after it. A candidate whose output is not all that later stages see is no cut and is merged
with the next: the autograd graph of one pass tells. The law is for a frozen trunk: kernels differ where gradients are
asked of it, and by memory layout too, so a state is given back in the layout that the network had.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from regraft.errors import ModelError
from regraft.waist import InputSpec, Stage

Batch = Mapping[str, Tensor]
Call = Callable[[nn.Module, Batch], Tensor]
GLUE = "glue"
WORTH_OPENING = 0.01


class State(NamedTuple):
    """What a trunk hands on: stage k-1's output, one-row ghosts of what ran before it, the batch (floats as ghosts)."""

    value: Any
    seen: dict[str, Any]
    inputs: dict[str, Tensor]


class Seams(NamedTuple):
    """Where a network can be cut: the members of each stage in the order they run, the last one being the cut.

    `mains` are the members that stages are named after, `written` those whose output is overwritten in place later,
    `layouts` the order in memory of the dimensions of what a cut gives, largest stride first.
    """

    members: list[list[str]]
    mains: list[str]
    written: set[str]
    layouts: list[list[list[int]]]


class _Stop(Exception):
    def __init__(self, value: Any) -> None:
        self.value = value


class View:
    """A backbone: `module` with its head taken out, cut into `stages`.

    Args:
        module: The network. Its head, if `head` names one, is replaced by the identity.
        call: Runs the module on a batch and returns features [n, dim] (whatever the head used to take).
        example: A batch of two or more examples, to trace the network with; no weights change.
        head: Path of the native head's linear layer, or "" where there is none.
        fresh: A seed → a state dict with random weights of this architecture.
        write: (view, head module, labels, folder) → native files in the folder.
    Raises: ModelError: the network has no row of stages that can be found.
    """

    def __init__(
        self,
        *,
        name: str,
        provider: str,
        module: nn.Module,
        call: Call,
        inputs: InputSpec,
        example: Batch,
        head: str = "",
        config: str = "",
        fresh: Callable[[int], Mapping[str, Tensor]] | None = None,
        write: Callable[[View, nn.Module, Sequence[str], str], None] | None = None,
    ) -> None:
        self.name, self.provider, self.module, self.call, self.inputs = name, provider, module.eval(), call, inputs
        self.head, self.config, self._fresh, self._write = head, config, fresh, write
        self._lock = threading.RLock()
        self.native: nn.Module = module.get_submodule(head) if head else nn.Identity()
        if head:
            replace(module, head, nn.Identity())
        self._seams = find_stages(module, call, example)
        self.paths = [members[-1] for members in self._seams.members]
        self.stages, self.dim = self._measure(example)

    def run(
        self, batch: Batch | None = None, start: int = 0, stop: int | None = None, state: State | None = None
    ) -> Any:
        """Run stages `start` to `stop` - 1: a `State` when `stop` lies below L, otherwise features [n, dim].

        With `start` = k > 0, `state` is what `run(stop=k)` gave; the batch may then be left out.
        """
        stop = len(self.paths) if stop is None else stop
        if start and start == stop:
            return state
        batch = state.inputs if batch is None and state else batch
        assert batch is not None, "run() without a batch needs a state"
        assert state or not start, "run() from the middle needs a state"
        n = len(next(iter(batch.values())))
        seen: dict[str, Any] = {}
        table: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {}
        if start and state:
            for path in self._between(0, start)[:-1]:
                seen[path] = state.seen[path]
                table[path] = _constant(ghost(seen[path], n, 1), path in self._seams.written)
            seen[self.paths[start - 1]] = ghost(state.value, 1, n)
            table[self.paths[start - 1]] = _constant(laid(state.value, self._seams.layouts[start - 1]), False)
        if stop < len(self.paths):
            for path in self._between(start, stop):
                table[path] = _watch(path, self.paths[stop - 1], seen, n)
        with self._lock, patched(self.module, table):
            try:
                return self.call(self.module, batch)
            except _Stop as end:
                return State(end.value, seen, {k: thin(v) for k, v in batch.items()})

    def named(self) -> Iterator[tuple[str, int, nn.Parameter]]:
        """Every parameter once: ("<stage name>/<path in it>", stage index, parameter); glue counts as stage 0.

        A tied parameter belongs to the lowest stage that holds it.
        """
        owner: dict[int, tuple[str, int]] = {}
        for i, members in enumerate(self._seams.members):
            for path in members:
                folder = "" if path == self._seams.mains[i] else f"{path}."
                for name, parameter in self.module.get_submodule(path).named_parameters():
                    owner.setdefault(id(parameter), (f"{self.stages[i].name}/{folder}{name}", i))
        for name, parameter in self.module.named_parameters():
            yield *owner.get(id(parameter), (f"{GLUE}/{name}", 0)), parameter

    def buffers(self) -> Iterator[tuple[str, int, Tensor]]:
        """Every buffer with its name in the module and its stage; glue counts as stage 0."""
        owner = {path: i for i, members in enumerate(self._seams.members) for path in members}
        for name, buffer in self.module.named_buffers():
            yield name, next((i for p, i in owner.items() if name.startswith(p + ".")), 0), buffer

    def members(self, stage: int) -> list[nn.Module]:
        """The modules of a stage: the one that is cut and those that were merged into it."""
        return [self.module.get_submodule(path) for path in self._seams.members[stage]]

    def clone(self, frontier: int) -> View:
        """A view whose stages from `frontier` on are copies; everything below shares memory with this one."""
        shared: dict[int, Any] = {}
        if frontier:
            shared |= {id(p): p for _, stage, p in self.named() if stage < frontier}
            shared |= {id(b): b for _, stage, b in self.buffers() if stage < frontier}
        twin = copy.copy(self)
        twin.module = copy.deepcopy(self.module, shared)
        twin._lock = threading.RLock()
        return twin

    def randomise(self, seed: int) -> None:
        """Replace every weight and buffer by a random start of the same architecture.

        Raises: ModelError: the provider gave no way to start at random.
        """
        if self._fresh is None:
            raise ModelError(
                "this backbone cannot be started at random", saw=self.name, do="leave out --strategy scratch"
            )
        self.module.load_state_dict(self._fresh(seed), strict=True)

    def export(self, head: nn.Module, labels: Sequence[str], folder: str) -> None:
        """Write the network with `head` in its native place into `folder`, as its own library does.

        Raises: ModelError: the provider gave no way to write.
        """
        if self._write is None:
            raise ModelError("this backbone cannot be written in a native form", saw=f"{self.provider}/{self.name}")
        self._write(self, head, labels, folder)

    def _between(self, start: int, stop: int) -> list[str]:
        """Paths of all members of stages `start` to `stop` - 1, in the order they run."""
        return [path for members in self._seams.members[start:stop] for path in members]

    def _measure(self, example: Batch) -> tuple[tuple[Stage, ...], int]:
        """Parameters, FLOPs and output bytes of each stage, from one pass with one example."""
        names = _short(self._seams.mains)
        self.stages = tuple(Stage(name, path, 0, 0, 0) for name, path in zip(names, self.paths, strict=True))
        params, flops, sizes = [0] * len(names), [0] * len(names), [0] * len(names)
        for _, i, parameter in self.named():
            params[i] += parameter.numel()
        counter = FlopCounterMode(display=False)

        def began(i: int) -> None:
            flops[i] -= counter.get_total_flops()

        def ended(i: int, out: Any) -> None:
            flops[i] += counter.get_total_flops()
            sizes[i] = _bytes(out)

        hooks = []
        for i in range(len(names)):
            for member in self.members(i):
                hooks.append(member.register_forward_pre_hook(lambda _m, _a, i=i: began(i)))
                hooks.append(member.register_forward_hook(lambda _m, _a, out, i=i: ended(i, out)))
        with _removed(hooks), _gradients(self.module, False), torch.no_grad(), counter:
            features = self.call(self.module, {k: v[:1] for k, v in example.items()})
        sizes[-1] = _bytes(features)
        stages = [Stage(*row) for row in zip(names, self.paths, params, flops, sizes, strict=True)]
        return tuple(stages), features.shape[-1]


def ghost(value: Any, n: int, rows: int | None = None) -> Any:
    """Zero-stride stand-in for a stage's output with n rows: right shape and dtype, no memory, no work.

    With `rows`, only tensors of that many rows get n; others are tables for all rows and keep their shape.
    """
    if torch.is_tensor(value):
        shape = value.shape
        if shape and rows in (None, shape[0]):
            shape = torch.Size((n, *shape[1:]))
        return torch.zeros((), dtype=value.dtype, device=value.device).expand(shape)
    return tree(lambda leaf: ghost(leaf, n, rows), value)


def laid(value: Any, layouts: Sequence[list[int]]) -> Any:
    """A copy of a stage's output with each tensor's dimensions in that order in memory: kernels are chosen by it."""
    orders = iter(layouts)

    def copied(tensor: Tensor) -> Tensor:
        order = next(orders)
        back = sorted(range(len(order)), key=order.__getitem__)
        return tensor.permute(order).clone(memory_format=torch.contiguous_format).permute(back)

    return tree(copied, value)


def thin(tensor: Tensor) -> Tensor:
    """A batch's entry as a state keeps it: numbers become a ghost (their values were used), ids and masks stay."""
    return ghost(tensor, len(tensor)) if tensor.is_floating_point() else tensor


def tree(change: Callable[[Tensor], Any], value: Any) -> Any:
    """`value` with every tensor in it changed; tuples, lists, dictionaries and model outputs keep their type."""
    if torch.is_tensor(value):
        return change(value)
    if isinstance(value, Mapping):
        return type(value)(**{k: tree(change, v) for k, v in value.items()})
    if isinstance(value, tuple) and type(value) is not tuple:
        return type(value)(*(tree(change, v) for v in value))
    if isinstance(value, (tuple, list)):
        return type(value)(tree(change, v) for v in value)
    return value


def leaves(value: Any) -> list[Tensor]:
    """The tensors in a stage's output, in a fixed order."""
    found: list[Tensor] = []
    tree(lambda t: found.append(t), value)
    return found


@contextlib.contextmanager
def patched(root: nn.Module, table: Mapping[str, Callable[[Callable[..., Any]], Callable[..., Any]]]) -> Iterator[None]:
    """Give submodules of `root` another forward for a while: path → a function of the original one."""
    modules = [(root.get_submodule(path), make) for path, make in table.items()]
    kept = [module.__dict__.get("forward") for module, _ in modules]
    try:
        for module, make in modules:
            module.forward = make(module.forward)
        yield
    finally:
        for (module, _), old in zip(modules, kept, strict=True):
            module.__dict__.pop("forward", None)
            if old is not None:
                module.__dict__["forward"] = old


def replace(root: nn.Module, path: str, module: nn.Module) -> None:
    """Put `module` at `path` below `root`."""
    parent, _, name = path.rpartition(".")
    setattr(root.get_submodule(parent), name, module)


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
    with _removed(hooks), torch.no_grad():
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
    return Seams(members, mains, trace.written, [trace.layouts[stage[-1]] for stage in members])


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
        with _removed(hooks), _gradients(module, True), torch.enable_grad():
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


@contextlib.contextmanager
def _removed(hooks: Sequence[Any]) -> Iterator[None]:
    """Remove the hooks when the block ends."""
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextlib.contextmanager
def _gradients(module: nn.Module, wanted: bool) -> Iterator[None]:
    """Let every parameter ask for a gradient, or none, while the block runs."""
    kept = [(p, p.requires_grad) for p in module.parameters()]
    try:
        for p, _ in kept:
            p.requires_grad = wanted and p.is_floating_point()
        yield
    finally:
        for p, old in kept:
            p.requires_grad = old


def _constant(value: Any, fresh: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give `value` whatever comes in; a fresh copy of it where the network writes into it."""
    return lambda _forward: lambda *args, **kwargs: tree(torch.clone, value) if fresh else value


def _watch(path: str, last: str, seen: dict[str, Any], n: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def wrap(forward: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            out = forward(*args, **kwargs)
            if path == last:
                raise _Stop(out)
            seen[path] = ghost(out, 1, n)
            return out

        return watched

    return wrap


def _parent(path: str) -> str:
    return path.rpartition(".")[0]


def _bytes(value: Any) -> int:
    return sum(t.numel() * t.element_size() for t in leaves(value))


def _short(paths: Sequence[str]) -> list[str]:
    """Paths without the folders they all share; a number keeps the word before it.

    >>> _short(["bert.embeddings", "bert.encoder.layer.0"])
    ['embeddings', 'encoder.layer.0']
    >>> _short(["net.blocks.0", "net.blocks.1"])
    ['blocks.0', 'blocks.1']
    """
    parts = [p.split(".") for p in paths]
    shared = 0
    while (
        all(len(p) > shared + 1 and not p[shared + 1].isdigit() for p in parts) and len({p[shared] for p in parts}) == 1
    ):
        shared += 1
    return [".".join(p[shared:]) for p in parts]
