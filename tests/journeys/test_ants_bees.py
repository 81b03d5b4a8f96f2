"""Real pictures and real weights: the probe is as good as scikit-learn's, partial no worse, the bundle opens alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from regraft import flow
from regraft.waist import Options

pytestmark = pytest.mark.timeout(1200)  # real work: a busy machine takes several times as long as a quiet one
MODEL, DATA = "models/mobilenet_v2_1.0_224", "data/ants_bees"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ants_bees")


@pytest.fixture(scope="module")
def cache(place: Path) -> Iterator[None]:
    """One cache and two threads for the tests of this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REGRAFT_CACHE", str(place / "cache"))
        patch.setenv("REGRAFT_THREADS", "2")
        yield


def run(shared: Path, place: Path, strategy: str, knobs: tuple[tuple[str, str], ...] = ()) -> flow.Run:
    options = Options(str(shared / DATA), str(shared / MODEL), strategies=(strategy,), knobs=knobs)
    return flow.finish(flow.steps(options, place / "runs"))


def test_the_probe_is_as_good_as_sklearn_on_the_same_features(shared: Path, place: Path, cache: None) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    from regraft.data.open import open_data
    from regraft.engine.cache import Store

    done = run(shared, place, "probe")
    score = done.winner.score("test")
    assert score.n == 153

    data = open_data(shared / DATA)
    (folder,) = (place / "cache" / "trunk").iterdir()
    store = Store(folder)
    keys = {name: [row.key for row in getattr(data, name)] for name in ("train", "test")}
    features = {name: store.states(some).all().value.numpy() for name, some in keys.items()}
    scale = StandardScaler().fit(features["train"])
    fitted = LogisticRegression(C=0.01, max_iter=2000).fit(
        scale.transform(features["train"]), [r.y for r in data.train]
    )
    theirs = (fitted.predict(scale.transform(features["test"])) == [r.y for r in data.test]).sum()
    ours = round(score.value * score.n)
    assert ours >= theirs - 2
    assert ours >= 146, "0.967 of 153 pictures less two"
    assert done.verdict.decision == "ship"


@pytest.mark.slow
def test_partial_is_no_worse_than_the_probe(shared: Path, place: Path, cache: None) -> None:
    probe = run(shared, place, "probe").winner
    partial_run = run(shared, place, "partial", (("partial.depth", "2"), ("partial.epochs", "16")))
    partial = partial_run.winner
    assert partial.plan.trunk == 16 and partial.plan.phases[0].norm == "keep"
    assert partial.score("test").high >= probe.score("test").value

    script = """
import json, sys
from transformers import pipeline
classify = pipeline("image-classification", model=sys.argv[1], device="cpu")
print(json.dumps([classify(path, top_k=1)[0]["label"] for path in json.load(sys.stdin)]))
"""
    from regraft.data.open import open_data

    rows = open_data(shared / DATA).test
    made = subprocess.run(
        [sys.executable, "-c", script, str(partial_run.bundle)],
        input=json.dumps([str(row.cell) for row in rows]),
        capture_output=True,
        text=True,
        check=True,
    )
    theirs = json.loads(made.stdout.strip().splitlines()[-1])
    logits = load_file(partial_run.folder / partial.predictions)["test"]
    ours = [("ants", "bees")[i] for i in np.argmax(logits, 1)]
    assert sum(a != b for a, b in zip(ours, theirs, strict=True)) == 0


@pytest.mark.slow
def test_one_batch_in_train_mode_would_spoil_the_statistics(shared: Path, place: Path, cache: None) -> None:
    """The trap of the MobileNets' momentum, and that updating statistics here does not fall into it."""
    done = run(shared, place, "partial", (("partial.epochs", "1"), ("partial.norm", "update")))
    assert any("momentum 0.997" in note and "0.003" in note for note in done.winner.notes)
    kept = load_file(done.folder / done.winner.snapshot)
    start = load_file(shared / MODEL / "model.safetensors")
    name = "mobilenet_v2.layer.15.expand_1x1.normalization.running_mean"
    moved = np.abs(kept[f"buffer/{name}"] - start[name].astype(np.float32)).mean()
    assert 0 < moved < 0.2 * np.abs(start[name].astype(np.float32)).mean()


@pytest.mark.slow
def test_killed_at_ten_random_moments_on_real_pictures(shared: Path, place: Path, cache: None) -> None:
    from tests.journeys.test_adapt import kill_at_random, regraft, told

    args = ["adapt", shared / DATA, "--model", shared / MODEL, "--strategy", "partial", "--partial.depth", "2"]
    found = told(regraft(*args, "--out", "unkilled", "--json", cwd=place))
    wanted = (place / found["run"] / found["trials"][0]["snapshot"]).read_bytes()
    kill_at_random(place, [*args, "--out", "killed"], "killed", wanted, kills=10, span_s=40)
