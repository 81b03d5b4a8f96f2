"""The recipes of docs/recipes from end to end: their commands as they stand, with what bench/recipes.py asserts."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import places
from tests.journeys.test_adapt import regraft, told
from tests.unit.test_recipes import COMMANDS, ROOT, bench

pytestmark = pytest.mark.timeout(1200)  # each command starts a process or two: slow where the machine is busy


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny pictures and a tiny network, texts and an encoder."""
    place = tmp_path_factory.mktemp("recipes")
    places.pictures(place / "data")
    places.model(place / "model")
    places.texts(place / "texts")
    places.encoder_model(place / "encoder")
    return place


def ran(name: str, data: Path, model: Path, place: Path) -> dict[str, Any]:
    """What a recipe's command finds on other data; its settings and its rows are asserted on the way."""
    given = argparse.Namespace(data=str(data), model=str(model), epochs=25)
    (found,) = bench().commanded(given, name, COMMANDS[name], 0, place)
    assert isinstance(found, dict)
    return found


def test_recipes_run_all_their_epochs_at_their_settings(home: Path) -> None:
    every = ran("all layers", home / "data", home / "model", home)
    last = ran("two rates", home / "data", home / "model", home)
    assert 3 * 16 + 3 < last["trained"] < every["trained"]
    assert (every["plan"], last["plan"]) == ("full lr 0.0001", "partial lr 0.001")


def test_both_ways_with_reviews_are_run_and_compared(home: Path) -> None:
    args = list(COMMANDS["reviews"])
    args[1], args[args.index("--model") + 1] = str(home / "texts"), str(home / "encoder")
    found = told(regraft(*args, "--json", cwd=home))
    assert [trial["plan"]["strategy"] for trial in found["trials"]] == ["probe", "full"]
    assert not any(trial["stopped"] for trial in found["trials"]) and len(found["trials"][1]["curve"]) == 3
    (compared,) = found["verdict"]["comparisons"]
    assert compared["n"] == 18 and compared["low"] <= compared["gain"] <= compared["high"]


def test_a_head_alone_tells_ants_from_bees(shared: Path, home: Path) -> None:
    found = ran("head only", shared / "data/ants_bees", shared / "models/mobilenet_v2_1.0_224", home / "real")
    assert found["trained"] == 2 * 1280 + 2
    assert found["test"] >= 0.93, "from 0.954 to 0.967 over five seeds; two pictures are 0.013"


@pytest.mark.slow
def test_the_bench_runs_both_sides(shared: Path, tmp_path: Path) -> None:
    bench_ = [sys.executable, str(ROOT / "bench" / "recipes.py"), "--seeds", "1", "--recipe", "head only"]
    made = subprocess.run([*bench_, "--runs", str(tmp_path)], capture_output=True, text=True, timeout=900, check=True)
    assert [line.split()[2] for line in made.stdout.splitlines() if line.startswith("head only")] == [
        "plain",
        "regraft",
    ]
