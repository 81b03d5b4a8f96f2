"""What ships when checks refuse: something simpler that passes, once questioned, or nothing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Literal

import pytest

from regraft import adapt
from regraft.audit.gate import substitutes
from regraft.checks import transfer
from regraft.waist import Cost, Evidence, Finding, Init, Plan, Score, Trial
from tests import places

KNOBS = {"full.epochs": 1, "probe.epochs": 2}


def made(name: str, init: Init, value: float, weights: int, better: Literal["higher", "lower"] = "higher") -> Trial:
    score = Score("m", "val", value, value, value, 9, better)
    return Trial(Plan(name, (), init=init), 0, (score,), (), Cost(1.0, weights), "p", "w")


def test_substitutes_train_less_or_start_elsewhere_and_lower_is_better_for_errors() -> None:
    some = [
        made("full", "pretrained", 1.0, 9, "lower"),
        made("probe", "pretrained", 3.0, 2, "lower"),
        made("partial", "pretrained", 2.0, 5, "lower"),
        made("random", "random", 2.5, 9, "lower"),
        made("words", "plain", 1.5, 3, "lower"),
    ]
    assert [some[i].label for i in substitutes(some, 0)] == ["words", "partial", "random"]
    assert [some[i].label for i in substitutes(some, 1)] == ["words", "random"], "nothing trains less than the head"
    stopped = [dataclasses.replace(one, predictions="", snapshot="") for one in some]
    refitted = [dataclasses.replace(one, plan=dataclasses.replace(one.plan, fold="all")) for one in some]
    assert substitutes(stopped, 0) == substitutes(refitted, 0) == []


@pytest.mark.parametrize("all_of_them", [False, True])
def test_what_is_refused_gives_its_place_to_what_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, all_of_them: bool
) -> None:
    """A check that refuses whatever wins, or that and nothing else."""
    data, model = places.pictures(tmp_path / "data"), places.model(tmp_path / "model")
    first: list[str] = []

    def harmful(evidence: Evidence) -> Finding:
        first.append(evidence.winner.label)
        status: Literal["fail", "pass"] = "fail" if all_of_them or evidence.winner.label == first[0] else "pass"
        return Finding("transfer", status, 0.0, (0.0, 0.0), 0.0, "negative transfer: worse than nothing", "")

    monkeypatch.setattr(transfer, "check", harmful)
    asked = ["full", "probe", "scratch"]
    run = adapt(data, model=model, strategies=asked, knobs=KNOBS | {"scratch.by": "plain"}, out=tmp_path / "runs")
    verdict = run.verdict
    if all_of_them:
        assert verdict.decision == "refuse" and run.winner.label == first[0] and not run.bundle.exists()
        assert len(first) == len(set(first)) <= 3, "each substitute is questioned once"
        return
    assert verdict.decision == "fall back" and run.winner.label == first[1] != first[0]
    assert verdict.fallback.startswith(f"{first[1]} in place of {first[0]}, which was refused: negative transfer")
    assert {gap.trial for gap in verdict.comparisons} == set(range(3)) - {verdict.winner}
    record = json.loads((run.bundle / "regraft.json").read_bytes())
    assert record["plan"]["strategy"] == run.winner.plan.strategy
    assert f"in place of {first[0]}" in (run.folder / "report.md").read_text("utf-8")
