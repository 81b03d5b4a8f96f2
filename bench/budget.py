"""Is a budget in seconds kept? Whole commands with budgets from 30 s to 5 min: wall time against 105 % + 10 s.

Each run is a fresh process with a fresh cache, its imports counted; afterwards its bundle must predict. Runs of 30 s
have at most 500 rows. Two may run at once (`--jobs 2`, a thread each), as on a shared machine.

    python bench/budget.py [--jobs 1] [--only 30s] [--out budget.json]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
MOBILENET, MINILM = str(SHARED / "models" / "mobilenet_v2_1.0_224"), "minilm"
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
]
SECONDS = {"30s": 30, "1m": 60, "2m": 120, "5m": 300}


def main() -> int:
    parse = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parse.add_argument("--jobs", type=int, default=1)
    parse.add_argument("--only", default="", help="only runs with this budget")
    parse.add_argument("--out", default="")
    given = parse.parse_args()
    if not SHARED.is_dir():
        print(f"skipped: {SHARED} is absent")
        return 0
    chosen = [run for run in RUNS if given.only in ("", run[2])]
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(given.jobs) as pool:
        found = list(pool.map(lambda one: measured(one[1], Path(place) / str(one[0]), given.jobs), enumerate(chosen)))
    kept = sum(one["kept"] for one in found)
    usable = sum(one["usable"] for one in found)
    print(f"promise kept in {kept} of {len(found)} runs, a usable model in {usable}")
    if given.out:
        Path(given.out).write_text(json.dumps(found, indent=1))
    return int(kept < len(found) or usable < len(found))


def measured(run: tuple[str, str, str, tuple[str, ...]], place: Path, jobs: int) -> dict[str, Any]:
    """One command from start to end, and whether what it left predicts."""
    data, model, budget, more = run
    environment = {**os.environ, "REGRAFT_CACHE": str(place / "cache"), "HF_HUB_OFFLINE": "1"}
    environment["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // jobs))
    regraft = [sys.executable, "-m", "regraft.cli"]
    command = [*regraft, "adapt", str(SHARED / "data" / data), "--model", model, "--budget", budget, *more]
    begun = time.perf_counter()
    done = subprocess.run(
        [*command, "--out", str(place / "runs"), "--fresh", "--json"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    wall = time.perf_counter() - begun
    allowed = 1.05 * SECONDS[budget] + 10
    told = json.loads(done.stdout) if done.stdout.strip() else {"ok": False, "error": done.stderr[-300:]}
    one = {"data": data, "budget": budget, "wall_s": round(wall, 1), "kept": wall <= allowed, "usable": False}
    if told["ok"]:
        trials, best = told["trials"], told["trials"][told["verdict"]["winner"]]
        score = next(s for s in best["scores"] if s["split"] == "test")
        one |= {"trials": len(trials), "winner": best["plan"]["strategy"], "test": round(score["value"], 3)}
        text = next(Path(told["run"]).glob("splits.csv")).read_text("utf-8").splitlines()
        inputs = ["--text", "a text", "--text", "another"][: 4 if "sentence1" in str(more) else 2]
        if model == MOBILENET:
            inputs = [str(next((SHARED / "data" / data).rglob("*.[jp][pn]g")))]
        said = subprocess.run(
            [*regraft, "predict", told["run"], *inputs, "--json"], capture_output=True, check=False, env=environment
        )
        one |= {"usable": said.returncode == 0, "rows": len(text) - 1}
    else:
        one["error"] = str(told["error"])[:300]
    print("  ".join(f"{value}" for value in one.values()), flush=True)
    return one


if __name__ == "__main__":
    sys.exit(main())
