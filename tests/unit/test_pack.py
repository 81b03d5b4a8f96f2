"""Packing: a bundle is tested before its name changes; what predicts something else is not shipped."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from openings import ran
from safetensors.torch import load_file, save_file

from regraft.backbone import bundle as bundles
from regraft.backbone.view import View
from regraft.deliver import native, pack
from regraft.errors import RegraftError
from regraft.kit.store import Folder
from regraft.planner.course import Course
from regraft.waist import Bundle, Data, Opening, Row, Target, Trial
from tests import places


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Course, Trial]:
    course = places.course(tmp_path_factory.mktemp("pack"), cached=False)
    return course, places.finish(course, places.plan(course, "probe", epochs=2))


@pytest.fixture
def made(base: tuple[Course, Trial], tmp_path: Path) -> tuple[Course, Trial]:
    """A course with a finished trial and a run folder of its own."""
    course, trial = base
    held = str((course.folder.path / trial.snapshot).resolve())
    return dataclasses.replace(course, folder=Folder(tmp_path / "run")), dataclasses.replace(trial, snapshot=held)


def here(
    opening: Opening, folder: str, golden: str, sides: int, inputs: Sequence[Any], threads: int
) -> tuple[list[Any] | None, list[Any] | None]:
    """What the process does, in this one: transformers need not be imported anew for each test."""
    batches: list[dict[str, torch.Tensor]] = [{} for _ in range(sides)]
    for name, tensor in load_file(golden).items():
        side, _, entry = name.partition("/")
        batches[int(side)][entry] = tensor
    given = [x if isinstance(x, tuple) else str(x) for x in inputs]
    with torch.no_grad():
        found = ran(opening.check, folder=folder, batches=batches)["made"].tolist()
        return found, ran(opening.use, folder=folder, inputs=given)["outputs"]


def says(change: float, told: list[Any] | None = None) -> Callable[..., Any]:
    """A stand-in for the process: the golden outputs, changed by so much."""

    def run(opening: Opening, folder: str, *rest: Any) -> tuple[list[Any], list[Any] | None]:
        return (torch.tensor(bundles.read(Path(folder)).golden) + change).tolist(), told

    return run


def tampered(monkeypatch: pytest.MonkeyPatch, *, use: str = "", check: str = "") -> None:
    """Let every view be exported with lines that do something more at their end."""
    original = View.export

    def export(self: View, head: torch.nn.Module, target: Target, folder: str) -> Opening:
        opening = original(self, head, target, folder)
        return dataclasses.replace(opening, use=f"{opening.use}\n{use}", check=f"{opening.check}\n{check}")

    monkeypatch.setattr(View, "export", export)


# ---------------------------------------------------------------- what is written


def test_the_golden_outputs_are_equal_each_time(base: tuple[Course, Trial]) -> None:
    course, trial = base
    found = [pack.golden(course.restore(trial), 8) for _ in range(2)]
    assert torch.equal(*found) and found[0].shape == (8, 3)


def test_a_side_has_noise_of_its_own(tmp_path: Path) -> None:
    course = places.text_course(tmp_path, "pairs")
    graft = course.graft(places.plan(course, "probe", pooling="mean"))
    torch.nn.init.normal_(graft.head.weight)
    first, second = pack.golden_batches(graft, 8, 2)
    assert first.keys() == second.keys() and not torch.equal(first["input_ids"], second["input_ids"])
    assert torch.equal(pack.golden_batches(graft, 8, 1)[0]["input_ids"], first["input_ids"])
    assert pack.golden(graft, 8, 2).shape == (8, 1)


def test_a_bundle_is_whole_and_the_link_names_it(made: tuple[Course, Trial], monkeypatch: pytest.MonkeyPatch) -> None:
    course, trial = made
    run = course.folder.path
    monkeypatch.setattr(native, "run", here)
    for number in (1, 2):
        wanted = pack.pack(course, trial, "net")
        assert (run / "bundle").readlink() == Path(f"bundle-{number}")
        assert bundles.read(run / "bundle") == wanted
        assert {p.name for p in run.iterdir()} == {"bundle", f"bundle-{number}"}
    assert {n for n, _ in wanted.files} == {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"}
    assert wanted.target.labels == places.LABELS and wanted.base == "net" and len(wanted.golden) == pack.ROWS
    assert wanted.opening.use in (run / "bundle" / "README.md").read_text("utf-8")
    assert (wanted.columns, wanted.calibration, wanted.provider) == ((), (), "transformers")


def test_a_bundle_on_the_way_is_read_back_by_us_alone(
    made: tuple[Course, Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While others still run, no process is started for the model that leads; what is shipped at last is tried."""
    course, trial = made
    run, calls = course.folder.path, []
    monkeypatch.setattr(native, "run", lambda *given: calls.append(given) or here(*given))
    first = pack.pack(course, trial, "net", tried=False)
    assert not calls and bundles.read(run / "bundle") == first
    assert {n for n, _ in first.files} == {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"}
    last = pack.pack(course, trial, "net")
    assert len(calls) == 1 and {p.name for p in run.iterdir()} == {"bundle", "bundle-2"}
    assert last == first, "the record does not say when it was packed"


def test_a_bundle_on_the_way_is_tried_as_it_lies_there(
    made: tuple[Course, Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    course, trial = made
    run, calls = course.folder.path, []
    monkeypatch.setattr(native, "run", lambda *given: calls.append(given) or here(*given))
    pack.pack(course, trial, "net", tried=False)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    pack.attempt(course, trial)
    assert len(calls) == 1 and {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    weights = load_file(run / "bundle" / "model.safetensors")
    weights["classifier.1.bias"] += 0.5
    save_file(weights, run / "bundle" / "model.safetensors", {"format": "pt"})
    with pytest.raises(RegraftError):
        pack.attempt(course, trial)
    assert list(run.iterdir()) == []


@pytest.mark.parametrize("tried", [True, False])
def test_a_bundle_whose_weights_are_others_is_not_shipped(
    made: tuple[Course, Trial], monkeypatch: pytest.MonkeyPatch, tried: bool
) -> None:
    course, trial = made
    original = View.export

    def export(self: View, head: torch.nn.Module, target: Target, folder: str) -> Opening:
        opening = original(self, head, target, folder)
        held = load_file(f"{folder}/model.safetensors")
        held["classifier.1.bias"] += 0.5
        save_file(held, f"{folder}/model.safetensors", {"format": "pt"})
        return opening

    monkeypatch.setattr(View, "export", export)
    monkeypatch.setattr(native, "run", here)
    with pytest.raises(
        RegraftError, match=r"opened by regraft, predicts something else .* saw: outputs differ by 0\.5"
    ):
        pack.pack(course, trial, "net", tried)
    assert list(course.folder.path.iterdir()) == []


@pytest.mark.parametrize(("of", "pooling"), [("pairs", "mean"), ("number", "native"), ("multi", "mean")])
def test_a_bundle_of_texts_passes_its_own_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of: Any, pooling: str
) -> None:
    course = places.text_course(tmp_path, of)
    trial = places.finish(course, places.plan(course, "probe", epochs=2, pooling=pooling))
    monkeypatch.setattr(native, "run", here)
    bundle = pack.pack(course, trial, "net")
    assert bundle.columns == course.data.columns and bundle.calibration == trial.calibration
    assert bundle.task == course.task.name and dict(bundle.inputs.settings)["max_tokens"] == 128
    files = {name for name, _ in bundle.files}
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= files
    assert pack.GOLDEN not in files and not list(course.folder.path.rglob(pack.GOLDEN))


def test_texts_in_files_are_shown_by_their_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split in ("train", "val", "test"):
        for i in range(9):
            path = tmp_path / "data" / split / places.LABELS[i % 3] / f"{i}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"the {places.TELLING[places.LABELS[i % 3]][i % 4]} is old " * (i + 1) + split)
    places.encoder_model(tmp_path / "model", "classifier")
    course = places.course(tmp_path)
    trial = places.finish(course, places.plan(course, "probe", epochs=3, lr=0.1, pooling="native"))
    monkeypatch.setattr(native, "run", here)
    pack.pack(course, trial, "net")


def shown(*cells: Any, row_s: float = 0.0) -> list[Any]:
    rows = [Row(str(i), cell, None, "", str(i)) for i, cell in enumerate(cells)]
    return [row.cell for row in pack._shown(Data("d", "text", Target("y", "class"), (), (), rows, "f"), row_s)]


def test_rows_that_are_shown_lie_far_apart_and_the_longest_text_is_among_them() -> None:
    texts = ["x" * (50 if i == 33 else 3) + str(i) for i in range(100)]
    assert shown(*texts) == [*texts[: 8 * 12 : 12], texts[33]]
    assert shown(("a", "b" * 9), ("cc", "d")) == [("a", "b" * 9), ("cc", "d"), ("a", "b" * 9)]
    assert shown(Path("a.png"), Path("b.png")) == [Path("a.png"), Path("b.png")]
    assert shown(torch.zeros(3), torch.ones(3)) == [] == shown()
    paths = [Path(f"{i}.png") for i in range(30)]
    assert [len(shown(*paths, row_s=row_s)) for row_s in (0.01, 0.3, 9.0)] == [8, 3, 2], "slow ones are fewer"


# ---------------------------------------------------------------- what is not shipped


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (0.5, r"predicts something else than the model that was trained · saw: outputs differ by 0\.5.*report"),
        (float("nan"), r"predicts something else .* saw: outputs differ by nan"),
    ],
)
def test_a_bundle_that_says_something_else_is_not_shipped(
    made: tuple[Course, Trial], monkeypatch: pytest.MonkeyPatch, change: float, what: str
) -> None:
    course, trial = made
    monkeypatch.setattr(native, "run", says(change))
    with pytest.raises(RegraftError, match=what):
        pack.pack(course, trial, "net")
    assert list(course.folder.path.iterdir()) == []


def test_outputs_may_differ_by_rounding(made: tuple[Course, Trial], monkeypatch: pytest.MonkeyPatch) -> None:
    course, trial = made
    monkeypatch.setattr(native, "run", says(0.9e-4))
    assert pack.pack(course, trial, "net").name == "run"


@pytest.mark.parametrize(("apart", "ships"), [(0.9, True), (1.1, False)])
def test_answers_may_be_as_far_apart_as_one_level_of_their_pixels_makes_them(
    made: tuple[Course, Trial], monkeypatch: pytest.MonkeyPatch, apart: float, ships: bool
) -> None:
    """Libraries round resampled pixels differently; a steep head makes more of it than a fixed tolerance allows."""
    course, trial = made
    calls: list[float] = []

    def answers(outputs: torch.Tensor, _: Any) -> list[dict[str, Any]]:
        calls.append(len(calls) * 0.1)  # as the rows are, then a level above, then one below
        return [{"value": calls[-1]} for _ in outputs]

    monkeypatch.setattr(native, "run", here)
    tampered(monkeypatch, use=f"outputs = [0.2 * {apart} for _ in outputs]")
    steep = dataclasses.replace(course, task=dataclasses.replace(course.task, answers=answers))
    if ships:
        assert pack.pack(steep, trial, "net").name == "run" and len(calls) == 3
    else:
        with pytest.raises(RegraftError, match="another answer"):
            pack.pack(steep, trial, "net")


def test_a_bundle_of_plain_features_whose_answers_lie_apart_is_not_shipped(
    base: tuple[Course, Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no level of a pixel in their numbers."""
    course = dataclasses.replace(base[0], folder=Folder(tmp_path / "run"))
    trial = places.finish(course, places.plan(course, "scratch", by="plain"))
    assert trial.plan.init == "plain"
    monkeypatch.setattr(native, "run", here)
    tampered(monkeypatch, use="outputs = [{k: v + 1 for k, v in o.items()} for o in outputs]")
    with pytest.raises(RegraftError, match="another answer"):
        pack.pack(course, trial, "net")


def test_inputs_are_moved_by_a_level_in_both_directions(
    made: tuple[Course, Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    course, trial = made
    seen: list[torch.Tensor] = []
    original = pack.outputs

    def outputs(graft: Any, table: Any) -> torch.Tensor:
        ((part, _),) = table.trunk.encoder.parts([table.rows[0].cell])[0]
        seen.append(table.trunk.encoder.tensors([part])["pixel_values"])
        return original(graft, table)

    monkeypatch.setattr(native, "run", here)
    monkeypatch.setattr(pack, "outputs", outputs)
    tampered(monkeypatch, use="outputs = [{k: v + 1 for k, v in o.items()} for o in outputs]")
    with pytest.raises(RegraftError, match="another answer"):
        pack.pack(course, trial, "net")
    plain, above, below = seen
    torch.testing.assert_close(above - plain, torch.full_like(plain, 2 / 255))
    torch.testing.assert_close(plain - below, torch.full_like(plain, 2 / 255))


TAMPERED: list[tuple[Any, dict[str, str], str]] = [
    ("pictures", {"check": "made = made + 1"}, r"predicts something else .* saw: outputs differ by 1\b"),
    (
        "pictures",
        {"use": "outputs = [{k: v + 1 for k, v in o.items()} for o in outputs]"},
        r"another answer.* allowed: .*probabilities",
    ),
    ("pictures", {"use": "outputs = [{'LABEL_0': 1.0} for o in outputs]"}, r"another answer .* saw: .*LABEL_0"),
    ("number", {"check": "made = made + 1"}, r"predicts something else .* saw: outputs differ by 1\b"),
    ("number", {"use": "outputs = [o + 1 for o in outputs]"}, r"another answer .* saw: .*allowed: .*value"),
    ("number", {"use": "outputs = outputs[::-1]"}, r"another answer .* saw: for "),
    ("pairs", {"use": "outputs = [float('nan') for o in outputs]"}, r"another answer .* saw: for \(.*nan"),
]


@pytest.mark.parametrize(("of", "lines", "what"), TAMPERED)
def test_lines_that_give_another_answer_are_not_shipped(
    tmp_path: Path,
    made: tuple[Course, Trial],
    monkeypatch: pytest.MonkeyPatch,
    of: Any,
    lines: dict[str, str],
    what: str,
) -> None:
    course, trial = made
    if of != "pictures":
        course = places.text_course(tmp_path, of)
        trial = places.finish(course, places.plan(course, "probe", epochs=2, pooling="mean", lr=0.03))
    monkeypatch.setattr(native, "run", here)
    tampered(monkeypatch, **lines)
    with pytest.raises(RegraftError, match=what):
        pack.pack(course, trial, "net")
    assert not list(course.folder.path.glob("bundle*")) and not list(course.folder.path.glob(".part-*"))


def test_lines_that_leave_out_a_label_are_not_shipped(
    made: tuple[Course, Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    course, trial = made
    monkeypatch.setattr(native, "run", here)
    tampered(monkeypatch, use="outputs = [{k: v for k, v in o.items() if k != 'red'} for o in outputs]")
    with pytest.raises(RegraftError, match=r"another answer"):
        pack.pack(course, trial, "net")


def test_a_tampered_opening_is_found_by_the_process_itself(
    made: tuple[Course, Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    course, trial = made
    tampered(monkeypatch, use="outputs = [{k: v + 1 for k, v in o.items()} for o in outputs]")
    with pytest.raises(RegraftError, match=r"another answer than the model that was trained · saw: for .*: "):
        pack.pack(course, trial, "net")
    assert list(course.folder.path.iterdir()) == []


def test_a_bundle_that_cannot_be_opened_leaves_the_one_before(
    made: tuple[Course, Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    course, trial = made
    monkeypatch.setattr(native, "run", here)
    before = pack.pack(course, trial, "net")

    def broken(*_: Any) -> Bundle:
        raise RegraftError("the bundle cannot be opened by its own library", saw="the last line", do="report this")

    monkeypatch.setattr(native, "run", broken)
    with pytest.raises(RegraftError, match="cannot be opened"):
        pack.pack(course, trial, "net")
    run = course.folder.path
    assert bundles.read(run / "bundle") == before and {p.name for p in run.iterdir()} == {"bundle", "bundle-1"}
