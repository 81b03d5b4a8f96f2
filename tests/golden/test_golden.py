"""Numbers that should not drift unseen: the embedded backbone's card, and what the demo's plans reach on digits.

`pytest tests/golden --regold` rewrites the file; its diff is reviewed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from regraft import embedded, flow
from regraft.embedded.digits import write_digits
from regraft.waist import Options

FILE = Path(__file__).with_name("digits.json")
TOLERANCE = 0.012  # six of 500 test pictures: processors differ in the last bits, and training multiplies them


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    place = tmp_path_factory.mktemp("golden")
    digits = write_digits(place / "digits", 0)
    options = Options(str(digits), str(embedded.folder()), strategies=("probe", "partial"))
    run = flow.finish(flow.steps(options, place / "runs"))
    body = json.loads((run.folder / "backbone.json").read_bytes())["record"]
    return {
        "stages": [[s["name"], s["params"], s["flops"], s["out_bytes"]] for s in body["poolings"][0]["stages"]],
        "trained": {t.plan.strategy: t.cost.trainable for t in run.trials},
        "test_accuracy": {t.plan.strategy: t.score("test").value for t in run.trials},
        "winner": run.winner.plan.strategy,
    }


def test_the_numbers_are_those_on_file(measured: dict[str, Any], request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--regold"):
        FILE.write_text(json.dumps(measured, indent=1) + "\n", "utf-8")
    golden = json.loads(FILE.read_text("utf-8"))
    for exact in ("stages", "trained", "winner"):
        assert measured[exact] == golden[exact], exact
    for strategy, value in golden["test_accuracy"].items():
        assert abs(measured["test_accuracy"][strategy] - value) <= TOLERANCE, strategy
