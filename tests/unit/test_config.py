"""`regraft config`: what holds and where it is from; files, variables and --set; the schema of a file."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from regraft.cli import config, knobs, settings
from regraft.kit import hardware, shelf
from regraft.planner.propose import knobs_of
from regraft.waist import Options, Reading
from tests.calls import call, error_of, object_of

Captured = pytest.CaptureFixture[str]

FILE = """
data = "digits"
model = "minilm"
strategy = ["probe", "partial"]
budget = "5m"
cache = false
allow-bad = 0.05

[reading]
max-rows = 40
order = ["low", "high"]

[probe]
lr = 0.01
schedule = "linear"

[full]
lr = 0.1

[evaluate]
split = "test"

[adapt]
seed = 3
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in, with a file of settings below it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "a.toml").write_text(FILE, "utf-8")
    return tmp_path


def held(capsys: Captured, *args: object) -> dict[str, tuple[Any, str]]:
    """Name → value and origin, as `config show` has them."""
    told = object_of(["config", "show", *args], capsys, "config show")
    return {name: (one["value"], one["origin"]) for part in ("options", "knobs") for name, one in told[part].items()}


def test_every_option_and_every_knob_is_there(capsys: Captured) -> None:
    found = held(capsys)
    assert {name.replace("_", "-") for name in (*Options.__slots__, *Reading.__slots__)} - {
        *("reading", "knobs", "strategies")
    } <= set(found)
    wanted = {f"{name}.{knob}" for name in shelf.names("strategies") for knob in knobs_of(name)}
    assert wanted == {name for name in found if "." in name}
    assert found["seed"] == (0, "default") and found["partial.depth"] == (2, "default")
    assert found["balance"][0] == "auto" and found["cache"][0] is True and found["out"][0] == "runs"


def test_the_table_says_what_each_is(capsys: Captured) -> None:
    code, out, _ = call(["config", "show"], capsys)
    assert code == 0 and "--max-tokens" in out and "how many of the last stages train." in out
    heads = [call(["config", "show", *more], capsys)[1].split("\n")[0].split() for more in ([], ["--origin"])]
    assert heads == [["option", "value", "what", "it", "is"], ["option", "value", "from", "what", "it", "is"]]


def test_a_flag_is_before_a_variable_before_a_file_before_the_default(
    home: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGRAFT_BUDGET", "2m")
    monkeypatch.setenv("REGRAFT_PROBE__EPOCHS", "4")
    monkeypatch.setenv("REGRAFT_PARTIAL_DEPTH", "1")
    monkeypatch.setenv("REGRAFT_SEED", "9")
    file = "etc/a.toml"
    found = held(capsys, "--config", file, "--set", "seed=5", "--set", "probe.epochs=7")
    assert found["seed"] == (5, "flag --set") and found["probe.epochs"] == (7, "flag --set")
    assert found["budget"] == ("2m", "REGRAFT_BUDGET") and found["partial.depth"] == (1, "REGRAFT_PARTIAL_DEPTH")
    assert found["probe.lr"] == (0.01, f"{file}: [probe] lr") and found["cache"] == (False, f"{file}: cache")
    assert found["max-rows"] == (40, f"{file}: [reading] max-rows") and found["refit"] == ("train", "default")
    assert held(capsys, "--config", file, "--set", "budget=12trials")["budget"] == ("12trials", "flag --set")
    monkeypatch.delenv("REGRAFT_SEED")
    assert held(capsys, "--config", file)["seed"] == (3, f"{file}: [adapt] seed")


def test_paths_in_a_file_are_relative_to_it(home: Path, capsys: Captured) -> None:
    assert held(capsys, "--config", "etc/a.toml")["data"][0] == "etc/digits"
    assert held(capsys, "--config", "etc/a.toml")["model"][0] == ["minilm"]
    (home / "etc" / "minilm").mkdir()
    assert held(capsys, "--config", "etc/a.toml")["model"][0] == ["etc/minilm"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{"seed": 3, "probe": {"lr": 0.01}}'),
        ("a.yaml", "seed: 3\nprobe:\n  lr: 0.01\n"),
        ("a.toml", "\ufeffseed = 3\nmax_rows = 5\nprobe.lr = 0.01\n"),
        ("a.json", '{"$schema": "x.json", "adapt": {"seed": 3, "probe.lr": 0.01}}'),
    ],
)
def test_files_of_every_form(home: Path, capsys: Captured, name: str, text: str) -> None:
    (home / name).write_text(text, "utf-8")
    found = held(capsys, "--config", name)
    assert (found["seed"][0], found["probe.lr"][0]) == (3, 0.01)


REFUSED: list[tuple[str, str, str, str]] = [
    ("sed = 3", "there is no setting of that name", "a.toml: sed", "did you mean seed?"),
    ("[probe]\nlrr = 1", "there is no setting of that name", "a.toml: [probe] lrr", "did you mean probe.lr?"),
    ("[prbe]\nlr = 1", "there is no setting of that name", "a.toml: [prbe] lr", "did you mean probe.lr?"),
    ("[evaluate]\nsplt = 'x'", "there is no setting of that name", "a.toml: [evaluate] splt", "did you mean split?"),
    ("fresh = true", "there is no setting of that name", "a.toml: fresh", "--fresh is said on the command line alone"),
    ("seed = '3'", "this is no value for seed", "a.toml: seed: '3'", "the default is 0"),
    ("seed = true", "this is no value for seed", "a.toml: seed: true", "the default is 0"),
    ("max-rows = -1", "this is no value for max-rows", "a.toml: max-rows: -1", "the default is 0"),
    ("[probe]\nlr = -1", "this is no value for probe.lr", "a.toml: [probe] lr: -1", "the default is 0.0"),
    ("balance = 'clases'", "this is no value for balance", "a.toml: balance: 'clases'", "did you mean classes?"),
    ("strategy = 'prbe'", "this is no value for strategy", "a.toml: strategy: 'prbe'", "did you mean probe?"),
    ("budget = 'soon'", "this is no value for budget", "a.toml: budget: 'soon'", "leave it out"),
    ("cache-size = '5m'", "this is no value for cache-size", "a.toml: cache-size: '5m'", "leave it out"),
    ("allow-bad = 7", "this is no value for allow-bad", "a.toml: allow-bad: 7", "the default is '1%'"),
    ("order = ['a,b']", "this is no value for order", "a.toml: order: ['a,b']", "leave it out"),
    ("target = 'a'\n[reading]\ntarget = 'b'", "a setting is said twice", "a.toml: [reading] target", "remove one"),
    ("seed =\nx = 1", "this is no TOML", "a.toml: Invalid value (at line 1", "mend the line"),
]


@pytest.mark.parametrize(("text", "what", "saw", "do"), REFUSED)
def test_a_file_that_cannot_be_is_refused(
    home: Path, capsys: Captured, text: str, what: str, saw: str, do: str
) -> None:
    (home / "a.toml").write_text(text, "utf-8")
    for args in (["config", "show"], ["adapt", "data", "--model", "m"]):
        error = error_of([*args, "--config", "a.toml"], capsys, " ".join(args[:2]) if args[0] == "config" else "adapt")
        assert error["code"] == 2 and error["what"] == what and error["saw"].startswith(saw)
        assert error["do"].startswith(do) and error["allowed"]


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("a.ini", "[x]", "settings are not read from such a file"),
        ("no.toml", "", "the file with the settings cannot be read"),
        ("a.json", "[1]", "this file holds no settings"),
        ("a.json", '{"seed": 1, "seed": 2}', "this is no JSON"),
        ("a.yaml", "a: [", "this is no YAML"),
        ("a.yaml", "!!python/object/apply:os.system ['true']", "this is no YAML"),
    ],
)
def test_a_file_of_another_form_is_refused(home: Path, capsys: Captured, name: str, text: str, what: str) -> None:
    if text:
        (home / name).write_text(text, "utf-8")
    assert error_of(["config", "show", "--config", name], capsys, "config show")["what"] == what


@pytest.mark.parametrize(
    ("name", "value", "saw"),
    [
        ("REGRAFT_SEED", "many", "REGRAFT_SEED: many"),
        ("REGRAFT_PROBE_LR", "-3", "REGRAFT_PROBE_LR: -3"),
        ("REGRAFT_THREADS", "0.5", "REGRAFT_THREADS: 0.5"),
        ("REGRAFT_USE_CACHE", "perhaps", "REGRAFT_USE_CACHE: perhaps"),
    ],
)
def test_a_variable_that_cannot_be_is_refused_by_its_name(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, name: str, value: str, saw: str
) -> None:
    monkeypatch.setenv(name, value)
    error = error_of(["adapt", "data", "--model", "m"], capsys)
    assert error["code"] == 2 and error["saw"] == saw and error["allowed"]


def test_a_variable_that_sets_nothing_is_said_once_and_ends_nothing(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGRAFT_BUGDET", "5m")
    code, _, err = call(["config", "show"], capsys)
    assert code == 0 and err == "regraft: REGRAFT_BUGDET sets nothing: did you mean REGRAFT_BUDGET?\n"


@pytest.mark.parametrize(
    ("args", "what"),
    [
        (["--set", "sed=3"], "there is no setting of that name"),
        (["--set", "seed"], "--set takes a name and a value"),
        (["--set", "seed=x"], "this is no value for seed"),
        (["--seed", "3", "--set", "seed=3"], "a setting is said twice"),
    ],
)
def test_set_is_checked_like_a_flag(capsys: Captured, args: list[str], what: str) -> None:
    error = error_of(["adapt", "data", "--model", "m", *args], capsys)
    assert (error["code"], error["what"]) == (2, what)


def test_a_verb_that_is_not_there_is_misuse(capsys: Captured) -> None:
    error = error_of(["config", "shwo"], capsys, "config")
    assert error["code"] == 2 and "No such command 'shwo'" in error["what"] and error["do"] == "regraft config --help"


# ---------------------------------------------------------------- schema


def breach(value: Any, schema: dict[str, Any], at: str = "$") -> str:
    """What of a JSON value is against a schema of the words that ours has; "" for nothing."""
    if "anyOf" in schema:
        told = [breach(value, one, at) for one in schema["anyOf"]]
        return "" if "" in told else told[0]
    if "enum" in schema and value not in schema["enum"]:
        return f"{at}: {value!r} is none of {schema['enum']}"
    kinds: dict[str, Any] = {"string": str, "integer": int, "number": (int, float), "boolean": bool}
    kinds |= {"array": list, "object": dict}
    kind = schema.get("type")
    if kind and (not isinstance(value, kinds[kind]) or (isinstance(value, bool) and kind != "boolean")):
        return f"{at}: {value!r} is no {kind}"
    if value < schema["minimum"] if "minimum" in schema else False:
        return f"{at}: {value!r} is below {schema['minimum']}"
    for key, inside in value.items() if kind == "object" else ():
        if key not in schema["properties"]:
            return f"{at}: {key} is unknown"
        if told := breach(inside, schema["properties"][key], f"{at}.{key}"):
            return told
    return next((told for one in value if (told := breach(one, schema["items"], at))), "") if kind == "array" else ""


def test_the_schema_takes_what_the_command_takes(capsys: Captured) -> None:
    code, out, _ = call(["config", "schema"], capsys)
    made = json.loads(out)
    assert code == 0 and breach(tomllib.loads(FILE), made) == ""
    for text in (
        "sed = 3",
        "seed = '3'",
        "balance = 'clases'",
        "max-rows = -1",
        "[probe]\nlr = -1.0",
        "[prbe]\nlr = 1",
    ):
        assert breach(tomllib.loads(text), made), text


def test_the_schema_describes_every_setting(capsys: Captured) -> None:
    made = json.loads(call(["config", "schema"], capsys)[1])
    told = knobs.known(config.VERBS, shelf.names("strategies"))["adapt"]
    for one in told.values():
        inside = made["properties"][one.table]["properties"] if one.table else made["properties"]
        assert inside[one.key]["description"] == one.help and inside[one.key]["default"] == one.default
    assert made["properties"]["balance"]["enum"] == ["auto", "none", "classes"]


def test_the_machines_settings_reach_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("REGRAFT_THREADS", "REGRAFT_CACHE", "REGRAFT_CACHE_SIZE"):
        monkeypatch.setenv(name, "")
    assert hardware.cache_bytes() == 10_000_000_000
    hardware.choose(3, str(tmp_path), "500MB")
    assert (hardware.threads(), hardware.cache_folder(), hardware.cache_bytes()) == (3, tmp_path, 500_000_000)
    hardware.choose()
    assert hardware.threads() == 3
    assert settings.variables("threads") == ("REGRAFT_THREADS",)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What `regraft advise` would do: its options and models; it ends there."""
    from regraft import ahead
    from regraft.errors import UsageError

    held: list[Any] = []

    def noted(options: Options, needs: Any, hourly: float, on: str, data: str, named: Any, zoo: str) -> None:
        held[:] = [options, list(named), zoo]
        raise UsageError("this is as far as it goes")

    monkeypatch.setattr(ahead, "advice", noted)
    return held


def test_advise_takes_what_means_the_same_in_adapt(
    home: Path, asked: list[Any], capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGRAFT_THREADS", "")
    text = 'model = "net"\nseed = 3\nlong = "ends"\nmax-rows = 9\nzoo = "zoo"\n'
    (home / "etc" / "b.toml").write_text(text.replace("zoo =", "[advise]\nzoo ="), "utf-8")
    (home / "etc" / "net").mkdir()
    error_of(["advise", "d", "--config", "etc/b.toml", "--metric", "f1", "--threads", 1, "--max-tokens", 7], capsys)
    options, models, zoo = asked
    assert (models, zoo, options.model) == (["etc/net"], "etc/zoo", "etc/net") and hardware.threads() == 1
    assert (options.seed, options.long, options.metric, options.max_tokens) == (3, "ends", "f1", 7)
    assert options.reading.max_rows == 9 and options.precision == "fp32"


def test_several_models_come_from_anywhere(
    home: Path, asked: list[Any], capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "c.toml").write_text('[advise]\nmodel = ["a", "b, c"]\n', "utf-8")
    for more, models in (
        (["--config", "c.toml"], ["a", "b, c"]),
        (["--set", "model=a", "--set", "model=b"], ["a", "b"]),
        (["--model", "a", "--model", "b", "--model", "a"], ["a", "b"]),
    ):
        error_of(["advise", "d", *more], capsys)
        assert asked[1] == models
    monkeypatch.setenv("REGRAFT_MODEL", "net")
    error_of(["advise", "d"], capsys)
    assert asked[1] == ["net"]
