"""What the command line refuses: each with its exit code, what was seen and the way out, to people and to scripts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import places
from tests.calls import Captured, call, error_of


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and a model."""
    place = tmp_path_factory.mktemp("refusals")
    places.pictures(place / "data")
    places.model(place / "model")
    return place


REFUSALS = [
    (["adapt", "nowhere", "--model", "model"], 3, "no such folder"),
    (["adapt", "dta", "--model", "model"], 3, "no such folder"),
    (["adapt", "data", "--model", "../modle"], 4, "no model of that name"),
    (["adapt", "data", "--model", "modle"], 2, "could mean several things"),
    (["adapt", "data", "--model", "transformers/no/name"], 4, "nothing is fetched"),
    (["adapt", "data"], 2, "what to adapt is missing"),
    (["adapt", "data", "--model", "model", "--strategy", "prbe"], 2, "no strategy of that name"),
    (["adapt", "data", "--model", "model", "--strategy", "partial", "--partial.depth", "99"], 2, "that many stages"),
    (["adapt", "data", "--model", "model", "--strategy", "partial", "--partial.depth", "two"], 2, "wrong kind"),
    (["adapt", "data", "--model", "model", "--strateg", "probe"], 2, "--strategy"),
    (["predict", "nowhere", "data"], 2, "no run in this folder"),
    (["adapt", "data/train/red", "--model", "model"], 3, "no class folders"),
]


@pytest.mark.parametrize(("args", "code", "what"), REFUSALS, ids=lambda v: v if isinstance(v, str) else "")
def test_refusals_have_a_code_and_a_cure(
    home: Path, args: list[str], code: int, what: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    error = error_of(args, capsys)
    assert error["code"] == code and what in str(error)
    assert set(error) == {"code", "what", "saw", "allowed", "do"}
    seen, out, err = call(args, capsys)
    assert seen == code and out == ""
    assert err.startswith(("regraft: ", "data: ")) and "do: " in err
