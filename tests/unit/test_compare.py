"""Two runs side by side: paired where the test rows are the same, beside each other and why where they are not."""

from __future__ import annotations

import csv
import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

from regraft.deliver import runs
from regraft.deliver.compare import Compared, compare
from regraft.errors import UsageError
from regraft.flow import Run
from regraft.kit import durable
from regraft.kit.store import Folder
from tests import places
from tests.calls import adapted, call, error_of, object_of

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures that can be told apart, and a model for them."""
    place = tmp_path_factory.mktemp("home")
    places.pictures(place / "data", train=6, val=4, test=12)
    places.model(place / "model")
    return place


@pytest.fixture(scope="module")
def one(home: Path) -> Run:
    return adapted(home / "data", home / "model", home / "runs", epochs=20)


@pytest.fixture(scope="module")
def other(home: Path) -> Run:
    return adapted(home / "data", home / "model", home / "runs", epochs=1)


def on(home: Path, place: Path, **more: object) -> Run:
    """A run on other data."""
    return adapted(place, home / "model", home / "runs", epochs=2, asked=dict(more))


def test_winners_are_paired_on_the_same_rows(one: Run, other: Run) -> None:
    found = compare(one.folder, other.folder)
    back = compare(other.folder, one.folder)
    assert found.paired is not None and back.paired is not None and found.why == ""
    assert found.paired.n == 36 and found.paired.metric == "accuracy"
    assert (found.paired.a, found.paired.b) == (one.winner.score("test").value, other.winner.score("test").value)
    assert found.paired.gain == pytest.approx(found.paired.b - found.paired.a) == pytest.approx(-back.paired.gain)
    assert found.paired.low <= found.paired.gain <= found.paired.high
    assert (found.paired.low, found.paired.high) == pytest.approx((-back.paired.high, -back.paired.low))
    assert "on the same 36 test rows" in found.sentence and found.notes == ()
    better = [f"{run.folder.name} is better" for run in (one, other)]
    assert found.sentence.startswith(("no significant", *better))


def test_what_differs_is_told_and_nothing_else(one: Run, other: Run) -> None:
    found = compare(one.folder, other.folder)
    assert {name for name, _, _ in found.settings} >= {"knobs.probe.epochs", "plan.phases.1.epochs"}
    assert ("knobs.probe.epochs", "20", "1") in found.settings
    assert not {"seed", "data", "model", "machine.processor"} & {name for name, _, _ in found.settings}
    assert dict((name, (a, b)) for name, a, b in found.costs)["trained weights"] == (51, 51)
    assert ("decision", "ship", "ship") in found.checks and any(name == "chance" for name, _, _ in found.checks)


def copied(run: Run, place: Path) -> Path:
    return Path(shutil.copytree(run.folder, place, symlinks=True))


def answered(place: Path, run: Run, test: Any) -> None:
    """Put other predictions into a copy of a run, as if it had made them."""
    from safetensors.numpy import save

    data, old = save({"test": test}), run.winner.predictions
    name = f"{Path(old).parent}/predictions-{durable.digest(data)[:16]}.safetensors"
    (place / name).write_bytes(data)
    trials = [dataclasses.replace(t, predictions=name) if t.predictions == old else t for t in run.trials]
    Folder(place).write("trials", trials)


def test_equal_answers_are_no_difference(one: Run, tmp_path: Path) -> None:
    found = compare(one.folder, copied(one, tmp_path / one.folder.name))
    assert found.sentence.startswith("no difference: accuracy") and found.settings == ()


def test_a_better_winner_is_named(one: Run, tmp_path: Path) -> None:
    """One run's predictions are replaced by the truth, the other's by a constant."""
    import numpy as np

    places_ = [copied(one, tmp_path / name) for name in ("right", "wrong")]
    y = np.repeat(np.arange(3), 12)
    for place, pred in zip(places_, (y, (y + 1) % 3), strict=True):
        answered(place, one, np.eye(3, dtype=np.float32)[pred])
    for pair in (places_, places_[::-1]):
        found = compare(*pair)
        assert found.paired is not None and found.paired.significant
        assert found.sentence.startswith("right is better: accuracy") and "a gain of 1.000" in found.sentence


def test_a_budget_that_left_rows_out_is_minded(home: Path, one: Run, tmp_path: Path) -> None:
    """A run that was cut to 15 of its test rows has predictions for these alone."""
    from safetensors.numpy import load_file

    from regraft.data.open import open_data
    from regraft.data.split import thin

    test = list(open_data(home / "data").test)
    kept = [test.index(row) for row in thin(test, 15, 0, cover=False)]
    place = copied(one, tmp_path / "cut")
    made = load_file(one.folder / one.winner.predictions)["test"]
    answered(place, one, made[kept])
    rows = (("train", 9), ("val", 12), ("test", 15))
    Folder(place).write("account", dataclasses.replace(one.account, rows=rows))
    left = {row.id for row in test} - {test[i].id for i in kept}
    sheet = (place / "splits.csv").read_text().splitlines(keepends=True)
    (place / "splits.csv").write_text("".join(line for line in sheet if line.split(",")[0] not in left))
    Folder(place).vouch("splits.csv")
    target = one.data.target
    assert [row.id for row in runs.rows(place, target) if row.split == "test"] == [test[i].id for i in kept]
    found = compare(one.folder, place)
    assert found.paired is not None and (found.paired.n, found.paired.gain) == (15, 0.0)
    assert "15 test rows are common, of 36 and 15" in found.notes


# ---------------------------------------------------------------- not paired


def unpaired(found: Compared, why: str) -> None:
    assert found.paired is None and why in found.why and found.sentence.startswith(f"not paired, for {found.why}")
    assert "no test of which is better" in found.sentence


def test_other_rows_are_not_paired(home: Path, one: Run, tmp_path: Path) -> None:
    found = compare(one.folder, on(home, places.pictures(tmp_path / "new", train=6, val=4, test=5, seed=9)).folder)
    unpaired(found, "no test row of one is a test row of the other")
    assert "on its 36 test rows" in found.sentence and "on its 15 test rows" in found.sentence


def test_common_rows_are_paired_and_counted(home: Path, one: Run, tmp_path: Path) -> None:
    data = Path(shutil.copytree(home / "data", tmp_path / "data"))
    for label in places.LABELS:
        for i in range(4):
            (data / "test" / label / f"{i}.png").rename(data / "train" / label / f"t{i}.png")
    run = on(home, data)
    found = compare(one.folder, run.folder)
    assert found.paired is not None and found.paired.n == 24
    assert "24 test rows are common, of 36 and 24" in found.notes
    assert f"12 test rows of {one.folder.name} are training rows of {run.folder.name}" in found.notes


def test_a_few_common_rows_are_not_paired(home: Path, one: Run, tmp_path: Path) -> None:
    data = places.pictures(tmp_path / "data", train=6, val=4, test=2, seed=5)
    for label in places.LABELS:
        shutil.copy(home / "data" / "test" / label / "0.png", data / "test" / label / "old.png")
    unpaired(compare(one.folder, on(home, data).folder), "only 3 test rows are common")


def test_other_classes_are_not_paired(home: Path, one: Run, tmp_path: Path) -> None:
    data = Path(shutil.copytree(home / "data", tmp_path / "data"))
    for split in ("train", "val", "test"):
        (data / split / "red").rename(data / split / "ruby")
    found = compare(one.folder, on(home, data).folder)
    unpaired(found, "they tell different classes apart: red, ruby in one alone")
    assert any("have another target" in note for note in found.notes)


def test_another_order_of_classes_is_not_paired(home: Path, one: Run) -> None:
    run = on(home, home / "data", task="ordinal", order=("red", "green", "blue"))
    unpaired(compare(one.folder, run.folder), "they answer different questions: classify and ordinal")
    turned = on(home, home / "data", task="ordinal", order=("green", "red", "blue"))
    unpaired(compare(run.folder, turned.folder), "their classes stand in different orders: red, green, blue, and green")


# ---------------------------------------------------------------- refusals


def test_a_run_is_not_compared_with_itself(one: Run, capsys: Captured, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(one.folder)
    for same in (one.folder, tmp_path / "link"):
        assert error_of(["compare", one.folder, same], capsys)["what"] == "a run cannot be compared with itself"


def test_runs_that_are_not_whole_are_refused(one: Run, other: Run, tmp_path: Path, capsys: Captured) -> None:
    def refused(name: str, what: str) -> None:
        error = error_of(["compare", one.folder, tmp_path / name], capsys)
        assert error["code"] == 2 and error["what"] == what

    refused("none", "there is no run in this folder")
    (copied(other, tmp_path / "a") / "verdict.json").unlink()
    refused("a", "this run has not come that far")
    (copied(other, tmp_path / "b") / "trials.json").write_text('{"inputs": "", "record": [{"plan": 1}]}')
    refused("b", "this run cannot be read: it was changed, or made by another version")
    (copied(other, tmp_path / "c") / other.winner.predictions).unlink()
    refused("c", "what this run predicted cannot be read")
    (copied(other, tmp_path / "d") / other.winner.predictions).write_bytes(b"junk")
    refused("d", "a file of this run was changed, or is damaged")
    (copied(other, tmp_path / "e") / "splits.csv").unlink()
    refused("e", "the rows of this run are not known")
    place = copied(other, tmp_path / "f") / "splits.csv"
    place.write_bytes(b"".join(place.read_bytes().splitlines(keepends=True)[:-1]))
    refused("f", "a file of this run was changed, or is damaged")
    Folder(tmp_path / "f").vouch("splits.csv")
    refused("f", "what this run predicted is of other rows than its splits.csv")


# ---------------------------------------------------------------- the command


def test_the_command_tells_the_sentence_first(one: Run, other: Run, capsys: Captured) -> None:
    code, out, _ = call(["compare", one.folder, other.folder], capsys)
    assert code == 0 and out.splitlines()[0] == compare(one.folder, other.folder).sentence
    assert "what differs" in out and "trained weights" in out and "check chance" in out
    told = object_of(["compare", one.folder, other.folder], capsys)
    assert told["paired"]["significant"] in (True, False) and told["a"] == str(one.folder)


def test_ids_with_newlines_do_no_harm(home: Path, one: Run, tmp_path: Path, capsys: Captured) -> None:
    place = copied(one, tmp_path / "a\nb\x1b[2J")
    with (place / "splits.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    with (place / "splits.csv").open("w", newline="") as file:
        csv.writer(file).writerows([rows[0], *([f"x\n{i}", *row[1:]] for i, row in enumerate(rows[1:]))])
    Folder(place).vouch("splits.csv")
    code, out, _ = call(["compare", one.folder, place], capsys)
    assert code == 0 and out.startswith("no difference") and "\x1b" not in out
    assert "a�b�[2J" in out


def test_python_says_the_same(one: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no run in this folder"):
        compare(str(one.folder), str(tmp_path))
