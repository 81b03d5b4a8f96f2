"""Rows without labels: which are used, which are labelled rows already, and requests that have no use for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from regraft import ahead
from regraft.data.unlabelled import beside
from regraft.errors import DataError, UsageError
from regraft.waist import Bad, Data, Options, Reading, Row, Target
from tests import places
from tests.calls import call


def data(kind: str = "class") -> Data:
    from regraft.data.cells import key_of

    rows = [Row(text, text, "a", "", key_of(text)) for text in ("one", "two", "three")]
    target = Target("y", kind, ("a",), (1,))  # type: ignore[arg-type]
    return Data("d", "text", target, rows[:1], rows[1:2], rows[2:], "f")


def test_labelled_rows_are_left_out_by_their_content_and_counted() -> None:
    cells = [(str(i), text) for i, text in enumerate(("three", "two", "new", "one", " ", "new", "other"))]
    found = beside(data(), cells, "more.csv", [Bad("", "more.csv", 9, "no text")])
    assert {row.cell for row in found.unlabelled} == {"new", "other"} and found.fingerprint != "f"
    assert found.notes[-1] == (
        "--unlabelled: 2 of 8 rows of more.csv are used, left out are 1 unreadable, 1 that are rows of test, "
        "1 that are validation rows, 1 that are training rows, 1 empty, 1 twice"
    )
    assert beside(data(), cells[::-1], "x", []).unlabelled[0].key == found.unlabelled[0].key, "in any order"


def test_where_none_is_left_and_where_none_is_of_use() -> None:
    with pytest.raises(DataError, match=r"no row without a label .*more.csv: 1 that are rows of test"):
        beside(data(), [("0", "three")], "more.csv")
    with pytest.raises(UsageError, match=r"of no use for this target .*more.csv for y, a target of kind 'number'"):
        beside(data("number"), [("0", "new")], "more.csv")


def test_a_run_says_what_it_took_and_a_strategy_without_class_means_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, model = places.texts(tmp_path / "data"), places.encoder_model(tmp_path / "model")
    places.texts(tmp_path / "more", seed=7)
    more = tmp_path / "more" / "train.csv"
    asked = ["shots", str(source), "--model", str(model), "--shots", "3", "--draws", "1", "--unlabelled", str(more)]
    code, out, err = call([*asked, "--strategy", "prototype", "--out", str(tmp_path / "runs")], capsys)
    assert code == 0 and "3 rows of each class" in out, err
    (record,) = (tmp_path / "runs").rglob("trial.json")
    assert "36 rows without labels weigh" in record.read_text() and '"unlabelled"' in record.read_text()
    code, _, err = call([*asked, "--strategy", "probe", "--out", str(tmp_path / "runs")], capsys)
    assert code == 2 and "no strategy of this request uses rows without labels" in err and "contrast, prototype" in err


def test_a_request_without_them_is_named_as_before() -> None:
    """Names of runs stay what they were; a path beside the data makes another run."""
    usual = Options("d", "m")
    assert ahead.called(usual) == "565ccf579cfeb8b08237beba04469a6f85c8f1a329db42a4743d0258213c7dc7"
    assert ahead.called(Options("d", "m", Reading(unlabelled="x"))) != ahead.called(usual)
