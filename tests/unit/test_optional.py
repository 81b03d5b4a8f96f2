"""Packages that are absent, broken or sound."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from regraft.kit import optional
from tests import places


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_what_is_absent_or_sound_is_no_trouble() -> None:
    assert optional.trouble("no_such_package_at_all") == ""
    assert optional.trouble("json") == ""


@pytest.mark.parametrize("text", ["raise RuntimeError('operator nms does not exist')", "import no_such_binary_part"])
def test_what_is_broken_is_told_and_hidden(package: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    name = f"half_{abs(hash(text))}"
    (package / f"{name}.py").write_text(text)
    told = optional.trouble(name)
    monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, name, None)
    assert told.startswith(f"{name} is broken here (") and told.endswith("or uninstall it")
    assert importlib.util.find_spec(name) is None
    with pytest.raises(ImportError):
        __import__(name)


def test_what_a_package_reports_through_is_hidden_first(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (package / "telling.py").write_text("try: import telling_home\nexcept ImportError: TOLD = False\nelse: TOLD = True")
    (package / "telling_home.py").write_text("")
    monkeypatch.setitem(optional.REPORTS, "telling", "telling_home")
    assert optional.trouble("telling") == "" and not importlib.import_module("telling").TOLD
    monkeypatch.delitem(sys.modules, "telling")
    monkeypatch.delitem(sys.modules, "telling_home")


def test_a_run_goes_through_with_a_broken_torchvision(tmp_path: Path) -> None:
    """torchvision from the registry beside a CPU build of torch: https://github.com/pytorch/vision/issues/8985."""
    places.pictures(tmp_path / "data")
    places.model(tmp_path / "model")
    (tmp_path / "fake" / "torchvision").mkdir(parents=True)
    broken = "raise RuntimeError('operator torchvision::nms does not exist')"
    (tmp_path / "fake" / "torchvision" / "__init__.py").write_text(broken)
    info = tmp_path / "fake" / "torchvision-99.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 99.0\n")
    script = f"""
import sys
sys.path.insert(0, {str(tmp_path / "fake")!r})
from regraft.cli import main
main(["adapt", "data", "--model", "model", "--strategy", "probe", "--probe.epochs", "2"])
"""
    made = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
    )
    assert made.returncode == 0, made.stderr
    assert "torchvision is broken here (operator torchvision::nms does not exist)" in made.stderr
    assert (tmp_path / "runs").is_dir() and "regraft predict" in made.stdout
