"""What a cache of the shots would add to class means, in the manner of Tip-Adapter: why regraft has no such head.

A row's answer from class means of frozen features gets a sum over the shots, α exp(β (cos(row, shot) - 1)) for the
shot's own class. α, nothing among them, and β are chosen by leave-one-out as the means are: each shot is answered
without it, in the means and in the cache. 8 rows of each class, ten draws; MiniLM on the sets of texts of bench 16,
MobileNetV2 on the sets of pictures of bench 17; judged on `--rows` test rows. Printed is the gain in points of
accuracy, with its 95 % interval over draws. It compares heads, not times, and keeps nothing.

Reference: Zhang et al., Tip-Adapter, 2022, equation 3, with class means in place of the text encoder's weights.

    python bench/kernels.py [--draws 10] [--each 8] [--rows 400] [--only sst2] [--quick]
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results import SHARED
from shots import MINILM
from shots import SETS as TEXTS
from shots_pictures import MOBILENET
from shots_pictures import SETS as PICTURES
from torch import Tensor
from torch.nn import functional

from regraft.data import few, split
from regraft.data.open import open_data
from regraft.engine import prototypes
from regraft.engine.predict import Graft, everything
from regraft.kit.store import Folder
from regraft.planner import survey
from regraft.planner.course import Course
from regraft.planner.request import prepare
from regraft.waist import Loss, Options, Reading, Row

AMOUNTS, SHARP = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0), (1.0, 2.0, 5.5, 10.0, 20.0)


def cached(features: Tensor, shots: Tensor, members: Tensor, sharp: float) -> Tensor:
    """What the cache says of rows [N, D]: for each class the sum over its shots, [N, C]."""
    near = functional.normalize(features, dim=1) @ functional.normalize(shots, dim=1).T
    return (sharp * (near - 1)).exp() @ members


def gains(task: Any, features: Tensor, y: Tensor, tested: Tensor, truth: Tensor, seed: int) -> tuple[float, float]:
    """Accuracy of class means, and with a cache beside them, of rows `tested`."""
    members, names = functional.one_hot(y).float(), [str(i) for i in range(len(y))]

    def means(keep: Tensor) -> Any:
        head, kept = task.head(features.shape[1], True), keep.nonzero().flatten().tolist()
        prototypes.choose(head, features[keep], y[keep], task, Loss(), [names[i] for i in kept], seed)
        return head

    with torch.no_grad():
        out = torch.eye(len(y), dtype=torch.bool)
        alone = torch.cat([means(~one)(features[one]) for one in out])
        head = means(torch.ones(len(y), dtype=torch.bool))

        def lost(amount: float, sharp: float) -> tuple[float, float]:
            # a shot's own term is left out: it would be α, whatever β
            made = alone + amount * (cached(features, features, members, sharp) - members)
            return -float((made.argmax(1) == y).float().mean()), float(functional.cross_entropy(made, y))

        amount, sharp = min(itertools.product(AMOUNTS, SHARP), key=lambda way: lost(*way))
        plain = head(tested)
        both = plain + amount * cached(tested, features, members, sharp)
    return tuple(100 * float((made.argmax(1) == truth).float().mean()) for made in (plain, both))  # type: ignore


def read(course: Course, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    """Features of rows, and their classes."""
    view = course.view
    features = everything(Graft(view, course.task.head(view.dim, True)), course.table(view, len(view.stages), rows))
    return features, course.task.encode([row.y for row in rows])


def main() -> int:
    parse = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parse.add_argument("--draws", type=int, default=10)
    parse.add_argument("--each", type=int, default=8)
    parse.add_argument("--rows", type=int, default=400)
    parse.add_argument("--only", default="", help="sets that have this in their names")
    parse.add_argument("--quick", action="store_true", help="two draws of the first set, 60 test rows")
    given = parse.parse_args()
    sets = [(name, MINILM) for name in TEXTS] + [(name, MOBILENET) for name in PICTURES]
    sets = [(name, model) for name, model in sets if given.only in name][: 1 if given.quick else None]
    draws, rows = (2, 60) if given.quick else (given.draws, given.rows)
    for name, model in sets:
        if not model.exists() or not (SHARED / "data" / name).is_dir():
            print(f"skipped: {name}: its rows or its model are absent")
            continue
        reading = Reading(target="label", text=("text",)) if model == MINILM else Reading()
        whole = open_data(str(SHARED / "data" / name), 0, reading)
        whole = replace(whole, test=tuple(split.thin(whole.test, rows, 0, cover=False)))
        view, encoder, task = prepare(Options("", str(model), reading), whole, str(model))
        machine = survey.machine(view, whole, encoder, "fp32")
        found: list[tuple[float, float]] = []
        with tempfile.TemporaryDirectory() as place:
            os.environ["REGRAFT_CACHE"] = str(Path(place) / "cache")
            course = Course(view, whole, task, encoder, machine, Folder(Path(place) / "run"), 0)

            tested = read(course, whole.test)
            for seed in range(draws):
                data = few.drawn(whole, given.each, seed)
                found.append(gains(task, *read(course, [*data.train, *data.val]), *tested, seed))
        plain, both = np.array(found).T
        gap = both - plain
        spread = 1.96 * gap.std(ddof=1) / draws**0.5
        print(f"{name}: class means {plain.mean():.1f}, with a cache {gap.mean():+.1f} (± {spread:.1f})", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
