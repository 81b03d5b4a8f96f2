"""What is promised whatever happens: kills, full disks, lost power, two processes; `kills` makes these harms."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from regraft.kit import durable
from tests import places

ROOT = Path(__file__).resolve().parents[2]
SMALL = [("kill", "one", 5), ("kill", "race", 3), ("full", "one", 5), ("full", "race", 3), ("power", "one", 3)]
ALL = [("kill", "race", "200"), ("kill", "one", "all"), ("full", "one", "all"), ("full", "race", "200")]
ALL += [("power", "one", "all"), ("power", "race", "100")]


def harm(place: Path, *asked: object) -> int:
    """What `kills` says that it did, in a process of its own.

    A fork of one that has had threads may wait for ever for a lock that none of them frees.
    """
    command = [sys.executable, "-m", "tests.laws.kills", str(place), *map(str, asked)]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=7000, check=False)
    assert made.returncode == 0, made.stderr
    return int(made.stdout.split()[0])


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("kind", "asked", "many"), SMALL)
def test_a_harmed_run_ends_as_an_unharmed_one(kind: str, asked: str, many: int, tmp_path: Path) -> None:
    """The same verdict, weights, predictions and scores bit for bit; what had ended is kept, and nothing lies about.

    A race that was killed has a bundle that opens and predicts, from its second trial on at least.
    """
    assert harm(tmp_path, kind, asked, many, 11) >= many // 2, "too little harm was done"


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("kind", "asked", "many"), ALL)
def test_a_run_harmed_anywhere_ends_as_an_unharmed_one(kind: str, asked: str, many: str, tmp_path: Path) -> None:
    assert harm(tmp_path, kind, asked, many, 7) >= 100


# ---------------------------------------------------------------- a disk that is really too small

ADAPT = """
import sys
from pathlib import Path
from regraft.cli import main
from regraft.engine.snapshot import Keeper
Keeper.due = lambda _: True
sys.exit(main(["adapt", *sys.argv[1:], "--strategy", "partial", "--json"]))
"""


def has_tmpfs() -> bool:
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "-o", "size=64k", "none", "/mnt"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def test_a_disk_that_is_full_is_said_with_exit_5_and_room_is_all_that_it_needs(tmp_path: Path) -> None:
    """A file system of its own, of 200 kB: the run stops in training, and goes on to the same bits with more."""
    if not has_tmpfs():
        pytest.skip("this user may not mount a file system of its own")
    data, model = places.pictures(tmp_path / "data"), places.model(tmp_path / "model")
    small, code = tmp_path / "small", textwrap.dedent(ADAPT)
    small.mkdir()
    out = ["--out", str(small / "runs")]
    script = """
    set -e
    mount -t tmpfs -o size=$SIZE none "$SMALL"
    export REGRAFT_CACHE="$SMALL/cache"
    "$@" > "$TOLD/first.json" 2> "$TOLD/first.err" && exit 90 || echo $? > "$TOLD/code"
    find "$SMALL" -name '.part-*' > "$TOLD/litter"
    mount -o remount,size=50m "$SMALL"
    "$@" > "$TOLD/second.json" 2> "$TOLD/second.err"
    cp -a "$SMALL/runs" "$TOLD/runs"
    """
    told = tmp_path / "told"
    told.mkdir()
    more = {"SIZE": "200k", "SMALL": str(small), "TOLD": str(told)}
    command = [sys.executable, "-c", code, str(data), "--model", str(model)]
    made = subprocess.run(
        ["unshare", "-rm", "bash", "-c", textwrap.dedent(script), "run", *command, *out],
        env={**os.environ, **more},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr + (told / "second.err").read_text()
    said = json.loads((told / "first.json").read_text())["error"]
    assert (told / "code").read_text().strip() == "5" and said["code"] == 5
    assert "No space left on device" in said["saw"] and str(small) in said["saw"] and "MB are needed" in said["saw"]
    assert "Traceback" not in (told / "first.err").read_text() and not (told / "litter").read_text()
    whole = subprocess.run([*command, "--out", str(tmp_path / "whole")], capture_output=True, check=True, text=True)
    assert weights(told / "runs") == weights(tmp_path / "whole"), whole.stderr


def weights(runs: Path) -> dict[str, str]:
    """The names of a run's weights and predictions, which hold their SHA-256, and that of the bundle's weights."""
    (run,) = runs.iterdir()
    found = {p.name: durable.file_digest(p) for p in run.glob("trials/*/*.safetensors")}
    return found | {"bundle": durable.file_digest(run / "bundle" / "model.safetensors")}


# ---------------------------------------------------------------- two processes

TWO = """
import os, sys
from pathlib import Path
from regraft import flow
from regraft.deliver import pack
from regraft.errors import RegraftError
from regraft.waist import Options, Step
pack._self_test = lambda *_: None
place, out, wait = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "wait"
options = Options(str(place / "data"), str(place / "model"), strategies=("partial",))
try:
    work = flow.steps(options, out)
    while True:
        if isinstance(next(work), Step) and wait:
            print("training", flush=True)
            sys.stdin.readline()
            wait = False
except StopIteration as end:
    print(end.value.folder)
except RegraftError as error:
    print(error)
"""


def start(place: Path, out: str, wait: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", TWO, str(place), str(place / out), wait]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def test_a_second_process_on_a_run_is_refused_and_a_dead_ones_lock_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places.pictures(tmp_path / "data")
    places.model(tmp_path / "model")
    first = start(tmp_path, "runs", "wait")
    assert first.stdout is not None and first.stdout.readline() == "training\n"
    said, _ = start(tmp_path, "runs").communicate()
    assert "is in use by another process" in said and f"process {first.pid} on {platform.node()}" in said
    first.send_signal(signal.SIGKILL)
    first.communicate()
    (run,) = (tmp_path / "runs").iterdir()
    assert (run / ".lock").read_text() == f"{first.pid} on {platform.node()}\n"
    (run / ".lock").write_text(f"{os.getpid()} on elsewhere\n")  # after a restart the number may be of a living one
    (run / f".part-{os.getpid()}-verdict.json").write_bytes(b"{")
    os.utime(run / f".part-{os.getpid()}-verdict.json", (1e9, 1e9))
    said, _ = start(tmp_path, "runs").communicate()
    assert said.splitlines()[-1] == str(run) and not list(run.rglob(".part-*"))
    monkeypatch.setenv("REGRAFT_CACHE", str(tmp_path / "other"))
    start(tmp_path, "whole").communicate()
    assert weights(tmp_path / "runs") == weights(tmp_path / "whole")


def test_two_processes_that_fill_one_cache_end_equally(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places.pictures(tmp_path / "data", train=30)
    places.model(tmp_path / "model")
    monkeypatch.setenv("REGRAFT_CACHE", str(tmp_path / "cache"))
    both = [start(tmp_path, "a"), start(tmp_path, "b")]
    told = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    shutil.rmtree(tmp_path / "cache")
    start(tmp_path, "alone").communicate()
    assert weights(tmp_path / "a") == weights(tmp_path / "b") == weights(tmp_path / "alone")
    assert not list((tmp_path / "cache").rglob(".part-*"))
