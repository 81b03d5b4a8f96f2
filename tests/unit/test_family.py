"""Many tasks on one backbone: each ships its own part alone, one pass answers all, and nothing is lost on the way."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from regraft import api
from regraft.audit import gate
from regraft.backbone import bundle as bundles
from regraft.backbone import shared
from regraft.deliver import family, pack
from regraft.deliver.model import Model
from regraft.engine.trunk import Trunk
from regraft.errors import ModelError, UsageError
from regraft.kit import durable
from regraft.waist import Verdict
from tests import places

TEXTS = ["rose fire of the old", "sea sky", "moss and leaf near the ice"]
SUMS: dict[str, tuple[tuple[str, str], ...]] = {}
"""Task → the sums of its bundle's files before they were shared."""


@pytest.fixture(scope="module")
def shipped() -> Iterator[None]:
    """Every result ships, and no bundle is opened in a process of its own; sums of whole bundles are kept."""
    judged, joined = gate.gate, family.join

    def anyway(*given: Any) -> Verdict:
        return dataclasses.replace(judged(*given), decision="ship")

    def noted(folder: Path, task: str, place: Path) -> None:
        whole = place / "bundle"
        if not shared.is_shared(whole):
            SUMS[task] = tuple((n, s) for n, s in durable.sums(whole.resolve()).items())
        joined(folder, task, place)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack, "_self_test", lambda *_: None)
        patch.setattr(gate, "gate", anyway)
        patch.setattr(family, "join", noted)
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, shipped: None) -> Path:
    """A family of three: two heads, and LoRA with a head; the last came later."""
    place = tmp_path_factory.mktemp("home")
    for seed, name in enumerate(("colours", "others", "third")):
        places.texts(place / name, train=18, val=12, test=9, seed=seed)
    places.encoder_model(place / "model")
    probe = {"strategies": ["probe"], "knobs": {"probe.epochs": 2, "probe.pooling": "mean"}}
    two = api.adapt_many([place / "colours", place / "others"], model=place / "model", out=place / "runs", **probe)  # type: ignore[arg-type]
    knobs = {"lora.epochs": 2, "lora.last": 1, "lora.lr": 0.05, "lora.pooling": "mean"}
    three = api.adapt_many(
        {"third": place / "third"}, model=place / "model", out=place / "runs", strategies=["lora"], knobs=knobs
    )
    assert two.folder == three.folder
    return three.folder


def test_each_task_holds_its_own_part_alone(home: Path) -> None:
    base = family.size_of(home / "base")
    told = family.listed(home)
    assert [(one.task, one.kind) for one in told] == [("colours", "probe"), ("others", "probe"), ("third", "lora")]
    for one in told:
        place = family.bundle_of(home, family.read(home).member(one.task))
        names = {path.name for path in place.resolve().rglob("*")}
        assert not (place / "model.safetensors").exists() and "tokenizer.json" not in names
    weights = (home / "base/model.safetensors").stat().st_size
    assert base > weights > 50_000
    lora = shared.read(family.bundle_of(home, family.read(home).member("third")))
    inserted = [t for cut in lora.cut for t in cut.tensors if t.insert]
    assert len(inserted) == 6 and all(t.place for cut in lora.cut for t in cut.tensors)


@pytest.mark.parametrize("task", ["colours", "others", "third"])
def test_put_together_again_it_is_the_bundle_that_was_packed(home: Path, task: str) -> None:
    place = family.bundle_of(home, family.read(home).member(task))
    made = shared.whole(place)
    assert tuple(durable.sums(made).items()) == SUMS[task]
    assert bundles.read(made) == bundles.read(place)


def test_one_pass_answers_all_tasks(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = {one.task: Model.load(family.bundle_of(home, one)).predict(TEXTS) for one in family.read(home).tasks}
    opened = family.open_family(home)
    ran: list[tuple[int, int]] = []
    piece = Trunk._piece

    def counted(trunk: Trunk, parts: Any, *given: Any) -> Any:
        ran.append((trunk.k, len({part.key for part in parts})))
        return piece(trunk, parts, *given)

    monkeypatch.setattr(Trunk, "_piece", counted)
    answers = opened.predict(TEXTS)
    assert sum(count for _, count in ran) == len(TEXTS)
    assert len({k for k, _ in ran}) == 1
    for i, one in enumerate(answers):
        assert one["id"] == str(i)
        for task, told in alone.items():
            assert one[f"{task}.label"] == told[i]["label"]
            assert one[f"{task}.probabilities"] == pytest.approx(told[i]["probabilities"], abs=1e-6)


def test_weights_that_are_alike_are_held_once(home: Path) -> None:
    opened = family.open_family(home)
    assert isinstance(opened, family.Together)
    opened.predict(TEXTS[:1])
    first, second, third = ([p.data_ptr() for _, _, p in m.graft.view.named()] for m in opened.models.values())
    assert first == second
    apart = [a != b for a, b in zip(first, third, strict=True)]
    assert any(apart) and not all(apart)


def test_a_task_by_itself_answers_as_a_bundle_does(home: Path) -> None:
    answers = family.open_family(home, "others").predict(TEXTS)
    assert answers == Model.load(family.bundle_of(home, family.read(home).member("others"))).predict(TEXTS)
    with pytest.raises(UsageError, match="colours"):
        family.open_family(home, "colour")
    with pytest.raises(UsageError, match="no family"):
        family.open_family(home / family.read(home).tasks[0].place, "colours")


def test_the_same_call_again_reads_what_there_is(home: Path) -> None:
    place = home.parents[1]
    knobs = {"probe.epochs": 2, "probe.pooling": "mean"}
    before = family.read(home)
    again = api.adapt_many(
        [place / "colours"], model=place / "model", out=place / "runs", strategies=["probe"], knobs=knobs
    )
    assert again.folder == home and {one.task for one in family.read(home).tasks} == {o.task for o in before.tasks}
    assert shared.is_shared(again.runs["colours"].bundle)


def test_a_row_that_several_tasks_have_runs_once(
    home: Path, tmp_path: Path, shipped: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = home.parents[1] / "colours"
    shutil.copytree(source, tmp_path / "again")
    for split in ("train", "val", "test"):
        path = tmp_path / "again" / f"{split}.csv"
        path.write_text(path.read_text("utf-8").replace("blue", "not-red").replace("green", "not-red"), "utf-8")
    opened = ran = 0
    from regraft.kit import shelf

    provider, piece = shelf.find("providers", "transformers"), Trunk._piece
    load = provider.load

    def counted(trunk: Trunk, parts: Any, *given: Any) -> Any:
        nonlocal ran
        ran += len(parts) * (trunk.k > 0)
        return piece(trunk, parts, *given)

    def loaded(*given: Any) -> Any:
        nonlocal opened
        opened += str(given[0]) == str(tmp_path / "model")
        return load(*given)

    places.encoder_model(tmp_path / "model", seed=4)
    monkeypatch.setattr(Trunk, "_piece", counted)
    monkeypatch.setattr(provider, "load", loaded)
    knobs = {"probe.epochs": 2, "probe.pooling": "mean"}
    made = api.adapt_many(
        [source, tmp_path / "again"],
        model=tmp_path / "model",
        out=tmp_path / "runs",
        strategies=["probe"],
        knobs=knobs,
    )
    rows = [row for one in made.runs.values() for row in one.data.rows]
    assert ran == sum(count for _, count in rows) / 2 == 39
    assert opened == 1


def test_a_bundle_without_its_base_says_what_it_lacks(home: Path, tmp_path: Path) -> None:
    place = family.bundle_of(home, family.read(home).member("colours"))
    shutil.copytree(place.resolve(), tmp_path / "moved")
    with pytest.raises(ModelError, match="moved away from the base"):
        Model.load(tmp_path / "moved")


def test_another_base_and_a_damaged_one_are_refused(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home, tmp_path / "copy", symlinks=True)
    copy = tmp_path / "copy"
    place = family.bundle_of(copy, family.read(copy).member("colours"))
    weights = copy / "base/model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(ModelError, match=r"base is not what was written"):
        Model.load(place)
    told = json.loads((copy / "base/base.json").read_bytes())
    (copy / "base/base.json").write_text(json.dumps(told | {"mark": "0"}))
    with pytest.raises(ModelError, match="another one"):
        Model.load(place)
    own = place / "2_Dense/model.safetensors"
    own.write_bytes(own.read_bytes()[:-1] + b"\7")
    with pytest.raises(ModelError, match=r"2_Dense.* has changed bytes"):
        Model.load(place)


def test_a_name_that_is_no_folder_is_refused(home: Path) -> None:
    with pytest.raises(UsageError, match="no name for a task"):
        api.adapt_many({"A b": home}, model=home.parents[1] / "model", out=home.parent)
