"""`regraft report`: the pages of a finished run, made again from its records alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from regraft.flow import Run
from tests import places
from tests.calls import adapted, call, error_of, object_of

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    place = tmp_path_factory.mktemp("home")
    places.pictures(place / "data", train=4, val=2, test=2)
    places.model(place / "model")
    return adapted(place / "data", place / "model", place / "runs")


def test_both_pages_are_made_again(finished: Run, capsys: Captured) -> None:
    pages = [finished.folder / name for name in ("report.md", "report.html")]
    before = [page.read_bytes() for page in pages]
    for page in pages:
        page.unlink()
    code, out, _ = call(["report", finished.folder], capsys)
    assert code == 0 and out.splitlines() == [str(page) for page in pages]
    assert [page.read_bytes() for page in pages] == before
    told = object_of(["report", finished.folder], capsys)
    assert told["text"] == str(pages[0]) and told["report"] == str(pages[1])


def test_neither_data_nor_bundle_is_needed(finished: Run, tmp_path: Path, capsys: Captured) -> None:
    run = shutil.copytree(finished.folder, tmp_path / "run", symlinks=True)
    for weights in run.glob("trials/*/*.safetensors"):
        weights.unlink()
    assert call(["report", run], capsys)[0] == 0


def test_what_is_not_finished_is_refused(finished: Run, tmp_path: Path, capsys: Captured) -> None:
    run = shutil.copytree(finished.folder, tmp_path / "run", symlinks=True)
    (run / "verdict.json").unlink()
    assert error_of(["report", run], capsys)["what"] == "this run has not come that far"
    (run / "verdict.json").write_text('{"inputs": "", "record": {"decision": "maybe"}}')
    assert error_of(["report", run], capsys)["what"].startswith("this run cannot be read")
    assert error_of(["report", tmp_path / "none"], capsys)["what"] == "there is no run in this folder"
