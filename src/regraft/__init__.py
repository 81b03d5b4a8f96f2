"""regraft: graft a pretrained model onto your data, by measurement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from regraft.api import Run, adapt, adapt_many, advise, compare, evaluate, evaluate_many
    from regraft.api import open_result as open

__all__ = ["Run", "__version__", "adapt", "adapt_many", "advise", "compare", "evaluate", "evaluate_many", "open"]


def __getattr__(name: str) -> Any:
    """Load the verbs when they are first used, so that `import regraft` stays quick and free of torch."""
    if name in __all__:
        from regraft import api

        return getattr(api, {"open": "open_result"}.get(name, name))
    raise AttributeError(f"module 'regraft' has no attribute {name!r}; it has {', '.join(__all__)}")
