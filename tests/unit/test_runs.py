"""Runs on disk: listed whatever state they are in, removed only where they are runs that nobody uses."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from regraft.deliver import runs
from regraft.errors import UsageError
from regraft.flow import Run
from regraft.kit import durable
from regraft.waist import Target
from tests import places
from tests.calls import adapted, call, error_of, object_of
from tests.disk import Disk, Op

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, a model and `runs`."""
    place = tmp_path_factory.mktemp("home")
    places.pictures(place / "data", train=4, val=2, test=2)
    places.model(place / "model")
    return place


@pytest.fixture(scope="module")
def finished(home: Path) -> Run:
    return adapted(home / "data", home / "model", home / "runs")


@pytest.fixture
def several(finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`runs` with a finished run, one that was begun, one of another version, and what is none; we stand beside it."""
    place = tmp_path / "runs"
    for name in ("whole", "begun", "odd"):
        shutil.copytree(finished.folder, place / name, symlinks=True)
    for name in ("verdict.json", "trials.json"):
        (place / "begun" / name).unlink()
    (place / "odd" / "verdict.json").write_text('{"inputs": "", "record": {"decision": "maybe"}}')
    (place / "notes").mkdir()
    (place / "notes" / "options.json").write_text('{"mine": true}')
    monkeypatch.chdir(tmp_path)
    return Path("runs")


# ---------------------------------------------------------------- listing


def test_every_run_is_listed_with_its_state(several: Path, finished: Run) -> None:
    found = {one.run: one for one in runs.ls(several)}
    assert {name: one.state for name, one in found.items()} == {
        "runs/whole": "finished",
        "runs/begun": "begun",
        "runs/odd": "unreadable",
    }
    whole = found["runs/whole"]
    assert (whole.data, whole.model, whole.decision, whole.winner) == ("data", "model", "ship", finished.winner.label)
    assert whole.score == finished.winner.score("test") and whole.bytes > 10_000 and whole.when[:2] == "20"
    assert found["runs/begun"].score is None and found["runs/begun"].data == "data"


def test_a_run_in_use_is_told_and_nothing_is_written(several: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in several.rglob("*")}
    assert [one.state for one in runs.ls(several / "begun")] == ["begun"]
    assert {p: p.stat().st_mtime_ns for p in several.rglob("*")} == before
    with durable.lock(several / "begun" / ".lock", "it"):
        assert [one.state for one in runs.ls(several / "begun")] == ["in use"]


def test_the_newest_run_comes_first(several: Path) -> None:
    for i, name in enumerate(("odd", "whole")):
        os.utime(several / name / "verdict.json", (1e9 + i, 1e9 + i))
    assert [Path(one.run).name for one in runs.ls(several)] == ["begun", "whole", "odd"]


def test_a_folder_that_is_not_there_gets_the_nearest(several: Path, capsys: Captured) -> None:
    error = error_of(["runs", "ls", "rnus"], capsys, "runs ls")
    assert (error["what"], error["saw"], error["do"]) == ("there is no such folder", "rnus", "did you mean runs?")


def test_no_runs_yet_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.chdir(tmp_path)
    assert object_of(["runs", "ls"], capsys, "runs ls")["runs"] == []
    assert call(["runs", "ls"], capsys)[1].startswith("there are no runs in runs: regraft adapt DATA")


def test_runs_are_shown_as_a_table_and_as_an_object(several: Path, capsys: Captured) -> None:
    code, out, _ = call(["runs", "ls"], capsys)
    assert code == 0 and len(out.splitlines()) == 4 and out.split()[:3] == ["run", "data", "model"]
    assert all(name in out for name in ("runs/whole", "runs/begun", "runs/odd", "finished", "unreadable"))
    told = object_of(["runs", "ls"], capsys, "runs ls")
    assert told["folder"] == "runs" and len(told["runs"]) == 3
    score = next(one["score"] for one in told["runs"] if one["run"] == "runs/whole")
    assert score["split"] == "test" and score["low"] <= score["value"] <= score["high"]


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J", "größe 🐜", "-x"])
def test_names_are_listed_as_they_are(several: Path, capsys: Captured, name: str) -> None:
    (several / "whole").rename(several / name)
    assert f"runs/{name}" in [one["run"] for one in object_of(["runs", "ls"], capsys, "runs ls")["runs"]]
    out = call(["runs", "ls"], capsys)[1]
    assert "\x1b" not in out and len(out.splitlines()) == 4


# ---------------------------------------------------------------- showing


def test_a_finished_run_is_shown_as_adapt_ends(several: Path, capsys: Captured, finished: Run) -> None:
    code, out, _ = call(["runs", "show", several / "whole"], capsys)
    assert code == 0 and f"ship: {finished.winner.label}" in out and "bundle  runs/whole/bundle" in out
    assert "regraft predict runs/whole" in out
    told = object_of(["runs", "show", several / "whole"], capsys, "runs show")
    assert told["run"] == "runs/whole" and told["verdict"]["decision"] == "ship"


@pytest.mark.parametrize(
    ("name", "what", "do"),
    [
        ("begun", "this run has not come that far", "regraft adapt --resume runs/begun"),
        ("odd", "this run cannot be read: it was changed, or made by another version", "run the command that made it"),
        ("whle", "there is no run in this folder", "did you mean runs/whole?"),
    ],
)
def test_a_run_that_cannot_be_shown_is_refused(several: Path, capsys: Captured, name: str, what: str, do: str) -> None:
    error = error_of(["runs", "show", several / name], capsys, "runs show")
    assert error["what"] == what and error["do"].startswith(do)


# ---------------------------------------------------------------- removing


def test_runs_are_removed_whole(several: Path, capsys: Captured) -> None:
    size = runs.size_of(several / "whole")
    told = object_of(["runs", "rm", several / "whole", several / "odd/", several / "whole", "--yes"], capsys, "runs rm")
    assert told["removed"] == ["runs/whole", "runs/odd"] and told["bytes"] > size
    assert sorted(p.name for p in several.iterdir()) == ["begun", "notes"]


def test_a_removal_that_was_cut_short_can_be_repeated(several: Path) -> None:
    def fault(op: Op) -> None:
        if not (several / "whole" / "backbone.json").exists():
            raise KeyboardInterrupt

    left = several / "whole"
    with Disk(several, fault).used(), pytest.raises(KeyboardInterrupt):
        runs.remove(left)
    assert runs.is_run(left) and not (left / "backbone.json").exists()
    runs.remove(left)
    assert not left.exists()


def test_a_run_in_use_is_not_removed(several: Path, capsys: Captured) -> None:
    with durable.lock(several / "begun" / ".lock", "it"):
        error = error_of(["runs", "rm", several / "whole", several / "begun", "--yes"], capsys, "runs rm")
    assert error["what"] == "the run runs/begun is in use by another process"
    assert error["saw"].startswith(f"process {os.getpid()} on ") and "then remove the run" in error["do"]
    assert (several / "whole" / "verdict.json").is_file(), "one cannot be removed, so none is"


def test_what_is_no_run_is_not_removed(several: Path, capsys: Captured, tmp_path: Path) -> None:
    for path, what in (
        (several, "there is no run in this folder"),
        (several / "nothing", "there is no run in this folder"),
        (several / "notes", "this folder is no run of regraft"),
        (several / "whole" / "bundle", "this is a link, not a run"),
        (tmp_path, "there is no run in this folder"),
    ):
        assert error_of(["runs", "rm", path, "--yes"], capsys, "runs rm")["what"] == what
    assert (several / "notes" / "options.json").is_file() and (several / "whole" / "bundle").exists()


def test_a_link_is_not_followed(several: Path, tmp_path: Path) -> None:
    other = shutil.copytree(several / "whole", tmp_path / "other", symlinks=True)
    (several / "link").symlink_to(other)
    (several / "begun" / "out").symlink_to(tmp_path / "other")
    with pytest.raises(UsageError, match=rf"a link, not a run · saw: runs/link → {other} · allowed: a run's own"):
        runs.remove(several / "link")
    runs.remove(several / "begun")
    assert (other / "verdict.json").is_file()


def test_removing_asks_first(several: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    error = error_of(["runs", "rm", several / "whole"], capsys, "runs rm")
    assert error["what"].startswith("nobody can be asked") and error["saw"].startswith("runs/whole (0.")
    for answer, code in (("n\n", 130), ("y\n", 0)):
        said = TerminalOf(answer)
        monkeypatch.setattr(sys, "stdin", said)
        assert call(["runs", "rm", several / "whole"], capsys)[0] == code
        assert (several / "whole").exists() == (code != 0)


class TerminalOf:
    """A terminal at which somebody types one line."""

    def __init__(self, answer: str) -> None:
        self.answer = answer

    def isatty(self) -> bool:
        return True

    def readline(self, _most: int = -1) -> str:
        return self.answer


# ---------------------------------------------------------------- rows


def test_the_rows_of_a_run_are_read_back(finished: Run) -> None:
    held = runs.rows(finished.folder, finished.data.target)
    assert [row.split for row in held] == ["train"] * 12 + ["val"] * 6 + ["test"] * 6
    assert {row.y for row in held} == set(places.LABELS) and {len(row.key) for row in held} == {64}


@pytest.mark.parametrize(
    ("target", "text", "y"),
    [
        (Target("y", "class", ("=a", "b"), (1, 1)), "'=a", "=a"),
        (Target("y", "class", ("'=a", "b"), (1, 1)), "'=a", "'=a"),
        (Target("y", "class", ("'", "b"), (1, 1)), "'", "'"),
        (Target("y", "multi", ("a", "b"), (1, 1)), '["a", "b"]', ("a", "b")),
        (Target("y", "number"), "-1.5", -1.5),
    ],
)
def test_targets_are_read_back_as_they_were(tmp_path: Path, target: Target, text: str, y: object) -> None:
    quoted = text.replace('"', '""')
    (tmp_path / "splits.csv").write_text(f'id,split,y,sha256,sex\n"a\nb",test,"{quoted}",f0,m\n', newline="")
    assert runs.rows(tmp_path, target) == [runs.Held("a\nb", "test", y, "f0")]


@pytest.mark.parametrize("text", [None, "", "id,split,y,sha256\na,b\n", "id,split,y,sha256\na,test,x,f\n"])
def test_rows_that_are_not_there_are_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "splits.csv").write_text(text)
    with pytest.raises(UsageError, match=r"the rows of this run are not known · saw: .*splits\.csv: \w+"):
        runs.rows(tmp_path, Target("y", "number"))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"inputs": "", "record": 3}', '{"record": {"data": 1, "model": 2}}'])
def test_an_options_file_of_another_form_is_no_run(tmp_path: Path, text: str) -> None:
    (tmp_path / "options.json").write_text(text)
    assert not runs.is_run(tmp_path) and runs.ls(tmp_path) == []
    held = {"inputs": "", "record": {"data": "d", "model": "m", "strategies": []}}
    (tmp_path / "options.json").write_text(json.dumps(held))
    assert runs.is_run(tmp_path)
