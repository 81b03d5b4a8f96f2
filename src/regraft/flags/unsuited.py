"""Is the backbone made for other inputs: smaller than its own, or words that its tokenizer splits badly?"""

from __future__ import annotations

from typing import Any

from regraft.kit import shelf
from regraft.waist import Flag, Seen

NEEDS = "backbone"


def look(seen: Seen) -> list[Flag]:
    """What the kind of input says of its inputs beside the backbone's."""
    item: Any = shelf.find("modalities", seen.data.modality)
    found: list[Flag] = item.unsuited(seen)
    return found
