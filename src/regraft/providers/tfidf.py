"""TF-IDF in a backbone's place: words and pairs of words of a text, weighed by how rare they are in the training rows.

With a linear head it is what texts were classified with before there were pretrained networks, and often still is.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from regraft.errors import DataError
from regraft.kit import durable, shelf
from regraft.waist import Encoder, InputSpec, Opening, Target

if TYPE_CHECKING:
    import numpy
    from torch import Tensor, nn

    from regraft.backbone.plain import Plain

NAME, TOLD = "tfidf", "vectorizer.json"
LIMIT = 200_000
FEW = 100
WORDS_IN_NOISE = 24
WORDS: dict[str, Any] = {"analyzer": "word", "lowercase": True, "ngram_range": [1, 2]}
LETTERS: dict[str, Any] = {"analyzer": "char", "lowercase": True, "ngram_range": [1, 2]}
"""For texts without a word of two letters."""


class Terms(NamedTuple):
    """A text as its features: the columns that are not zero, ascending, and their values."""

    columns: numpy.ndarray
    values: numpy.ndarray


def find(query: Any) -> bool:
    """Never: nothing pretrained has this name; what a run shipped is opened through its bundle."""
    return False


def fingerprint(query: Any) -> str:
    """SHA-256 over the vocabulary and the weights of a bundle.

    Raises: ModelError: a file of it is not there.
    """
    from regraft.backbone import plain

    return plain.digest_of(query, (TOLD, plain.WEIGHTS))


def fitted(cells: Sequence[Any]) -> Plain:
    """The features that these training cells suggest: texts, pairs of texts (read as one), or text files.

    A term is a word or two neighbouring words; it must occur in two texts (in one where there are fewer than 100), and
    the 200,000 that occur in most texts are kept. A text's feature is (1 + log count) · (log((1 + N) / (1 + n)) + 1),
    n of N texts holding the term, and a row has length 1. Equal cells give equal bits.

    Raises: DataError: there is nothing in any text, or a file cannot be read.
    Reference: Salton & Buckley, Term-weighting approaches in automatic text retrieval, 1988.

    >>> view = fitted(["a good film", "a bad film", "good"])
    >>> parts = view.encoder().parts(["so bad", ("a good", "film")])
    >>> view.run(view.encoder().tensors([part for ((part, _),) in parts])).to_dense().count_nonzero(1).tolist()
    [1, 3]
    """
    import numpy
    from sklearn.feature_extraction.text import CountVectorizer

    texts = [read(cell) for cell in cells]
    least = 1 if len(texts) < FEW else 2
    for parameters, rarest in ((WORDS, least), (WORDS, 1), (LETTERS, 1)):
        counter = CountVectorizer(**_arguments(parameters), min_df=rarest)
        try:
            counts = counter.fit_transform(texts)
        except ValueError:  # no term is left
            continue
        held_by = numpy.bincount(counts.indices, minlength=counts.shape[1])
        kept = numpy.sort(numpy.argsort(-held_by, kind="stable")[:LIMIT])
        terms = counter.get_feature_names_out()[kept].tolist()
        idf = (numpy.log((1 + len(texts)) / (1 + held_by[kept])) + 1).astype(numpy.float32)
        return _view(terms, idf, parameters)
    raise DataError(
        "there is nothing in these texts to count",
        saw=f"{len(texts)} training texts, such as {texts[0]!r}" if texts else "no training texts",
        allowed="texts with letters in them",
        do="look at the column of texts",
    )


def load(query: Any, modality: str = "", arch: str = "") -> Plain:
    """The features and the head of a bundle.

    Raises: ModelError: the data is no text, or the files do not fit together. UsageError: an architecture was named.
    """
    from regraft.backbone import plain
    from regraft.backbone.tensors import read_state

    plain.asked("text", modality, arch)
    fingerprint(query)
    tensors, _ = read_state(Path(query) / plain.WEIGHTS)
    try:
        told = json.loads((Path(query) / TOLD).read_bytes())
        terms, idf = told["vocabulary"], tensors["idf"].numpy()
        if len(terms) != len(idf):
            raise ValueError(f"{len(terms)} terms with {len(idf)} weights")
        head = plain.linear(tensors["weight"], tensors["bias"], len(terms))
        return _view(terms, idf, told["parameters"], head)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise plain.broken(query, error) from error


def read(cell: Any) -> str:
    """A cell as one text."""
    if isinstance(cell, Path):
        text: str = shelf.find("modalities", "text").read(cell)
        return text
    return " ".join(cell) if isinstance(cell, tuple) else cell


def _view(
    terms: Sequence[str], idf: numpy.ndarray, parameters: Mapping[str, Any], native: nn.Linear | None = None
) -> Plain:
    """The view of a vocabulary, whose order is that of the features."""
    from regraft.backbone.plain import Plain, Recipe

    told = json.dumps([list(terms), parameters], sort_keys=True).encode()
    inputs = InputSpec(
        "text",
        (len(terms),),
        vocab=durable.digest(told + idf.tobytes()),
        settings=(("analyzer", str(parameters["analyzer"])), ("features", NAME)),
    )
    recipe = Recipe(
        name=NAME,
        provider=NAME,
        inputs=inputs,
        encoder=_encoder(terms, idf, parameters),
        noise=lambda rows, seed: _noise(len(terms), rows, seed),
        write=lambda view, head, target, folder: _write(terms, idf, parameters, head, target, folder),
        notes=(f"TF-IDF of {len(terms):,} words and pairs of words",),
    )
    return Plain(recipe, native)


def _encoder(terms: Sequence[str], idf: numpy.ndarray, parameters: Mapping[str, Any]) -> Encoder:
    """Cells to {"features": [n, V]}, sparse; a part is a text's terms, found for many texts at once."""
    import numpy
    from sklearn.feature_extraction.text import TfidfVectorizer

    from regraft.backbone.plain import FEATURES, compressed

    vectorizer = TfidfVectorizer(vocabulary=terms, sublinear_tf=True, dtype=numpy.float32, **_arguments(parameters))
    vectorizer.idf_ = idf

    def parts(cells: Sequence[Any]) -> list[list[tuple[Any, int]]]:
        rows = vectorizer.transform([read(cell) for cell in cells])
        rows.sort_indices()
        spans = [slice(*span) for span in itertools.pairwise(rows.indptr.tolist())]
        return [[(Terms(rows.indices[span], rows.data[span]), 0)] for span in spans]

    def tensors(found: Sequence[Terms]) -> dict[str, Tensor]:
        starts = numpy.cumsum([0, *(len(part.columns) for part in found)]).astype(numpy.int32)
        columns, values = (numpy.concatenate(side) for side in zip(*found, strict=True))
        return {FEATURES: compressed(starts, columns, values, len(terms))}

    return Encoder(parts, tensors, lambda cells: ())


def _noise(width: int, rows: int, seed: int) -> dict[str, Tensor]:
    """Rows as texts of 24 random terms would give them, of length 1, dense."""
    import numpy
    import torch

    from regraft.backbone.plain import FEATURES

    draw = numpy.random.default_rng(seed)
    made = numpy.zeros((rows, width), numpy.float32)
    for row in made:
        row[draw.integers(0, width, WORDS_IN_NOISE)] = draw.random(WORDS_IN_NOISE) + 0.1
    return {FEATURES: torch.from_numpy(made / numpy.linalg.norm(made, axis=1, keepdims=True))}


def _write(
    terms: Sequence[str], idf: numpy.ndarray, parameters: Mapping[str, Any], head: Any, target: Target, folder: str
) -> Opening:
    """Write the vocabulary and the weights, and the lines that scikit-learn opens them with."""
    from regraft.backbone import plain

    told = {"parameters": dict(parameters), "labels": list(target.labels), "vocabulary": list(terms)}
    durable.fill(Path(folder) / TOLD, json.dumps(told, indent=0).encode())
    durable.fill(Path(folder) / plain.WEIGHTS, plain.weights(head, {"idf": idf}))
    lines = [*USE, *(LABELS if target.labels else ()), *plain.SCORES[target.kind]]
    return Opening("sklearn", "\n".join(lines), plain.CHECK, NAME)


USE = (
    "import json, numpy",
    "from pathlib import Path",
    "from safetensors.numpy import load_file",
    "from sklearn.feature_extraction.text import TfidfVectorizer",
    f'told = json.loads(Path(folder, "{TOLD}").read_text("utf-8"))',
    'held = load_file(folder + "/model.safetensors")',
    'settings = told["parameters"] | {"ngram_range": tuple(told["parameters"]["ngram_range"])}',
    'vectorizer = TfidfVectorizer(vocabulary=told["vocabulary"], sublinear_tf=True, dtype=numpy.float32, **settings)',
    'vectorizer.idf_ = held["idf"]',
    'texts = [" ".join(x) if isinstance(x, tuple) else x for x in inputs]',
    'made = vectorizer.transform(texts) @ held["weight"].T + held["bias"]',
)
LABELS = ('labels = told["labels"]',)


def _arguments(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as scikit-learn takes them: JSON knows no tuples."""
    return {**parameters, "ngram_range": tuple(parameters["ngram_range"])}
