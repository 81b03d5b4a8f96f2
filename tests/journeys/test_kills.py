"""A real run in a process of its own, killed at moments drawn by chance: it goes on and ends with the same weights."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import places
from tests.calls import regraft, told

pytestmark = pytest.mark.timeout(1200)  # each command starts a process or two: slow where the machine is busy


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and a model."""
    place = tmp_path_factory.mktemp("kills")
    places.pictures(place / "data")
    places.model(place / "model")
    return place


def _start(home: Path, *args: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "regraft.cli", *map(str, args)]
    return subprocess.Popen(command, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def partial(out: str) -> list[object]:
    knobs = ["--partial.epochs", "60", "--partial.batch", "3", "--partial.lr", "0.0001"]
    return ["adapt", "data", "--model", "model", "--strategy", "partial", *knobs, "--out", out]


@pytest.fixture(scope="module")
def unkilled(home: Path) -> bytes:
    found = told(regraft(*partial("unkilled"), "--json", cwd=home))
    return (home / found["run"] / found["trials"][0]["snapshot"]).read_bytes()


def kill_at_random(home: Path, args: list[object], out: str, wanted: bytes, kills: int, span_s: float) -> None:
    """SIGKILL the run `kills` times at random moments, then let it end: the weights must be `wanted`."""
    draw = random.Random(out)
    for _ in range(kills):
        process = _start(home, *args)
        try:
            process.wait(draw.uniform(0.5, span_s))
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    found = told(regraft(*args, "--json", cwd=home))
    assert (home / found["run"] / found["trials"][0]["snapshot"]).read_bytes() == wanted


def test_killed_at_random_moments(home: Path, unkilled: bytes) -> None:
    kill_at_random(home, partial("killed"), "killed", unkilled, kills=3, span_s=12)


@pytest.mark.slow
def test_killed_at_ten_random_moments(home: Path, unkilled: bytes) -> None:
    for i in range(10):
        kill_at_random(home, partial(f"killed-{i}"), f"killed-{i}", unkilled, kills=1, span_s=20)
