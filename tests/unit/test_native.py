"""The process that opens a bundle without regraft: golden outputs, and what the README's lines say of inputs."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import save_file

from regraft.deliver import native, pack
from regraft.engine.predict import Graft
from regraft.errors import RegraftError, Unproven
from regraft.kit import hardware
from regraft.providers import transformers as provider
from regraft.waist import READY, Insert, Opening, Target
from tests import places

SAYS = Opening(
    "json",
    "outputs = [folder, *inputs, [type(x).__name__ for x in inputs]]",
    "made = torch.stack([b['x'].sum(0) for b in batches])",
)


@pytest.fixture
def golden(tmp_path: Path) -> str:
    """Two sides of one entry each."""
    path = tmp_path / "golden.safetensors"
    save_file({"0/x": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "1/x": torch.tensor([[0.5, -1.0]])}, path)
    return str(path)


def asked(opening: Opening, golden: str, *inputs: Any) -> tuple[Any, Any]:
    return native.run(opening, "the/folder", golden, 2, inputs, 1)


def test_it_gives_the_golden_outputs_and_the_pipelines_answers(tmp_path: Path) -> None:
    view, head = provider.load(str(places.model(tmp_path / "model"))), torch.nn.Linear(16, 2)
    opening = view.export(head, Target("label", "class", ("blue", "red")), str(tmp_path / "out"))
    picture = places.pictures(tmp_path / "data", train=1, val=0, test=0) / "train" / "red" / "0.png"
    batches = pack.golden_batches(Graft(view, head), 8, 1)
    save_file({f"0/{name}": t for name, t in batches[0].items()}, tmp_path / "golden.safetensors")
    made, outputs = native.run(
        opening, str(tmp_path / "out"), str(tmp_path / "golden.safetensors"), 1, [picture], threads=1
    )
    assert torch.allclose(torch.tensor(made), pack.golden(Graft(view, head), 8), atol=1e-6)
    assert outputs is not None
    (answer,) = outputs
    assert set(answer) == {"blue", "red"} and sum(answer.values()) == pytest.approx(1)


def test_lines_find_folder_sides_and_inputs_as_they_were(golden: str) -> None:
    made, outputs = asked(SAYS, golden, "a text", ("one", "two"), Path("x.png"))
    assert made == [[4.0, 6.0], [0.5, -1.0]], "a side after the other"
    assert outputs == ["the/folder", "a text", ["one", "two"], "x.png", ["str", "tuple", "str"]]


def test_any_text_comes_through(golden: str) -> None:
    texts = ["naïve\n\u2028 \U0001f600 'quoted' \"twice\" \\ {x}", "", "\ud800", "x" * 200_000]
    opening = Opening("json", "outputs = [[ord(c) for c in x] for x in inputs]", "")
    assert asked(opening, golden, *texts) == (None, [[ord(c) for c in text] for text in texts])


def test_what_cannot_be_tried_is_none(golden: str) -> None:
    assert asked(Opening("no_such_library", "raise SystemExit('ran')", ""), golden, "x") == (None, None)
    assert asked(Opening("json", "raise SystemExit('ran')", "made = torch.zeros(1)"), golden) == ([0.0], None)


def test_what_use_leaves_behind_is_not_taken_for_the_golden_outputs(golden: str) -> None:
    opening = Opening("json", "made = torch.full((3,), 9.0)\noutputs = made.tolist()", "made = torch.zeros(2)")
    assert asked(opening, golden, "x") == ([0.0, 0.0], [9.0, 9.0, 9.0])


def test_what_lines_print_besides_is_passed_over(golden: str) -> None:
    loud = "import sys\nprint('a warning', end='')\nprint('another', file=sys.stderr)\nmade = torch.ones(1)"
    assert asked(Opening("json", "", loud), golden) == ([1.0], None)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("raise ValueError('what it said')", "ValueError: what it said"),
        ("import sys\nsys.exit('first\\nthe last line')", "the last line"),
        ("import os\nos._exit(7)", "exit 7"),
        ("made = (", "SyntaxError"),
    ],
)
def test_a_process_that_fails_is_told_with_its_last_line(golden: str, line: str, said: str) -> None:
    with pytest.raises(RegraftError, match=rf"cannot be opened by its own library · saw: .*{said}.* do: report this"):
        asked(Opening("json", "", line), golden)


def test_bundles_of_a_family_are_tried_in_one_process_that_starts_anew_after_a_failure(golden: str) -> None:
    where = Opening("json", "", "import os, sys\nprint('loud', file=sys.stderr)\nmade = torch.tensor([os.getpid()])")
    lost = Opening("json", "", "made = torch.tensor([float('here' in globals())])\nhere = 1")
    apart = asked(where, golden)[0][0]
    with native.one_process():
        first = asked(where, golden)[0][0]
        assert asked(lost, golden)[0] == asked(lost, golden)[0] == [0.0], (
            "names of one bundle are not those of the next"
        )
        assert asked(where, golden)[0][0] == first != apart
        with pytest.raises(Unproven, match=r"saw: exit 7"):
            asked(Opening("json", "", "import os\nos._exit(7)"), golden)
        assert asked(where, golden)[0][0] != first
    assert not psutil.pid_exists(int(first))


def test_a_process_that_begins_ahead_has_imported_what_is_imported_here(
    golden: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = "import os, sys\nmade = torch.tensor([os.getpid(), float('email.mime.audio' in sys.modules)])"
    importlib.import_module("email.mime.audio")
    monkeypatch.setattr(native, "LIBRARIES", ("email.mime.audio", "not.imported.here"))
    monkeypatch.setattr(hardware, "spare", lambda: True)
    monkeypatch.setattr(hardware, "memory_bytes", lambda: 16e9)
    with native.ahead(), native.ahead():
        first, second = (asked(Opening("json", "", seen), golden)[0] for _ in range(2))
    assert first == second and first[1] == 1.0 and not psutil.pid_exists(int(first[0]))


@pytest.mark.parametrize(("spare", "memory"), [(False, 16e9), (True, 4e9)])
def test_none_begins_ahead_where_processor_or_memory_is_short(
    monkeypatch: pytest.MonkeyPatch, spare: bool, memory: float
) -> None:
    monkeypatch.setattr(hardware, "spare", lambda: spare)
    monkeypatch.setattr(hardware, "memory_bytes", lambda: memory)
    before = psutil.Process().children()
    with native.ahead():
        assert psutil.Process().children() == before


def test_each_insert_is_put_in_from_its_own_folder_where_the_network_is_ready() -> None:
    opening = Opening("x", f"model = build()\n{READY}model.body\noutputs = model(inputs)", "")
    insert = Insert("bottleneck", (0,), 4)
    made = native.completed(opening, (insert, insert))
    assert made.use.splitlines()[-4:] == [
        "model = build()",
        'put_in(model.body, folder + "/adapter")',
        'put_in_2(model.body, folder + "/adapter-2")',
        "outputs = model(inputs)",
    ]
    assert made.use.count("def put_in(") == made.use.count("def put_in_2(") == 1 and "regraft" not in made.use
    assert made.check == "" and native.completed(opening, ()).use == "model = build()\noutputs = model(inputs)"


def test_it_never_sees_regraft() -> None:
    for source in (native.LOOP, native.BEGIN, native.GOLDEN, native.INPUTS):
        ast.parse(source)
        assert "regraft" not in source


def test_the_working_folder_and_the_user_s_packages_are_no_part_of_it(
    golden: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "planted.py").write_text("raise SystemExit('planted')")
    (tmp_path / "json.py").write_text("raise SystemExit('planted')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    look = "import importlib.util, sys\nmade = torch.tensor([float(importlib.util.find_spec('planted') is not None)])"
    assert asked(Opening("json", "", look), golden) == ([0.0], None)


def test_what_cannot_be_tried_here_is_said() -> None:
    assert native.untried(Opening("torch", "outputs = []", "made = 1")) == ""
    assert "no other process could build this network" in native.untried(Opening("pytorch", "", ""))
    assert native.untried(Opening("no_such_library", "", "made = 1")).startswith(
        "no_such_library is not installed here"
    )
