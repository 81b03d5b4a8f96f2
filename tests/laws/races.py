"""Run the same races in a process of its own and print what they ended with, as one object.

python -m tests.laws.races FOLDER [backwards]
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from regraft import flow
from regraft.deliver import pack
from regraft.kit import durable
from regraft.waist import Budget, Options, Reading, plain
from tests import places

KNOBS = (
    *(("probe.epochs", "6"), ("partial.epochs", "4"), ("partial.depth", "1"), ("full.epochs", "4")),
    *(("scratch.epochs", "3"), ("gradual.epochs", "3"), ("layerwise.epochs", "3")),
)
BUDGETS = {"9trials": Budget(trials=9), "20epochs": Budget(epochs=20)}


def main(place: Path, backwards: bool) -> dict[str, Any]:
    """Pictures and texts under each budget; `backwards` in the other order, so that none leans on the one before."""
    import torch

    torch.set_num_threads(1)
    pack._self_test = lambda *_: None  # type: ignore[assignment]  # a process of its own, which journeys run
    places.pictures(place / "pictures")
    places.model(place / "pictures-model")
    places.texts(place / "texts")
    places.encoder_model(place / "texts-model")
    cases = [(of, budget) for of in ("pictures", "texts") for budget in BUDGETS]
    found = {}
    for of, budget in reversed(cases) if backwards else cases:
        os.environ["REGRAFT_CACHE"] = str(place / f"cache-{of}-{budget}")
        options = Options(
            str(place / of),
            str(place / f"{of}-model"),
            reading=Reading(task="classify"),
            knobs=KNOBS,
            budget=BUDGETS[budget],
        )
        found[f"{of} {budget}"] = told(flow.finish(flow.steps(options, place / f"runs-{of}-{budget}")))
    return found


def told(run: flow.Run) -> dict[str, Any]:
    """All that a run ended with but what was measured by a clock."""
    files = [name for t in run.trials if t.whole for name in (t.snapshot, t.predictions)]
    account = plain(run.account)
    return {
        "name": run.folder.name,
        "trials": [plain((t.plan, t.scores, t.curve, t.calibration, t.stopped, t.notes)) for t in run.trials],
        "bytes": {name: durable.file_digest(run.folder / name) for name in files},
        "bundle": durable.sums(run.bundle) if run.bundle.is_dir() else {},
        "verdict": plain(run.verdict),
        "account": {name: value for name, value in account.items() if name not in ("seconds", "saved", "kwh")},
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2:] == ["backwards"])))
