"""Gather what the checks ask for, once, and run them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file

from regraft.kit import shelf
from regraft.waist import Data, Evidence, Finding, Score, Task, Trial


def baselines(task: Task, data: Data) -> tuple[Score, ...]:
    """What a constant guess scores on the test split, for every metric of the task."""
    y = task.encode([row.y for row in data.test]).numpy()
    return tuple(Score(m.name, "test", m.chance(y), m.chance(y), m.chance(y), len(y)) for m in task.metrics)


def audit(task: Task, data: Data, trials: Sequence[Trial], winner: int, folder: Path, seed: int) -> list[Finding]:
    """Every check on the shelf whose needs can be met; the others are left out."""
    arrays: dict[str, np.ndarray] = {"y": task.encode([row.y for row in data.test]).numpy()}
    for i, trial in enumerate(trials):
        made = torch.from_numpy(load_file(folder / trial.predictions)["test"])
        arrays[f"pred/{i}"] = task.decode(made)["pred"]
    arrays["seed"] = np.array(seed)
    arrays["winner"] = np.array(winner)
    evidence = Evidence(trials[winner], tuple(trials), baselines(task, data), arrays)
    findings = []
    for name in shelf.names("checks"):
        item = shelf.find("checks", name)
        findings.append(item.check(evidence))
    return findings
