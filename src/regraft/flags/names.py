"""Are there labels that differ only in case, blanks, Unicode form or look-alike punctuation?"""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

from regraft.waist import Flag, Seen

NEEDS = "data"
SHOWN = 3
LOOKALIKES = str.maketrans(
    {**dict.fromkeys("‐‑‒–—―−_-", " "), **dict.fromkeys("‘’‛′`´", "'"), **dict.fromkeys("“”„″", '"')}
)


def look(seen: Seen) -> list[Flag]:
    """Labels that are kept apart though they mean the same, and spellings that were read as one label."""
    target = seen.data.target
    if target.kind not in ("class", "multi"):
        return []
    raw = Counter(value for value in seen.table.get(target.name, ()) if isinstance(value, str) and value.strip())
    if target.kind == "multi":
        raw = Counter()  # lists as text: their spelling is no label's
    apart = _alike(target.labels, folded)
    merged = [
        names for names in _alike(raw, lambda label: unicodedata.normalize("NFC", label).strip()) if len(names) > 1
    ]
    found = []
    if apart:
        count = sum(map(len, apart))
        text = f"labels that differ only in case, blanks, Unicode form or punctuation, taken for different: {count:,}"
        some = tuple(" / ".join(map(shown, names)) for names in apart[:SHOWN])
        advice = "write each class in one way, if they are the same"
        found.append(Flag("names", "warn", count, len(target.labels), text, some, advice))
    if merged:
        rows = sum(sum(sorted(raw[name] for name in names)[:-1]) for names in merged)
        text = f"labels written in several ways (blanks, Unicode form) and read as one: {len(merged):,}"
        some = tuple(" / ".join(map(shown, names)) for names in merged[:SHOWN])
        advice = f"nothing, if they are the same; {rows:,} rows have the rarer spellings"
        found.append(Flag("names", "note", len(merged), len(target.labels), text, some, advice))
    return found


def folded(label: str) -> str:
    """A label without what looks alike: case, blanks, Unicode form, invisible characters, dashes, quotes.

    >>> folded("Golden–Retriever ") == folded("golden_retriever"), folded("C") == folded("C++")
    (True, False)
    """
    plain = unicodedata.normalize("NFKC", label).casefold().translate(LOOKALIKES)
    return " ".join("".join(c for c in plain if unicodedata.category(c) != "Cf").split()) or label


def shown(label: str) -> str:
    """A label with what cannot be seen of it.

    >>> print(shown("cat "), shown("cafe\\u0301"))
    'cat ' 'cafe\\u0301'
    """
    return "'" + "".join(c if c.isprintable() and not unicodedata.combining(c) else ascii(c)[1:-1] for c in label) + "'"


def _alike(labels: Iterable[str], form: Callable[[str], str]) -> list[list[str]]:
    """Groups of two labels or more that have one form."""
    groups: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        groups[form(label)].append(label)
    return [sorted(names) for names in groups.values() if len(names) > 1]
