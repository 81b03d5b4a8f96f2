"""Many tasks on one backbone: each ships its own part alone, one pass answers all, and nothing is lost on the way."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from regraft import api, flow
from regraft.backbone import bundle as bundles
from regraft.backbone import shared
from regraft.deliver import adapters, evaluate, family, pack, ship
from regraft.deliver.model import Model
from regraft.engine.trunk import Trunk
from regraft.errors import ModelError, UsageError
from regraft.kit import durable, shelf, store
from regraft.waist import Verdict, fingerprint
from tests import places, tiny
from tests.calls import call, error_of, object_of
from tests.unit.test_lora import DORA, PLAIN, SCALED, grafted, written

HEAD = "base_model.model.classifier.weight"
TEXTS = ["rose fire of the old", "sea sky", "moss and leaf near the ice"]
SUMS: dict[str, tuple[tuple[str, str], ...]] = {}
"""Task → the sums of its bundle's files before they were shared."""


@pytest.fixture(scope="module")
def shipped() -> Iterator[None]:
    """Every result ships, and no bundle is opened in a process of its own; sums of whole bundles are kept."""
    judged, joined = ship.gate, family.join

    def anyway(*given: Any) -> Verdict:
        return dataclasses.replace(judged(*given), decision="ship")

    def noted(folder: Path, task: str, place: Path) -> None:
        whole = place / "bundle"
        if not shared.is_shared(whole):
            SUMS[task] = tuple((n, s) for n, s in durable.sums(whole.resolve()).items())
        joined(folder, task, place)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack, "_self_test", lambda *_: None)
        patch.setattr(ship, "gate", anyway)
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
    taken = [path for path in made.rglob("*") if path.is_file() and not path.is_symlink()]
    assert [path.name for path in taken] == (["model.safetensors"] if task == "third" else []), (
        "what is alike is a link"
    )
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


def test_a_precision_is_asked_for_as_of_one_task(home: Path) -> None:
    with pytest.raises(UsageError, match="half"):
        api.adapt_many({"a": home}, model=home.parents[1] / "model", precision="half", out=home.parent)


def test_a_name_that_is_no_folder_is_refused(home: Path) -> None:
    with pytest.raises(UsageError, match="no name for a task"):
        api.adapt_many({"A b": home}, model=home.parents[1] / "model", out=home.parent)


# ---------------------------------------------------------------- regraft evaluate


def test_each_task_is_scored_on_its_own_data_as_in_its_run(home: Path) -> None:
    place = home.parents[1]
    data = {one.task: place / one.task for one in family.read(home).tasks}
    found = api.evaluate_many(home, data)
    assert list(found) == ["colours", "others", "third"]
    for one in family.read(home).tasks:
        run, made = api.open_result(home / one.place), found[one.task]
        assert isinstance(run, flow.Run)
        wanted = [score for score in run.winner.scores if score.split == "test"]
        assert [(s.metric, s.split, s.n) for s in made.scores] == [(s.metric, s.split, s.n) for s in wanted]
        assert [s.value for s in made.scores] == pytest.approx([s.value for s in wanted], abs=1e-6)
        assert (made.rows, made.trained, made.validated) == (9, 0, 0)
    alone = api.evaluate(home / family.read(home).member("third").place, place / "third")
    assert alone.answers == found["third"].answers and alone.scores == found["third"].scores


def test_a_row_that_several_tasks_are_scored_on_runs_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, ran = home.parents[1], 0
    piece = Trunk._piece

    def counted(trunk: Trunk, parts: Any, *given: Any) -> Any:
        nonlocal ran
        ran += len({part.key for part in parts})
        return piece(trunk, parts, *given)

    monkeypatch.setattr(Trunk, "_piece", counted)
    api.evaluate_many(home, {"colours": place / "colours", "others": place / "others"})
    apart, ran = ran, 0
    found = api.evaluate_many(home, dict.fromkeys(("colours", "others", "third"), place / "colours"))
    assert (apart, ran) == (18, 9)
    monkeypatch.setattr(evaluate, "CHUNK", 4)
    again = api.evaluate_many(home, dict.fromkeys(("colours", "others", "third"), place / "colours"))
    assert {task: one.scores for task, one in again.items()} == {task: one.scores for task, one in found.items()}


def test_only_tasks_with_data_are_opened(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place, opened = home.parents[1], []
    load = Model.load
    monkeypatch.setattr(Model, "load", lambda folder: opened.append(folder) or load(folder))
    told = object_of(["evaluate", home, f"others={place / 'colours'}", place / "third"], capsys)
    assert list(told["tasks"]) == ["others", "third"] and len(opened) == 2
    assert told["tasks"]["third"]["rows"] == 9 and told["tasks"]["third"]["model"].startswith(str(home))
    told = object_of(["evaluate", home, place / "colours", "--task", "third", "--split", "train"], capsys)
    assert list(told["tasks"]) == ["third"] and told["tasks"]["third"]["splits"] == [["train", 18]]


def test_the_command_tells_scores_of_all_tasks(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = home.parents[1]
    code, out, err = call(["evaluate", home, place / "colours", place / "third"], capsys)
    assert code == 0 and "colours: colours: scoring 9 rows" in err
    assert "third: none of the 9 rows was trained on or chose the model" in out and "9 of colours" in out
    code, out, _ = call(["evaluate", home, place / "third", "--task", "third", "--out", tmp_path / "a.csv"], capsys)
    assert code == 0 and "9 predictions written" in out and len((tmp_path / "a.csv").read_text().splitlines()) == 10


@pytest.mark.parametrize(
    ("data", "saw", "what"),
    [
        (["{}/model"], "/model", "it is not clear which task this data is for"),
        (["colour={}/colours"], "colour=", "it is not clear which task this data is for"),
        (["{}/third", "third={}/colours"], "third=", "the task third has data already"),
        (["{}/third", "--task", "thrid"], "'thrid'", "there is no task of that name"),
        (["{0}/third", "{0}/colours", "--out", "a.csv"], "a.csv", "answers of several tasks do not fit one table"),
    ],
)
def test_data_of_no_task_is_refused(
    home: Path, capsys: pytest.CaptureFixture[str], data: list[str], saw: str, what: str
) -> None:
    error = error_of(["evaluate", home, *(one.format(home.parents[1]) for one in data)], capsys)
    assert error["code"] == 2 and error["what"] == what and saw in error["saw"]


def test_a_run_has_one_data(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = home / family.read(home).member("third").place
    error = error_of(["evaluate", run, home.parents[1] / "third", home.parents[1] / "others"], capsys)
    assert error["what"] == "a model is scored on one data at a time"
    assert "no family" in error_of(["evaluate", run, home, "--task", "third"], capsys)["what"]


# ---------------------------------------------------------------- regraft adapters


@pytest.fixture
def copy(home: Path, tmp_path: Path) -> Path:
    """The family once more, to change."""
    shutil.copytree(home, tmp_path / "copy", symlinks=True)
    return tmp_path / "copy"


def test_what_hangs_on_a_base_is_listed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = object_of(["adapters", "ls", home], capsys, "adapters ls")
    assert [one["task"] for one in told["tasks"]] == ["colours", "others", "third"]
    assert told["base_bytes"] > 10 * max(one["bytes"] for one in told["tasks"][:2])
    assert told["tasks"][2]["kind"] == "lora" and told["tasks"][2]["score"]["split"] == "test"
    code, out, _ = call(["adapters", "ls", home], capsys)
    assert code == 0 and "base: model" in out
    assert "no family" in error_of(["adapters", "ls", home / "base"], capsys, "adapters ls")["what"]


def test_the_command_answers_all_tasks_or_one(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = object_of(["predict", home, "--text", TEXTS[0]], capsys)
    assert {"colours.label", "others.label", "third.label"} <= set(told["predictions"][0])
    told = object_of(["predict", home, "--text", TEXTS[0], "--task", "third"], capsys)
    assert "label" in told["predictions"][0]


def test_an_exported_task_needs_no_base(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    object_of(["adapters", "export", home, "third", "--out", tmp_path / "alone"], capsys, "adapters export")
    assert tuple(durable.sums(tmp_path / "alone").items()) == SUMS["third"]
    assert Model.load(tmp_path / "alone").predict(TEXTS) == family.open_family(home, "third").predict(TEXTS)
    error = error_of(["adapters", "export", home, "third", "--out", tmp_path / "alone"], capsys, "adapters export")
    assert "there already" in error["what"]


def test_a_removed_task_is_gone_and_the_others_stay(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = copy / family.read(copy).member("colours").place
    assert "nobody can be asked" in error_of(["adapters", "rm", copy, "colours"], capsys, "adapters rm")["what"]
    assert object_of(["adapters", "rm", copy, "colours", "--yes"], capsys, "adapters rm")["bytes"] > 0
    assert not place.exists() and [one.task for one in family.read(copy).tasks] == ["others", "third"]
    assert set(family.open_family(copy).predict(TEXTS[:1])[0]) >= {"others.label", "third.label"}


def test_a_bundle_comes_back_in(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapters.export(copy, "others", tmp_path / "alone")
    add = ["adapters", "add", copy, tmp_path / "alone", "--task", "again"]
    assert object_of(add, capsys, "adapters add")["task"] == "again"
    assert family.open_family(copy, "again").predict(TEXTS) == family.open_family(copy, "others").predict(TEXTS)
    assert family.size_of(copy / "again") < family.size_of(tmp_path / "alone") / 4
    assert "cannot have this name" in error_of(add, capsys, "adapters add")["what"]


def test_a_bundle_of_another_backbone_is_refused(copy: Path, tmp_path: Path, shipped: None) -> None:
    places.encoder_model(tmp_path / "model", seed=9)
    knobs = {"probe.epochs": 1, "probe.pooling": "mean"}
    data = copy.parents[0] / "data"
    places.texts(data, train=18, val=12, test=9)
    run = api.adapt(data, model=tmp_path / "model", out=tmp_path / "runs", strategies=["probe"], knobs=knobs)
    before = family.read(copy)
    with pytest.raises(ModelError, match="another backbone"):
        adapters.add(copy, run.folder, "stranger")
    assert family.read(copy) == before and not (copy / "stranger").exists()


def test_a_folder_of_peft_becomes_a_task(copy: Path) -> None:
    third = family.bundle_of(copy, family.read(copy).member("third"))
    source = adapters.adapter_of(third)
    labels = family.open_family(copy, "third").labels
    with pytest.raises(UsageError, match="not as many as the outputs"):
        adapters.add(copy, source, "tone", ["cold", "warm"])
    assert not (copy / "tone").exists()
    adapters.add(copy, source, "tone", labels)
    answers = family.open_family(copy).predict(TEXTS)
    assert [one["tone.label"] for one in answers] == [one["third.label"] for one in answers]
    (record,) = [one for one in family.listed(copy) if one.task == "tone"]
    assert (record.kind, record.score) == ("lora", None)
    inserted = [t for cut in shared.read(copy / "tone/bundle").cut for t in cut.tensors if t.insert]
    assert len(inserted) == 6


def test_what_peft_alone_saved_answers_as_peft_does(home: Path, copy: Path, tmp_path: Path) -> None:
    import peft
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    place = str(home.parents[1] / "model")
    torch.manual_seed(3)
    network = AutoModelForSequenceClassification.from_pretrained(place, num_labels=2)
    kept = ["classifier", "pooler"]
    config = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"], modules_to_save=kept)
    made = peft.get_peft_model(network, config).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    made.save_pretrained(tmp_path / "adapter")
    adapters.add(copy, tmp_path / "adapter", "tone", ["cold", "warm"])
    with torch.no_grad():
        told = made(**AutoTokenizer.from_pretrained(place)(TEXTS, padding=True, return_tensors="pt")).logits.softmax(-1)
    answers = family.open_family(copy).predict(TEXTS)
    for one, wanted in zip(answers, told, strict=True):
        assert list(one["tone.probabilities"].values()) == pytest.approx(wanted.tolist(), abs=1e-5)


def test_an_adapter_is_a_model_to_adapt(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = adapters.adapter_of(family.bundle_of(home, family.read(home).member("third")))
    view = shelf.find("providers", "adapter").load(str(source), "text", str(home.parents[1] / "model"))
    alone = family.open_family(home, "third")
    assert isinstance(alone, Model)
    batch = places.noise(view, 4)
    with torch.no_grad():
        assert torch.equal(view.pooled("mean").run(batch), alone.graft.view.run(batch))
        assert torch.equal(view.native.weight, alone.graft.head.weight)
    with pytest.raises(UsageError, match="is not here"):
        shelf.find("providers", "adapter").load(str(source), "text")
    ask = ["adapt", home.parents[1] / "others", "--model", source, "--arch", home.parents[1] / "model", "--dry-run"]
    assert object_of([*ask, "--strategy", "probe"], capsys)["plans"]


@pytest.mark.parametrize("rank", [0, 8, 1])
def test_merged_adapters_are_the_weighted_sum(rank: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = []
    for i, settings in enumerate((PLAIN, SCALED)):
        view, insert, head = grafted("bert", "auto", settings)
        with torch.no_grad():
            for name, parameter in view.module.named_parameters():
                parameter *= 1 + i * ("lora." in name)
        made.append((view, written(tmp_path / str(i), view, insert, head)))
    command = ["adapters", "merge", tmp_path / "0", tmp_path / "1", "--weight", 0.7, "--weight", -0.2]
    object_of([*command, "--out", tmp_path / "both", "--rank", rank], capsys, "adapters merge")
    fresh, lora = tiny.build("bert").view.clone(0), shelf.find("inserts", "lora")
    plain = {n: p.clone() for n, p in fresh.module.state_dict().items()}
    lora.load(fresh, tmp_path / "both")
    assert torch.equal(fresh.native.weight, load_file(tmp_path / "0/adapter_model.safetensors")[HEAD])  # type: ignore[arg-type]
    for view in (fresh, *(one for one, _ in made)):
        lora.merge(view)
    gap = largest = 0.0
    for name, weight in plain.items():
        one, two, both = (v.module.state_dict()[name] - weight for v in (made[0][0], made[1][0], fresh))
        wanted = 0.7 * one - 0.2 * two
        gap, largest = max(gap, float((both - wanted).abs().max())), max(largest, float(wanted.abs().max()))
        assert (torch.linalg.matrix_rank(both) <= (rank or 8)) if both.ndim == 2 else torch.equal(both, 0 * both)
    assert (gap < 1e-5 * max(1.0, largest)) if rank != 1 else gap > 1e-3


def test_adapters_that_cannot_be_merged_are_told(tmp_path: Path) -> None:
    one = written(tmp_path / "one", *grafted("bert", "auto", PLAIN))
    other = written(tmp_path / "other", *grafted("gpt2", "auto", PLAIN))
    norms = written(tmp_path / "norms", *grafted("bert", "auto", DORA))
    for source, why in ((other, "fan_in_fan_out"), (norms, "use_dora")):
        with pytest.raises(ModelError, match=why):
            adapters.merged([one, source], [], 0, tmp_path / "both")
    with pytest.raises(UsageError, match="each adapter has one weight"):
        adapters.merged([one, one], [1.0], 0, tmp_path / "both")
    with pytest.raises(UsageError, match="no adapter here"):
        adapters.merged([tmp_path], [1.0], 0, tmp_path / "both")


def test_a_record_that_leads_out_of_its_folder_is_refused_before_anything_is_written(copy: Path) -> None:
    place = family.bundle_of(copy, family.read(copy).member("colours")).resolve()
    told = json.loads((place / shared.RECORD).read_bytes())
    told.pop(shared.ITSELF)
    name, there = told["same"][0]
    for changed in ([["../../stray", there]], [["/stray", there]], [[name, "../../secret"]]):
        forged = told | {"same": changed}
        text = json.dumps({**forged, shared.ITSELF: fingerprint(forged)})
        (place / shared.RECORD).unlink()
        (place / shared.RECORD).write_text(text)
        with pytest.raises(ModelError, match="outside of its folder"):
            shared.whole(place)
    record = family.read(copy)
    outside = dataclasses.replace(record, tasks=(dataclasses.replace(record.tasks[0], place="../victim"),))
    store.Folder(copy).write(family.RECORD, outside)
    (copy.parent / "victim").mkdir()
    with pytest.raises(UsageError, match="outside of its own"):
        adapters.remove(copy, record.tasks[0].task)
    assert (copy.parent / "victim").is_dir()
