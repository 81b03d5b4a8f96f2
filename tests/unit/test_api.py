"""The verbs in Python: what is asked for reaches the records, data in memory, runs opened by name."""

from __future__ import annotations

import csv
import importlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from regraft import api, flow
from regraft.deliver import pack
from regraft.deliver.model import Model, open_model
from regraft.errors import UsageError
from regraft.kit import store
from regraft.waist import Options, Reading
from tests import places


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with texts, pairs and a tiny model for them."""
    place = tmp_path_factory.mktemp("library")
    for kind in ("class", "number", "multi"):
        places.texts(place / kind, kind, train=18, val=12, test=9)  # type: ignore[arg-type]
    places.pairs(place / "pairs", train=18, val=12, test=9)
    places.encoder_model(place / "model", "classifier")
    return place


@pytest.fixture(scope="module")
def runs(library: Path) -> dict[str, flow.Run]:
    """A run of the probe on texts, native pooling; it ships, however little it learned."""
    from regraft.deliver import ship
    from regraft.waist import Verdict

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack, "_self_test", lambda *_: None)
        patch.setattr(ship, "gate", lambda _, winner, rule, *__: Verdict("ship", winner, rule, "", (), ()))
        made = api.adapt(
            library / "class",
            model=library / "model",
            strategies=["probe"],
            knobs={"probe.epochs": 2, "probe.pooling": "native"},
            out=library / "runs",
        )
    return {"class native": made}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and a model."""
    place = tmp_path_factory.mktemp("home")
    places.pictures(place / "data")
    places.model(place / "model")
    return place


@pytest.fixture(scope="module")
def finished(home: Path) -> flow.Run:
    """A run of the probe; the bundle's test in a fresh process is left to the journeys."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack, "_self_test", lambda *_: None)
        return api.adapt(
            home / "data", model=home / "model", strategies=["probe"], knobs={"probe.epochs": 2}, out=home / "runs"
        )


def test_runs_and_bundles_are_opened(finished: flow.Run) -> None:
    assert api.open_result(finished.folder) == finished
    assert isinstance(api.open_result(finished.bundle), Model)
    assert open_model(finished.folder).labels == places.LABELS


@pytest.fixture
def unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack, "_self_test", lambda *_: None)


def rows_of(library: Path, name: str, split: str) -> list[dict[str, str]]:
    with (library / name / f"{split}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def sources(library: Path) -> dict[str, Any]:
    """The texts of `class` as Python objects of every kind."""
    import pandas as pd

    splits = {split: rows_of(library, "class", split) for split in ("train", "val", "test")}
    datasets = importlib.import_module("datasets")
    return {
        "frame": {split: pd.DataFrame(rows) for split, rows in splits.items()},
        "arrays": {
            split: ([row["text"] for row in rows], np.array([row["y"] for row in rows]))
            for split, rows in splits.items()
        },
        "dataset": datasets.DatasetDict({s: datasets.Dataset.from_list(rows) for s, rows in splits.items()}),
    }


@pytest.mark.parametrize("kind", ["frame", "arrays", "dataset"])
def test_data_in_memory_gives_what_files_give(
    library: Path, runs: dict[str, flow.Run], tmp_path: Path, unpacked: None, kind: str
) -> None:
    run = api.adapt(
        sources(library)[kind],
        model=library / "model",
        target="" if kind == "arrays" else "y",
        strategies=["probe"],
        knobs={"probe.epochs": 2, "probe.pooling": "native"},
        out=tmp_path,
    )
    assert run.data.rows == (("train", 18), ("val", 12), ("test", 9))
    assert run.winner.score("val").value == runs["class native"].winner.score("val").value
    names = [name for name, _ in run.winner.plan.knobs]
    assert "pooling" not in names
    assert (run.folder / "options.json").is_file() and len(run.predict("a rose")) == 1


def test_the_same_frame_is_the_same_run(library: Path, tmp_path: Path, unpacked: None) -> None:
    import pandas as pd

    frame = pd.DataFrame(rows_of(library, "class", "train") + rows_of(library, "class", "val"))
    asked: dict[str, Any] = {"model": library / "model", "target": "y", "strategies": ["probe"], "out": tmp_path}
    asked["knobs"] = {"probe.epochs": 1, "probe.pooling": "native"}
    first = api.adapt(frame, **asked)
    assert api.adapt(frame.copy(), **asked) == first
    other = api.adapt(frame.assign(text=frame["text"] + " a"), **asked)
    assert other.folder != first.folder
    with pytest.raises(UsageError):
        flow.finish(flow.steps(store.Folder(first.folder).load("options", Options), tmp_path, resume=first.folder))


def test_pictures_in_memory_are_adapted_to(home: Path, tmp_path: Path, unpacked: None) -> None:
    x = [np.asarray(Image.open(p)) for p in sorted((home / "data" / "train").rglob("*.png"))]
    y = [p.parent.name for p in sorted((home / "data" / "train").rglob("*.png"))]
    run = api.adapt((x, y), model=home / "model", strategies=["probe"], knobs={"probe.epochs": 1}, out=tmp_path)
    assert run.data.modality == "image" and sum(count for _, count in run.data.rows) == 27
    assert len(run.predict(x[:2])) == 2


def test_what_was_asked_for_reaches_the_records(library: Path, tmp_path: Path, unpacked: None) -> None:
    rows = [
        (row["text"], "good" if row["y"] == "red" else "bad", str(i // 2), "mf"[i % 2], f"20{i:02d}-01-01")
        for i, row in enumerate(rows_of(library, "class", "train") + rows_of(library, "class", "val"))
    ]
    table = places.sheet(tmp_path / "t.csv", ("said", "verdict", "who", "sex", "day"), rows)
    run = api.adapt(
        table,
        model=library / "model",
        target="verdict",
        text="said",
        group="who",
        sensitive="sex",
        task="classify",
        max_rows=24,
        positive="bad",
        metric="f1",
        balance="classes",
        long="ends",
        max_tokens=12,
        strategies=["probe"],
        knobs={"probe.epochs": 1},
        out=tmp_path / "runs",
        seed=3,
    )
    folder = store.Folder(run.folder)
    asked = folder.load("options", Options)
    assert asked.reading == Reading(
        target="verdict",
        text=("said",),
        group="who",
        sensitive=("sex",),
        task="classify",
        max_rows=24,
        positive="bad",
    )
    assert (asked.metric, asked.balance, asked.long, asked.max_tokens) == ("f1", "classes", "ends", 12)
    assert run.data.target.labels == ("good", "bad") and run.data.columns == ("said",)
    assert all(trial.plan.loss.balance for trial in run.trials)
    assert run.winner.score("val").metric == "f1"
    body = json.loads((run.folder / "backbone.json").read_text())
    assert "who" not in json.dumps(body)
    bundle = json.loads((run.bundle / "regraft.json").read_text())
    settings = dict(map(tuple, bundle["inputs"]["settings"]))
    assert (settings["long"], settings["max_tokens"]) == ("ends", 12)
    sheet = list(csv.DictReader(io.StringIO((run.folder / "splits.csv").read_text("utf-8"), newline="")))
    assert set(sheet[0]) == {"id", "split", "verdict", "sha256", "group", "sex"} and {r["sex"] for r in sheet} <= {
        "m",
        "f",
    }
    by_group: dict[str, set[str]] = {}
    for row in sheet:
        by_group.setdefault(row["group"], set()).add(row["split"])
    assert all(len(found) == 1 for found in by_group.values())


def test_the_latest_rows_are_the_test(library: Path, tmp_path: Path, unpacked: None) -> None:
    given = rows_of(library, "class", "train") + rows_of(library, "class", "val")
    rows = [(row["text"], row["y"], f"2020-{1 + i // 28:02d}-{1 + i % 28:02d}") for i, row in enumerate(given)]
    table = places.sheet(tmp_path / "t.csv", ("text", "y", "day"), rows)
    asked: dict[str, Any] = {"model": library / "model", "target": "y", "strategies": ["probe"], "time": "day"}
    run = api.adapt(table, **asked, knobs={"probe.epochs": 1, "probe.pooling": "native"}, out=tmp_path / "runs")
    sheet = list(csv.DictReader(io.StringIO((run.folder / "splits.csv").read_text("utf-8"), newline="")))
    order = {name: [int(r["id"].rpartition(":")[2]) for r in sheet if r["split"] == name] for name in ("train", "test")}
    assert max(order["train"]) < min(order["test"])


def test_a_run_that_is_not_there_gets_the_nearest(finished: flow.Run) -> None:
    for opening in (api.open_result, open_model):
        with pytest.raises(UsageError, match=rf"no run in this folder .* did you mean {finished.folder}\?"):
            opening(Path(str(finished.folder)[:-1]))
