"""Freeze what a phase does not train: no gradients, eval mode, buffers at rest, proved by hashes.

The trainable set is a pure function of the plan and the phase, so it is the same at the start, after resuming and in
every process. Nothing else in regraft touches train(), eval() or requires_grad.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import weakref
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase

from torch import Tensor, nn

from regraft.backbone.patching import Forward, patched
from regraft.backbone.view import View
from regraft.errors import RegraftError, UsageError
from regraft.waist import Phase, Plan

HEAD = "head"
HASTY = 0.5


def trainable(view: View, head: nn.Module, phase: Phase) -> dict[str, tuple[nn.Parameter, float]]:
    """Name → (parameter, rate multiplier) of all that this phase trains.

    Raises: UsageError: a pattern matches nothing, two match one parameter, a rate is zero, or one lies below the
        frontier.
    """
    named = [(name, stage, p) for name, stage, p in view.named()]
    named += [(f"{HEAD}/{name}", len(view.stages), p) for name, p in head.named_parameters()]
    used: dict[str, int] = dict.fromkeys((pattern for pattern, _ in phase.rates), 0)
    chosen: dict[str, tuple[nn.Parameter, float]] = {}
    for name, stage, parameter in named:
        fitting = [(pattern, rate) for pattern, rate in phase.rates if fnmatchcase(name, pattern)]
        if len(fitting) > 1:
            raise _bad("two patterns match one parameter", f"{name}: {fitting[0][0]} and {fitting[1][0]}")
        if fitting and stage < phase.frontier:
            raise _bad("a pattern reaches below the frontier", f"{fitting[0][0]} matches {name}, stage {stage}")
        if fitting and not fitting[0][1] > 0:
            raise _bad("a rate is not positive", f"{fitting[0][0]}: {fitting[0][1]}; leave it out to freeze it")
        for pattern, rate in fitting:
            used[pattern] += 1
            chosen[name] = (parameter, rate)
    if unused := [pattern for pattern, count in used.items() if not count]:
        raise _bad("a pattern matches no parameter", ", ".join(unused))
    return chosen


def rest(view: View) -> None:
    """Ask no weight for a gradient: some kernels differ where one is, so that a trunk's bits would depend on it."""
    for parameter in view.module.parameters():
        parameter.requires_grad_(False)


def apply(view: View, head: nn.Module, phase: Phase) -> dict[str, tuple[nn.Parameter, float]]:
    """Set requires_grad for this phase and return what trains, as `trainable`."""
    chosen = trainable(view, head, phase)
    wanted = {id(p) for p, _ in chosen.values()}
    for parameter in [*view.module.parameters(), *head.parameters()]:
        parameter.requires_grad_(id(parameter) in wanted)
        parameter.grad = None
    return chosen


@contextlib.contextmanager
def mode(view: View, head: nn.Module, phase: Phase | None) -> Iterator[None]:
    """Everything in eval mode, but for stages that the phase trains; their normalisation only if it says so.

    With no phase all is in eval mode. On leaving, all is in eval mode.
    """
    _evaluating(view.module, head)
    mixing = _mixing(view, phase) if phase is not None and phase.norm == "mix" else {}
    try:
        if phase is not None:
            head.train()
            for module in _training(view, phase):
                module.train()
                for part in module.modules():
                    if phase.norm == "keep" and _counts(part):
                        part.eval()
        with patched(view.module, mixing):
            yield
    finally:
        _evaluating(view.module, head)


def _mixing(view: View, phase: Phase) -> dict[str, Callable[[Forward], Forward]]:
    """Path → a function of its forward, of the normalisation layers that a phase trains."""
    parts = {id(part) for module in _training(view, phase) for part in module.modules() if _counts(part)}
    return {path: functools.partial(mixed, m) for path, m in view.module.named_modules() if id(m) in parts}


def mixed(layer: nn.Module, forward: Forward) -> Forward:
    """A normalisation layer's forward with its moving statistics in about half of the channels, drawn in each step.

    The others are normalised by the batch's own, which move the moving ones, as in any training; so the network stays
    within reach of what the pretrained statistics gave.

    Reference: Kou et al., Stochastic normalization, 2020, with p = 0.5 and the moving statistics after this batch.
    """

    def mix(x: Tensor) -> Tensor:
        import torch

        now: Tensor = forward(x)
        layer.eval()
        try:
            moving: Tensor = forward(x)
        finally:
            layer.train()
        held = torch.rand(x.shape[1]).to(x.device) < 0.5
        return torch.where(held.view(-1, *(1 for _ in x.shape[2:])), moving, now)

    return mix


def _evaluating(*modules: nn.Module) -> None:
    """Put modules in eval mode; asking each part is many times as fast as setting it."""
    for module in modules:
        if any(part.training for part in module.modules()):
            module.eval()


def calm(view: View, phase: Phase, plan: Plan) -> list[str]:
    """Put right momenta with which a few batches would overwrite the pretrained statistics; returns what was done.

    PyTorch reads momentum as the weight of the new batch, TensorFlow as that of the old statistics: transformers'
    MobileNetV2 carries 0.997 over, so that one batch replaces what millions of pictures gave.
    """
    if phase.norm == "keep":
        return []
    found: dict[float, int] = {}
    right = 0.1
    for module in _training(view, phase):
        for part in module.modules():
            momentum = getattr(part, "momentum", None)
            if _counts(part) and isinstance(momentum, float) and momentum > HASTY:
                right = 0.1 if plan.init == "random" else round(1 - momentum, 6)
                part.momentum = right  # type: ignore[assignment]
                found[momentum] = found.get(momentum, 0) + 1
    return [
        f"{count} normalisation layers had momentum {momentum}: one batch would replace their statistics; now {right}"
        for momentum, count in found.items()
    ]


def frozen(view: View, head: nn.Module, phase: Phase) -> dict[str, Tensor]:
    """Name → tensor of all that must not change in this phase: parameters and buffers."""
    chosen = trainable(view, head, phase)
    still = {name: p for name, _, p in view.named() if name not in chosen}
    still |= {f"{HEAD}/{n}": p for n, p in head.named_parameters() if f"{HEAD}/{n}" not in chosen}
    moving = set()
    if phase.norm != "keep":
        moving = {
            id(b) for m in _training(view, phase) for part in m.modules() if _counts(part) for b in part.buffers()
        }
    return still | {f"buffer/{n}": b for n, _, b in view.buffers() if id(b) not in moving}


def moving_buffers(view: View, plan: Plan) -> dict[str, Tensor]:
    """Buffers that some phase of the plan lets move, by name: what a snapshot must hold besides parameters."""
    ids = set()
    for phase in plan.phases:
        if phase.norm != "keep":
            ids |= {
                id(b) for m in _training(view, phase) for part in m.modules() if _counts(part) for b in part.buffers()
            }
    return {f"buffer/{name}": b for name, _, b in view.buffers() if id(b) in ids}


def hashes(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """SHA-256 of each tensor's bytes."""
    return {name: tensor_hash(t) for name, t in tensors.items()}


def tensor_hash(tensor: Tensor) -> str:
    """SHA-256 over dtype, shape and bytes."""
    import torch

    found = hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def known(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """The same as `hashes`, but of a tensor that `verify` has hashed since anything was written into it: that hash.

    What was changed behind autograd's back since then is so found by the next `verify`, not taken for what was there.
    """
    found = {}
    for name, tensor in tensors.items():
        held = _verified.get(id(tensor))
        same = held is not None and held[0]() is tensor and held[1] == tensor._version
        found[name] = held[2] if held is not None and same else tensor_hash(tensor)
    return found


_verified: dict[int, tuple[weakref.ref[Tensor], int, str]] = {}


def verify(before: dict[str, str], now: dict[str, Tensor]) -> int:
    """How many frozen tensors there are, all of them found unchanged.

    Raises: RegraftError: one changed; it is named.
    """
    after = hashes(now)
    for name, tensor in now.items():
        forget = functools.partial(_forget, id(tensor))
        _verified[id(tensor)] = weakref.ref(tensor, forget), tensor._version, after[name]
    changed = sorted(name for name, old in before.items() if after.get(name) != old)
    if changed:
        raise RegraftError(
            "frozen tensors changed during training, so nothing that was measured can be trusted",
            saw=f"{len(changed)} of {len(before)}, such as {changed[0]}",
            do="report this with the plan that caused it",
        )
    return len(before)


def _forget(number: int, gone: weakref.ref[Tensor]) -> None:
    """Drop what is known of a tensor that is no more, unless another one has its number by now."""
    if number in _verified and _verified[number][0] is gone:
        del _verified[number]


def _training(view: View, phase: Phase) -> list[nn.Module]:
    """Modules of the stages in which this phase trains something."""
    stages = {
        stage
        for name, stage, _ in view.named()
        if stage >= phase.frontier and any(fnmatchcase(name, pattern) for pattern, _ in phase.rates)
    }
    return [module for stage in sorted(stages) for module in view.members(stage)]


def _counts(module: nn.Module) -> bool:
    """Whether a module keeps running statistics of its own."""
    return any(name == "running_mean" for name, _ in module.named_buffers(recurse=False))


def _bad(what: str, saw: str) -> UsageError:
    return UsageError(
        f"this plan cannot be trained: {what}",
        saw=saw,
        allowed="patterns such as head/* or layer.15/*, each parameter once, at or above the frontier",
        do="mend the strategy that proposed it",
    )
