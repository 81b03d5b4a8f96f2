"""The one writer: whole or nothing under any fault, one holder of a lock, litter swept, refusals with a way out."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import subprocess
import sys
import textwrap
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from regraft.errors import ResourceError, UsageError
from regraft.kit import durable, hardware
from tests.disk import Disk, fail_at

FAULTS = [
    (errno.ENOSPC, ResourceError, r"writing failed.*No space left.* MB free.*--out"),
    (errno.EDQUOT, ResourceError, r"what was there before is untouched.*quota"),
    (errno.EIO, ResourceError, r"writing failed.*Input/output error"),
    (errno.EROFS, UsageError, r"may not be written.*Read-only file system.*--out"),
    (errno.EACCES, UsageError, r"may not be written.*Permission denied.*a folder you may write to"),
]


def failing(place: Path, op: str, code: int) -> AbstractContextManager[Disk]:
    """A disk that refuses the first operation `op` below `place`, and all that follow."""
    return Disk(place, fail_at(1, code, only=op)).used()


def names(place: Path) -> set[str]:
    return {path.relative_to(place).as_posix() for path in place.rglob("*")}


def dead_process() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return process.pid


# ---------------------------------------------------------------- write


def test_write_makes_folders_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.bin"
    durable.write(path, b"one")
    durable.write(path, b"two")
    assert path.read_bytes() == b"two"
    assert names(tmp_path) == {"a", "a/b.bin"}


@pytest.mark.parametrize(("code", "kind", "what"), FAULTS, ids=lambda v: errno.errorcode.get(v, "") if v else "")
@pytest.mark.parametrize("op", ["write", "sync", "rename"])
def test_a_failed_write_leaves_the_old_file_and_no_litter(
    tmp_path: Path, op: str, code: int, kind: type[Exception], what: str
) -> None:
    path = tmp_path / "kept.json"
    durable.write(path, b"old")
    with failing(tmp_path, op, code), pytest.raises(kind, match=what) as caught:
        durable.write(path, b"new")
    assert "kept.json" in str(caught.value)
    assert path.read_bytes() == b"old" and names(tmp_path) == {"kept.json"}


@pytest.mark.parametrize("op", ["write", "sync", "rename"])
def test_a_write_works_again_when_the_fault_is_gone(tmp_path: Path, op: str) -> None:
    with failing(tmp_path, op, errno.ENOSPC), pytest.raises(ResourceError):
        durable.write(tmp_path / "x", b"new")
    durable.write(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"new"


def test_an_error_of_another_kind_passes_as_it_is(tmp_path: Path) -> None:
    with failing(tmp_path, "sync", errno.EBADF), pytest.raises(OSError, match="Bad file descriptor"):
        durable.write(tmp_path / "x", b"")
    assert names(tmp_path) == set()


@pytest.mark.parametrize("name", ["file/x", "file/deep/x", "x" * 300])
@pytest.mark.parametrize("op", ["write", "append", "lock", "folder"])
def test_a_place_that_cannot_be_is_refused_with_a_way_out(tmp_path: Path, op: str, name: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    path = tmp_path / name
    with pytest.raises(UsageError, match=r"may not be written.*--out"):
        if op == "write":
            durable.write(path, b"")
        elif op == "append":
            durable.append(path, ["x"])
        else:
            with durable.lock(path, "it") if op == "lock" else durable.folder(path):
                pass
    assert names(tmp_path) == {"file"}


def test_json_keeps_order_and_odd_strings(tmp_path: Path) -> None:
    value = {"z": 1, "ä": "größe", "lone": "\udcff", "a": [None, True]}
    durable.write_json(tmp_path / "x.json", value)
    found = json.loads((tmp_path / "x.json").read_bytes())
    assert found == value and list(found) == list(value)


def test_append_adds_whole_lines(tmp_path: Path) -> None:
    for lines in (["one"], ["two", "drei – ß"]):
        durable.append(tmp_path / "log" / "events.jsonl", lines)
    assert (tmp_path / "log" / "events.jsonl").read_text("utf-8") == "one\ntwo\ndrei – ß\n"


def test_a_failed_append_leaves_the_log(tmp_path: Path) -> None:
    durable.append(tmp_path / "log", ["one"])
    with failing(tmp_path, "write", errno.ENOSPC), pytest.raises(ResourceError, match="No space left"):
        durable.append(tmp_path / "log", ["two"])
    assert (tmp_path / "log").read_text() == "one\n"


# ---------------------------------------------------------------- folder, sums, changed


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    final = tmp_path / "out" / "bundle-1"
    with durable.folder(final) as part:
        (part / "x").write_bytes(b"1")
        assert not final.exists() and part.parent == final.parent
    assert (final / "x").read_bytes() == b"1"
    assert names(tmp_path / "out") == {"bundle-1", "bundle-1/x"}


def test_a_block_that_fails_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), durable.folder(tmp_path / "final") as part:
        (part / "x").write_bytes(b"1")
        raise ZeroDivisionError
    assert names(tmp_path) == set()


@pytest.mark.parametrize("op", ["sync", "rename"])
def test_a_fault_while_a_folder_is_sealed_leaves_nothing(tmp_path: Path, op: str) -> None:
    with (
        failing(tmp_path, op, errno.ENOSPC),
        pytest.raises(ResourceError, match="No space left"),
        durable.folder(tmp_path / "final") as part,
    ):
        (part / "x").write_bytes(b"1")
    assert names(tmp_path) == set()


def test_sums_name_every_file_below(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"")
    assert durable.sums(tmp_path) == {"a/x": durable.digest(b"1"), "b": durable.digest(b"")}


def test_changed_says_what_differs(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"1")
    wanted = [("x", durable.digest(b"1"))]
    assert durable.changed(tmp_path, wanted) == ""
    assert durable.changed(tmp_path, [*wanted, ("y", "0")]) == "y is missing"
    (tmp_path / "x").write_bytes(b"2")
    assert durable.changed(tmp_path, wanted) == "x has changed bytes"


def test_changed_never_looks_outside(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "x").write_bytes(b"1")
    for name in ("../x", "a/../../x", str(tmp_path / "x")):
        assert durable.changed(inside, [(name, durable.digest(b"1"))]) == f"{name} is missing"


# ---------------------------------------------------------------- point, remove, sweep, lock


def test_point_swaps_a_link(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        durable.point(tmp_path / "link", name)
        assert (tmp_path / "link").resolve().name == name
    assert names(tmp_path) == {"one", "two", "link"}


@pytest.mark.parametrize("step", ["symlink", "rename"])
def test_a_failed_point_leaves_the_old_link_and_no_other(tmp_path: Path, step: str) -> None:
    durable.point(tmp_path / "link", "one")
    with failing(tmp_path, step, errno.EROFS), pytest.raises(UsageError, match="Read-only"):
        durable.point(tmp_path / "link", "two")
    assert os.readlink(tmp_path / "link") == "one" and os.listdir(tmp_path) == ["link"]


def test_a_mirror_is_read_where_its_source_lies_and_removed_without_it(tmp_path: Path) -> None:
    (tmp_path / "source").write_text("x")
    durable.mirror(tmp_path / "a/b/c", tmp_path / "source")
    assert (tmp_path / "a/b/c").read_text() == "x" and durable.changed(
        tmp_path / "a", [("b/c", durable.digest(b"x"))]
    ) == ""
    with pytest.raises(UsageError, match="this place may not be written"):
        durable.mirror(tmp_path / "a/b/c", tmp_path / "source")
    durable.remove(tmp_path / "a")
    assert (tmp_path / "source").read_text() == "x"


def test_remove_takes_files_folders_links_and_nothing(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to("target")
    for name in ("folder", "file", "link", "never-there"):
        durable.remove(tmp_path / name)
    assert names(tmp_path) == {"target"}


def test_sweep_takes_what_the_dead_left_and_leaves_the_living(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    dead, alive = dead_process(), os.getppid()
    for number in (dead, alive, os.getpid()):
        (tmp_path / "deep" / f".part-{number}-x").write_bytes(b"")
    (tmp_path / f".part-{dead}-folder").mkdir()
    (tmp_path / ".part-x-y").write_bytes(b"")
    assert durable.sweep(tmp_path) == 2
    assert names(tmp_path) == {"deep", ".part-x-y", f"deep/.part-{alive}-x", f"deep/.part-{os.getpid()}-x"}


def test_sweep_takes_what_a_process_left_whose_number_another_one_has_now(tmp_path: Path) -> None:
    """After a restart, or in a container, numbers come again: a piece older than its process is another one's."""
    for number in (os.getppid(), os.getpid()):
        for name in ("x", "writing"):
            (tmp_path / f".part-{number}-{name}").write_bytes(b"")
            os.utime(tmp_path / f".part-{number}-{name}", (1e9, 1e9))
    with (
        (tmp_path / f".part-{os.getppid()}-writing").open() as one,
        (tmp_path / f".part-{os.getpid()}-writing").open() as two,
    ):
        for file in (one, two):
            fcntl.flock(file, fcntl.LOCK_EX)
        assert durable.sweep(tmp_path) == 2
    assert names(tmp_path) == {f".part-{number}-writing" for number in (os.getppid(), os.getpid())}


def test_what_is_being_written_is_not_swept(tmp_path: Path) -> None:
    with durable.folder(tmp_path / "out") as part:
        os.utime(part, (1e9, 1e9))
        assert durable.sweep(tmp_path) == 0 and part.is_dir()
    assert names(tmp_path) == {"out"}


def test_a_log_goes_on_behind_a_line_that_was_cut_short(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b'{"a": 1}\n{"b"')
    durable.append(tmp_path / "log", ['{"c": 3}'])
    durable.append(tmp_path / "log", ['{"d": 4}'])
    assert (tmp_path / "log").read_text() == '{"a": 1}\n{"b"\n{"c": 3}\n{"d": 4}\n'


def test_what_is_known_not_to_fit_is_refused_before_a_byte_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "free_bytes", lambda _: 3_000_000)
    what = r"No space left on device at .*x \(5\.0 MB are needed, 3\.0 MB free\)"
    disk = Disk(tmp_path)
    with disk.used():
        with pytest.raises(ResourceError, match=what):
            durable.write(tmp_path / "x", bytes(5_000_000))
        with pytest.raises(ResourceError, match=what), durable.folder(tmp_path / "x", 5_000_000):
            raise AssertionError("it was begun")
        durable.write(tmp_path / "y", bytes(2_000_000))
    assert names(tmp_path) == {"y"} and {op.path.name[-1] for op in disk.trace if op.path != tmp_path} == {"y"}


def test_a_file_larger_than_the_system_allows_is_refused(tmp_path: Path) -> None:
    """A real limit, by a library that writes with no function of Python's."""
    script = """
    import resource, sys
    from pathlib import Path
    import torch
    from safetensors.torch import save_file
    from regraft.errors import ResourceError
    from regraft.kit import durable
    place = Path(sys.argv[1])
    durable.write(place / "kept", b"old")
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    for name in ("kept", "new"):
        try:
            if name == "kept":
                durable.write(place / name, bytes(200_000))
            else:
                with durable.folder(place / name) as part:
                    save_file({"a": torch.ones(50_000)}, part / "a.safetensors")
        except ResourceError as error:
            print(error.saw)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(said) == 2 and all(line.startswith(f"File too large at {tmp_path}") for line in said)
    assert (tmp_path / "kept").read_bytes() == b"old" and names(tmp_path) == {"kept"}


def test_sweep_of_a_place_that_is_not_there(tmp_path: Path) -> None:
    assert durable.sweep(tmp_path / "none") == 0


def test_a_second_process_is_refused_with_the_holders_number(tmp_path: Path) -> None:
    script = """
    import sys
    from pathlib import Path
    from regraft.errors import UsageError
    from regraft.kit import durable
    try:
        with durable.lock(Path(sys.argv[1]), "the run r"):
            print("held")
    except UsageError as error:
        print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / ".lock")]
    with durable.lock(tmp_path / ".lock", "the run r"):
        refused = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    allowed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"the run r is in use by another process · saw: process {os.getpid()} on {platform.node()}" in refused
    assert "--fresh" in refused and allowed == "held\n"


def test_a_lock_is_free_again_after_its_block(tmp_path: Path) -> None:
    for _ in range(2):
        with durable.lock(tmp_path / "new" / ".lock", "it"):
            pass
    assert (tmp_path / "new" / ".lock").read_text() == f"{os.getpid()} on {platform.node()}\n"
