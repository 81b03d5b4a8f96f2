"""The command line from end to end on small pictures: adapt, read, predict, resume."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from regraft.embedded import folder
from regraft.embedded.digits import write_digits
from regraft.kit import shelf
from tests import places
from tests.calls import regraft, told

pytestmark = pytest.mark.timeout(1200)  # each command starts a process or two: slow where the machine is busy


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, a model and one finished run of the probe."""
    place = tmp_path_factory.mktemp("journey")
    places.pictures(place / "data")
    places.model(place / "model")
    regraft("adapt", "data", "--model", "model", "--strategy", "probe", "--probe.epochs", "5", cwd=place)
    return place


def probe(*more: object) -> list[object]:
    return ["adapt", "data", "--model", "model", "--strategy", "probe", "--probe.epochs", "5", *more]


def test_a_finished_run_is_read_as_one_object(home: Path) -> None:
    found = told(regraft(*probe("--json"), cwd=home))
    parts = ["schema", "command", "ok", "run", "data", "flags", "bad", "trials", "verdict", "comparisons", "account"]
    assert list(found) == [*parts, "report", "next"]
    assert (found["account"]["trials"], found["account"]["skipped"]) == (1, []) and found["account"]["seconds"] > 0
    assert found["verdict"]["rule"] == "the only plan that was run" and found["comparisons"] == []
    assert found["ok"] is True and found["command"] == "adapt"
    run = home / found["run"]
    assert found["run"].startswith("runs/data-model-") and len(found["run"].rsplit("-", 1)[1]) == 6
    assert found["report"] == f"{found['run']}/report.html"
    assert (run / "report.md").read_text("utf-8").startswith("# data on model")
    assert [row["split"] for row in found["trials"][0]["scores"]] == ["val"] * 3 + ["test"] * 3
    assert found["trials"][0]["cost"]["trainable"] == 16 * 3 + 3
    for name in (
        "options.json",
        "data.json",
        "machine.json",
        "plans.json",
        "trials.json",
        "account.json",
        "examined.json",
        "clock.json",
        "report.html",
        "splits.csv",
        "events.jsonl",
        "verdict.json",
    ):
        assert (run / name).stat().st_size > 0, name
    for line in (run / "events.jsonl").read_text("utf-8").splitlines():
        assert {"t", "event"} <= set(json.loads(line))


def test_fresh_starts_beside_it_and_ends_with_the_same_bits(home: Path) -> None:
    first = told(regraft(*probe("--json"), cwd=home))
    second = told(regraft(*probe("--json", "--fresh"), cwd=home))
    assert second["run"] == first["run"] + "-2"
    names = [t["trials"][0]["snapshot"] for t in (first, second)]
    assert (home / first["run"] / names[0]).read_bytes() == (home / second["run"] / names[1]).read_bytes()


def test_a_grid_on_real_digits_tells_what_it_chose(tmp_path: Path) -> None:
    write_digits(tmp_path / "made", 0).rename(tmp_path / "digits")
    asked = ["adapt", "digits", "--model", folder(), "--strategy", "probe", "--probe.by", "grid", "--json"]
    found = told(regraft(*asked, cwd=tmp_path))
    (trial,) = found["trials"]
    (note,) = [note for note in trial["notes"] if note.startswith("head chosen on the training rows among 52 settings")]
    assert "momentum" in note and trial["plan"]["optimizer"]["name"] == "grid" and found["ok"]
    assert next(score["value"] for score in trial["scores"] if score["split"] == "val") > 0.9
    assert "grid of 52 settings" in (tmp_path / found["run"] / "report.md").read_text("utf-8")
    assert told(regraft(*asked, cwd=tmp_path))["trials"] == found["trials"], "a finished run is read"


def test_resume_reads_by_name_and_insists(home: Path) -> None:
    run = told(regraft(*probe("--json"), cwd=home))["run"]
    assert told(regraft("adapt", "--resume", run, "--json", cwd=home))["run"] == run
    assert told(regraft("adapt", "--resume", f"../{run}", "--json", cwd=home / "data"))["run"] == f"../{run}"
    error = told(regraft("adapt", "--resume", run[:-1], "--json", cwd=home, code=2))["error"]
    assert error["code"] == 2 and run in error["do"]
    regraft("adapt", "data", "--resume", run, cwd=home, code=2)


def test_predict_prints_and_writes(home: Path) -> None:
    run = told(regraft(*probe("--json"), cwd=home))["run"]
    made = regraft("predict", run, "data/test/red/0.png", "data/test/blue", "--out", "out.csv", cwd=home)
    assert "data/test/red/0.png" in made.stdout
    with (home / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["data/test/red/0.png", *(f"data/test/blue/{i}.png" for i in range(6))]
    for row in rows:
        probabilities = json.loads(row["probabilities"])
        assert abs(sum(probabilities.values()) - 1) < 1e-5
        assert max(probabilities, key=probabilities.__getitem__) == row["label"]
    regraft("predict", f"{run}/bundle", "data/test/red", "--out", "out.jsonl", cwd=home)
    lines = [json.loads(line) for line in (home / "out.jsonl").read_text("utf-8").splitlines()]
    assert len(lines) == 6 and set(lines[0]) == {"id", "label", "confidence", "probabilities"}
    asked = told(regraft("predict", run, "data/test/red", "--json", cwd=home))
    assert [p["label"] for p in asked["predictions"]] == [line["label"] for line in lines]


def test_transformers_alone_predicts_the_same(home: Path) -> None:
    run = told(regraft(*probe("--json"), cwd=home))["run"]
    ours = told(regraft("predict", run, "data/test", "--json", cwd=home))["predictions"]
    script = """
import json, sys
from transformers import AutoModelForImageClassification, pipeline
model = AutoModelForImageClassification.from_pretrained(sys.argv[1], local_files_only=True)
classify = pipeline("image-classification", model=sys.argv[1], device="cpu")
found = [classify(path, top_k=1)[0] for path in sys.argv[2:]]
print(json.dumps({"labels": model.config.id2label, "found": found, "ours": "regraft" in sys.modules}))
"""
    command = [sys.executable, "-c", script, str(home / run / "bundle"), *(str(home / p["id"]) for p in ours)]
    made = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    theirs = json.loads(made.stdout.strip().splitlines()[-1])
    assert list(theirs["labels"].values()) == list(places.LABELS) and theirs["ours"] is False
    assert [p["label"] for p in theirs["found"]] == [p["label"] for p in ours]
    assert all(abs(a["score"] - b["confidence"]) < 1e-4 for a, b in zip(theirs["found"], ours, strict=True))


def test_from_python(home: Path) -> None:
    script = """
import json, sys
import regraft
run = regraft.adapt("data", model="model", strategies=["probe"], knobs={"probe.epochs": 5})
again = regraft.open(run.folder)
bundle = regraft.open(run.bundle)
path = "data/test/red/0.png"
assert run.predict(path) == again.predict([path]) == bundle.predict(path)
from PIL import Image
assert bundle.predict(Image.open(path))[0]["probabilities"] == run.predict(path)[0]["probabilities"]
print(run.verdict.decision, run.winner.score("test").n)
"""
    made = subprocess.run([sys.executable, "-c", script], cwd=home, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    assert made.stdout.split()[1] == "18"


def test_the_first_line_comes_before_torch(home: Path) -> None:
    script = """
import sys
from regraft.flow import steps
from regraft.waist import Options
from pathlib import Path
first = next(steps(Options("data", "model", strategies=("probe",)), Path("elsewhere")))
print(first.text, "torch" in sys.modules, "transformers" in sys.modules)
"""
    made = subprocess.run([sys.executable, "-c", script], cwd=home, capture_output=True, text=True, check=True)
    assert made.stdout.strip().endswith("False False") and "60 pictures in 3 classes" in made.stdout


def test_dry_run_touches_nothing(home: Path) -> None:
    before = sorted(home.rglob("*"))
    made = regraft("adapt", "data", "--model", "model", "--strategy", "partial", "--dry-run", cwd=home)
    assert "partial" in made.stdout
    assert sorted(home.rglob("*")) == before
    asked = [word for name in ("probe", "partial", "asis") for word in ("--strategy", name)]
    plans = told(regraft("adapt", "data", "--model", "model", *asked, "--dry-run", "--json", cwd=home))["plans"]
    assert [plan["plan"]["strategy"] for plan in plans] == ["probe", "partial", "asis"]
    assert [plan["trainable"] for plan in plans][::2] == [51, 0] and plans[0]["frontier"] == 4
    every = told(regraft("adapt", "data", "--model", "model", "--dry-run", "--json", cwd=home))["plans"]
    named = {name for name in shelf.names("strategies") if vars(shelf.find("strategies", name)).get("NAMED")}
    assert {plan["plan"]["strategy"] for plan in every} == {*shelf.names("strategies")} - named, "these are asked for"
    assert [plan["label"] for plan in every][:3] == ["scratch plain c 10", "scratch plain c 1", "asis centroids"]
    assert sorted(home.rglob("*")) == before


def test_a_bundle_is_a_model_to_adapt_further(home: Path) -> None:
    run = told(regraft(*probe("--json"), cwd=home))["run"]
    found = told(
        regraft(
            "adapt",
            "data",
            "--model",
            f"{run}/bundle",
            "--strategy",
            "probe",
            "--probe.epochs",
            "2",
            "--json",
            cwd=home,
        )
    )
    assert found["ok"] and found["run"].startswith("runs/data-bundle-")
