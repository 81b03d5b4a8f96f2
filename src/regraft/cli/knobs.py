"""The options of `regraft adapt` that are knobs of the strategies a command line names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import typer

from regraft.kit import shelf

KNOB = "__"


def with_knobs(command: Callable[..., None], strategies: Sequence[str]) -> Callable[..., None]:
    """`command` with an option for each knob of the strategies in place of its `knobs`."""
    from regraft.planner.propose import knobs_of

    kept = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "knobs"]
    for name in strategies:
        short = name.rsplit(".", 1)[-1]
        said = sayings(shelf.find("strategies", name).Knobs)
        for knob, (_, default) in knobs_of(name).items():
            option = typer.Option(None, f"--{short}.{knob}", help=f"{said.get(knob, '')} [default: {default}]".strip())
            kept.append(
                inspect.Parameter(
                    f"{short}{KNOB}{knob}", inspect.Parameter.KEYWORD_ONLY, default=option, annotation=str
                )
            )

    def made(**given: Any) -> None:
        knobs = {name: given.pop(name) for name in list(given) if KNOB in name}
        command(**given, knobs={name.replace(KNOB, "."): v for name, v in knobs.items() if v is not None})

    made.__doc__ = command.__doc__
    made.__name__ = command.__name__
    made.__signature__ = inspect.Signature(kept)  # type: ignore[attr-defined]
    made.__annotations__ = {p.name: p.annotation for p in kept}
    return made


def sayings(knobs: type) -> dict[str, str]:
    """What docstrings say of each knob, a class's own before those it inherits: "depth: how many … lr: rate …".

    >>> class Shared:
    ...     'lr: the rate.'
    ...     lr: float = 0.1
    >>> class Knobs(Shared):
    ...     'depth: how many.'
    ...     depth: int = 2
    >>> sayings(Knobs)
    {'depth': 'how many.', 'lr': 'the rate.'}
    """
    line = [kind for kind in knobs.__mro__ if kind is not object]
    names = {name for kind in line for name in inspect.get_annotations(kind)}
    said: dict[str, list[str]] = {}
    for kind in line:
        current: list[str] | None = None
        for word in (kind.__doc__ or "").split():
            if word.endswith(":") and word[:-1] in names:
                current = []  # what was said before stays
                said.setdefault(word[:-1], current)
            elif current is not None:
                current.append(word)
    return {name: " ".join(text) for name, text in said.items()}


def asked(args: Sequence[str], flag: str) -> list[str]:
    """The values of `flag` on a command line, before it is parsed; all built-in strategies when there are none."""
    found = [args[i + 1] for i, a in enumerate(args[:-1]) if a == flag] + [
        a[len(flag) + 1 :] for a in args if a.startswith(flag + "=")
    ]
    knobbed = [a[2:].split(".", 1)[0] for a in args if a.startswith("--") and "." in a.split("=", 1)[0]]
    known = shelf.names("strategies")
    return list(dict.fromkeys(n for n in [*found, *knobbed] if n in known or (n in found and "." in n)))
