"""Bench 5: 24 heads on features after several numbers of blocks, on growing data: the shape of Nautilus' FTR.

A BERT of 12 blocks, 384 wide, with random weights on random text of 5 to 60 words: heads on the mean of its tokens
after 2, 4, 6, 8, 10 and 12 blocks, batches of 16 and 32, two rates, 3 epochs; 48 more texts to train on in each of 4
cycles, 48 to validate on. The sides are those of bench 4. Independent runs are given the shorter network, so that none
of its blocks runs in vain; keeping everything is regraft where the states of every block are stored.

Asserted first, as in bench 4: weights of all trials of the last cycle are those of runs without a cache, bit for bit,
and losses of the plain loops within 0.01 of regraft's. The limit counts passes of blocks: each text through the network
once, and heads that cost nothing. The goal is 8; Nautilus reached 5.2.

    python bench/taps.py [--quick] [--rounds 3] [--again]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import growing
import peers
import works
from results import measured

from regraft.data.open import card
from regraft.planner import survey
from regraft.planner.course import Course
from regraft.planner.propose import propose
from regraft.waist import Facts, Plan

BLOCKS, BATCHES, RATES, MORE = (2, 4, 6, 8, 10, 12), (16, 32), (1e-3, 1e-2), 48
GOAL, ALL_IN = 8.0, 30.0


def main() -> int:
    given = works.arguments(__doc__ or "")
    work = f"24 heads on 6 depths in {growing.CYCLES} cycles, BERT of 12 blocks"
    others = (growing.LOOPS, growing.EVERYTHING)
    if not works.MINILM.is_dir() or (all(measured(5, work, growing.REUSE, one) for one in others) and not given.again):
        print(f"{work}: measured already, or its tokenizer is absent")
        return 0
    blocks, more, cycles = (BLOCKS[:2], 24, 1) if given.quick else (BLOCKS, MORE, growing.CYCLES)
    with tempfile.TemporaryDirectory() as place:
        rows = {"train": more * cycles, "val": more, "test": 8}
        texts, model = works.sentences(Path(place, "data"), rows), works.bert(Path(place, "model"))
        bench = works.open_bench(texts, model, "probe", {"epochs": growing.EPOCHS}, Path(place))
        plans = [plan for some in blocks for batch in BATCHES for plan in probes(bench.course, some, batch)]

        def loop(course: Course, plan: Plan) -> peers.Work:
            return works.Bench(course, plan, model, Path(place)).work()

        grown = growing.Grown(bench.course, plans, cycles, Path(place), loop, more, len(RATES))
        growing.compared(5, work, grown, given, lambda _: (GOAL, ALL_IN))
    return 0


def probes(course: Course, blocks: int, batch: int) -> list[Plan]:
    """A head for each rate on the mean of tokens after so many blocks."""
    facts = Facts(card(course.data), survey.backbone(course.view, "bench"), course.machine)
    epochs = growing.EPOCHS
    asked = {"blocks": blocks, "batch": batch, "epochs": epochs, "patience": epochs, "pooling": "mean"}
    told = [(f"probe.{name}", str(value)) for name, value in asked.items()]
    return [propose(facts, ["probe"], [*told, ("probe.lr", str(lr))])[0] for lr in RATES]


if __name__ == "__main__":
    sys.exit(main())
