"""See a pretrained network as ordered stages that can be cut, without rewriting it.

The split law: `run(x, start=k, state=run(x, stop=k)) == run(x)` for every frontier k, bit for bit in eval mode.
For a cut at k, stage k-1 returns the stored state, earlier stages return a ghost (a zero-stride tensor of the right
shape and dtype: no memory, no work), and the model's own forward runs whatever lies between.

The law is for a frozen trunk: kernels differ where gradients are asked of it, and by memory layout too, so a state is
given back in the layout that the network had.
"""

from __future__ import annotations

import copy
import functools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace as replaced
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from regraft.backbone.patching import Forward, Stop, after, constant, patched, tap, watch
from regraft.backbone.short import Blocks, ends_of, shortened
from regraft.backbone.stages import Batch, Call, Seams, find_stages, gradients, normalises, outline, removed
from regraft.backbone.state import State, as_state, ghost, laid, leaves, thin, vector
from regraft.errors import ModelError, UsageError, unknown
from regraft.kit import shelf
from regraft.waist import Encoder, InputSpec, Insert, Opening, Pooled, Pooling, Stage, Target, reading

GLUE = "glue"


class View:
    """A backbone: `module` with its head taken out, cut into `stages`.

    Args:
        module: The network. Its head, if `head` names one, is replaced by the identity.
        call: Runs the module on a batch and returns features [n, dim] (whatever the head used to take).
        example: A batch of two or more examples, to trace the network with; no weights change.
        notes: What the user should know of how it was opened.
        head: Path of the native head's linear layer, or "" where there is none.
        pooling, others: What `call` does to make features, and the other ways there are, by name.
        missing: Names of parameters that the checkpoint lacks: they hold random numbers.
        labels: What the native head tells apart, in its order; empty where it has none or they have no names.
        row: The list of blocks after any of which the network may end, where there is one.
        source: The folder with what cells are prepared with (a tokenizer), where there is one.
        fresh: A seed → a state dict with random weights of this architecture.
        write: (view, plain linear head, target, folder) → native files in the folder, and how to open them.
    Raises: ModelError: the network has no row of stages that can be found.
    """

    stages: tuple[Stage, ...]
    worn: tuple[Insert, ...] = ()
    """What was put into the network before it was opened here: it is part of it, and ships beside its weights."""
    taps: tuple[int, ...] = ()
    """Stages whose outputs are read on the way, in ascending order: what states hold beside what goes through."""
    side: str = ""
    """The root's module that makes features of the network's own and of what is read at `taps`, where there is one."""

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
        pooling: Pooling = "native",
        others: Mapping[Pooling, Call] | None = None,
        missing: Iterable[str] = (),
        labels: Sequence[str] = (),
        row: Blocks | None = None,
        source: str = "",
        notes: tuple[str, ...] = (),
        config: str = "",
        fresh: Callable[[int], Mapping[str, Tensor]] | None = None,
        write: Callable[[View, nn.Module, Target, str], Opening] | None = None,
    ) -> None:
        self.name, self.provider, self.module, self.inputs = name, provider, module.eval(), inputs
        self.source, self.labels, self.row, self.blocks = source, tuple(labels), row, 0
        self.head, self.notes, self.config, self._fresh, self._write = head, notes, config, fresh, write
        self.calls: dict[Pooling, Call] = {pooling: call, **(others or {})}
        self.lock, self._example, self._missing = threading.RLock(), example, frozenset(missing)
        self._read: dict[str, View] = {}
        self.drawn = False
        self._cuts: dict[Pooling, tuple[Seams, list[str], tuple[Stage, ...], int]] = {}
        self.native: nn.Module = module.get_submodule(head) if head else nn.Identity()
        if head:
            replace(module, head, nn.Identity())
        self._cut(pooling)

    def encoder(self, train: bool = False) -> Encoder:
        """How cells become batches of this network, with its preparation as it stands."""
        made: Encoder = shelf.find("modalities", self.inputs.modality).encoder(self.inputs, train, self.source)
        return made

    def prepared(self, inputs: InputSpec) -> View:
        """The same network in memory, its inputs prepared another way."""
        twin = copy.copy(self)
        twin.inputs = inputs
        return twin

    def noise(self, rows: int, seed: int) -> dict[str, Tensor]:
        """A seeded batch that holds nothing of anybody's data: a test of outputs."""
        made: dict[str, Tensor] = shelf.find("modalities", self.inputs.modality).noise(self.inputs, rows, seed)
        return made

    @property
    def example(self) -> Batch:
        """The batch that the network was traced with: two or more rows."""
        return self._example

    @property
    def biased(self) -> bool:
        """Whether the head's native place has room for a bias."""
        return not isinstance(self.native, nn.Linear) or self.native.bias is not None

    @property
    def reading(self) -> str:
        """How features are read: the pooling, after how many blocks where the network ends early, what on the way."""
        return reading(self.pooling, self.blocks, self.taps)

    def pooled(self, asked: str) -> View:
        """The same network under another reading: its own stages and width, the same weights in memory.

        Raises: UsageError: this backbone knows no such pooling, or has a side network that reads other stages.
        """
        if asked == self.reading:
            return self
        if asked in self._read:
            return self._read[asked]
        end, _, taps = asked.partition("+")
        name, _, blocks = end.partition("@")
        pooling = next((one for one in self.calls if one == name), None)
        if pooling is None:
            raise unknown("pooling of this backbone", name, self.calls)
        assert not self.blocks and (self.side or not self.taps), "what a network has lost cannot be read"
        twin = self
        if pooling != self.pooling:
            twin = copy.copy(self)
            twin._cut(pooling)
        if blocks:
            twin = self._read[end] = self._read.get(end) or shortened(twin, int(blocks))
        if taps:
            read = tuple(map(int, taps.split(",")))
            if self.side:
                raise UsageError(
                    "this network has a side network, which reads it at other depths",
                    saw=", ".join(self.stages[k].name for k in read),
                    allowed=", ".join(self.stages[k].name for k in self.taps),
                    do="choose as many depths as it was trained with, or the model without it",
                )
            twin = self._read[asked] = copy.copy(twin)
            twin.tap(read)
        return twin

    def tap(self, stages: Sequence[int]) -> None:
        """Read these stages, in ascending order, on the way: states hold a vector a row for each that has run."""
        self.taps = tuple(stages)
        bare, batch = self.outline()
        with torch.no_grad():
            made = self.over(bare).read({name: tensor[:1] for name, tensor in batch.items()}, stages)
        self.stages = (*self.stages[:-1], replaced(self.stages[-1], out_bytes=_bytes(made)))

    def card(self) -> Pooled:
        """This pooling in numbers; stages with weights that the checkpoint lacks are named."""
        lacking = {id(p) for name, p in self.module.named_parameters() if name in self._missing}
        new = sorted({stage for name, stage, p in self.named() if id(p) in lacking and not name.startswith(GLUE)})
        glue = sum(p.numel() for name, _, p in self.named() if name.startswith(GLUE + "/"))
        return Pooled(self.pooling, self.stages, self.dim, glue, tuple(new), ends_of(self), self.blocks)

    def _cut(self, pooling: Pooling) -> None:
        """Find the stages under this pooling and measure them, once for all copies of the network."""
        self.pooling, self.call = pooling, self.calls[pooling]
        if pooling in self._cuts:
            self.seams, self.paths, self.stages, self.dim = self._cuts[pooling]
            return
        bare, batch = outline(self.module, self.call, self._example)
        self.seams = find_stages(bare, self.call, batch)
        self.paths = [members[-1] for members in self.seams.members]
        self.stages, self.dim = self._measure(bare, batch)
        self._cuts[pooling] = self.seams, self.paths, self.stages, self.dim

    def run(
        self, batch: Batch | None = None, start: int = 0, stop: int | None = None, state: State | None = None
    ) -> Any:
        """Run stages `start` to `stop` - 1: a `State` when `stop` lies below L, otherwise features [n, dim].

        With `start` = k > 0, `state` is what `run(stop=k)` gave; the batch may then be left out. With `stop` = L a view
        that reads stages on the way gives a `State` of its network's features and of what was read; a side network
        makes features of these where no `stop` is given.
        """
        if start and (start == stop or torch.is_tensor(state)):
            return state
        batch = state.inputs if batch is None and state else batch
        assert batch is not None, "run() without a batch needs a state"
        assert state or not start, "run() from the middle needs a state"
        n = len(next(iter(batch.values())))
        seen: dict[str, Any] = {}
        held: dict[int, Tensor] = {}
        table: dict[str, Callable[[Forward], Forward]] = {}
        if start and state:
            value, *vectors = state.value if self.taps else (state.value,)
            held |= dict(zip(self.taps, vectors, strict=False))
            if start == len(self.paths):
                return self._topped(value, held)
            for path in self._between(0, start)[:-1]:
                seen[path] = state.seen[path]
                table[path] = constant(ghost(seen[path], n, 1), path in self.seams.written)
            seen[self.paths[start - 1]] = ghost(value, 1, n)
            table[self.paths[start - 1]] = constant(laid(value, self.seams.layouts[start - 1]), False)
        if stop is not None and stop < len(self.paths):
            for path in self._between(start, stop):
                table[path] = watch(path, self.paths[stop - 1], seen, n, {})
        self._note([k for k in self.taps if k >= start], batch, table, held)
        try:
            features = self.called(batch, table)
        except Stop as end:
            value = (end.value, *held.values()) if self.taps else end.value
            return State(value, seen, {k: thin(v) for k, v in batch.items()})
        if stop is not None and self.taps:
            return as_state((features, *held.values()), batch)
        return self._topped(features, held)

    def read(self, batch: Batch, stages: Sequence[int]) -> tuple[Tensor, ...]:
        """Features of a batch, and what these stages give for it as a vector a row each, from one pass."""
        held: dict[int, Tensor] = {}
        table: dict[str, Callable[[Forward], Forward]] = {}
        self._note({*stages, *self.taps}, batch, table, held)
        features = self._topped(self.called(batch, table), held)
        return features, *(held[k] for k in stages)

    def _note(
        self,
        stages: Iterable[int],
        batch: Batch,
        table: dict[str, Callable[[Forward], Forward]],
        held: dict[int, Tensor],
    ) -> None:
        """Let what these stages give be put into `held`, before whatever else `table` does with it."""
        mask = batch.get("attention_mask")
        for k in stages:
            note = tap(functools.partial(_keep, held, k, mask))
            table[self.paths[k]] = after(note, table[self.paths[k]]) if self.paths[k] in table else note

    def _topped(self, features: Tensor, held: Mapping[int, Tensor]) -> Tensor:
        """What a head takes, made of the network's features and of what was read on the way."""
        if not self.side:
            return features
        made: Tensor = self.module.get_submodule(self.side)(features, *(held[k] for k in self.taps))
        return made

    def called(self, batch: Batch, table: Mapping[str, Callable[[Forward], Forward]]) -> Tensor:
        """Features of a batch, [n, dim], while modules have another forward: path → a function of the original one."""
        with self.lock, patched(self.module, table):
            return self.call(self.module, batch)

    def outline(self) -> tuple[nn.Module, Batch]:
        """The network as it stands and a batch to trace it with, without numbers where it can do without."""
        return outline(self.module, self.call, self._example)

    def named(self) -> Iterator[tuple[str, int, nn.Parameter]]:
        """Every parameter once: ("<stage name>/<path in it>", stage index, parameter); glue counts as stage 0.

        A tied parameter belongs to the lowest stage that holds it. What the features do not depend on is left out. A
        side network's belong to no stage: they count as above the last one.
        """
        owner: dict[int, tuple[str, int]] = {}
        for member in self.members(len(self.stages)):
            owner |= {id(p): (f"{self.side}/{name}", len(self.stages)) for name, p in member.named_parameters()}
        for i, members in enumerate(self.seams.members):
            for path in members:
                folder = "" if path == self.seams.mains[i] else f"{path}."
                for name, parameter in self.module.get_submodule(path).named_parameters():
                    owner.setdefault(id(parameter), (f"{self.stages[i].name}/{folder}{name}", i))
        for name, parameter in self.module.named_parameters():
            if name in self.seams.idle:
                continue
            yield *owner.get(id(parameter), (f"{GLUE}/{name}", 0)), parameter

    def buffers(self) -> Iterator[tuple[str, int, Tensor]]:
        """Every buffer with its name in the module and its stage; glue counts as stage 0."""
        owner = {path: i for i, members in enumerate(self.seams.members) for path in members}
        for name, buffer in self.module.named_buffers():
            yield name, next((i for p, i in owner.items() if name.startswith(p + ".")), 0), buffer

    def members(self, stage: int) -> list[nn.Module]:
        """The modules of a stage: the one that is cut and those that were merged into it; above all, a side network."""
        paths = self.seams.members[stage] if stage < len(self.stages) else [self.side] if self.side else []
        return [self.module.get_submodule(path) for path in paths]

    def over(self, module: nn.Module) -> View:
        """The same view of another network of this shape, such as an outline."""
        twin = copy.copy(self)
        twin.module = module
        return twin

    def clone(self, frontier: int, kept: Iterable[nn.Parameter] = ()) -> View:
        """A view whose stages from `frontier` on are copies; everything below shares memory with this one, and so does
        `kept`.
        """
        shared: dict[int, Any] = {id(p): p for p in kept}
        if frontier:
            shared |= {id(p): p for _, stage, p in self.named() if stage < frontier}
            shared |= {id(b): b for _, stage, b in self.buffers() if stage < frontier}
        twin = self.over(copy.deepcopy(self.module, shared))
        twin.lock, twin._read = threading.RLock(), {}
        return twin

    def randomise(self, seed: int) -> None:
        """Replace every weight and buffer by a random start of the same architecture, what was put into it taken out.

        Raises: ModelError: the provider gave no way to start at random.
        """
        if self._fresh is None:
            raise ModelError(
                "this backbone cannot be started at random", saw=self.name, do="leave out --strategy scratch"
            )
        for insert in self.worn:
            shelf.find("inserts", insert.kind).take_out(self)
        self.worn = ()
        self.module.load_state_dict(self._fresh(seed), strict=True)
        self.drawn = True

    def export(self, head: nn.Module, target: Target, folder: str) -> Opening:
        """Write the network with `head`, a plain linear layer, into `folder`, as its own library does; how to open it.

        Raises: ModelError: the provider gave no way to write.
        """
        if self._write is None:
            raise ModelError("this backbone cannot be written in a native form", saw=f"{self.provider}/{self.name}")
        return self._write(self, head, target, folder)

    def _between(self, start: int, stop: int) -> list[str]:
        """Paths of all members of stages `start` to `stop` - 1, in the order they run."""
        return [path for members in self.seams.members[start:stop] for path in members]

    def _measure(self, bare: nn.Module, example: Batch) -> tuple[tuple[Stage, ...], int]:
        """Parameters, FLOPs and output bytes of each stage, from one pass with one example."""
        names = _short(self.seams.mains)
        self.stages = tuple(Stage(name, path, 0, 0, 0) for name, path in zip(names, self.paths, strict=True))
        params, flops, sizes, biases = ([0] * len(names) for _ in range(4))
        norms: list[list[str]] = [[] for _ in names]
        scaling = {id(p) for m in self.module.modules() if normalises(m) for p in m.parameters(recurse=False)}
        for name, i, parameter in self.named():
            params[i] += parameter.numel()
            if name.startswith(f"{GLUE}/"):
                continue
            biases[i] += parameter.numel() if name.endswith("bias") else 0
            norms[i] += [name.partition("/")[2]] if id(parameter) in scaling else []
        counter = FlopCounterMode(display=False)

        def began(i: int) -> None:
            flops[i] -= counter.get_total_flops()

        def ended(i: int, out: Any) -> None:
            flops[i] += counter.get_total_flops()
            sizes[i] = _bytes(out)

        hooks = []
        for i in range(len(names)):
            for member in (bare.get_submodule(path) for path in self.seams.members[i]):
                hooks.append(member.register_forward_pre_hook(lambda _m, _a, i=i: began(i)))
                hooks.append(member.register_forward_hook(lambda _m, _a, out, i=i: ended(i, out)))
        with removed(hooks), gradients(bare, False), torch.no_grad(), counter:
            features = self.call(bare, {k: v[:1] for k, v in example.items()})
        sizes[-1] = _bytes(features)
        kinds = biases, [tuple(found) for found in norms]
        stages = [Stage(*row) for row in zip(names, self.paths, params, flops, sizes, *kinds, strict=True)]
        return tuple(stages), features.shape[-1]


def _keep(held: dict[int, Tensor], k: int, mask: Tensor | None, _taken: tuple[Any, ...], given: Any) -> None:
    held[k] = vector(given, mask)


def replace(root: nn.Module, path: str, module: nn.Module) -> None:
    """Put `module` at `path` below `root`."""
    parent, _, name = path.rpartition(".")
    setattr(root.get_submodule(parent), name, module)


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
