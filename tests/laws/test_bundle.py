"""Law 6: what was packed predicts what was trained, and its native library alone predicts the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from openings import ran
from safetensors.torch import load_file, save_file

from regraft.deliver import native, pack
from regraft.deliver.model import Model
from regraft.errors import RegraftError
from regraft.kit import shelf
from regraft.planner.course import Course
from regraft.waist import Bundle, Opening, Trial
from tests import places

WAYS: list[tuple[str, dict[str, Any]]] = [
    ("asis", {}),
    ("bitfit", {"epochs": 2, "last": 1}),
    ("bottleneck", {"epochs": 2, "last": 2, "width": 3}),
    ("contrast", {"epochs": 1}),
    ("full", {"epochs": 2, "norm": "update"}),
    ("gradual", {"by": "lpft", "epochs": 1}),
    ("ia3", {"epochs": 2, "last": 2}),
    ("layerwise", {"epochs": 2}),
    ("lora", {"epochs": 2, "last": 2, "rank": 3}),
    ("norms", {"epochs": 2}),
    ("partial", {"epochs": 3, "norm": "update"}),
    ("probe", {"epochs": 3}),
    ("prototype", {}),
    ("scratch", {"by": "random", "epochs": 2}),
    ("scratch", {"by": "features"}),
    ("side", {"epochs": 2, "width": 3}),
]
"""Every strategy on the shelf that has a network; scratch without one is further down."""
TEXTS: list[tuple[Any, Any, str, dict[str, Any]]] = [
    ("class", "classifier", "probe", {"pooling": "native"}),
    ("class", "encoder", "probe", {"pooling": "native"}),
    ("class", "encoder", "partial", {"pooling": "mean", "depth": 1}),
    ("pairs", "classifier", "partial", {"pooling": "native", "depth": 2}),
    ("pairs", "encoder", "probe", {"pooling": "mean", "lr": 0.03}),
    ("number", "classifier", "probe", {"pooling": "native"}),
    ("number", "encoder", "partial", {"pooling": "mean", "depth": 1}),
    ("multi", "classifier", "partial", {"pooling": "native", "depth": 1}),
    ("multi", "encoder", "probe", {"pooling": "mean"}),
    ("class", "classifier", "lora", {"pooling": "native", "dora": True}),
    ("class", "encoder", "lora", {"pooling": "native", "last": 1}),
    ("pairs", "encoder", "lora", {"pooling": "mean", "rs": True, "bits": "4"}),
    ("class", "classifier", "prompt", {"pooling": "native", "last": 2, "by": "shallow"}),
    ("class", "encoder", "prompt", {"pooling": "mean", "size": 3}),
    ("pairs", "encoder", "prefix", {"pooling": "mean", "last": 1}),
    ("class", "classifier", "bottleneck", {"pooling": "native", "width": 3}),
    ("pairs", "encoder", "bottleneck", {"pooling": "mean", "width": 3, "by": "parallel"}),
    ("class", "encoder", "side", {"pooling": "native", "width": 3}),
    ("pairs", "encoder", "side", {"pooling": "mean", "width": 3}),
]
LONG: list[tuple[Any, str, str, str]] = [
    ("class", "native", "ends", "probe"),
    ("class", "mean", "ends", "probe"),
    ("number", "native", "windows", "probe"),
    ("class", "mean", "windows", "side"),
    ("pairs", "mean", "windows", "probe"),
]


def told(case: tuple[Any, ...]) -> str:
    return "-".join(str(part.get("pooling")) if isinstance(part, dict) else part for part in case)


def packed(course: Course, strategy: str, **knobs: Any) -> tuple[Bundle, Trial]:
    trial = places.finish(course, places.plan(course, strategy, **knobs))
    return pack.pack(course, trial, "model"), trial


def outputs_of(course: Course, trial: Trial) -> torch.Tensor:
    """What the trained model gave for the test rows."""
    return load_file(course.folder.path / trial.predictions)["test"]


def same(found: list[dict[str, Any]], wanted: list[dict[str, Any]], *, exactly: bool) -> None:
    """Answers that are equal, or close where a head was folded or a library did the arithmetic."""
    for ours, theirs in zip(found, wanted, strict=True):
        for name, value in theirs.items():
            assert ours[name] == (
                value if exactly or not isinstance(value, (float, dict)) else pytest.approx(value, 1e-4, 1e-5)
            )


def test_no_strategy_is_left_out() -> None:
    assert sorted([*dict(WAYS), *places.ATTENDING]) == list(shelf.names("strategies"))
    assert {*places.ATTENDING} <= {strategy for _, _, strategy, _ in TEXTS}


@pytest.mark.parametrize(("strategy", "knobs"), WAYS, ids=told)
def test_a_packed_graft_predicts_the_same(
    tmp_path: Path, strategy: str, knobs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForImageClassification

    if strategy not in ("bottleneck", "side"):  # its library alone lacks the adapters: the README's lines are run
        monkeypatch.setattr(pack, "_self_test", lambda *_: None)  # journeys run it; here the parts are looked at
    monkeypatch.setenv("REGRAFT_THREADS", "1")
    course = places.course(tmp_path)
    bundle, trial = packed(course, strategy, **knobs)
    place = course.folder.path / "bundle"

    answers = Model.load(place).predict([row.cell for row in course.data.test])
    exact = course.task.answers(outputs_of(course, trial), {})
    same(answers, exact, exactly=not trial.plan.inserts)  # these are merged

    loaded = AutoModelForImageClassification.from_pretrained(place, local_files_only=True)
    (noise,) = pack.golden_batches(course.restore(trial), pack.ROWS, 1)
    with torch.no_grad():
        logits = loaded(**noise).logits
    golden = torch.tensor(bundle.golden)
    if trial.plan.inserts and not bundle.inserts:  # merged: other sums, which round alike on some processors
        assert float((logits - golden).abs().max()) <= 1e-5 * float(golden.abs().max())
    else:
        assert torch.equal(logits, golden) is not bool(bundle.inserts)
    assert list(loaded.config.id2label.values()) == list(places.LABELS)
    assert not list(place.glob("*.bin"))


@pytest.mark.parametrize("of", ["pictures", "class", "number", "multi", "pairs"])
def test_a_plain_model_predicts_the_same_without_a_network(
    tmp_path: Path, of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "_self_test", lambda *_: None)
    monkeypatch.setenv("REGRAFT_THREADS", "1")
    course = places.course(tmp_path) if of == "pictures" else places.text_course(tmp_path, of)
    bundle, trial = packed(course, "scratch", by="plain")
    place, cells = course.folder.path / "bundle", [row.cell for row in course.data.test]
    wanted = course.task.answers(outputs_of(course, trial), dict(trial.calibration))
    assert len({json.dumps(answer, sort_keys=True) for answer in wanted}) > len(wanted) // 2, "nothing was learned"
    same(Model.load(place).predict(cells), wanted, exactly=False)
    alone(course, bundle, trial)
    same(opened(bundle.opening, place, cells), scores(wanted), exactly=False)
    assert bundle.plan.init == "plain" and not list(place.glob("*.bin"))


@pytest.mark.parametrize("case", TEXTS, ids=told)
def test_packed_texts_are_predicted_the_same(
    tmp_path: Path, case: tuple[Any, Any, str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "_self_test", lambda *_: None)
    monkeypatch.setenv("REGRAFT_THREADS", "1")
    of, network, strategy, knobs = case
    course = places.text_course(tmp_path, of, network)
    bundle, trial = packed(course, strategy, epochs=3, **knobs)
    place, cells = course.folder.path / "bundle", [row.cell for row in course.data.test]
    wanted = course.task.answers(outputs_of(course, trial), dict(trial.calibration))
    assert len({json.dumps(answer, sort_keys=True) for answer in wanted}) > len(wanted) // 2, "nothing was learned"

    model = Model.load(place)
    assert model.columns == course.data.columns
    same(model.predict(cells), wanted, exactly=course.data.target.kind != "number" and not trial.plan.inserts)
    kinds = {
        "lora": "adapter_config.json",
        "bottleneck": "insert.json",
        "prefix": "insert.json",
        "prompt": "insert.json",
        "side": "insert.json",
    }
    assert [(place / "adapter" / kinds[i.kind]).is_file() for i in trial.plan.inserts] == [True] * len(
        trial.plan.inserts
    )
    assert (place / "adapter").is_dir() == bool(trial.plan.inserts)
    alone(course, bundle, trial)
    layout = {"native": "transformers", "mean": "sentence_transformers"}[knobs["pooling"]]
    assert bundle.opening.library == layout and (place / "modules.json").is_file() == (knobs["pooling"] == "mean")
    same(opened(bundle.opening, place, cells), scores(wanted), exactly=False)


@pytest.mark.parametrize("case", LONG, ids=told)
def test_long_texts_are_read_by_the_library_as_they_were_in_training(
    tmp_path: Path, case: tuple[Any, str, Any, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "_self_test", lambda *_: None)
    monkeypatch.setenv("REGRAFT_THREADS", "1")
    of, pooling, long, strategy = case
    course = places.text_course(tmp_path, of, "classifier", long=long, max_tokens=20)
    bundle, trial = packed(course, strategy, epochs=3, lr=0.03, pooling=pooling)
    place, cells = course.folder.path / "bundle", [row.cell for row in course.data.test]
    view = course.view.pooled(pooling)  # type: ignore[arg-type]
    parts = [len(side) for row in course.table(view, 0, course.data.test).parts for side in row]
    assert (max(parts) > 2) == (long == "windows")
    wanted = course.task.answers(outputs_of(course, trial), dict(trial.calibration))
    exactly = course.data.target.kind != "number" and not trial.plan.inserts
    same(Model.load(place).predict(cells), wanted, exactly=exactly)
    same(opened(bundle.opening, place, cells), scores(wanted), exactly=False)


def alone(course: Course, bundle: Bundle, trial: Trial) -> None:
    """The lines of `check`, run on the golden batches."""
    graft = course.restore(trial)
    batches = pack.golden_batches(graft, pack.ROWS, course.trunks.sides(graft.view))
    with torch.no_grad():
        made = ran(bundle.opening.check, folder=str(course.folder.path / "bundle"), batches=batches)["made"]
    torch.testing.assert_close(made, torch.tensor(bundle.golden), rtol=1e-4, atol=1e-4)


def opened(opening: Opening, place: Path, inputs: list[Any]) -> list[dict[str, Any]]:
    """What the lines of the README leave for inputs, in one form."""
    with torch.no_grad():
        found = ran(opening.use, folder=str(place), inputs=inputs)["outputs"]
    return [{"scores": each if isinstance(each, dict) else {"": each}} for each in found]


def scores(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"scores": answer.get("probabilities") or {"": answer["value"]}} for answer in answers]


# ---------------------------------------------------------------- in a process of its own


@pytest.mark.parametrize(("of", "pooling"), [("pairs", "mean"), ("multi", "native")])
def test_a_bundle_is_tested_by_its_library_alone(tmp_path: Path, of: Any, pooling: str) -> None:
    course = places.text_course(tmp_path, of, "classifier")
    bundle, trial = packed(course, "probe", epochs=2, pooling=pooling)
    graft, golden = course.restore(trial), tmp_path / "golden.safetensors"
    batches = pack.golden_batches(graft, pack.ROWS, course.trunks.sides(graft.view))
    save_file({f"{i}/{name}": t for i, batch in enumerate(batches) for name, t in batch.items()}, golden)
    place, cells = str(course.folder.path / "bundle"), [row.cell for row in course.data.test]
    made, found = native.run(bundle.opening, place, str(golden), len(batches), cells, 1)
    torch.testing.assert_close(torch.tensor(made), torch.tensor(bundle.golden), rtol=1e-4, atol=1e-4)
    assert found is not None
    wanted = scores(course.task.answers(outputs_of(course, trial), dict(trial.calibration)))
    same([{"scores": each if isinstance(each, dict) else {"": each}} for each in found], wanted, exactly=False)


def test_the_link_always_names_a_whole_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack, "_self_test", lambda *_: None)
    course = places.course(tmp_path)
    trial = places.finish(course, places.plan(course, "probe", epochs=1))
    run = course.folder.path
    for number in (1, 2):
        pack.pack(course, trial, "model")
        assert (run / "bundle").readlink() == Path(f"bundle-{number}")
        assert sorted(p.name for p in run.glob("bundle*")) == ["bundle", f"bundle-{number}"]


def test_a_bundle_that_fails_its_test_is_not_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    course = places.course(tmp_path)
    trial = places.finish(course, places.plan(course, "probe", epochs=1))
    run = course.folder.path
    monkeypatch.setattr(native, "run", lambda *_: ([[9.0, 9.0, 9.0]] * pack.ROWS, None))
    with pytest.raises(RegraftError, match=r"predicts something else .* outputs differ by"):
        pack.pack(course, trial, "model")
    assert not list(run.glob("bundle*")) and not list(run.glob(".part-*"))
