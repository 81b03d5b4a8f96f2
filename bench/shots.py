"""Bench 16: 8 examples of each class, MiniLM: `contrast` against SetFit and logistic regression on embeddings.

For each set and draw all sides get the same texts. What is timed, in seconds of the processor, goes from texts to a
trained model and its head: not imports, not opening the encoder, not the test rows, of which each side answers the same
ones afterwards. Over the draws the mean accuracies are compared, the goal being at least SetFit's on 4 of 6 sets in a
fifth of its time, summed over the sets. Each answer is kept in bench/shots.json, so that a bench that was stopped goes
on. SetFit (with `evaluate` and `requests`) may lie in a folder that --setfit names; without it its side is left out.

    python bench/shots.py [--draws 10] [--rows 400] [--only sst2] [--setfit FOLDER] [--again]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from results import HERE, SHARED, Comparison, keep

from regraft.data import few, split
from regraft.data.open import card, open_data
from regraft.engine.predict import outputs
from regraft.kit import durable, hardware
from regraft.kit.store import Folder
from regraft.planner import survey
from regraft.planner.course import Course
from regraft.planner.propose import propose
from regraft.planner.request import prepare
from regraft.waist import Data, Facts, Finished, Options, Reading, Row

BENCH, SHOTS, GOAL = 16, 8, 5.0
SETS = ("sst2", "sst5", "product_reviews_cr", "subjectivity", "trec_questions", "ag_news_small")
MINILM = SHARED / "models" / "all_minilm_l6_v2"
KEPT = HERE / "shots.json"
OURS, LINEAR, SETFIT = "regraft, contrast", "logistic regression", "SetFit"
LONGEST = 256


class Work(NamedTuple):
    """A draw: texts and classes to train on and to be judged by, and the same as regraft has them."""

    texts: list[str]
    classes: np.ndarray
    asked: list[str]
    truth: np.ndarray
    data: Data
    seed: int


class Made(NamedTuple):
    """What a side needed, in seconds of the processor, and the share of its answers that are right."""

    seconds: float
    accuracy: float


def ours(work: Work) -> Made:
    """The plan that `--strategy contrast` runs, fitted to every shot, from an empty cache."""
    data = replace(work.data, test=work.data.val)
    view, encoder, task = prepare(Options("", str(MINILM)), data, str(MINILM))
    machine = survey.machine(view, data, encoder, "fp32")
    facts = Facts(card(data), survey.backbone(view, "bench"), machine)
    plan = replace(propose(facts, ["contrast"], [])[0], fold="all")
    with tempfile.TemporaryDirectory() as place:
        os.environ["REGRAFT_CACHE"] = str(Path(place) / "cache")
        durable.remove(hardware.cache_folder())
        course = Course(view, data, task, encoder, machine, Folder(Path(place) / "run"), work.seed)
        begun = time.process_time()
        trial = next(event.trial for event in course.trial(0, plan) if isinstance(event, Finished))
        seconds = time.process_time() - begun
        graft = course.restore(trial)
        made = outputs(graft, course.table(graft.view, 0, work.data.test))
    return Made(seconds, float((made.argmax(1).numpy() == work.truth).mean()))


def encoder() -> Any:
    """MiniLM as sentence-transformers has it: the mean of the tokens, at unit length."""
    from sentence_transformers import SentenceTransformer, models

    reader = models.Transformer(str(MINILM), max_seq_length=LONGEST)
    parts = [reader, models.Pooling(reader.get_word_embedding_dimension()), models.Normalize()]
    return SentenceTransformer(modules=parts, device="cpu")


def linear(work: Work) -> Made:
    """scikit-learn on embeddings that stay as they are."""
    from sklearn.linear_model import LogisticRegression

    body = encoder()
    begun = time.process_time()
    head = LogisticRegression(max_iter=1000).fit(body.encode(work.texts, show_progress_bar=False), work.classes)
    seconds = time.process_time() - begun
    said = head.predict(body.encode(work.asked, show_progress_bar=False))
    return Made(seconds, float((said == work.truth).mean()))


def setfit(work: Work) -> Made:
    """SetFit as its documentation has it: one epoch over all pairs, the rarer kind drawn more often, batches of 16."""
    import datasets
    from setfit import SetFitModel, Trainer, TrainingArguments
    from sklearn.linear_model import LogisticRegression

    datasets.disable_progress_bars()
    model = SetFitModel(model_body=encoder(), model_head=LogisticRegression(max_iter=1000))
    with tempfile.TemporaryDirectory() as place:
        asked = TrainingArguments(
            output_dir=place,
            batch_size=16,
            num_epochs=1,
            seed=work.seed,
            show_progress_bar=False,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
        )
        rows = datasets.Dataset.from_dict({"text": work.texts, "label": work.classes.tolist()})
        trainer = Trainer(model=model, args=asked, train_dataset=rows)
        begun = time.process_time()
        trainer.train()
        seconds = time.process_time() - begun
    return Made(seconds, float((np.asarray(model.predict(work.asked).tolist()) == work.truth).mean()))


SIDES: dict[str, Callable[[Work], Made]] = {OURS: ours, LINEAR: linear, SETFIT: setfit}


def lacks() -> str:
    """Why SetFit cannot be run, "" where it can."""
    absent = [name for name in ("setfit", "evaluate", "requests") if importlib.util.find_spec(name) is None]
    return f"SetFit is left out: {', '.join(absent)} cannot be imported; see --setfit" if absent else ""


def drawn(name: str, seed: int, most: int) -> Work:
    """A draw of a set, and the rows that judge it."""
    whole = open_data(str(SHARED / "data" / name), 0, Reading(target="label", text=("text",)))
    test = split.thin(whole.test, most, 0, cover=False) if most else whole.test
    data = few.drawn(replace(whole, test=tuple(test)), SHOTS, seed)
    rows: list[Row] = [*data.train, *data.val]
    labels = list(data.target.labels)

    def classes(some: Any) -> np.ndarray:
        return np.array([labels.index(row.y) for row in some])

    return Work([row.cell for row in rows], classes(rows), [r.cell for r in test], classes(test), data, seed)


def main() -> int:
    parse = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parse.add_argument("--draws", type=int, default=10)
    parse.add_argument("--rows", type=int, default=0, help="most test rows of a set, 0 for all")
    parse.add_argument("--only", default="", help="sets that have this in their names")
    parse.add_argument("--setfit", default="", help="a folder that setfit, evaluate and requests lie in")
    parse.add_argument("--again", action="store_true", help="measure what is measured already")
    parse.add_argument("--quick", action="store_true", help="two draws of two sets, 100 test rows")
    given = parse.parse_args()
    if given.setfit:
        sys.path.append(given.setfit)  # behind all else: what is installed comes first
    if not MINILM.exists():
        print("skipped: the weights of MiniLM are absent")
        return 0
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    sets = [name for name in SETS if given.only in name][: 2 if given.quick else len(SETS)]
    draws, most = (2, 100) if given.quick else (given.draws, given.rows)
    if why := lacks():
        print(why)
    sides = [side for side in SIDES if side != SETFIT or not why]
    found: dict[str, list[float]] = json.loads(KEPT.read_text("utf-8")) if KEPT.is_file() else {}
    for seed in range(draws):
        for name in sets:
            for side in sides:
                key = f"{name}/{seed}/{most}/{side}"
                if key not in found or given.again:
                    found[key] = [round(value, 4) for value in SIDES[side](drawn(name, seed, most))]
                    KEPT.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", "utf-8")
                print(f"  {key}: {found[key][0]:.1f} s, {found[key][1]:.3f}", file=sys.stderr, flush=True)
    for other in sides[1:]:
        told(found, sets, draws, most, other, given.quick)
    return 0


def told(found: dict[str, list[float]], sets: list[str], draws: int, most: int, other: str, quick: bool) -> None:
    """Keep how the sides compare, set by set and over all sets."""
    seconds = {
        side: np.array([[found[f"{n}/{s}/{most}/{side}"][0] for s in range(draws)] for n in sets])
        for side in (OURS, other)
    }
    right = {
        side: np.array([[found[f"{n}/{s}/{most}/{side}"][1] for s in range(draws)] for n in sets])
        for side in (OURS, other)
    }
    ahead = 0
    for i, name in enumerate(sets):
        a, b = right[OURS][i], right[other][i]
        ahead += bool(a.mean() >= b.mean())
        spread = float(1.96 * (a - b).std(ddof=1) / draws**0.5) if draws > 1 else 0.0
        more = {"accuracy": {OURS: round(float(a.mean()), 4), other: round(float(b.mean()), 4)}, "draws": draws}
        gap = f"{100 * float((a - b).mean()):+.1f} points" + (f" (± {100 * spread:.1f})" if draws > 1 else "")
        equal = {"what": f"mean accuracy over {draws} draws, ours less theirs", "difference": gap}
        work = f"{name}, {SHOTS} a class, MiniLM"
        ratios = (seconds[other][i] / seconds[OURS][i]).tolist()
        keep(Comparison(BENCH, work, OURS, other, ratios, GOAL if other == SETFIT else 0.0, 0.0, equal, quick, more))
    if len(sets) == len(SETS) or quick:
        equal = {"what": f"sets of {len(sets)} with at least its mean accuracy", "difference": ahead}
        ratios = (seconds[other].sum(0) / seconds[OURS].sum(0)).tolist()
        goal = GOAL if other == SETFIT else 0.0
        keep(Comparison(BENCH, f"all sets, {SHOTS} a class, MiniLM", OURS, other, ratios, goal, 0.0, equal, quick))


if __name__ == "__main__":
    sys.exit(main())
