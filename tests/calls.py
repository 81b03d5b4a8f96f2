"""Commands as tests run them, in this process or in one of their own: their exit codes and what they print."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from regraft import api, cli
from regraft.deliver import pack
from regraft.flow import Run

Captured = pytest.CaptureFixture[str]


def call(args: Sequence[object], capsys: Captured) -> tuple[int, str, str]:
    """Run the command: exit code, standard output, standard error."""
    with pytest.raises(SystemExit) as ended:
        cli.main([str(arg) for arg in args])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def regraft(*args: object, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, as a user would; its exit code is checked."""
    command = [sys.executable, "-m", "regraft.cli", *map(str, args)]
    made = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)
    assert made.returncode == code, made.stderr
    assert "Traceback" not in made.stderr
    return made


def told(made: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The one object on standard output."""
    assert len(made.stdout.strip().splitlines()) == 1
    found: dict[str, Any] = json.loads(made.stdout)
    return found


def error_of(args: Sequence[object], capsys: Captured, verb: str = "") -> dict[str, Any]:
    """The error object that `--json` prints; nothing else is printed."""
    code, out, err = call([*args, "--json"], capsys)
    told = json.loads(out)
    assert err == "" and told["ok"] is False and told["schema"] == 1 and told["command"] == (verb or args[0])
    assert told["error"]["code"] == code
    error: dict[str, Any] = told["error"]
    return error


def object_of(args: Sequence[object], capsys: Captured, verb: str = "") -> dict[str, Any]:
    """The object that `--json` prints on success; nothing else is printed."""
    code, out, err = call([*args, "--json"], capsys)
    assert code == 0, out + err
    told: dict[str, Any] = json.loads(out)
    assert list(told)[:3] == ["schema", "command", "ok"] and told["command"] == (verb or args[0])
    assert err == "" and told["schema"] == 1 and told["ok"] is True
    return told


def adapted(data: object, model: Path, out: Path, *, epochs: int = 3, asked: dict[str, Any] | None = None) -> Run:
    """A small run of the probe that ships, whatever the checks find; its bundle is not opened in a fresh process."""
    from regraft.deliver import ship
    from regraft.waist import Verdict

    judged = ship.gate

    def shipped(*given: Any) -> Verdict:
        return dataclasses.replace(judged(*given), decision="ship")

    given: dict[str, Any] = {
        "strategies": ["probe"],
        "knobs": {"probe.epochs": epochs, "probe.lr": 0.01},
        **(asked or {}),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack, "_self_test", lambda *_: None)
        patch.setattr(ship, "gate", shipped)
        return api.adapt(data, model=model, out=out, **given)
