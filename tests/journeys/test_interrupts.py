"""A run that is stopped: at every moment it ends within seconds, says what it has, and goes on to the same result."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from regraft.embedded import folder
from tests import places

pytestmark = pytest.mark.timeout(600)

COMMAND = [sys.executable, "-m", "regraft.cli"]
KNOBS = ["--probe.epochs", "12", "--partial.epochs", "12", "--partial.batch", "4"]
WAYS = ["--strategy", "probe", "--strategy", "partial", "--budget", "3trials", *KNOBS]
MOMENTS: list[tuple[signal.Signals, str, str]] = [
    (signal.SIGTERM, "^data: ", "reading and opening"),
    (signal.SIGINT, "^1/", "first trial"),
    (signal.SIGTERM, "^  probe", "trial finished"),
    (signal.SIGINT, "^packing", "packing"),
]
"""The signal, the line of progress that it follows, and what happens then."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures, and a run of them that nobody stopped in `whole`."""
    place = tmp_path_factory.mktemp("interrupts")
    places.pictures(place / "data")
    made = subprocess.run(
        [*COMMAND, *adapt("whole"), "--json"], cwd=place, capture_output=True, text=True, timeout=300, check=False
    )
    assert made.returncode in (0, 7), made.stdout + made.stderr
    return place


def adapt(out: str) -> list[str]:
    return ["adapt", "data", "--model", str(folder()), *WAYS, "--out", out]


def stopped(home: Path, args: list[str], number: signal.Signals, after: str) -> tuple[int, str, str]:
    """Start a command, send it the signal right after a line of progress: exit code, output, what it said."""
    process = subprocess.Popen(
        [*COMMAND, *args], cwd=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    guard = threading.Timer(240, process.kill)
    guard.start()
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if re.match(after, line):
            break
    process.send_signal(number)
    out, rest = process.communicate()
    guard.cancel()
    return process.returncode, out, "".join(said) + rest


def run_of(home: Path, out: str) -> Path:
    (found,) = (home / out).iterdir()
    return found


def weights(run: Path) -> dict[str, bytes]:
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in sorted(run.glob("trials/*/weights-*"))}


def litter(run: Path) -> Iterator[Path]:
    return run.rglob(".part*")


@pytest.mark.parametrize(("number", "after", "when"), MOMENTS, ids=lambda v: v if isinstance(v, str) else "")
def test_a_stopped_run_goes_on_to_the_same_result(home: Path, number: signal.Signals, after: str, when: str) -> None:
    out = when.replace(" ", "-")
    code, printed, said = stopped(home, adapt(out), number, after)
    assert code == 128 + number, said
    assert printed == "" and "Traceback" not in said and "bug" not in said
    if not (home / out).exists():
        assert said.endswith("regraft: stopped before the run began; nothing was written\n  do: run it again\n")
        return
    run = run_of(home, out)
    assert said.endswith(
        f"regraft: stopped; what was done is kept\n  do: regraft adapt --resume {run.relative_to(home)}\n"
    )
    assert re.search(r"^so far: \d trials finished of \d begun, \d+ s spent$", said, re.M)
    assert list(litter(run)) == []
    made = subprocess.run(
        [*COMMAND, "adapt", "--resume", str(run.relative_to(home)), "--json"],
        cwd=home,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert made.returncode in (0, 7), made.stdout + made.stderr
    assert weights(run) == weights(run_of(home, "whole")) != {}


def test_scripts_get_the_same_facts(home: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, *adapt("facts"), "--json"], cwd=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and not list((home / "facts").glob("*/trials/*/trial.json")):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    out, said = process.communicate(timeout=100)
    found: dict[str, Any] = json.loads(out)
    run = run_of(home, "facts").relative_to(home)
    assert process.returncode == 143 and said == ""
    assert found["ok"] is False and found["error"]["code"] == 143
    assert found["error"]["do"] == f"regraft adapt --resume {run}" == found["next"][0]
    assert found["run"] == str(run) and found["begun"] >= len(found["trials"]) >= 1
    assert found["trials"][0]["validation"]["metric"] == "accuracy"
    assert found["leader"] in {"", *(trial["label"] for trial in found["trials"])}
    assert found["bundle"] in ("", f"{run}/bundle")


def test_a_second_signal_ends_it_at_once(home: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, *adapt("twice")], cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("1/"):
            break
    process.send_signal(signal.SIGSTOP)  # so that neither signal is handled before both are there
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode in (130, 143) and "Traceback" not in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("module", ["typer", "regraft.flow", "torch"])
def test_a_signal_during_imports_leaves_a_sentence(home: Path, number: signal.Signals, module: str) -> None:
    script = f"""
import sys, signal
class Finder:
    def find_spec(self, name, *_):
        if name == {module!r}:
            signal.raise_signal({int(number)})
sys.meta_path.insert(0, Finder())
from regraft.cli import main
main(sys.argv[1:])
"""
    made = subprocess.run(
        [sys.executable, "-c", script, *adapt("never")],
        cwd=home,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert made.returncode == 128 + number and "Traceback" not in made.stderr
    assert made.stderr.splitlines()[-2:][0].startswith("regraft: stopped") or made.stderr == "regraft: stopped\n"
