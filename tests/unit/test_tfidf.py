"""TF-IDF: what scikit-learn makes of the same texts, learned from training rows alone, shipped without a pickle."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor, nn

from regraft.backbone.plain import FEATURES, Plain
from regraft.deliver import native
from regraft.errors import DataError, ModelError, UsageError
from regraft.kit import shelf
from regraft.modalities import text as modality
from regraft.providers import tfidf as provider
from regraft.waist import Target
from tests.openings import ran

LABELS = ("a", "grün", "c")
TARGETS = {
    "class": Target("y", "class", LABELS),
    "multi": Target("y", "multi", LABELS),
    "number": Target("grams", "number", centre=3.0, spread=2.0),
}
SOME = ["the sea is near", "the sea is far", "moss and fern", "moss and a fern is near", "Grün ist die Heide, grün"]
ASKED = ["the sea", "fern fern fern is near moss", "nothing known", "", "GRÜN"]


@pytest.fixture(scope="module")
def view() -> Plain:
    return provider.fitted(SOME)


def batch_of(view: Plain, cells: list[Any]) -> dict[str, Tensor]:
    return view.encoder().tensors([part for ((part, _),) in view.encoder().parts(cells)])


def dense(view: Plain, cells: list[Any]) -> Tensor:
    return torch.as_tensor(view.run(batch_of(view, cells))).to_dense()


def test_it_is_the_plain_features_of_texts() -> None:
    assert shelf.find("providers", modality.PLAIN) is provider
    assert not provider.find("tfidf") and not provider.find(Path("tfidf"))


@pytest.mark.parametrize("many", [1, 30], ids=["few texts", "many"])
def test_features_are_what_scikit_learn_makes(many: int) -> None:
    texts = SOME * many + (["only here"] if many > 1 else [])
    theirs = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2 if many > 1 else 1, dtype=np.float32)
    theirs.fit(texts)
    view = provider.fitted(texts)
    assert view.dim == len(theirs.vocabulary_) and ("only here" in theirs.vocabulary_) is False
    wanted = torch.from_numpy(theirs.transform(ASKED).toarray())
    torch.testing.assert_close(dense(view, ASKED), wanted, rtol=1e-6, atol=1e-7)


def test_rows_are_sparse_and_depend_on_their_own_text_alone(view: Plain) -> None:
    assert view.encoder().told(ASKED) == () and {size for ((_, size),) in view.encoder().parts(ASKED)} == {0}
    batch = batch_of(view, ASKED)[FEATURES]
    assert batch.layout == torch.sparse_csr and batch.shape == (5, view.dim)
    assert batch_of(view, ["", "nothing"])[FEATURES].values().tolist() == []
    alone = torch.cat([dense(view, [text]) for text in ASKED])
    assert torch.equal(alone, batch.to_dense())


def test_a_pair_is_read_as_one_text_and_a_file_as_its_content(view: Plain, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("\ufeffthe sea is near", "utf-8")
    found = dense(view, ["the sea is near", ("the sea", "is near"), tmp_path / "one.txt"])
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    with pytest.raises(DataError, match="cannot be read"):
        provider.fitted([tmp_path / "none.txt"])


def test_equal_cells_give_equal_bits_and_others_other_inputs(view: Plain) -> None:
    again = provider.fitted(SOME)
    assert again.inputs == view.inputs and again.config == view.config
    assert torch.equal(dense(again, ASKED), dense(view, ASKED))
    other = provider.fitted([*SOME, "the sea"])
    assert other.dim == view.dim and other.inputs != view.inputs, "the same terms, weighed otherwise"


def test_terms_are_bounded_and_the_most_frequent_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(provider, "LIMIT", 3)
    view = provider.fitted(["ox ox ox ox", "an ox eats", "eats dust", "eats an elm", "an elk"])
    assert vocabulary(view, tmp_path) == ["an", "eats", "ox"]
    monkeypatch.setattr(provider, "LIMIT", 5)
    view = provider.fitted(["ox ox ox ox", "an ox eats", "eats dust", "eats an elm", "an elk"])
    assert vocabulary(view, tmp_path) == ["an", "an elk", "an elm", "eats", "ox"], "equal ones in their order"


def test_texts_without_words_are_counted_by_letters(tmp_path: Path) -> None:
    view = provider.fitted(["a b", "? !", "b"])
    assert view.inputs.setting("analyzer", "") == "char" and "b" in vocabulary(view, tmp_path)
    assert dense(view, ["b a", "x"]).count_nonzero(1).tolist() == [3, 0]


@pytest.mark.parametrize(("cells", "saw"), [(["", ""], "2 training texts, such as ''"), ([], "no training texts")])
def test_texts_with_nothing_in_them_are_refused(cells: list[str], saw: str) -> None:
    with pytest.raises(DataError, match="nothing in these texts") as error:
        provider.fitted(cells)
    assert error.value.saw == saw


def test_noise_is_like_a_text_and_holds_none(view: Plain) -> None:
    batch = view.noise(7, 3)[FEATURES]
    assert batch.shape == (7, view.dim) and torch.equal(batch, view.noise(7, 3)[FEATURES])
    assert not torch.equal(batch, view.noise(7, 4)[FEATURES])
    torch.testing.assert_close(batch.norm(dim=1), torch.ones(7))


# ---------------------------------------------------------------- bundles


def head_of(view: Plain, kind: str) -> nn.Linear:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return nn.Linear(view.dim, len(TARGETS[kind].labels) or 1)


def vocabulary(view: Plain, folder: Path) -> list[str]:
    view.export(head_of(view, "number"), TARGETS["number"], str(folder))
    found: list[str] = json.loads((folder / provider.TOLD).read_bytes())["vocabulary"]
    return found


def scores(kind: str, made: Tensor) -> list[Any]:
    if kind == "number":
        return [pytest.approx(value, abs=1e-4) for value in made[:, 0].tolist()]
    prob = made.softmax(-1) if kind == "class" else made.sigmoid()
    return [pytest.approx(dict(zip(LABELS, row, strict=True)), abs=1e-5) for row in prob.tolist()]


@pytest.mark.parametrize("kind", TARGETS)
def test_a_bundle_is_opened_with_its_head(view: Plain, tmp_path: Path, kind: str) -> None:
    head = head_of(view, kind)
    opening = view.export(head, TARGETS[kind], str(tmp_path))
    assert (opening.library, opening.provider) == ("sklearn", "tfidf")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.safetensors", "vectorizer.json"]
    again = provider.load(str(tmp_path))
    assert again.inputs == view.inputs and isinstance(again.native, nn.Linear)
    assert torch.equal(again.native.weight, head.weight) and torch.equal(again.native.bias, head.bias)
    assert torch.equal(dense(again, ASKED), dense(view, ASKED))


@pytest.mark.parametrize("kind", TARGETS)
def test_the_lines_give_the_same_answers(view: Plain, tmp_path: Path, kind: str) -> None:
    head = head_of(view, kind)
    opening = view.export(head, TARGETS[kind], str(tmp_path))
    batch = view.noise(5, 3)
    with torch.no_grad():
        made = ran(opening.check, folder=str(tmp_path), batches=[batch])["made"]
        torch.testing.assert_close(made, head(batch[FEATURES]))
        cells = [*ASKED, ("the sea", "fern is near")]
        outputs = ran(opening.use, folder=str(tmp_path), inputs=cells)["outputs"]
        assert outputs == scores(kind, head(dense(view, cells)))
    assert "torch" not in opening.use and "regraft" not in opening.use


def test_the_lines_run_in_a_process_of_their_own(view: Plain, tmp_path: Path) -> None:
    from safetensors.torch import save_file as save_tensors

    head = head_of(view, "class")
    opening = view.export(head, TARGETS["class"], str(tmp_path))
    batch = view.noise(2, 3)[FEATURES]
    save_tensors({f"0/{FEATURES}": batch}, tmp_path / "golden.safetensors")
    made, told = native.run(opening, str(tmp_path), str(tmp_path / "golden.safetensors"), 1, ASKED, 1)
    assert native.untried(opening) == ""
    with torch.no_grad():
        torch.testing.assert_close(torch.tensor(made), head(batch))
        assert told == scores("class", head(dense(view, ASKED)))


def test_odd_terms_survive_a_bundle(tmp_path: Path) -> None:
    said = ["\ud800 half a sign", 'quotes " and \\ and \u2028 lines', "日本語 テキスト", "𝕏 ıİ ẞß"]
    view = provider.fitted(said)
    vocabulary(view, tmp_path)
    assert torch.equal(dense(provider.load(tmp_path), said), dense(view, said))


def test_the_fingerprint_sees_words_and_weights(view: Plain, tmp_path: Path) -> None:
    vocabulary(view, tmp_path)
    before = provider.fingerprint(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(tensors | {"idf": tensors["idf"] + 1}, tmp_path / "model.safetensors")
    assert provider.fingerprint(str(tmp_path)) != before
    (tmp_path / provider.TOLD).unlink()
    with pytest.raises(ModelError, match="no such bundle"):
        provider.fingerprint(tmp_path)


def test_what_it_cannot_read_is_refused(view: Plain, tmp_path: Path) -> None:
    vocabulary(view, tmp_path)
    with pytest.raises(ModelError, match="reads texts"):
        provider.load(tmp_path, "image")
    with pytest.raises(UsageError, match="no network"):
        provider.load(tmp_path, "text", "resnet18")


def spoiled(folder: Path) -> Iterator[None]:
    """Ways in which files do not fit together, one after the other."""
    told = json.loads((folder / provider.TOLD).read_bytes())
    for wrong in ({"vocabulary": told["vocabulary"][:-1]}, {"vocabulary": 3}, {"parameters": {}}):
        (folder / provider.TOLD).write_text(json.dumps(told | wrong))
        yield
    (folder / provider.TOLD).write_text(json.dumps(told))
    tensors = load_file(folder / "model.safetensors")
    for wrong in ({"idf": tensors["idf"][1:]}, {"weight": tensors["weight"][:, 1:]}, {"bias": tensors["bias"][:0]}):
        save_file(tensors | wrong, folder / "model.safetensors")
        yield
    save_file(tensors, folder / "model.safetensors")
    (folder / provider.TOLD).write_text("{")
    yield


def test_files_that_do_not_fit_together_are_refused(view: Plain, tmp_path: Path) -> None:
    vocabulary(view, tmp_path)
    for _ in spoiled(tmp_path):
        with pytest.raises(ModelError, match="cannot be read") as error:
            provider.load(tmp_path)
        assert str(tmp_path) in error.value.saw
