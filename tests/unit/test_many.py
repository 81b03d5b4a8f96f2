"""Several tasks in one call: their bundles are tried in one process, and one that fails stands in nobody's way."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from regraft.deliver import family, native, ship
from regraft.errors import Unproven
from regraft.waist import Verdict
from tests import places
from tests.calls import call, object_of

TASKS = ("one", "two", "three")


def test_a_task_whose_bundle_fails_its_test_is_named_and_the_others_ship(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    judged, asked, broken = ship.gate, [], ["two-"]

    def anyway(*given: Any) -> Verdict:
        return dataclasses.replace(judged(*given), decision="ship")

    def ask(other: native.Other, given: dict[str, Any]) -> dict[str, Any]:
        asked.append(other)
        if any(f"/{name}" in given["folder"] for name in broken):
            raise Unproven("the bundle cannot be opened by its own library", saw="what it said")
        return {"made": None, "outputs": None}

    monkeypatch.setattr(ship, "gate", anyway)
    monkeypatch.setattr(native.Other, "ask", ask)
    for seed, name in enumerate(TASKS):
        places.texts(tmp_path / name, train=18, val=12, test=9, seed=seed)
    places.encoder_model(tmp_path / "model")
    knobs = ["--strategy", "probe", "--probe.epochs", "2", "--probe.pooling", "mean", "--out", tmp_path / "runs"]
    line = ["adapt", *(tmp_path / name for name in TASKS), "--model", tmp_path / "model", *knobs]
    code, out, err = call(line, capsys)
    assert code == Unproven.code and len(asked) == 3 and len(set(map(id, asked))) == 1
    assert "two does not ship: the bundle cannot be opened by its own library · saw: what it said" in err
    (row,) = [row for row in out.splitlines() if "failed its test" in row]
    assert row.startswith("two") and "ship" in out.splitlines()[1]
    (folder,) = (tmp_path / "runs").iterdir()
    assert [one.task for one in family.read(folder).tasks] == ["one", "three"]
    assert set(family.open_family(folder).predict(["rose"])[0]) >= {"one.label", "three.label"}
    code, out, _ = call([*line, "--json"], capsys)
    assert code == Unproven.code and '"failed": {"two": {"code": 1, "what": "the bundle cannot be opened' in out
    assert len(asked) == 4, "what has shipped is read"
    broken.clear()
    assert object_of(line, capsys)["failed"] == {}
    assert [one.task for one in family.read(folder).tasks] == ["one", "three", "two"]
    assert len(asked) == 5 and len(set(map(id, asked))) == 3, "a process for each call"
