"""Bench 12: every weight trained, one trial, nothing that a cache could save: what the engine's own work costs.

ResNet-18 with random weights on ants_bees, MiniLM on questions by what they ask for. The plain loop and Trainer have
the same batches, padding, rates, schedule and seeds for dropout; AdamW is fused in Trainer, as it would choose, and as
PyTorch comes in the plain loop. All sides validate after each epoch and answer test at the end.

Asserted first: losses of all epochs are equal within 0.01. There is no limit but what kernels give, and φ (fast side).

    python bench/full.py [--quick] [--rounds 3] [--again]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import works

QUESTIONS = works.SHARED / "data" / "trec_questions"
PICTURES = works.SHARED / "data" / "ants_bees"


def main() -> int:
    given = works.arguments(__doc__ or "")
    knobs = {"epochs": 1 if given.quick else 3}
    with tempfile.TemporaryDirectory() as place:
        work = "full, ResNet-18, ants_bees"
        if works.wanted(12, work, given, PICTURES):
            pictures = works.article(Path(place, "data"), most=6 if given.quick else 0)
            bench = works.open_bench(pictures, works.resnet18(Path(place, "model")), "full", knobs, Path(place))
            works.race(12, work, bench, given, 1.0, 0.0, halved=2.2)
    with tempfile.TemporaryDirectory() as place:
        work = "full, MiniLM, trec_questions"
        if works.wanted(12, work, given, works.MINILM, QUESTIONS):
            bench = works.open_bench(QUESTIONS, works.MINILM, "full", knobs, Path(place), 24 if given.quick else 480)
            works.race(12, work, bench, given, 1.0, 0.0, halved=1.6)
    return 0


if __name__ == "__main__":
    sys.exit(main())
