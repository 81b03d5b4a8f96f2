"""Laws of a race: one budget, one result; a kill changes nothing; test rows are never trained on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from regraft import flow
from regraft.deliver import pack
from regraft.deliver.model import Model
from regraft.engine.fit import fit
from regraft.planner import course as courses
from regraft.waist import Budget, Event, Options, Plan, Reading
from tests import places

ROOT = Path(__file__).resolve().parents[2]
CASES = [f"{of} {budget}" for of in ("pictures", "texts") for budget in ("9trials", "20epochs")]


# ---------------------------------------------------------------- the same on every run


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two fresh processes, each with a cache of its own, ended the same races with; one of them went backwards."""
    started = []
    for more in ([], ["backwards"]):
        place = tmp_path_factory.mktemp("race")
        command = [sys.executable, "-m", "tests.laws.races", str(place), *more]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True))
    ended = [(process.communicate(timeout=1000), process.returncode) for process in started]
    for (_, said), code in ended:
        assert code == 0, said
    return [json.loads(out.strip().splitlines()[-1]) for (out, _), _ in ended]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("case", CASES)
def test_a_race_ends_with_the_same_bits_in_every_process(both: list[dict[str, Any]], case: str) -> None:
    first, second = (found[case] for found in both)
    assert first["bytes"] and first["bytes"] == second["bytes"], "weights or predictions differ"
    for part in ("trials", "verdict", "account", "bundle"):
        assert first[part] == second[part], part
    assert first["name"] == second["name"], "a request is its content, wherever that lies"
    account, trials = first["account"], first["trials"]
    if case.endswith("trials"):
        assert account["trials"] == len(trials) == 9
    else:
        assert 0 < account["epochs"] <= 20 and len(trials) >= 5
    assert account["skipped"] and all(one["why"] for one in account["skipped"])


# ---------------------------------------------------------------- what is trained on


def watched(seen: list[tuple[Plan, set[str]]]) -> Callable[..., Iterator[Event]]:
    """`fit` as it is, noting the rows that each plan trains on."""

    def noting(plan: Plan, graft: Any, task: Any, tables: Any, keeper: Any, seed: int, before: Any) -> Iterator[Event]:
        def rows(k: int) -> Any:
            made = tables(k)
            seen.append((plan, {row.id for row in made[0].rows}))
            return made

        yield from fit(plan, graft, task, rows, keeper, seed, before)

    return noting


@pytest.mark.parametrize("of", ["pictures", "texts"])
@pytest.mark.parametrize("strategies", [("probe", "partial"), ("scratch",), ("gradual",)], ids=lambda s: s[0])
def test_test_rows_are_never_trained_on_and_the_refitted_model_ships(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of: str, strategies: tuple[str, ...]
) -> None:
    from regraft.data.open import open_data

    monkeypatch.setattr(pack, "_self_test", lambda *_: None)
    monkeypatch.setenv("REGRAFT_THREADS", "1")
    seen: list[tuple[Plan, set[str]]] = []
    monkeypatch.setattr(courses, "fit", watched(seen))
    made = places.pictures if of == "pictures" else places.texts
    body = places.model if of == "pictures" else places.encoder_model
    reading = Reading(task="classify")
    options = Options(
        str(made(tmp_path / "data")),
        str(body(tmp_path / "model")),
        reading,
        strategies,
        tuple((f"{name}.epochs", "4") for name in strategies),
        budget=Budget(trials=3),
        refit="all",
    )
    run = flow.finish(flow.steps(options, tmp_path / "runs"))
    data = open_data(tmp_path / "data", 0, reading)
    train, val, test = ({row.id for row in rows} for rows in (data.train, data.val, data.test))

    refitted = run.winner
    assert refitted.plan.fold == "all" and run.verdict.winner == len(run.trials) - 1 == 3
    assert {frozenset(rows) for plan, rows in seen if plan.fold == "all"} == {frozenset(train | val)}
    assert {frozenset(rows) for plan, rows in seen if plan.fold != "all"} == {frozenset(train)}
    assert not any(rows & test for _, rows in seen)
    chosen = [t for t in run.trials[:-1] if t.plan.strategy == refitted.plan.strategy and t.whole]
    assert refitted.score("val") in [t.score("val") for t in chosen], "validation's word was spoken before"

    answers = Model.load(run.bundle).predict([row.cell for row in data.test])
    logits = load_file(run.folder / refitted.predictions)["test"]
    said = [run.data.target.labels[i] for i in logits.argmax(1)]
    assert [answer["label"] for answer in answers] == said
    probabilities = logits.double().softmax(1).tolist()
    for answer, wanted in zip(answers, probabilities, strict=True):
        assert list(answer["probabilities"].values()) == pytest.approx(wanted, abs=1e-5)
    assert Model.load(run.bundle).told.plan == refitted.plan
