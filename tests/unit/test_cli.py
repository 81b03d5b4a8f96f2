"""The command line: exit codes, one object for scripts, options of strategies, text that cannot steer a terminal."""

from __future__ import annotations

import dataclasses
import io
import json
import signal
import subprocess
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import pytest

from regraft import api, cli
from regraft.errors import Interrupted, ModelError, UsageError
from regraft.waist import (
    Cost,
    DataCard,
    Epoch,
    Filled,
    Finished,
    Options,
    Phase,
    PhaseDone,
    Plan,
    Reading,
    Said,
    Score,
    Scored,
    Step,
    Target,
    Trial,
    Verdict,
)
from tests import places

SCORES = tuple(Score("accuracy", split, 0.5, 0.4, 0.6, 9) for split in ("val", "test"))
TRIAL = Trial(Plan("probe", (Phase(1, 0, (("*", 1.0),)),)), 0, SCORES, (), Cost(1.25, 1), "", "")


def call(args: Sequence[object], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Run the command in this process: exit code, standard output, standard error."""
    with pytest.raises(SystemExit) as ended:
        cli.main([str(arg) for arg in args])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def error_of(args: Sequence[object], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The error object that `--json` prints; nothing else is printed."""
    code, out, err = call([*args, "--json"], capsys)
    told = json.loads(out)
    assert err == "" and told["ok"] is False and told["schema"] == 1 and told["command"] == args[0]
    assert told["error"]["code"] == code
    error: dict[str, Any] = told["error"]
    return error


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


# ---------------------------------------------------------------- refusals

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
        (("adapt", "data", "more"), "unexpected extra argument"),
        (("adpt", "data"), "No such command 'adpt'"),
    ],
)
def test_a_line_that_cannot_be_read_is_misuse(
    home: Path, capsys: pytest.CaptureFixture[str], args: Sequence[str], what: str
) -> None:
    error = error_of(args, capsys)
    assert error["code"] == 2 and what in error["what"] and error["do"] == f"regraft {args[0]} --help"


def test_near_options_are_shown(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--strategy" in error_of([*ADAPT, "--strateg", "probe"], capsys)["what"]
    assert "--partial.depth" in error_of([*ADAPT, "--partial.dept", "1"], capsys)["what"]


def test_a_bug_is_told_like_every_error(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(api, "open_model", broken)
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


@pytest.mark.parametrize(("decision", "code"), [("ship", 0), ("warn", 0), ("refuse", 7)])
@pytest.mark.parametrize("more", [[], ["--json"]], ids=["text", "json"])
def test_a_refused_result_has_its_own_exit_code(
    home: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    decision: Any,
    code: int,
    more: list[str],
) -> None:
    made = api.Run(
        home / "r",
        DataCard("d", "image", "f", Target("label", "class", ("a", "b"), (1, 1)), (("train", 2),)),
        (TRIAL,),
        Verdict(decision, 0, "the only plan", "nothing", (), ()),
        home / "r" / "bundle",
        home / "r" / "report.md",
    )

    def steps(*_: object, **__: object) -> Generator[Any, None, api.Run]:
        yield Said("x")
        return made

    monkeypatch.setattr(api, "steps", steps)
    found, out, _ = call([*ADAPT, *more], capsys)
    assert found == code and decision in out
    assert ("regraft predict" in out) == (decision != "refuse")


# ---------------------------------------------------------------- options of strategies


def test_help_shows_a_strategys_own_options(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(["adapt", "--strategy", "partial", "--help"], capsys)
    assert code == 0 and "--partial.depth" in out and "how many of the last stages train. [default: 2]" in out
    assert "--probe.lr" not in out
    assert "--partial.lr" not in call(["adapt", "--help"], capsys)[1]


@pytest.mark.parametrize(
    "args", [["--help"], ["adapt", "--strategy", "partial", "--help"], ["adapt", "no", "--model", "m"]]
)
def test_torch_stays_out_of_quick_answers(args: list[str]) -> None:
    script = "import sys\nfrom regraft import cli\ntry: cli.main(sys.argv[1:])\nfinally: print('torch' in sys.modules)"
    made = subprocess.run([sys.executable, "-c", script, *args], capture_output=True, text=True, check=False)
    assert made.stdout.endswith("False\n"), made.stderr


def test_knobs_reach_the_request(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Any] = []

    def steps(options: Any, out: Path, **_: Any) -> Generator[Any, None, None]:
        seen.append((options, out))
        raise ModelError("enough")
        yield

    monkeypatch.setattr(api, "steps", steps)
    args = [*ADAPT, "--strategy", "partial", "--strategy=probe", "--partial.depth=1", "--probe.lr", "0.5", "--no-cache"]
    assert call([*args, "--seed", "3", "--out", "there"], capsys)[0] == 4
    ((options, out),) = seen
    assert options.strategies == ("partial", "probe") and out == Path("there")
    assert options.knobs == (("partial.depth", "1"), ("probe.lr", "0.5"))
    assert (options.seed, options.cache, options.precision) == (3, False, "fp32")


FLAGS: dict[str, tuple[str, Any]] = {
    "--target": ("y", {"target": "y"}),
    "--text": ("a, b", {"text": ("a", "b")}),
    "--image": ("file_name", {"image": "file_name"}),
    "--group": ("who", {"group": "who"}),
    "--sensitive": ("sex,age", {"sensitive": ("sex", "age")}),
    "--time": ("day", {"time": "day"}),
    "--task": ("ordinal", {"task": "ordinal"}),
    "--val": ("v.csv", {"val": "v.csv"}),
    "--test": ("t.csv", {"test": "t.csv"}),
    "--max-rows": ("30", {"max_rows": 30}),
    "--positive": ("yes", {"positive": "yes"}),
    "--order": ("low, mid,high", {"order": ("low", "mid", "high")}),
    "--metric": ("f1", "f1"),
    "--balance": ("classes", "classes"),
    "--long": ("windows", "windows"),
    "--max-tokens": ("64", 64),
    "--arch": ("timm/resnet18", "timm/resnet18"),
    "--precision": ("auto", "auto"),
}


@pytest.mark.parametrize("flag", FLAGS)
def test_every_option_reaches_the_request(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    seen: list[Options] = []

    def steps(options: Options, _out: Path, **_: Any) -> Generator[Any, None, None]:
        seen.append(options)
        raise ModelError("enough")
        yield

    monkeypatch.setattr(api, "steps", steps)
    said, wanted = FLAGS[flag]
    assert call([*ADAPT, flag, said], capsys)[0] == 4
    usual = Options("data", "model", strategies=api.STRATEGIES)
    if isinstance(wanted, dict):
        assert seen == [dataclasses.replace(usual, reading=Reading(**wanted))]
    else:
        assert seen == [dataclasses.replace(usual, **{flag[2:].replace("-", "_"): wanted})]
    if flag not in ("--precision",):
        error = error_of(["adapt", "--resume", "runs/x", flag, said], capsys)
        assert error["what"] == "--resume takes its request from the run"


@pytest.mark.parametrize(("flag", "said"), [("--max-rows", "-1"), ("--max-rows", "many"), ("--max-tokens", "few")])
def test_a_number_that_is_none_is_misuse(home: Path, capsys: pytest.CaptureFixture[str], flag: str, said: str) -> None:
    assert f"'{flag}'" in error_of([*ADAPT, flag, said], capsys)["what"]


# ---------------------------------------------------------------- predicting


class Echo:
    """A model that answers with what it was asked."""

    def __init__(self, columns: tuple[str, ...] = ("text",), literal: bool = True) -> None:
        self.columns, self.literal = columns, literal

    def predict(self, cells: list[Any]) -> list[dict[str, Any]]:
        return [
            {"id": str(i), "label": f"{type(c).__name__}:{c}", "confidence": 0.5, "probabilities": {"x": 0.5}}
            for i, c in enumerate(cells)
        ]


def asked(
    args: Sequence[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    model: Echo,
    said: str = "",
) -> list[str]:
    """The cells that a predict command hands to the model."""
    monkeypatch.setattr(api, "open_model", lambda _: model)
    monkeypatch.setattr(sys, "stdin", io.StringIO(said))
    code, out, _ = call(["predict", "run", *args, "--json"], capsys)
    assert code == 0, out
    told = json.loads(out)
    assert list(told) == ["schema", "command", "ok", "run", "predictions"] and told["run"] == "run"
    return [answer["label"] for answer in told["predictions"]]


KIND = type(Path()).__name__
ASKED: list[tuple[list[str], Echo, str, list[str]]] = [
    (["a.txt", "b"], Echo(), "", [f"{KIND}:a.txt", f"{KIND}:b"]),
    (["--text", "a rose", "--text", "the sea"], Echo(), "", ["str:a rose", "str:the sea"]),
    (["t.csv", "--text", "-"], Echo(), "", [f"{KIND}:t.csv", "str:-"]),
    (["-"], Echo(), "one\n\ntwo\tthree\n", ["str:one", "str:two\tthree"]),
    (["a.txt", "-", "b.txt"], Echo(), "one\n", [f"{KIND}:a.txt", "str:one", f"{KIND}:b.txt"]),
    (["-"], Echo((), False), "a.png\nb c.png\n", [f"{KIND}:a.png", f"{KIND}:b c.png"]),
    (["-"], Echo(("x", "y")), "one\ttwo\n", ["tuple:('one', 'two')"]),
    (["--text", "one", "--text", "two"], Echo(("x", "y")), "", ["tuple:('one', 'two')"]),
]


@pytest.mark.parametrize(("args", "model", "said", "cells"), ASKED, ids=[" ".join(a[0]) for a in ASKED])
def test_what_is_asked_becomes_cells(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    args: list[str],
    model: Echo,
    said: str,
    cells: list[str],
) -> None:
    assert asked(args, capsys, monkeypatch, model, said) == cells


@pytest.mark.parametrize(
    ("args", "model", "said", "what"),
    [
        (["--text", "one"], Echo(("x", "y")), "", "a pair lacks its second text"),
        (["-"], Echo(("x", "y")), "one\n", "a line holds no pair"),
        (["--text", "one"], Echo((), False), "", "this model reads no texts"),
    ],
)
def test_what_is_no_cell_is_refused(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    args: list[str],
    model: Echo,
    said: str,
    what: str,
) -> None:
    monkeypatch.setattr(api, "open_model", lambda _: model)
    monkeypatch.setattr(sys, "stdin", io.StringIO(said))
    error = error_of(["predict", "run", *args], capsys)
    assert (error["code"], error["what"]) == (2, what)


def test_answers_of_every_task_are_shown_as_a_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answers = {
        "labels": {"id": "a", "labels": ["x", "y"], "confidence": 0.5, "probabilities": {"x": 0.5}},
        "value": {"id": "a", "value": -3.25, "low": -4.0, "high": -2.5},
        "rank": {"id": "a", "label": "2", "confidence": 0.5, "probabilities": {"2": 0.5}, "rank": 1.5},
    }
    shown = {
        "labels": ["id", "labels", "confidence", "a", "x, y", "0.500"],
        "value": ["id", "value", "low", "high", "a", "-3.250", "-4.000", "-2.500"],
        "rank": ["id", "label", "confidence", "rank", "a", "2", "0.500", "1.500"],
    }
    for kind, answer in answers.items():
        model = Echo()
        monkeypatch.setattr(model, "predict", lambda _, answer=answer: [answer])
        monkeypatch.setattr(api, "open_model", lambda _, model=model: model)
        code, out, _ = call(["predict", "run", "--text", "a", "--out", tmp_path / f"{kind}.csv"], capsys)
        assert code == 0 and " ".join(out.split()) == " ".join(shown[kind])
        assert (tmp_path / f"{kind}.csv").read_bytes().decode() == api.as_csv([answer])
        assert call(["predict", "run", "--text", "a", "--out", tmp_path / "x.jsonl"], capsys)[0] == 0
        assert json.loads((tmp_path / "x.jsonl").read_text()) == answer


def test_all_strategies_run_when_none_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def steps(options: Any, _out: Path, **_: Any) -> Generator[Any, None, None]:
        raise UsageError(",".join(options.strategies), str(options.knobs))
        yield

    monkeypatch.setattr(api, "steps", steps)
    error = error_of([*ADAPT, "--partial.depth", "1"], capsys)
    assert (error["what"], error["saw"]) == ("probe,partial,scratch", "(('partial.depth', '1'),)")


@pytest.mark.parametrize(
    ("args", "found"),
    [
        (["adapt"], []),
        (["adapt", "--strategy"], []),
        (["--strategy", "probe", "--strategy=partial", "--strategy", "probe"], ["probe", "partial"]),
        (["--partial.depth", "2", "--scratch.lr=3"], ["partial", "scratch"]),
        (["--strategy", "prbe", "--prbe.lr", "1"], []),
        (["--strategy", "mine.zip", "--zip.lr", "1"], ["mine.zip"]),
        (["runs/a.b", "--out", "x.csv"], []),
    ],
)
def test_strategies_are_found_before_the_line_is_parsed(args: list[str], found: list[str]) -> None:
    assert cli._asked(args, "--strategy") == found


def test_a_docstring_says_what_each_knob_is() -> None:
    class Knobs:
        """depth: how many stages: two is usual. lr: rate.

        norm: keep or update.
        """

        depth: int = 2
        lr: float = 0.1
        norm: str = "keep"
        silent: int = 0

    assert cli._sayings(Knobs) == {"depth": "how many stages: two is usual.", "lr": "rate.", "norm": "keep or update."}


# ---------------------------------------------------------------- text and screen


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("größe 🐜 × …", "größe 🐜 × …"),
        ("\x1b[31mred\x07", "�[31mred�"),
        ("a\nb\r\tc", "a�b��c"),
        ("\u202eevil", "�evil"),
    ],
)
def test_control_characters_are_shown_and_not_sent(text: str, shown: str) -> None:
    assert cli.clean(text) == shown


@pytest.mark.parametrize("name", ["no\u00a0break", "👩\u200d🔬", "a\u3000b", "\x1b[31m", "\u202e"])
def test_an_object_holds_names_as_they_are(home: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert error_of(["adapt", name, "--model", "model"], capsys)["saw"] == name


def test_errors_cannot_steer_a_terminal(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, _, err = call(["adapt", "\x1b[2J\nfake", "--model", "model"], capsys)
    assert "\x1b" not in err and "\nfake" not in err


def test_events_become_calm_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "EVERY_S", -1.0)
    screen = cli.Screen()
    for event in (
        Said("hello\x1b"),
        Filled(3, 8, 20),
        Step(0, 3, 9, 1.5, 0.1),
        Scored(Epoch(0, 1, 0.5, 0.25, 0.75)),
        PhaseDone(0, 12),
        PhaseDone(1, 0),
        Finished(TRIAL),
    ):
        screen.event(event)
    assert capsys.readouterr().err.splitlines() == [
        "hello�",
        "  trunk: 8/20 examples",
        "  step 3/9: loss 1.5000",
        "  epoch 2: loss 0.5000, validation 0.750",
        "  12 frozen tensors hashed before and after: unchanged",
        "  probe: validation 0.500, 1.2 s",
    ]


def test_a_quiet_screen_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    screen = cli.Screen(quiet=True)
    screen.event(Said("hello"))
    screen.event(Step(0, 3, 9, 1.5, 0.1))
    assert capsys.readouterr() == ("", "")


def test_a_table_keeps_long_cells(capsys: pytest.CaptureFixture[str]) -> None:
    cli.Screen().table(["id", "label"], [["a/" + "long" * 20 + ".png", "[bold]x[/]\x1b"]])
    out = capsys.readouterr().out
    assert "long" * 20 in out and "[bold]x[/]�" in out and "\x1b" not in out


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_a_run_at_its_next_step(number: signal.Signals, code: int) -> None:
    closed: list[int] = []

    def work() -> Generator[Any, None, None]:
        try:
            for i in range(9):
                if i == 2:
                    signal.raise_signal(number)
                yield Said(str(i))
        except GeneratorExit:
            closed.append(i)
            raise

    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match="what was done is kept · do: run the same command again") as caught:
        cli.Screen(quiet=True).watch(work())
    assert caught.value.code == code and closed == [2] and signal.getsignal(number) is before


def test_watching_gives_what_the_work_made() -> None:
    def work() -> Generator[Any, None, int]:
        yield Said("x")
        return 7

    assert cli.Screen(quiet=True).watch(work()) == 7
