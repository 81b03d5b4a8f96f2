"""Give modules of a network another forward: for a while, to watch what they give or to stop there; or a longer one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from regraft.backbone.state import ghost, tree

Forward = Callable[..., Any]


class Stop(Exception):
    """A network has come as far as was asked for; `value` is what it gave there."""

    def __init__(self, value: Any) -> None:
        self.value = value


class Followed(nn.Module):
    """What a layer becomes, its class changed, where something more is to happen to all that it gives: `after`."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        out = super().forward(*args, **kwargs)
        return self.after(next(iter((*args, *kwargs.values())), None), out)

    def after(self, taken: Any, out: Any) -> Any:
        """What is given in place of `out`; `taken` is the first of what the layer took."""
        raise NotImplementedError


class Surrounded(nn.Module):
    """What a layer becomes, its class changed, where something more is to happen around all of its passes: `around`."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.around(super().forward, args, kwargs)

    def around(self, forward: Forward, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """What is given in place of what `forward` makes of these."""
        raise NotImplementedError


@contextlib.contextmanager
def patched(root: nn.Module, table: Mapping[str, Callable[[Forward], Forward]]) -> Iterator[None]:
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


def constant(value: Any, fresh: bool) -> Callable[[Forward], Forward]:
    """Give `value` whatever comes in; a fresh copy of it where the network writes into it."""
    return lambda _forward: lambda *args, **kwargs: tree(torch.clone, value) if fresh else value


def after(first: Callable[[Forward], Forward], then: Callable[[Forward], Forward]) -> Callable[[Forward], Forward]:
    """One change of a forward around another."""
    return lambda forward: then(first(forward))


def over(do: Callable[[Forward, tuple[Any, ...], dict[str, Any]], Any]) -> Callable[[Forward], Forward]:
    """Do this in place of a module's forward, which it is given with what the module takes."""
    return lambda forward: lambda *args, **kwargs: do(forward, args, kwargs)


def watch(path: str, last: str, seen: dict[str, Any], n: int, held: dict[str, Any]) -> Callable[[Forward], Forward]:
    """Note what a module gives to n rows: a ghost of it in `seen`, itself in `held` if asked for; stop at `last`."""

    def wrap(forward: Forward) -> Forward:
        def watched(*args: Any, **kwargs: Any) -> Any:
            out = forward(*args, **kwargs)
            if path == last:
                raise Stop(out)
            seen[path] = ghost(out, 1, n)
            if path in held:
                held[path] = tree(torch.clone, out)  # later modules may write into it
            return out

        return watched

    return wrap


def tap(note: Callable[[tuple[Any, ...], Any], None]) -> Callable[[Forward], Forward]:
    """Tell `note` what a module takes, by position, and what it gives."""

    def wrap(forward: Forward) -> Forward:
        def tapped(*args: Any, **kwargs: Any) -> Any:
            out = forward(*args, **kwargs)
            note(args, out)
            return out

        return tapped

    return wrap
