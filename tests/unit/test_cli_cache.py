"""`regraft cache`: stores are listed whatever made them, removed by name or age, and compared to what was written."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
import torch

from regraft.engine import blocks
from regraft.engine.cache import Table
from regraft.kit import hardware
from tests import places
from tests.calls import call, error_of, object_of

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with three stores of one model, the middle one of an older version; and what is no store."""
    home = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REGRAFT_CACHE", str(home / "cache"))
        course = places.course(home)
        for when, k in enumerate((1, 2, 4)):
            table = course.table(course.view, k, course.data.train)
            assert table.store is not None
            os.utime(table.store.folder, (1e9 + when, 1e9 + when))
        middle = next(one for one in blocks.ls() if one.about is not None and one.about.frontier == 2)
        (home / "cache/trunk" / middle.address / "store.json").unlink()
        os.utime(home / "cache/trunk" / middle.address, (1e9 + 1, 1e9 + 1))
    (home / "cache/trunk/notes").mkdir()
    return home / "cache"


@pytest.fixture
def cache(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which the command finds; its `trunk` folder."""
    shutil.copytree(made, tmp_path / "cache", copy_function=shutil.copy2)
    monkeypatch.setenv("REGRAFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/trunk"


class Terminal:
    """A terminal at which somebody types one line."""

    def __init__(self, answer: str) -> None:
        self.answer = answer

    def isatty(self) -> bool:
        return True

    def readline(self, _most: int = -1) -> str:
        return self.answer


def damage(block: Path) -> None:
    data = bytearray(block.read_bytes())
    data[-1] ^= 1
    block.write_bytes(bytes(data))


# ---------------------------------------------------------------- listing


def test_stores_are_listed_with_what_they_hold(cache: Path, capsys: Captured) -> None:
    code, out, _ = call(["cache", "ls"], capsys)
    lines = out.splitlines()
    assert code == 0 and lines[0].split() == ["store", "model", "stage", "rows", "size", "last", "used", "as"]
    assert [line.split()[1:4] for line in lines[1:4]] == [
        ["model", "4/4", "27"],
        ["?", "?", "27"],
        ["model", "1/4", "27"],
    ]
    assert all("2001-09-09" in line for line in lines[1:4]) and lines[1].endswith("fp32")
    assert all(len(line) <= 80 for line in lines[:4])
    assert lines[-1] == f"0.0 MB of at most 10.0 GB in {cache}"


def test_the_object_tells_all_of_it_and_nothing_is_touched(cache: Path, capsys: Captured) -> None:
    before = {path: path.stat().st_mtime_ns for path in [cache, *cache.rglob("*")]}
    told = object_of(["cache", "ls"], capsys, "cache ls")
    assert {path: path.stat().st_mtime_ns for path in before} == before
    first, old, _ = told["stores"]
    assert first["about"] | {"threads": 0} == {
        **{"model": "model", "provider": "transformers", "pooling": "native", "frontier": 4, "stages": 4},
        **{"engine": "eager", "dtype": "float32", "threads": 0, "micro_batch": 64},
    }
    assert old["about"] is None and old["rows"] == 27 and old["blocks"] == 1 and len(old["address"]) == 32
    assert told["bytes"] == sum(one["bytes"] for one in told["stores"]) and first["used"] == "2001-09-09T01:46:42+00:00"


def test_an_empty_cache_is_no_error(capsys: Captured) -> None:
    assert call(["cache", "ls"], capsys)[1].startswith("there are no stores in ")
    assert object_of(["cache", "ls"], capsys, "cache ls")["stores"] == []
    assert call(["cache", "rm", "--all", "--yes"], capsys)[:2] == (0, "there was nothing to remove\n")
    assert call(["cache", "verify"], capsys)[:2] == (0, "0 blocks in 0 stores were read: 0 whole\n")


def test_a_block_that_cannot_be_read_counts_no_rows(cache: Path, capsys: Captured) -> None:
    (block, *_) = sorted(cache.rglob("*.block"))
    block.write_bytes(b"torn")
    rows = {one["address"]: one["rows"] for one in object_of(["cache", "ls"], capsys, "cache ls")["stores"]}
    assert sorted(rows.values()) == [0, 27, 27] and rows[block.parent.name] == 0


def test_another_cache_is_named(cache: Path, capsys: Captured, tmp_path: Path) -> None:
    assert hardware.cache_folder() == cache.parent
    told = object_of(["cache", "ls", "--cache-folder", tmp_path / "other"], capsys, "cache ls")
    assert told["folder"] == str(tmp_path / "other/trunk") and told["stores"] == []


# ---------------------------------------------------------------- removing


def test_stores_are_removed_by_their_first_digits(cache: Path, capsys: Captured) -> None:
    last = blocks.ls()[0]
    told = object_of(["cache", "rm", last.address[:8], last.address, "--yes"], capsys, "cache rm")
    assert told["removed"] == [last.address] and told["bytes"] == last.bytes > 0
    assert len(blocks.ls()) == 2 and (cache / "notes").is_dir()


def test_stores_are_removed_by_their_model(cache: Path, capsys: Captured) -> None:
    assert call(["cache", "rm", "model", "--yes"], capsys)[1].startswith("removed 2 stores: ")
    assert [one.about for one in blocks.ls()] == [None]


def test_all_stores_are_removed_and_nothing_else(cache: Path, capsys: Captured) -> None:
    assert len(object_of(["cache", "rm", "--all", "--yes"], capsys, "cache rm")["removed"]) == 3
    assert [path.name for path in cache.iterdir()] == ["notes"]


def test_what_was_not_used_for_long_is_removed(cache: Path, capsys: Captured) -> None:
    newest = blocks.ls()[0].address
    os.utime(cache / newest, (time.time() - 3600 * 30,) * 2)
    assert object_of(["cache", "rm", "--older-than", "2d", "--yes"], capsys, "cache rm")["removed"] != []
    assert [one.address for one in blocks.ls()] == [newest]
    assert object_of(["cache", "rm", "--older-than", "1d", "--yes"], capsys, "cache rm")["removed"] == [newest]


@pytest.mark.parametrize(
    ("given", "what", "saw"),
    [
        (["modle"], "there is no store of that name in the cache", "'modle'"),
        (["abc"], "there is no store of that name in the cache", "'abc'"),
        ([""], "there is no store of that name in the cache", "''"),
        (["../notes"], "there is no store of that name in the cache", "'../notes'"),
        (["notes"], "there is no store of that name in the cache", "'notes'"),
        ([], "it is not clear what to remove", "nothing"),
        (["model", "--all"], "it is not clear what to remove", "model, --all"),
        (["--all", "--older-than", "3d"], "it is not clear what to remove", "--all, --older-than"),
        (["--older-than", "soon"], "this is no age", "'soon'"),
    ],
)
def test_what_cannot_be_removed_is_told(cache: Path, capsys: Captured, given: list[str], what: str, saw: str) -> None:
    error = error_of(["cache", "rm", *given, "--yes"], capsys, "cache rm")
    assert (error["code"], error["what"], error["saw"]) == (2, what, saw)
    assert len(blocks.ls()) == 3
    if given == ["modle"]:
        assert error["do"] == "did you mean model?"


def test_a_beginning_of_two_addresses_names_neither(cache: Path, capsys: Captured) -> None:
    for i, one in enumerate(blocks.ls()[:2]):
        (cache / one.address).rename(cache / f"abcd{i}{one.address[5:]}")
    assert error_of(["cache", "rm", "abcd", "--yes"], capsys, "cache rm")["what"] == "this names several stores"
    assert len(object_of(["cache", "rm", "abcd1", "--yes"], capsys, "cache rm")["removed"]) == 1


def test_removing_asks_first(cache: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    error = error_of(["cache", "rm", "model"], capsys, "cache rm")
    assert error["what"].startswith("nobody can be asked") and error["saw"].startswith("2 stores (0.")
    for answer, code, left in (("n\n", 130, 3), ("y\n", 0, 1)):
        monkeypatch.setattr("sys.stdin", Terminal(answer))
        assert call(["cache", "rm", "model"], capsys)[0] == code
        assert len(blocks.ls()) == left


def test_who_uses_a_removed_store_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    """It reads what it has opened, whether that lies in memory or is mapped, and writes what is new."""
    monkeypatch.setattr("regraft.engine.cache.HELD_SHARE", 0)
    course = places.course(tmp_path)
    table = course.table(course.view, 2, course.data.train)
    wanted = Table(table.trunk, table.rows, None).batch([3, 0, 26])[0].state.value
    assert len(object_of(["cache", "rm", "--all", "--yes"], capsys, "cache rm")["removed"]) == 1
    assert not list(hardware.cache_folder().rglob("*.block"))
    assert torch.equal(table.batch([3, 0, 26])[0].state.value, wanted)
    course.table(course.view, 2, course.data.val)
    (again,) = blocks.ls()
    assert again.rows == len(course.data.val) and again.about is not None


# ---------------------------------------------------------------- checking


def test_whole_blocks_are_told_to_be_whole(cache: Path, capsys: Captured) -> None:
    assert call(["cache", "verify"], capsys)[:2] == (0, "3 blocks in 3 stores were read: 3 whole\n")
    assert object_of(["cache", "verify", "model"], capsys, "cache verify")["stores"][1]["damaged"] == []


def test_changed_blocks_are_found_and_with_fix_removed(cache: Path, capsys: Captured) -> None:
    hit = blocks.ls()[2]
    (block,) = (cache / hit.address).glob("*.block")
    damage(block)
    error = error_of(["cache", "verify"], capsys, "cache verify")
    assert error["code"] == 5 and error["saw"] == f"1, such as {hit.address[:8]}/{block.name[:8]}"
    assert call(["cache", "verify"], capsys)[0] == 5 and block.exists()
    assert call(["cache", "verify", blocks.ls()[0].address[:6]], capsys)[0] == 0
    told = object_of(["cache", "verify", "--fix"], capsys, "cache verify")
    assert told["stores"][2] == {
        **{"address": hit.address, "blocks": 1, "damaged": [block.name], "removed": [block.name]},
    }
    assert not block.exists() and call(["cache", "verify"], capsys)[0] == 0


def test_the_command_reads_no_torch(cache: Path) -> None:
    import subprocess
    import sys

    told = (
        "import sys; from regraft.cli.app import run; "
        "codes = [run(['cache', verb]) for verb in ('ls', 'verify')]; "
        "sys.exit(sum(codes) + 10 * ('torch' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", told], capture_output=True, check=False).returncode == 0
