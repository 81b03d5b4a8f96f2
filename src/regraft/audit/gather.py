"""Gather what the checks ask for, once, and run them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file

from regraft.kit import shelf
from regraft.waist import Data, Evidence, Finding, Score, Task, Trial

HELD = ("predictions", "leaks")
"""What a check may need, and is given."""


def baselines(task: Task, data: Data) -> tuple[Score, ...]:
    """What a constant guess scores on the test split, for every metric of the task.

    >>> from regraft.waist import Row, Target
    >>> target = Target("age", "number")
    >>> rows = [Row(str(y), None, y, "", "") for y in (1.0, 3.0)]
    >>> task = shelf.find("tasks", "regress").make(target)
    >>> [(b.metric, b.value, b.better) for b in baselines(task, Data("d", "text", target, (), (), rows, ""))][:2]
    [('rmse', 1.0, 'lower'), ('mae', 1.0, 'lower')]
    """
    y = task.encode([row.y for row in data.test]).numpy()
    found = []
    for metric in task.metrics:
        guess = metric.chance(y)
        found.append(Score(metric.name, "test", guess, guess, guess, len(y), metric.better))
    return tuple(found)


def audit(task: Task, data: Data, trials: Sequence[Trial], winner: int, folder: Path, seed: int) -> list[Finding]:
    """Every check on the shelf whose needs can be met; the others are left out.

    They are given `y`, `seed`, `winner` and what each trial's outputs on the test split decode to: `pred/0`, `pred/1`,
    … and, where the task has probabilities, `prob/0`, `prob/1`, …; `leaks` marks the test rows that a finding about
    the data says training or validation gives away.
    """
    arrays: dict[str, np.ndarray] = {"y": task.encode([row.y for row in data.test]).numpy()}
    for i, trial in enumerate(trials):
        if not trial.whole:
            continue
        made = torch.from_numpy(load_file(folder / trial.predictions)["test"])
        arrays |= {f"{name}/{i}": array for name, array in task.decode(made).items()}
    arrays["seed"] = np.array(seed)
    arrays["winner"] = np.array(winner)
    leaking = {name for flag in data.flags for name in flag.leaks}
    arrays["leaks"] = np.array([row.id in leaking for row in data.test], bool)
    evidence = Evidence(trials[winner], tuple(trials), baselines(task, data), arrays, task.metrics[0])
    items = [shelf.find("checks", name) for name in shelf.names("checks")]
    return [item.check(evidence) for item in items if set(item.NEEDS) <= set(HELD)]
