"""ARCHITECTURE.md's map says what the sources say."""

from __future__ import annotations

import map as atlas
import pytest


def test_the_map_is_up_to_date() -> None:
    assert not (diff := atlas.difference()), f"run `make map`\n{diff}"


def test_an_outdated_map_is_found(tmp_path: atlas.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "ARCHITECTURE.md"
    page.write_text(atlas.PAGE.read_text("utf-8").replace("- `waist.py`: ", "- `waist.py`: Once. "), "utf-8")
    monkeypatch.setattr(atlas, "PAGE", page)
    assert "-- `waist.py`: Once. " in atlas.difference()
    page.write_text(atlas.redrawn(page.read_text("utf-8")), "utf-8")
    assert atlas.difference() == ""


def test_a_page_without_markers_is_refused() -> None:
    with pytest.raises(SystemExit, match=r"must hold <!-- map:begin --> and <!-- map:end --> once each"):
        atlas.redrawn("# Architecture\n")


def test_every_file_is_on_the_map() -> None:
    drawn = atlas.drawn()
    assert [path.name for path in atlas.sources() if f"`{path.name}`" not in drawn and path.name != "__init__.py"] == []
    assert "has no floor" not in drawn
    assert "(no docstring yet)" not in drawn


def test_sizes_are_told() -> None:
    assert "test lines for 100 source lines" in atlas.sizes()
