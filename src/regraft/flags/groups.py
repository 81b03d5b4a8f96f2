"""Do groups that belong together stand in several splits?"""

from __future__ import annotations

from collections import defaultdict

from regraft.waist import Flag, Seen

NEEDS = "data"


def look(seen: Seen) -> list[Flag]:
    """Groups, as --group names them, that given splits tear apart."""
    where: dict[str, set[str]] = defaultdict(set)
    for name in ("train", "val", "test"):
        for row in getattr(seen.data, name):
            where[row.group].add(name)
    where.pop("", None)
    across = sorted(group for group, names in where.items() if len(names) > 1)
    if not across:
        return []
    torn = set(across)
    leaks = tuple(row.id for row in seen.data.test if row.group in torn and "train" in where[row.group])
    text = f"groups of {seen.group} in more than one split: {len(across):,} of {len(where):,}"
    return [
        Flag(
            "groups",
            "warn",
            len(across),
            len(where),
            text,
            tuple(across[:3]),
            "give splits that keep groups whole, or none: regraft then makes them so",
            leaks,
        )
    ]
