"""Benches 6 and 18: the last two blocks of an encoder, against loops that run the frozen ones in each of 20 epochs.

A BERT of 12 blocks, 384 wide, with random weights on random text of 5 to 60 words (time alone), and MiniLM's last two
of 6 blocks on questions by what they ask for. The plain loop has the same batches, padding, rates and seeds for
dropout; Trainer has the same parameters frozen, optimizer and schedule, and draws and pads its own batches, as it
comes. All sides validate after each epoch and answer test at the end.

Asserted first: losses of all epochs are equal within 0.01 (plain loop); Trainer's accuracy on test is within its 95 %
interval of regraft's. The limit counts passes, validation and test included (`works.Bench.limit`); without these and
over many epochs it is (f + 3 (1 - f)) / (3 (1 - f)): 2.67 for 2 of 12 blocks, 1.67 for 2 of 6. The goal is 0.9 of it.

The same with LoRA of rank 8 in these blocks, which the other sides have from peft, with the same matrices at first:
weights that stay need no gradient, so a trained block costs two passes, and the limits are 3.5 and 2.0. Bench 18 is
this and LoRA in all blocks of MiniLM, 5 epochs, where nothing but padding can be spared: it is to be no slower.

    python bench/suffix.py [--quick] [--rounds 3] [--again] [--only MiniLM]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import works

QUESTIONS = works.SHARED / "data" / "trec_questions"


def main() -> int:
    given = works.arguments(__doc__ or "")
    epochs, rows = (2, 24) if given.quick else (20, 480)
    for strategy, depth, told in (("partial", "depth", ""), ("lora", "last", "LoRA in the ")):
        knobs = {"epochs": epochs, depth: 2}
        with tempfile.TemporaryDirectory() as place:
            work = f"{told}last 2 of 12 blocks, width 384, random text"
            if works.wanted(6, work, given, works.MINILM):
                texts = works.sentences(Path(place, "data"), {"train": rows, "val": rows // 4, "test": rows // 8})
                bench = works.open_bench(texts, works.bert(Path(place, "model")), strategy, knobs, Path(place))
                works.race(6, work, bench, given, 0.9 * bench.limit, bench.limit, own=True)
        with tempfile.TemporaryDirectory() as place:
            work = f"{told}last 2 of 6 blocks of MiniLM, trec_questions"
            if works.wanted(6, work, given, works.MINILM, QUESTIONS):
                bench = works.open_bench(QUESTIONS, works.MINILM, strategy, knobs, Path(place), rows)
                works.race(6, work, bench, given, 0.9 * bench.limit, bench.limit, own=True)
    with tempfile.TemporaryDirectory() as place:
        work = "LoRA in all blocks of MiniLM, trec_questions"
        if works.wanted(18, work, given, works.MINILM, QUESTIONS):
            bench = works.open_bench(QUESTIONS, works.MINILM, "lora", {"epochs": min(epochs, 5)}, Path(place), rows)
            works.race(18, work, bench, given, 1.0, bench.limit, own=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
