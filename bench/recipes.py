"""The articles' recipes on the rows that regraft trains, validates and tests on: as plain PyTorch loops, as commands.

plain: no regraft in the loops: transformers' MobileNetV2, SGD with momentum 0.9, batches of 4, 25 epochs, the epoch
with the best validation accuracy kept (as the tutorial that the data comes from does), no augmentation, normalisation
in eval mode. What is frozen runs once and is kept: without augmentation and in eval mode that changes no bit of the
method.

regraft: the commands of docs/recipes as they stand there, with each seed, on one cache; `reviews` has no plain side.

Asserted: the settings that ran are those of the recipe, as many weights train as in the loop, the rows of each split
are the same, every epoch was run, and a constant guess is beaten. Means and ranges are printed, never asserted. On one
thread of a busy processor "all layers" takes 8 to 30 minutes a seed and side, `reviews` about as long, the rest one.

    python bench/recipes.py [--side regraft|plain|both] [--seeds 5] [--first 0]
                            [--epochs 25] [--recipe NAME] [--out recipes.json]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "recipes"
SHARED = ROOT.parent / "shared"
RECIPES = {  # frozen below: how many of the two halves (body, last stage) do not train; rates of body, last stage, head
    "head only": (2, (0.0, 0.0, 1e-3)),
    "all layers": (0, (1e-4, 1e-4, 1e-4)),
    "last block and head": (1, (0.0, 1e-4, 1e-4)),
    "two rates": (1, (0.0, 1e-5, 1e-3)),
}
MOMENTUM, BATCH, MICRO = 0.9, 4, 32
REFUSED = 7  # the command's exit code where the result was made and may not ship
CHANCE = 0.55
"""A constant guess is right on 83 of the 153 pictures, and on half of the reviews."""


def main() -> int:
    parse = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parse.add_argument("--model", default=str(SHARED / "models" / "mobilenet_v2_1.0_224"))
    parse.add_argument("--data", default=str(SHARED / "data" / "ants_bees"))
    parse.add_argument("--side", choices=("regraft", "plain", "both"), default="both")
    parse.add_argument("--seeds", type=int, default=1)
    parse.add_argument("--first", type=int, default=0, help="the first seed")
    parse.add_argument("--epochs", type=int, default=25)
    parse.add_argument("--recipe", default="", help="only recipes whose name holds this")
    parse.add_argument("--runs", default="", help="the folder that runs and their cache are put into, and kept")
    parse.add_argument("--out", default="")
    given = parse.parse_args()
    if not Path(given.data).exists():
        print(f"skipped: {given.data} is absent")
        return 0
    asked = {name: args for name, args in commands().items() if given.recipe in name}
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        for seed in range(given.first, given.first + given.seeds):
            if given.side != "regraft" and (names := [name for name in RECIPES if given.recipe in name]):
                splits = pictures(given, seed)
                found += [told(plainly(given, splits, name, seed)) for name in names]
            if given.side != "plain":
                for name, args in asked.items():
                    found += [told(one) for one in commanded(given, name, args, seed, Path(given.runs or place))]
            if given.out:
                Path(given.out).write_text(json.dumps(found, indent=1))
    for one in found:
        twin = [f for f in found if (f["recipe"], f["seed"]) == (one["recipe"], one["seed"])]
        assert one["recipe"] not in RECIPES or len({f["trained"] for f in twin}) == 1, twin
        assert one["test"] > CHANCE, one
    for key in dict.fromkeys((f["recipe"], f["side"], f["plan"]) for f in found):
        some = [f for f in found if (f["recipe"], f["side"], f["plan"]) == key]
        tests, seconds = [f["test"] for f in some], [f["seconds"] for f in some]
        print(
            f"{key[0]:20s} {key[1]:7s} {key[2]:24s} test mean {statistics.mean(tests):.4f}, from {min(tests):.3f} to "
            f"{max(tests):.3f} over {len(some)} seeds; {statistics.median(seconds):.0f} s"
        )
    return 0


def told(one: dict[str, Any]) -> dict[str, Any]:
    """Print a line of what was found."""
    print(
        f"seed {one['seed']}  {one['recipe']:20s} {one['side']:7s} {one['plan']:24s} validation {one['val']:.3f}  "
        f"test {one['test']:.3f}  {one['seconds']:.0f} s",
        flush=True,
    )
    return one


# ---------------------------------------------------------------- regraft: the commands of the pages


def commands(pages: Path = PAGES) -> dict[str, list[str]]:
    """Recipe → the arguments of its command, as the pages have them: its first fenced `regraft adapt`."""
    found: dict[str, list[str]] = {}
    for page in sorted(pages.glob("*.md")):
        for part in re.split(r"^## ", page.read_text("utf-8"), flags=re.MULTILINE)[1:]:
            if made := re.search(r"^```\nregraft (adapt (?:.*\\\n)*.*)\n```", part, re.MULTILINE):
                found[part.splitlines()[0].lower()] = shlex.split(made[1].replace("\\\n", " "))
    return found


def commanded(given: argparse.Namespace, name: str, args: list[str], seed: int, place: Path) -> list[dict[str, Any]]:
    """What the trials of a recipe's command found."""
    args, pictured = list(args), name in RECIPES
    if pictured:
        args[1], args[args.index("--model") + 1] = given.data, given.model
        args = [str(given.epochs) if args[i - 1].endswith((".epochs", ".patience")) else a for i, a in enumerate(args)]
    out = place / name.replace(" ", "-")
    run = [sys.executable, "-m", "regraft.cli", *args, "--seed", str(seed), "--out", str(out), "--json"]
    where = os.environ | {"REGRAFT_CACHE": os.environ.get("REGRAFT_CACHE", str(place / "cache"))}
    done = subprocess.run(run, cwd=ROOT, env=where, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode in (0, REFUSED), run
    made = json.loads(done.stdout)
    trials = json.loads(Path(ROOT, made["run"], "trials.json").read_text())["record"]
    found = []
    for trial in trials:
        value = {s["split"]: s["value"] for s in reversed(trial["scores"]) if s["metric"] == "accuracy"}
        assert not trial["stopped"], trial["stopped"]
        if pictured:
            asserted(name, trial, given.epochs)
            same_rows(given, Path(ROOT, made["run"], "splits.csv"), seed)
        found.append(
            {
                "recipe": name,
                "side": "regraft",
                "plan": f"{trial['plan']['strategy']} lr {trial['plan']['optimizer']['lr']:g}",
                "seed": seed,
                "val": value["val"],
                "test": value["test"],
                "trained": trial["cost"]["trainable"],
                "seconds": trial["cost"]["seconds"],
            }
        )
    return found


def asserted(name: str, trial: dict[str, Any], epochs: int) -> None:
    """A trial ran with the settings of its recipe, and to its end."""
    plan = trial["plan"]
    (phase,) = plan["phases"]
    rule, head = plan["optimizer"], max(RECIPES[name][1])
    wanted = {"name": "sgd", "lr": head, "weight_decay": 0.0, "momentum": MOMENTUM, "clip": 0.0}
    assert {name: rule[name] for name in wanted} == wanted, rule
    assert (plan["batch"], phase["schedule"], phase["warmup_frac"], phase["norm"]) == (BATCH, "constant", 0.0, "keep")
    rates = {pattern: times * head for pattern, times in phase["rates"]}
    assert rates.pop("head/*") == head
    wanted = RECIPES[name][1][1]
    assert all(abs(rate - wanted) < 1e-12 for rate in rates.values()) and bool(rates) == bool(wanted), rates
    assert len(trial["curve"]) == epochs, len(trial["curve"])


def same_rows(given: argparse.Namespace, sheet: Path, seed: int) -> None:
    """The rows of a run's splits are those that the plain loops read."""
    from regraft.data.open import open_data

    data = open_data(given.data, seed)
    with sheet.open(newline="", encoding="utf-8") as file:
        rows = {(row["split"], row["id"], row["sha256"]) for row in csv.DictReader(file)}
    assert rows == {(name, row.id, row.key) for name in ("train", "val", "test") for row in getattr(data, name)}


# ---------------------------------------------------------------- plain: the same in PyTorch alone


def pictures(given: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Split → (pixels [N, 3, 224, 224], labels [N]): the rows of regraft's splits, prepared by transformers."""
    import torch
    from PIL import Image, ImageOps
    from transformers import AutoImageProcessor

    from regraft.data.open import open_data

    data = open_data(given.data, seed)
    processor = AutoImageProcessor.from_pretrained(given.model, backend="pil")
    made = {}
    for name in ("train", "val", "test"):
        rows = getattr(data, name)
        opened = [ImageOps.exif_transpose(Image.open(row.cell)).convert("RGB") for row in rows]
        pixels = torch.cat([processor(one, return_tensors="pt")["pixel_values"] for one in opened])
        made[name] = (pixels, torch.tensor([data.target.labels.index(row.y) for row in rows]))
    return made


def plainly(given: argparse.Namespace, splits: dict[str, Any], name: str, seed: int) -> dict[str, Any]:
    """Validation and test accuracy of one recipe."""
    import torch
    from torch import nn
    from transformers import AutoModelForImageClassification

    begun = time.perf_counter()
    frozen, rates = RECIPES[name]
    model = AutoModelForImageClassification.from_pretrained(given.model, dtype=torch.float32).eval()
    base = model.mobilenet_v2
    torch.manual_seed(seed)
    head = nn.Linear(model.classifier.in_features, int(splits["train"][1].max()) + 1)
    last = base.conv_1x1
    base.conv_1x1 = nn.Identity()
    body = lambda x: base(x).last_hidden_state  # noqa: E731
    top = lambda x: last(x).mean((2, 3))  # noqa: E731
    pieces = [body, top][:frozen]
    kept = {}
    with torch.no_grad():
        for split, (x, y) in splits.items():
            for piece in pieces:
                x = torch.cat([piece(x[i : i + MICRO]) for i in range(0, len(x), MICRO)])
            kept[split] = (x, y)

    def forward(x: Any) -> Any:
        for piece in [body, top][frozen:]:
            x = piece(x)
        return head(x)

    groups = [(list(m.parameters()), rate) for m, rate in zip((base, last, head), rates, strict=True) if rate]
    optimizer = torch.optim.SGD([{"params": some, "lr": rate} for some, rate in groups], lr=1e-3, momentum=MOMENTUM)

    def right(split: str) -> float:
        x, y = kept[split]
        with torch.no_grad():
            made = torch.cat([forward(x[i : i + MICRO]).argmax(1) for i in range(0, len(x), MICRO)])
        return float((made == y).float().mean())

    x, y = kept["train"]
    best = (-1.0, 0.0)
    for _ in range(given.epochs):
        order = torch.randperm(len(y))
        for i in range(0, len(y), BATCH):
            some = order[i : i + BATCH]
            optimizer.zero_grad()
            nn.functional.cross_entropy(forward(x[some]), y[some]).backward()
            optimizer.step()
        if (val := right("val")) > best[0]:
            best = (val, right("test"))
    return {
        "recipe": name,
        "side": "plain",
        "plan": "",
        "seed": seed,
        "val": best[0],
        "test": best[1],
        "trained": sum(p.numel() for some, _ in groups for p in some),
        "seconds": time.perf_counter() - begun,
    }


if __name__ == "__main__":
    sys.exit(main())
