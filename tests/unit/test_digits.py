"""The demo's digits: few, disjoint, equal for equal seeds, written once."""

from __future__ import annotations

from pathlib import Path

import pytest

from regraft.data.open import open_data
from regraft.embedded import digits, folder
from regraft.embedded.digits import write_digits


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer than the demo has."""
    monkeypatch.setattr(digits, "TRAIN_PER_CLASS", 3)
    monkeypatch.setattr(digits, "TEST_PER_CLASS", 2)


def test_digits_are_a_data_set_without_repeats(tmp_path: Path) -> None:
    data = open_data(write_digits(tmp_path / "digits", 0))
    assert data.name == "digits-0" and data.target.labels == tuple("0123456789")
    assert len(data.test) == 20 and len(data.train) + len(data.val) == 30
    assert [note for note in data.notes if "more than one split" in note] == []


def test_digits_follow_the_seed_and_are_written_once(tmp_path: Path) -> None:
    first = write_digits(tmp_path / "a", 1)
    names = sorted(p.relative_to(first) for p in first.rglob("*.png"))
    written = (first / names[0]).stat().st_mtime_ns
    assert write_digits(tmp_path / "a", 1) == first and (first / names[0]).stat().st_mtime_ns == written
    again, other = write_digits(tmp_path / "b", 1), write_digits(tmp_path / "a", 2)
    assert sorted(p.relative_to(again) for p in again.rglob("*.png")) == names
    assert sorted(p.relative_to(other) for p in other.rglob("*.png")) != names


def test_the_embedded_model_is_in_its_folder() -> None:
    assert {"config.json", "model.safetensors", "preprocessor_config.json"} <= {p.name for p in folder().iterdir()}
