"""The command line from end to end on texts, pairs, several labels and numbers; some with the weights of ../shared."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests import checkpoints, places
from tests.journeys.test_adapt import regraft, told

pytestmark = pytest.mark.timeout(1200)  # each command starts a process or two: slow where the machine is busy
MINILM = "models/all_minilm_l6_v2"


def readme(bundle: Path, inputs: list[Any]) -> list[Any]:
    """What the lines of a bundle's README leave for other inputs, run alone beside the bundle."""
    (code,) = re.findall(r"```python\n(.*?)```", (bundle / "README.md").read_text("utf-8"), re.DOTALL)
    first, rest = code.split("\n", 1)
    assert first.startswith("folder, inputs = ")
    given = f"folder, inputs = '.', {inputs!r}\n"
    end = "\nimport json, sys\nprint('\\n' + json.dumps([outputs, 'regraft' in sys.modules]))"
    made = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", given + rest + end],
        cwd=bundle,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    outputs, ours = json.loads(made.stdout.strip().splitlines()[-1])
    assert ours is False
    found: list[Any] = outputs
    return found


def answers(made: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = told(made)["predictions"]
    return found


def piped(*args: object, cwd: Path, said: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """The command with something on its standard input."""
    command = [sys.executable, "-m", "regraft.cli", *map(str, args)]
    made = subprocess.run(command, cwd=cwd, input=said, capture_output=True, text=True, timeout=600, check=False)
    assert made.returncode == code, made.stderr
    return made


def plain(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in answer.items() if k != "id"} for answer in found]


# ---------------------------------------------------------------- real weights


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("texts")


def test_questions_on_minilm(shared: Path, place: Path) -> None:
    asked = ["adapt", shared / "data/trec_questions", "--model", shared / MINILM, "--strategy", "probe"]
    asked += ["--probe.epochs", "20", "--max-rows", "300"]
    made = regraft(*asked, cwd=place)
    said = made.stderr
    assert "300 of " in said and "rows kept, --max-rows" in said and "texts" in said.splitlines()[0]
    assert "texts are padded to 16 tokens" in said and "balanced_accuracy decides" in said
    found = told(regraft(*asked, "--json", cwd=place))
    assert found["data"]["modality"] == "text" and found["data"]["columns"] == ["text"]
    trials = {trial["plan"]["pooling"]: trial for trial in found["trials"]}
    assert set(trials) == {"mean", "native"}
    winner = found["trials"][found["verdict"]["winner"]]
    scores = {(s["split"], s["metric"]): s["value"] for s in winner["scores"]}
    assert winner["plan"]["pooling"] == "mean" and scores["test", "accuracy"] >= 0.5, "the largest class has a fifth"

    run, bundle = found["run"], place / found["run"] / "bundle"
    questions = ["Who wrote Faust ?", "How far is the moon ?", "What does NASA stand for ?"]
    flags = [word for question in questions for word in ("--text", question)]
    ours = answers(regraft("predict", run, *flags, "--json", cwd=place))
    assert [a["id"] for a in ours] == ["0", "1", "2"]
    assert plain(answers(piped("predict", run, "-", "--json", cwd=place, said="\n".join(questions)))) == plain(ours)
    places.sheet(place / "asked.csv", ("n", "text"), [(str(i), q) for i, q in enumerate(questions)])
    assert plain(answers(regraft("predict", run, "asked.csv", "--json", cwd=place))) == plain(ours)
    regraft("predict", run, "asked.csv", "--out", "answers.csv", cwd=place)
    with (place / "answers.csv").open(newline="") as file:
        assert [row["label"] for row in csv.DictReader(file)] == [a["label"] for a in ours]
    for answer, theirs in zip(ours, readme(bundle, questions), strict=True):
        assert theirs == pytest.approx(answer["probabilities"], abs=1e-3)
    piped("predict", run, "-", cwd=place, said="", code=2)


@pytest.mark.slow
def test_alike_pairs_on_minilm(shared: Path, place: Path) -> None:
    asked = ["adapt", shared / "data/stsb", "--model", shared / MINILM, "--strategy", "probe", "--max-rows", "200"]
    asked += ["--target", "score", "--text", "sentence1,sentence2", "--metric", "spearman"]
    found = told(regraft(*asked, "--probe.pooling", "mean", "--probe.epochs", "30", "--json", cwd=place))
    assert found["data"]["columns"] == ["sentence1", "sentence2"] and found["data"]["target"]["kind"] == "number"
    (trial,) = found["trials"]
    scores = {(s["split"], s["metric"]): s["value"] for s in trial["scores"]}
    assert scores["test", "spearman"] >= 0.5, "the cosine of the same embeddings reaches 0.8 without any training"
    run, bundle = found["run"], place / found["run"] / "bundle"
    pairs = [("A man plays a guitar.", "A man is playing guitar."), ("A dog runs.", "The price of oil fell.")]
    flags = [word for pair in pairs for text in pair for word in ("--text", text)]
    alike, apart = answers(regraft("predict", run, *flags, "--json", cwd=place))
    assert alike["value"] > apart["value"] and alike["low"] < alike["value"] < alike["high"]
    said = "".join(f"{a}\t{b}\n" for a, b in pairs)
    assert plain(answers(piped("predict", run, "-", "--json", cwd=place, said=said))) == plain([alike, apart])
    assert readme(bundle, pairs) == pytest.approx([alike["value"], apart["value"]], abs=1e-3)


# ---------------------------------------------------------------- tiny models


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts with several labels, pictures with a number, and a tiny model for each."""
    root = tmp_path_factory.mktemp("tiny")
    places.texts(root / "tags", "multi", train=60, val=30, test=30)
    checkpoints.ALL["bert"](root / "bert")
    checkpoints.ALL["resnet"](root / "resnet")
    draw = np.random.default_rng(0)
    for split, count in (("train", 48), ("test", 16)):
        rows = []
        (root / "bright" / split).mkdir(parents=True)
        for i in range(count):
            level = int(draw.integers(20, 230))
            pixels = np.clip(draw.normal(level, 8, (32, 32, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / "bright" / split / f"{i}.png")
            rows.append((f"{i}.png", f"{level / 10:.1f}"))
        places.sheet(root / "bright" / split / "metadata.csv", ("file_name", "light"), rows)
    return root


def test_several_labels_a_text(home: Path) -> None:
    asked = ["adapt", "tags", "--model", "bert", "--strategy", "probe", "--probe.epochs", "30", "--probe.lr", "0.01"]
    found = told(regraft(*asked, "--json", cwd=home))
    assert found["data"]["target"]["kind"] == "multi"
    assert found["data"]["target"]["labels"] == list(places.LABELS)
    assert {trial["plan"]["pooling"] for trial in found["trials"]} == {"mean", "native"}
    winner = found["trials"][found["verdict"]["winner"]]
    assert next(s["metric"] for s in winner["scores"]) == "macro_f1"
    said = ["rose and fire", "the sea of moss"]
    ours = answers(regraft("predict", found["run"], "--text", said[0], "--text", said[1], "--json", cwd=home))
    for answer in ours:
        assert answer["labels"] == [k for k, p in answer["probabilities"].items() if p >= 0.5]
    for answer, theirs in zip(ours, readme(home / found["run"] / "bundle", said), strict=True):
        assert theirs == pytest.approx(answer["probabilities"], abs=1e-3)


def test_a_number_a_picture(home: Path) -> None:
    asked = ["adapt", "bright", "--model", "resnet", "--strategy", "probe", "--probe.epochs", "60", "--task", "regress"]
    found = told(regraft(*asked, "--probe.lr", "0.01", "--json", cwd=home))
    assert (found["data"]["target"]["name"], found["data"]["target"]["kind"]) == ("light", "number")
    (trial,) = found["trials"]
    scores = {(s["split"], s["metric"]): s["value"] for s in trial["scores"]}
    assert scores["test", "rmse"] < found["data"]["target"]["spread"]
    some = [f"bright/test/{i}.png" for i in range(4)]
    ours = answers(regraft("predict", found["run"], *some, "--json", cwd=home))
    assert all(a["low"] <= a["value"] <= a["high"] for a in ours)
    bundle = home / found["run"] / "bundle"
    assert readme(bundle, [str(home / path) for path in some]) == pytest.approx([a["value"] for a in ours], abs=1e-2)
    made = regraft("predict", found["run"], "bright/test", cwd=home)
    assert len(made.stdout.strip().splitlines()) == 17 and "value" in made.stdout.splitlines()[0]
