"""Match labels by name: which outputs of a checkpoint's own head mean what is wanted, and labels as readable text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

GENERIC = re.compile(r"label[ _-]?\d+", re.IGNORECASE)
SYNSET = re.compile(r"^n\d{8}[\s_-]+(?=.)")
"""WordNet's number, which folders of ImageNet's pictures carry before the name."""
BINOMIAL = re.compile(r"([A-Z][a-z]+ [a-z-]+) \(([A-Z].+)\)")
"""A species with its common name behind it; elsewhere brackets only say which of two things is meant."""
ARTICLE = re.compile(r"^(?:an?|the) (?=.)")
SAME = ("news", "series")
ODD = {
    **{"mice": "mouse", "geese": "goose", "oxen": "ox", "feet": "foot", "teeth": "tooth"},
    **{"men": "man", "women": "woman", "children": "child", "people": "person"},
}


def matched(native: Sequence[str], wanted: Sequence[str]) -> dict[str, tuple[int, ...]] | None:
    """For each wanted label the places among `native` that mean the same; None unless each has places of its own.

    Names are equal but for case, dashes and underscores, articles, and one in the plural; synonyms stand between
    commas, as in ImageNet's names. A part of a name is another name. A label that is there as it is written is that
    one, whatever else has it for a synonym: "cardigan" is the jacket, and no corgi.

    >>> matched(("bee eater", "bee", "ant, emmet, pismire", "elephant"), ("ants", "bees"))
    {'ants': (2,), 'bees': (1,)}
    >>> matched(("German shepherd, alsatian", "Maltese dog, Maltese"), ("german_shepherd", "poodle")) is None
    True
    """
    index: list[dict[str, set[int]]] = [{} for _ in _ways("")]
    for i, label in enumerate(native):
        for held, names in zip(index, _ways(label), strict=True):
            for name in names:
                held.setdefault(name, set()).add(i)
    found: dict[str, tuple[int, ...]] = {}
    taken: set[int] = set()
    for label in wanted:
        tried = (
            {i for name in names for i in held.get(name, ())} for held, names in zip(index, _ways(label), strict=True)
        )
        places = next(filter(None, tried), set())
        if not places or taken & places:
            return None
        taken |= places
        found[label] = tuple(sorted(places))
    return found


def phrase(label: str) -> str:
    """A label as a text that a sentence encoder can read.

    >>> phrase("rolled_in_scale"), phrase("AddToPlaylist"), phrase("n02088364-beagle"), phrase("Sci/Tech")
    ('rolled in scale', 'Add To Playlist', 'beagle', 'Sci/Tech')
    """
    text = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", SYNSET.sub("", label))
    return re.sub(r"[\s_]+", " ", text).strip() or label


def named(labels: Sequence[str], outputs: int) -> tuple[str, ...]:
    """The labels of a head, in its order; none where it has another number of outputs, or one, or they only count.

    >>> named(["ant", "bee"], 2), named(["ant", "bee"], 3), named(["LABEL_0", "LABEL_1"], 2), named(["price"], 1)
    (('ant', 'bee'), (), (), ())
    """
    whole = len(labels) == outputs > 1 and not any(GENERIC.fullmatch(label) for label in labels)
    return tuple(labels) if whole else ()


def _ways(label: str) -> list[set[str]]:
    """What a label is compared by, the strictest way first: all of it, its first name, any of its names; then the same
    with what each may be the plural of.
    """
    names = _names(label)
    exact = [{_alike(SYNSET.sub("", label))}, {*names[:1]}, {*names}]
    return [*exact, *map(_singular, exact)]


def _names(label: str) -> list[str]:
    """Every name in a label, written alike.

    >>> _names("n02107142-Doberman, The Doberman_pinscher"), _names("Aramus guarauna (Limpkin)"), _names("Rattle (toy)")
    (['doberman', 'doberman pinscher'], ['aramus guarauna', 'limpkin'], ['rattle (toy)', 'rattle'])
    """
    found: list[str] = []
    for piece in SYNSET.sub("", label).split(","):
        species = BINOMIAL.fullmatch(piece.strip())
        found += species.groups() if species else (piece, re.sub(r"\([^()]*\)", "", piece))
    return [name for name in dict.fromkeys(map(_alike, found)) if name]


def _alike(name: str) -> str:
    """A name in the one way of writing that all are compared in.

    >>> _alike(" A St._Bernard's dog "), _alike("Shih-Tzu"), _alike("-1"), _alike("A")
    ('st bernards dog', 'shih tzu', '-1', 'a')
    """
    text = unicodedata.normalize("NFKC", name).casefold()
    text = re.sub(r"(?<=[^\W\d])[.'’]", "", text)
    return ARTICLE.sub("", re.sub(r"(?<=\w)-|[\s_]+", " ", text).strip())


def _singular(names: Iterable[str]) -> set[str]:
    """The names, and what each may be the plural of: its last word counts.

    >>> sorted(_singular(["honey bees"])), sorted(_singular(["wolves", "ponies"])), sorted(_singular(["glass"]))
    (['honey bee', 'honey bees'], ['ponie', 'ponies', 'pony', 'wolf', 'wolfe', 'wolve', 'wolves'], ['glass'])
    """
    found = set(names)
    for name in list(found):
        before, _, word = name.rpartition(" ")
        ones = [ODD[word]] if word in ODD else []
        if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3 and word not in SAME:
            ones += [word[:-1]]
            ones += [word[:-3] + "y"] if word.endswith("ies") else []
            ones += [word[:-3] + "f", word[:-3] + "fe"] if word.endswith("ves") else []
            ones += [word[:-2]] if word.endswith(("ses", "xes", "zes", "ches", "shes", "oes")) else []
        found |= {f"{before} {one}".strip() for one in ones}
    return found
