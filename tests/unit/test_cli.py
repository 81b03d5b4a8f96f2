"""The command line: exit codes, one object for scripts, names in data that cannot steer a terminal."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from regraft.deliver import model as models
from tests import places
from tests.calls import call, error_of


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in, with data and a folder that claims to be a model."""
    monkeypatch.chdir(tmp_path)
    places.pictures(tmp_path / "data", train=2, val=1, test=1)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "resnet"}')
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.bin").write_bytes(b"\0\1")
    return tmp_path


ADAPT = ("adapt", "data", "--model", "model")


REFUSALS: list[tuple[Sequence[str], int, str, str]] = [
    (("adapt",), 2, "what to adapt is missing", "DATA not given, --model not given"),
    (("adapt", "data"), 2, "what to adapt is missing", "DATA data, --model not given"),
    ((*ADAPT, "--strategy", "prbe"), 2, "there is no strategy of that name", "'prbe'"),
    ((*ADAPT, "--precision", "fp16"), 2, "there is no precision of that name", "'fp16'"),
    ((*ADAPT, "--strategy", "no.such"), 2, "the strategy module does not import", "no.such: No module named 'no'"),
    (
        (*ADAPT, "--resume", "runs/x"),
        2,
        "--resume takes its request from the run",
        "DATA, --model, --strategy",
    ),
    (("adapt", "--resume", "x", "--seed", "3"), 2, "--resume takes its request from the run", ""),
    (("adapt", "--resume", "x", "--precision", "auto"), 2, "--resume takes its request from the run", ""),
    (("adapt", "--resume", "x", "--no-cache"), 2, "--resume takes its request from the run", ""),
    (("adapt", "--resume", "x", "--fresh"), 2, "--resume takes its request from the run", ""),
    (("adapt", "--resume", "runs/x"), 2, "there is no run in this folder", "runs/x"),
    (("adapt", "dta", "--model", "model"), 3, "there is no such folder", "dta"),
    (("adapt", "photos", "--model", "model"), 3, "this folder holds nothing that regraft reads", "photos: a.bin"),
    (("adapt", "data", "--model", "models/modl"), 4, "there is no model of that name here", "models/modl"),
    (("adapt", "data", "--model", "modl"), 2, "this name could mean several things", "modl"),
    (("adapt", "data", "--model", "transformers/no/name"), 4, "this model is not on this machine, and nothing is", ""),
    ((*ADAPT, "--balance", "clases"), 2, "there is no balance of that name", "'clases'"),
    ((*ADAPT, "--long", "window"), 2, "there is no way with long texts of that name", "'window'"),
    ((*ADAPT, "--task", "clasify"), 2, "there is no task of that name", "'clasify'"),
    ((*ADAPT, "--text", "said"), 2, "a folder of files has no columns", "--text said"),
    ((*ADAPT, "--positive", "red"), 2, "--positive needs a target of exactly two classes", "'red' and 3 classes"),
    (("predict", "x"), 2, "there is nothing to predict", ""),
    (("adapt", "data", "--model", "data"), 4, "this folder holds no model", "data"),
    (("predict", "runs/x", "data"), 2, "there is no run in this folder", "runs/x"),
    (("predict", "x", "data", "--out", "x.txt"), 2, "predictions cannot be written in this form", "x.txt"),
]


@pytest.mark.parametrize(
    ("args", "code", "what", "saw"), REFUSALS, ids=lambda v: " ".join(v) if isinstance(v, tuple) else ""
)
def test_refusals(
    home: Path, capsys: pytest.CaptureFixture[str], args: Sequence[str], code: int, what: str, saw: str
) -> None:
    error = error_of(args, capsys)
    assert error["code"] == code and error["what"].startswith(what) and error["saw"].startswith(saw)
    spoken, out, err = call(args, capsys)
    assert spoken == code and out == "" and f"regraft: {what}" in err and (not saw or f"\n  saw: {saw}" in err)


@pytest.mark.parametrize(
    ("args", "what"),
    [
        ((*ADAPT, "--strateg", "probe"), "No such option: --strateg"),
        ((*ADAPT, "--seed", "many"), "'--seed'"),
        ((*ADAPT, "--strategy", "partial", "--partial.dept", "1"), "No such option: --partial.dept"),
        ((*ADAPT, "--strategy", "probe", "--nothing.depth", "1"), "No such option: --nothing.depth"),
        (("predict",), "Missing argument"),
        (("report", "run", "more"), "unexpected extra argument"),
        (("adpt", "data"), "No such command 'adpt'"),
    ],
)
def test_a_line_that_cannot_be_read_is_misuse(
    home: Path, capsys: pytest.CaptureFixture[str], args: Sequence[str], what: str
) -> None:
    error = error_of(args, capsys)
    verb = args[0] if args[0] != "adpt" else ""
    assert error["code"] == 2 and what in error["what"] and error["do"] == " ".join(f"regraft {verb} --help".split())


def test_near_options_are_shown(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--strategy" in error_of([*ADAPT, "--strateg", "probe"], capsys)["what"]
    assert "--partial.depth" in error_of([*ADAPT, "--partial.dept", "1"], capsys)["what"]


def test_a_bug_is_told_like_every_error(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(models, "open_model", broken)
    error = error_of(["predict", "x", "data"], capsys)
    assert (error["code"], error["what"], error["saw"]) == (1, "this is a bug in regraft", "ZeroDivisionError: by zero")
    code, _, err = call(["predict", "x", "data", "-v"], capsys)
    assert code == 1 and "Traceback" in err and "ZeroDivisionError" in err


def test_the_cause_is_shown_when_it_is_asked_for(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Traceback" not in call(["adapt", "dta", "--model", "m"], capsys)[2]
    assert "Traceback" in call(["adapt", "dta", "--model", "m", "--verbose"], capsys)[2]


def test_nothing_at_all_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, err = call([], capsys)
    assert "Commands:" in out + err and "�" not in out + err


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["--version"], capsys)[:2] == (0, "regraft 0.1.0\n")


@pytest.mark.parametrize(
    "args", [["--help"], ["adapt", "--strategy", "partial", "--help"], ["adapt", "no", "--model", "m"]]
)
def test_torch_stays_out_of_quick_answers(args: list[str]) -> None:
    script = "import sys\nfrom regraft import cli\ntry: cli.main(sys.argv[1:])\nfinally: print('torch' in sys.modules)"
    made = subprocess.run([sys.executable, "-c", script, *args], capture_output=True, text=True, check=False)
    assert made.stdout.endswith("False\n"), made.stderr


@pytest.mark.parametrize("name", ["no\u00a0break", "👩\u200d🔬", "a\u3000b", "\x1b[31m", "\u202e"])
def test_an_object_holds_names_as_they_are(home: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert error_of(["adapt", name, "--model", "model"], capsys)["saw"] == name


def test_errors_cannot_steer_a_terminal(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, _, err = call(["adapt", "\x1b[2J\nfake", "--model", "model"], capsys)
    assert "\x1b" not in err and "\nfake" not in err
