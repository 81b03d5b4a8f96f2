"""Every error a user can meet, one class per exit code, each with what happened, what was seen and the way out.

RegraftError            1  a bug of ours (anything unforeseen ends here, with the path of the log)
├── UsageError          2  a flag, a name or a setting that cannot be
├── DataError           3  the data cannot be used as it is
├── ModelError          4  weights, an extra package or the network are missing, or are not safe to open
├── ResourceError       5  memory or disk ran out
├── BudgetError         6  the budget ended with nothing usable
├── GateError           7  the audit refused the result
└── Interrupted       130  stopped by Ctrl-C (143 by SIGTERM); what was done is kept
"""

from __future__ import annotations

import contextlib
import difflib
import errno
from collections.abc import Iterable, Iterator

NO_MEMORY = ("can't allocate memory", "cannot allocate memory", "out of memory", "not enough memory")


class RegraftError(Exception):
    """What happened, the value seen, what is allowed, and what to do: each a sentence or empty."""

    code = 1

    def __init__(self, what: str, saw: str = "", allowed: str = "", do: str = "") -> None:
        self.what, self.saw, self.allowed, self.do = what, saw, allowed, do
        super().__init__(" · ".join(part for part in self.lines()))

    def lines(self) -> list[str]:
        """The message, a line for each part that is there."""
        parts = [("", self.what), ("saw: ", self.saw), ("allowed: ", self.allowed), ("do: ", self.do)]
        return [label + text for label, text in parts if text]


class Unproven(RegraftError):
    """A bundle that cannot be opened elsewhere, or says something else there than the model that was trained."""


class UsageError(RegraftError):
    code = 2


class DataError(RegraftError):
    code = 3


class Diverged(DataError):
    """A loss that is no number: a rate that is too high, or rows that are not sound."""


class ModelError(RegraftError):
    code = 4


class ResourceError(RegraftError):
    code = 5


class NoMemory(ResourceError):
    """Memory ran out within a pass of the network: `in_step` tells a training step from a pass without gradients."""

    def __init__(self, in_step: bool, saw: str) -> None:
        self.in_step = in_step
        super().__init__(
            "memory ran out; what was written is whole",
            saw=saw,
            allowed="what this machine, or its control group, grants",
            do="close other programs, or take a smaller model, --max-rows or a smaller --STRATEGY.batch",
        )


class BudgetError(RegraftError):
    code = 6


class GateError(RegraftError):
    code = 7


class Interrupted(RegraftError):
    def __init__(self, what: str, do: str = "", code: int = 130) -> None:
        super().__init__(what, do=do)
        self.code = code


def short_of_memory(error: BaseException) -> bool:
    """Whether an error, of whatever library, says that memory ran out.

    >>> short_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"))
    True
    """
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return any(words in str(error).lower() for words in NO_MEMORY)


@contextlib.contextmanager
def memory_watched(in_step: bool = False) -> Iterator[None]:
    """Tell memory that runs out within a pass of the network from all that else may fail there.

    Raises: NoMemory.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not short_of_memory(error):
            raise
        raise NoMemory(in_step, " ".join(str(error).split())[:200]) from error


def near(name: str, choices: Iterable[str]) -> str:
    """The nearest of `choices` to `name`, or an empty string.

    >>> near("prbe", ["probe", "partial"])
    'probe'
    """
    found = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.6)
    return found[0] if found else ""


def unknown(kind: str, name: str, choices: Iterable[str]) -> UsageError:
    """The error for a name that is none of `choices`, with the nearest one as a hint.

    >>> unknown("strategy", "prbe", ["probe", "partial"]).do
    'did you mean probe?'
    """
    choices = sorted(choices)
    guess = near(name, choices)
    return UsageError(
        f"there is no {kind} of that name",
        saw=repr(name),
        allowed=", ".join(choices),
        do=f"did you mean {guess}?" if guess else f"choose one of the {len(choices)} above",
    )
