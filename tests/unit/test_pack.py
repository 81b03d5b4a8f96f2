"""Packing: a bundle is tested before its name changes; what predicts something else is not shipped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from regraft.backbone import bundle as bundles
from regraft.deliver import pack
from regraft.engine.predict import Graft
from regraft.errors import RegraftError
from regraft.planner.race import Course
from regraft.waist import Bundle, Trial
from tests import places


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Course, Trial]:
    course = places.course(tmp_path_factory.mktemp("pack"), cached=False)
    return course, places.finish(course, places.plan(course, "probe", epochs=2))


def honest(graft: Graft, course: Course, change: float = 0.0, label: str = "red") -> Callable[..., dict[str, Any]]:
    """A stand-in for the fresh process: what it would say, or something a little different."""
    logits = (pack.golden(graft, course.machine.micro_batch) + change).tolist()
    return lambda *_: {"logits": logits, "pipeline": [{"label": label}]}


def packed(course: Course, trial: Trial, run: Path) -> Bundle:
    return pack.pack(course.restore(trial), trial, course.task, course.data, course.machine, run, "net")


def test_the_golden_outputs_are_equal_each_time(made: tuple[Course, Trial]) -> None:
    course, trial = made
    found = [pack.golden(course.restore(trial), 8) for _ in range(2)]
    assert torch.equal(*found) and found[0].shape == (8, 3)


def test_a_bundle_is_whole_and_the_link_names_it(
    made: tuple[Course, Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    course, trial = made
    monkeypatch.setattr(pack, "_native", honest(course.restore(trial), course))
    for number in (1, 2):
        wanted = packed(course, trial, tmp_path)
        assert (tmp_path / "bundle").readlink() == Path(f"bundle-{number}")
        assert bundles.read(tmp_path / "bundle") == wanted
        assert {p.name for p in tmp_path.iterdir()} == {"bundle", f"bundle-{number}"}
    assert {n for n, _ in wanted.files} == {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"}
    assert wanted.target.labels == places.LABELS and wanted.base == "net" and len(wanted.golden) == wanted.micro_batch


@pytest.mark.parametrize(
    ("change", "label", "what"),
    [
        (0.5, "red", r"predicts something else than the model that was trained · saw: outputs differ by 0\.5.*report"),
        (float("nan"), "red", r"predicts something else .* saw: outputs differ by nan"),
        (0.0, "LABEL_0", r"labels that are not in the data · saw: LABEL_0 · allowed: blue, green, red"),
    ],
)
def test_a_bundle_that_says_something_else_is_not_shipped(
    made: tuple[Course, Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: float, label: str, what: str
) -> None:
    course, trial = made
    monkeypatch.setattr(pack, "_native", honest(course.restore(trial), course, change, label))
    with pytest.raises(RegraftError, match=what):
        packed(course, trial, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_fails_is_told_with_its_last_line(
    made: tuple[Course, Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    course, trial = made
    failing = tmp_path / "failing.py"
    failing.write_text("import sys; sys.exit('first\\nthe last line')")
    monkeypatch.setattr(pack, "__file__", str(tmp_path / "pack.py"))
    failing.rename(tmp_path / "native.py")
    with pytest.raises(RegraftError, match=r"cannot be opened by its own library · saw: the last line · do: report"):
        packed(course, trial, tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def test_what_the_process_prints_besides_is_passed_over(
    made: tuple[Course, Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    course, trial = made
    answer = json.dumps(honest(course.restore(trial), course)())
    (tmp_path / "native.py").write_text(f"print('a warning')\nprint({answer!r})")
    monkeypatch.setattr(pack, "__file__", str(tmp_path / "pack.py"))
    assert packed(course, trial, tmp_path / "run").name == "run"
