"""The word `minilm`: the package that carries the weights, or how to get it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest

from regraft.errors import ModelError
from regraft.kit import shelf
from regraft.providers import minilm as provider

HERE = importlib.util.find_spec(provider.PACKAGE) is not None


def test_the_word_is_known_unless_a_path_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert provider.find("minilm") and not provider.find("MiniLM") and not provider.find(Path("minilm"))
    (tmp_path / "minilm").mkdir()
    assert not provider.find("minilm")


@pytest.mark.parametrize("places", [None, [], ["nowhere"]])
def test_without_the_package_the_extra_is_named(places: list[str] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = None if places is None else SimpleNamespace(submodule_search_locations=places)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    for ask in (provider.fingerprint, provider.load):
        with pytest.raises(
            ModelError, match=r"not installed, and nothing is fetched .*pip install \"regraft\[minilm\]\""
        ):
            ask("minilm")


def test_the_folder_is_handed_to_the_provider_that_opens_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    asked: list[tuple[str, ...]] = []
    other = SimpleNamespace(
        fingerprint=lambda query: f"mark of {query}",
        load=lambda *words: asked.append(words) or SimpleNamespace(name="model"),
    )
    monkeypatch.setattr(
        shelf, "find", lambda kind, name: other if (kind, name) == ("providers", "transformers") else None
    )
    assert provider.fingerprint("minilm") == f"mark of {tmp_path / 'model'}"
    assert provider.load("minilm", "text").name == "minilm"
    assert asked == [(str(tmp_path / "model"), "text", "")]


@pytest.mark.skipif(not HERE, reason="the package with MiniLM's weights is not installed")
def test_the_package_is_found_without_running_it() -> None:
    import sys

    before = provider.PACKAGE in sys.modules
    assert (provider.folder() / "model.safetensors").is_file()
    assert (provider.PACKAGE in sys.modules) == before


@pytest.mark.skipif(not HERE, reason="the package with MiniLM's weights is not installed")
def test_the_real_encoder_gives_384_features() -> None:
    view = provider.load("minilm", "text")
    assert view.name == "minilm" and view.dim == 384 and view.inputs.modality == "text"
