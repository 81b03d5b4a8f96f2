"""The command line at its edges: places that cannot be written, full disks, no memory, closed pipes, poor terminals."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from regraft.cli import app
from regraft.deliver import model as models
from regraft.embedded import folder
from tests import places
from tests.calls import call, error_of

Captured = pytest.CaptureFixture[str]
COMMAND = [sys.executable, "-m", "regraft.cli"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in, with data and a file where a folder is wanted."""
    monkeypatch.chdir(tmp_path)
    places.pictures(tmp_path / "data", train=2, val=1, test=1)
    (tmp_path / "file").write_bytes(b"kept")
    (tmp_path / "dangling").symlink_to("nowhere")
    return tmp_path


@pytest.mark.parametrize("out", ["file", "file/below", "/proc/regraft", "dangling"])
def test_runs_that_cannot_be_put_there_are_refused_before_any_work(home: Path, capsys: Captured, out: str) -> None:
    error = error_of(["adapt", "data", "--model", str(folder()), "--out", out], capsys)
    assert (error["code"], error["what"]) == (2, "runs cannot be put there")
    assert error["saw"].startswith(str((home / out).parent if "/" in out else home / out))
    assert (home / "file").read_bytes() == b"kept"
    assert {path.name for path in home.iterdir()} == {"data", "file", "dangling"}


def full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "there/x")


def wrapped() -> RuntimeError:
    error = RuntimeError("could not write")
    error.__cause__ = full()
    return error


TROUBLE: list[tuple[Any, int, str]] = [
    (full(), 5, "the disk is full; what was written is whole"),
    (wrapped(), 5, "the disk is full; what was written is whole"),
    (
        RuntimeError("I/O error: No space left on device (os error 28)"),
        5,
        "the disk is full; what was written is whole",
    ),
    (MemoryError(), 5, "memory ran out; what was written is whole"),
    (
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
        5,
        "memory ran out; what was written is whole",
    ),
    (OSError(errno.ENOMEM, "Cannot allocate memory"), 5, "memory ran out; what was written is whole"),
    (PermissionError(errno.EACCES, "Permission denied", "there/x"), 2, "the system does not allow this"),
    (OSError(errno.EROFS, "Read-only file system", "there/x"), 2, "the system does not allow this"),
    (KeyError("x"), 1, "this is a bug in regraft"),
]


@pytest.mark.parametrize(("error", "code", "what"), TROUBLE, ids=lambda v: type(v).__name__)
def test_what_the_system_refuses_has_its_own_code(
    home: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, what: str
) -> None:
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(models, "open_model", broken)
    told = error_of(["predict", "x", "data"], capsys)
    assert (told["code"], told["what"]) == (code, what) and told["do"]
    assert "Traceback" not in call(["predict", "x", "data"], capsys)[2]
    assert "Traceback" in call(["predict", "x", "data", "-v"], capsys)[2]


def process(*args: object, **more: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*COMMAND, *map(str, args)], capture_output=True, timeout=120, check=False, **more)


def test_a_reader_that_left_ends_it_quietly() -> None:
    line = f"{' '.join(COMMAND)} config schema | true; echo ${{PIPESTATUS[0]}}"
    made = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120, check=False)
    assert made.stderr == "" and made.stdout in ("141\n", "0\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_output_that_has_no_room_is_told() -> None:
    with open("/dev/full", "w") as nowhere:
        made = subprocess.run(
            [*COMMAND, "config", "show"], stdout=nowhere, stderr=subprocess.PIPE, timeout=120, check=False
        )
    assert made.returncode == 5 and made.stderr.startswith(b"regraft: the disk is full")


@pytest.mark.parametrize("coding", ["ascii", "latin-1"])
def test_a_terminal_without_our_signs_gets_others(coding: str) -> None:
    told = os.environ | {"PYTHONIOENCODING": coding, "NO_COLOR": "1"}
    made = process("adapt", "größe→🐜", "--model", folder(), env=told)
    assert made.returncode == 3 and b"Traceback" not in made.stderr
    assert (rb"gr\xf6\xdfe>" if coding == "ascii" else "größe>".encode("latin-1")) in made.stderr
    assert process("config", "show", env=told).returncode == 0


def test_every_sign_of_ours_has_one_in_ascii() -> None:
    assert all(sign.isascii() and sign for sign in app.ASCII.values())


def test_a_log_holds_no_control_characters() -> None:
    made = process("config", "show", "--origin")
    assert made.returncode == 0 and not any(byte < 32 and byte != 10 for byte in made.stdout + made.stderr)


@pytest.mark.parametrize("verb", ["runs", "config"])
def test_a_verb_of_verbs_alone_shows_them(capsys: Captured, verb: str) -> None:
    code, out, err = call([verb], capsys)
    assert code == 2 and err == "" and "Commands:" in out and "�" not in out


def test_an_unknown_verb_leads_to_the_help(capsys: Captured) -> None:
    error = error_of(["adpt"], capsys)
    assert "Did you mean 'adapt'" in error["what"] and error["do"] == "regraft --help"
