"""Sentence encoders: folders opened and averaged, heads written beside them, opened by sentence-transformers alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from regraft.backbone.view import View
from regraft.engine.predict import joined
from regraft.kit import shelf
from regraft.modalities import text
from regraft.providers import sentences as provider
from regraft.waist import Opening, Options, Target
from tests import checkpoints

LABELS = ("a", "grün", "c")
TARGETS = {
    "class": Target("y", "class", LABELS),
    "multi": Target("y", "multi", LABELS),
    "number": Target("grams", "number", centre=3.0, spread=2.0),
}
WORDS = " ".join(checkpoints.WORDS)
SAID = ["a rose", WORDS, "the sea and the sky"]
PAIRS = [("a rose", "the sea"), (WORDS, "moss"), ("fern", WORDS)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sentences") / "encoder"
    return checkpoints.minilm(root)


@pytest.fixture(scope="module")
def view(folder: Path) -> View:
    return provider.load(str(folder))


def test_a_folder_is_known_by_its_modules(folder: Path, tmp_path: Path) -> None:
    assert provider.find(str(folder)) and provider.find(folder)
    assert not provider.find(str(tmp_path)) and not provider.find(3)
    checkpoints.ALL["bert"](tmp_path / "bert")
    assert not provider.find(str(tmp_path / "bert"))


def test_no_other_provider_takes_it(folder: Path) -> None:
    takers = [name for name in shelf.names("providers") if shelf.find("providers", name).find(str(folder))]
    assert takers == ["sentences"]


def test_its_mean_comes_first_and_its_length_is_its_own(view: View) -> None:
    assert (view.provider, view.pooling, view.dim) == ("sentences", "mean", checkpoints.WIDTH)
    assert view.inputs.setting("max_tokens", 0) == 24 and view.notes == ()
    assert isinstance(view.native, nn.Linear), "transformers' own, which has no weights of the checkpoint"


def test_the_fingerprint_sees_weights_and_pooling_alike(folder: Path, tmp_path: Path) -> None:
    copy = checkpoints.minilm(tmp_path / "copy")
    assert provider.fingerprint(folder) == provider.fingerprint(str(copy))
    with (copy / "tokenizer.json").open("ab") as file:
        file.write(b" ")
    assert provider.fingerprint(folder) != provider.fingerprint(str(copy))


def test_another_pooling_is_said(tmp_path: Path) -> None:
    copy = checkpoints.minilm(tmp_path / "copy")
    for told, noted in (
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, True),
        ({"pooling_mode": "cls"}, True),
        ({"pooling_mode": "mean"}, False),
    ):
        (copy / "1_Pooling" / "config.json").write_text(json.dumps(told))
        notes = provider.load(str(copy)).notes
        assert notes == (("this encoder was trained with another pooling than the mean",) if noted else ())
    (copy / "1_Pooling" / "config.json").unlink()
    assert provider.load(str(copy)).notes == ()


def test_a_mean_is_what_sentence_transformers_gives(folder: Path, view: View) -> None:
    import sentence_transformers as library

    theirs = library.SentenceTransformer(str(folder), device="cpu").encode(SAID, convert_to_tensor=True)
    torch.testing.assert_close(features(view, SAID), theirs, rtol=1e-4, atol=1e-5)


def features(view: View, cells: list[str], options: Options | None = None) -> torch.Tensor:
    """The mean over the tokens of texts, windows averaged."""
    spec = text.adjust(view.inputs, options or Options("d", "m"))
    encode = text.encoder(spec, False, view.source)
    with torch.no_grad():
        return torch.stack([view.run(encode.tensors([part for part, _ in row])).mean(0) for row in encode.parts(cells)])


# ---------------------------------------------------------------- writing


def written(view: View, place: Path, kind: str, pair: bool, long: str = "cut") -> tuple[Opening, nn.Linear, View]:
    """A bundle's native files, the head in them, and the view that wrote them."""
    twin = view.pooled("mean").clone(len(view.stages))
    twin.inputs = text.adjust(view.inputs, Options("d", "m", long=long))  # type: ignore[arg-type]
    target = TARGETS[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        head = nn.Linear(view.dim * (4 if pair else 1), len(target.labels) or 1)
    place.mkdir(exist_ok=True)
    return twin.export(head, target, str(place)), head, twin


def wanted(view: View, head: nn.Linear, pair: bool, long: str) -> torch.Tensor:
    options = Options("d", "m", long=long)  # type: ignore[arg-type]
    with torch.no_grad():
        if not pair:
            return torch.as_tensor(head(features(view, SAID, options)))
        return torch.as_tensor(head(joined(*(features(view, [p[i] for p in PAIRS], options) for i in (0, 1)))))


@pytest.mark.parametrize("pair", [False, True], ids=["texts", "pairs"])
@pytest.mark.parametrize("kind", TARGETS)
def test_a_bundle_is_an_encoder_with_a_head_beside_it(view: View, tmp_path: Path, kind: str, pair: bool) -> None:
    opening, head, _ = written(view, tmp_path, kind, pair)
    assert opening.library == "sentence_transformers"
    modules = [entry["type"].rpartition(".")[2] for entry in json.loads((tmp_path / "modules.json").read_text())]
    assert modules == ["Transformer", "Pooling"] + ([] if pair else ["Dense"])
    assert json.loads((tmp_path / "labels.json").read_text()) == list(TARGETS[kind].labels)
    place, prefix = ("head.safetensors", "") if pair else ("2_Dense/model.safetensors", "linear.")
    tensors = load_file(tmp_path / place)
    assert {name: t.tolist() for name, t in tensors.items()} == {
        f"{prefix}{name}": p.tolist() for name, p in head.named_parameters()
    }
    assert not list(tmp_path.rglob("*.bin")) and (tmp_path / "tokenizer.json").is_file()


@pytest.mark.parametrize("pair", [False, True], ids=["texts", "pairs"])
@pytest.mark.parametrize("kind", TARGETS)
def test_a_bundle_is_opened_with_its_head(view: View, tmp_path: Path, kind: str, pair: bool) -> None:
    _, head, _ = written(view, tmp_path, kind, pair)
    again = provider.load(str(tmp_path))
    assert isinstance(again.native, nn.Linear) and again.pooling == "mean"
    assert torch.equal(again.native.weight, head.weight) and torch.equal(again.native.bias, head.bias)
    assert torch.equal(features(again, SAID), features(view, SAID))


@pytest.mark.parametrize("pair", [False, True], ids=["texts", "pairs"])
def test_the_check_gives_raw_outputs_for_golden_batches(view: View, tmp_path: Path, pair: bool) -> None:
    opening, head, twin = written(view, tmp_path, "class", pair)
    batches = [text.noise(view.inputs, 5, seed) for seed in range(2 if pair else 1)]
    space: dict[str, Any] = {"folder": str(tmp_path), "batches": batches}
    with torch.no_grad():
        exec(opening.check, space)
        sides = [twin.run(batch) for batch in batches]
        torch.testing.assert_close(space["made"], head(joined(*sides) if pair else sides[0]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pair", [False, True], ids=["texts", "pairs"])
@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("long", ["cut", "ends", "windows"])
def test_the_lines_give_the_same_answers(view: View, tmp_path: Path, kind: str, pair: bool, long: str) -> None:
    opening, head, _ = written(view, tmp_path, kind, pair, long)
    space: dict[str, Any] = {"folder": str(tmp_path), "inputs": PAIRS if pair else SAID}
    with torch.no_grad():
        exec(opening.use, space)
    outputs = wanted(view, head, pair, long)
    assert len(space["outputs"]) == len(outputs) == 3
    for row, answer in zip(outputs, space["outputs"], strict=True):
        if kind == "number":
            assert answer == pytest.approx(float(row[0]), abs=1e-4)
        else:
            scores = row.softmax(-1) if kind == "class" else row.sigmoid()
            assert answer == pytest.approx(dict(zip(LABELS, scores.tolist(), strict=True)), abs=1e-5)


def test_another_librarys_folder_has_no_head_of_ours(view: View, folder: Path, tmp_path: Path) -> None:
    """A Dense module that some other encoder has is no head: only labels beside it say so."""
    written(view, tmp_path, "class", False)
    (tmp_path / "labels.json").unlink()
    again = provider.load(str(tmp_path))
    assert isinstance(again.native, nn.Linear) and again.native.out_features != 3


def test_writing_leaves_the_view_as_it_was(view: View, tmp_path: Path) -> None:
    before = features(view, SAID)
    written(view, tmp_path / "one", "class", False)
    written(view, tmp_path / "two", "class", False)
    assert torch.equal(features(view, SAID), before)
    names = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file())
    assert [n for n in names if (tmp_path / "one" / n).read_bytes() != (tmp_path / "two" / n).read_bytes()] == []
