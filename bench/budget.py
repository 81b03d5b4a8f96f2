"""Bench 15: is a budget in seconds kept? 30 whole commands with 30 s to 5 min: wall time against 105 % + 10 s.

Each run is a fresh process with a fresh cache, its imports counted; afterwards its bundle must predict. Runs of 30 s
have at most 500 rows. They are kept in bench/budget.json as they end, so that a bench that was stopped goes on; `load`
is how many processes wanted a processor meanwhile (a mean over five minutes, of all of the machine), `share` the part
of its wall time in which the run had one. A run that was late among more processes than processors is run again.

    python bench/budget.py [--quick] [--again]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from results import HERE, SHARED, Comparison, keep, measured

KEPT, WORK, SIDE, AGAINST = (
    HERE / "budget.json",
    "30 runs of 30 s to 5 min",
    "wall time",
    "105 % of the budget and 10 s",
)
MOBILENET, MINILM = str(SHARED / "models" / "mobilenet_v2_1.0_224"), "minilm"
BIRDS = str(SHARED / "models" / "mobilenet_v2_1.0_224_inat_bird")
RUNS = [  # data, model, budget, further options
    ("ants_bees", MOBILENET, "30s", ()),
    ("dog_breeds4", MOBILENET, "30s", ()),
    ("steel_defects", MOBILENET, "30s", ("--max-rows", "160")),
    ("aerial_scenes", MOBILENET, "30s", ()),
    ("trec_questions", MINILM, "30s", ("--max-rows", "160")),
    ("movie_reviews_mr", MINILM, "30s", ("--max-rows", "160")),
    ("product_reviews_cr", MINILM, "30s", ("--max-rows", "160", "--seed", "1")),
    ("stsb/train.csv", MINILM, "30s", ("--max-rows", "160", "--target", "score", "--text", "sentence1,sentence2")),
    ("flowers_sharp", MOBILENET, "1m", ()),
    ("pneumonia_xray28", MOBILENET, "1m", ()),
    ("movie_reviews_mr", MINILM, "1m", ()),
    ("banking77", MINILM, "1m", ()),
    ("sst5", MINILM, "1m", ()),
    ("medical_abstracts", MINILM, "1m", ()),
    ("ants_bees", MOBILENET, "2m", ()),
    ("trec_questions", MINILM, "2m", ()),
    ("cifar10_small", MOBILENET, "2m", ()),
    ("sst2", MINILM, "2m", ("--strategy", "full")),
    ("movie_reviews_mr", MINILM, "5m", ()),
    ("flowers5", MOBILENET, "5m", ()),
    ("flowers_sharp", BIRDS, "30s", ()),
    ("office_caltech/webcam", MOBILENET, "30s", ()),
    ("sst2", MINILM, "30s", ("--max-rows", "160")),
    ("subjectivity", MINILM, "30s", ("--max-rows", "160", "--strategy", "partial")),
    ("medical_abstracts", MINILM, "30s", ("--max-rows", "160")),
    ("ants_bees", BIRDS, "1m", ()),
    ("aerial_scenes", MOBILENET, "1m", ("--strategy", "full")),
    ("subjectivity", MINILM, "1m", ()),
    ("steel_defects", MOBILENET, "2m", ()),
    ("trec_questions", MINILM, "5m", ()),
]
SECONDS = {"30s": 30, "1m": 60, "2m": 120, "5m": 300}


def main() -> int:
    parse = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parse.add_argument("--quick", action="store_true", help="the first run alone; nothing is kept")
    parse.add_argument("--again", action="store_true", help="measure what is measured already")
    given = parse.parse_args()
    if not SHARED.is_dir():
        print(f"skipped: {SHARED} is absent")
        return 0
    if measured(15, WORK, SIDE, AGAINST) and not (given.again or given.quick):
        print(f"{WORK}: measured already")
        return 0
    held = json.loads(KEPT.read_text("utf-8")) if KEPT.is_file() and not given.again else {}
    for run in RUNS[:1] if given.quick else RUNS:
        name = " ".join((run[0], Path(run[1]).name, run[2], *run[3]))
        if name in held and not _spoiled(held[name]):
            continue
        with tempfile.TemporaryDirectory() as place:
            held[name] = timed(run, Path(place))
        print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in held[name].items()), flush=True)
        if not given.quick:
            KEPT.write_text(json.dumps(held, indent=1) + "\n", "utf-8")
    found = list(held.values())
    kept, usable = sum(one["kept"] for one in found), sum(one["usable"] for one in found)
    told = f"kept in {kept} of {len(found)} runs, a usable model in {usable}"
    print(told)
    if not given.quick:
        ratios = [one["allowed_s"] / one["wall_s"] for one in found]
        equal = {"what": "the promise", "difference": told}
        more = {"reached": kept == usable == len(found), "runs": held}
        keep(Comparison(15, WORK, SIDE, AGAINST, ratios, 1.0, 0.0, equal, more=more))
    return int(kept < len(found) or usable < len(found))


def _spoiled(one: dict[str, Any]) -> bool:
    """Whether a run was late while others wanted its processor."""
    return not one["kept"] and one["load"] > one["processors"]


def timed(run: tuple[str, str, str, tuple[str, ...]], place: Path) -> dict[str, Any]:
    """One command from start to end, and whether what it left predicts."""
    data, model, budget, more = run
    environment = {**os.environ, "REGRAFT_CACHE": str(place / "cache"), "HF_HUB_OFFLINE": "1"}
    environment["OMP_NUM_THREADS"] = str(len(os.sched_getaffinity(0)))
    regraft = [sys.executable, "-m", "regraft.cli"]
    command = [*regraft, "adapt", str(SHARED / "data" / data), "--model", model, "--budget", budget, *more]
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [*command, "--out", str(place / "runs"), "--fresh", "--json"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    wall, used = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    had = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    allowed = 1.05 * SECONDS[budget] + 10
    told = json.loads(done.stdout) if done.stdout.strip() else {"ok": False, "error": done.stderr[-300:]}
    one: dict[str, Any] = {"wall_s": round(wall, 1), "allowed_s": allowed, "kept": wall <= allowed, "usable": False}
    one |= {"share": round(had / wall, 2), "load": round(os.getloadavg()[1], 1), "processors": os.cpu_count() or 1}
    if told["ok"]:
        trials, best = told["trials"], told["trials"][told["verdict"]["winner"]]
        score = next(s for s in best["scores"] if s["split"] == "test")
        one |= {"trials": len(trials), "winner": best["plan"]["strategy"], "test": round(score["value"], 3)}
        text = next(Path(told["run"]).glob("splits.csv")).read_text("utf-8").splitlines()
        inputs = ["--text", "a text", "--text", "another"][: 4 if "sentence1" in str(more) else 2]
        if model != MINILM:
            inputs = [str(next((SHARED / "data" / data).rglob("*.[jp][pn]g")))]
        said = subprocess.run(
            [*regraft, "predict", told["run"], *inputs, "--json"], capture_output=True, check=False, env=environment
        )
        one |= {"usable": said.returncode == 0, "rows": len(text) - 1}
    else:
        one["error"] = str(told["error"])[:300]
    return one


if __name__ == "__main__":
    sys.exit(main())
