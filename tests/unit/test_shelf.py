"""Shelf items are found by file name or by module path; what cannot be one is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from regraft.errors import UsageError
from regraft.kit import shelf

ZIP = '''
"""A strategy of somebody else."""
from regraft.strategies.probe import Knobs, propose
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the module path, for packages of others."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("others"):
            del sys.modules[name]


def test_names_are_the_files_of_the_shelf() -> None:
    assert {"asis", "full", "gradual", "layerwise", "lora", "partial"} < set(shelf.names("strategies"))


def test_a_file_is_found_by_its_name() -> None:
    assert shelf.find("tasks", "classify").__name__ == "regraft.tasks.classify"


def test_a_module_path_is_found(package: Path) -> None:
    (package / "others").mkdir()
    (package / "others" / "zip.py").write_text(ZIP)
    assert shelf.find("strategies", "others.zip").Knobs is shelf.find("strategies", "probe").Knobs


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(
        UsageError,
        match=r"no strategy of that name · saw: 'prbe' · allowed: asis, .*full, .*, partial, .* mean probe\?",
    ):
        shelf.find("strategies", "prbe")


@pytest.mark.parametrize(("kind", "word"), [("modalities", "modality"), ("providers", "provider"), ("checks", "check")])
def test_errors_name_the_kind_of_item(kind: str, word: str) -> None:
    with pytest.raises(UsageError, match=f"no {word} of that name"):
        shelf.find(kind, "nothing")


def test_a_module_path_that_is_not_there(package: Path) -> None:
    with pytest.raises(UsageError, match=r"strategy module does not import · saw: others\.none: .*install its package"):
        shelf.find("strategies", "others.none")


@pytest.mark.parametrize("text", ["import nothing_of_this_name", "1 / 0", "this is no Python"])
def test_a_module_that_fails_as_it_is_imported(package: Path, text: str) -> None:
    (package / "others").mkdir()
    (package / "others" / "bad.py").write_text(text)
    with pytest.raises(UsageError, match=r"strategy module does not import · saw: others\.bad"):
        shelf.find("strategies", "others.bad")


@pytest.mark.parametrize("name", [".probe", "..", ".", "probe.", "a..b", "../probe", "x/y.z"])
def test_what_cannot_be_a_module_path_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="does not import"):
        shelf.find("strategies", name)


def test_a_module_that_is_no_item_of_this_shelf() -> None:
    with pytest.raises(UsageError, match=r"strategy.*os\.path"):
        shelf.find("strategies", "os.path")
