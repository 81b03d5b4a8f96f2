"""What the winner confuses: counts by the kind of target, and the rows it got most wrong."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from regraft.deliver.examine import EXAMPLES, PAIRS, examine, spread
from regraft.kit import shelf
from regraft.waist import Data, Flag, Row, Target

PETS = Target("pet", "class", ("cat", "dog", "emu"), (5, 5, 5))
TAGS = Target("tags", "multi", ("ant", "bee"), (3, 1))
AGE = Target("age", "number", centre=30.0, spread=5.0)


def data(target: Target, ys: list[object], modality: str = "text", cells: list[object] | None = None) -> Data:
    rows = [Row(str(i), cells[i] if cells else f"text  {i}", y, "", "") for i, y in enumerate(ys)]
    return Data("d", modality, target, (), (), rows, "f")


def test_classes_are_counted_truth_by_answer() -> None:
    ys = ["cat", "cat", "dog", "emu"]
    outputs = torch.tensor([[9.0, 0, 0], [0, 2.0, 0], [0, 1.0, 0], [0, 8.0, 0]])
    found = examine(shelf.find("tasks", "classify").make(PETS), data(PETS, ys), outputs)
    assert found.labels == PETS.labels and found.numbers == ()
    assert found.confusion == ((1, 1, 0), (0, 1, 0), (0, 1, 0))
    assert [(e.id, e.y, e.said, e.text) for e in found.examples] == [
        ("3", "emu", "dog", "text 3"),
        ("1", "cat", "dog", "text 1"),
    ]
    assert found.examples[0].confidence > found.examples[1].confidence > 0.5


def test_sets_are_counted_by_label() -> None:
    outputs = torch.tensor([[5.0, -5.0], [-5.0, 1.0], [5.0, 5.0]])
    found = examine(shelf.find("tasks", "multilabel").make(TAGS), data(TAGS, [("ant",), ("ant",), ()]), outputs)
    assert found.confusion == ((0, 1, 1, 1), (1, 2, 0, 0)), "neither, only answered, only true, both"
    assert {(e.y, e.said) for e in found.examples} == {("ant", "bee"), ("none", "ant, bee")}


def test_numbers_are_pairs_and_the_largest_errors() -> None:
    draw = np.random.default_rng(0)
    ys = draw.normal(30, 5, 900)
    outputs = torch.tensor(ys + draw.normal(0, 1, 900), dtype=torch.float32)[:, None]
    outputs[7] += 50
    found = examine(shelf.find("tasks", "regress").make(AGE), data(AGE, list(ys)), outputs)
    assert found.labels == found.confusion == () and len(found.numbers) == PAIRS
    assert found.examples[0].id == "7" and len(found.examples) == EXAMPLES
    assert min(ys) == pytest.approx(found.numbers[0][0], rel=1e-5)


def test_right_answers_are_no_examples() -> None:
    task = shelf.find("tasks", "classify").make(PETS)
    assert examine(task, data(PETS, ["cat"]), torch.tensor([[1.0, 0, 0]])).examples == ()
    assert examine(shelf.find("tasks", "regress").make(AGE), data(AGE, [3.0]), torch.tensor([[3.0]])).examples == ()


def test_examples_are_spread_over_the_largest_kinds() -> None:
    cells = {i: (0, 1) for i in range(100)} | {100: (1, 0), 101: (2, 0)}
    sure = [0.9] * 100 + [0.5, 0.4]
    taken = spread(cells, sure)
    assert len(taken) == EXAMPLES and {100, 101} < set(taken)
    assert [sure[i] for i in taken] == sorted((sure[i] for i in taken), reverse=True)


def test_a_picture_becomes_a_small_jpeg_without_metadata(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a secret place"
    Image.new("RGB", (400, 200)).save(tmp_path / "a.jpg", exif=exif, comment=b"a secret remark")
    task = shelf.find("tasks", "classify").make(PETS)
    cells: list[object] = [tmp_path / "a.jpg", tmp_path / "gone.jpg"]
    found = examine(task, data(PETS, ["cat", "cat"], "image", cells), torch.tensor([[0, 1.0, 0], [0, 2.0, 0]]))
    gone, small = found.examples
    assert (gone.picture, gone.text, small.text) == ("", "", "")
    raw = base64.b64decode(small.picture)
    made = Image.open(io.BytesIO(raw))
    assert made.size == (128, 64) and not made.getexif() and b"secret" not in raw


@pytest.mark.parametrize(
    ("cell", "text"),
    [("a\n b", "a b"), (("a", "b\tc"), "a\nb c"), ("", ""), ("word " * 200, None)],
)
def test_a_text_is_shown_by_its_beginning(cell: object, text: str | None, tmp_path: Path) -> None:
    made, picture = shelf.find("modalities", "text").shown(cell)
    assert picture == b"" and (made == text if text is not None else len(made) <= 280 and made.endswith("…"))
    (tmp_path / "a.txt").write_text("in a file")
    assert shelf.find("modalities", "text").shown(tmp_path / "a.txt") == ("in a file", b"")


def test_rows_that_a_finding_names_are_kept_to_be_seen_beside_each_other() -> None:
    flags = (Flag("classes", "note", 1, 3, "", (), ""), Flag("near", "warn", 1, 4, "", (), "", (), ("t", "1", "gone")))
    some = data(PETS, ["cat", "dog"])
    found = replace(some, train=(Row("t", "TEXT 1", "emu", "", ""),), flags=flags)
    outputs = torch.tensor([[9.0, 0, 0], [0, 9.0, 0]])
    made = examine(shelf.find("tasks", "classify").make(PETS), found, outputs)
    assert [(e.id, e.text, e.y, e.said) for e in made.alike] == [
        ("t", "TEXT 1", "emu", "train"),
        ("1", "text 1", "dog", "test"),
    ]
    assert examine(shelf.find("tasks", "classify").make(PETS), some, outputs).alike == ()
