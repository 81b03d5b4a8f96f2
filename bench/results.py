"""What benchmarks measured: sides run turn by turn, and one record for each comparison in RESULTS.json and RESULTS.md.

python bench/results.py        write RESULTS.md anew from RESULTS.json
"""

from __future__ import annotations

import datetime
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SHARED = ROOT.parent / "shared"
RESULTS = HERE / "RESULTS.json"


@dataclass
class Comparison:
    """One side against another: how many times faster it is. `ratios` has a number for each round.

    `equal` says what was compared before any time was looked at, and how far apart it was. `limit` is what physics, or
    the formula in the bench's docstring, allows; 0 where none is known. `rho` is how many times as fast as eager
    float32 the network's best trunk engine is on this machine, `phi` the same of a training step; 0 without a network.
    """

    bench: int
    work: str
    side: str
    against: str
    ratios: list[float]
    goal: float
    limit: float
    equal: dict[str, Any]
    quick: bool = False
    more: dict[str, Any] = field(default_factory=dict)
    rho: float = 0.0
    phi: float = 0.0

    def told(self) -> dict[str, Any]:
        """The record of a comparison."""
        found = asdict(self)
        ratios = found.pop("ratios")
        middle = {"min": min(ratios), "median": statistics.median(ratios), "max": max(ratios)}
        found["ratio"] = {name: round(value, 3) for name, value in middle.items()} | {"rounds": len(ratios)}
        return found | {
            "machine": machine(),
            "versions": versions(),
            "date": datetime.date.today().isoformat(),
            "command": " ".join(["python", Path(sys.argv[0]).resolve().relative_to(ROOT).as_posix(), *sys.argv[1:]]),
        }


def turns(sides: Mapping[str, Callable[[], Any]], rounds: int, check: Callable[[dict[str, Any]], None]) -> Seconds:
    """Run every side in each round, in turning order; `check` asserts that what they made is equal.

    Returns: Side → seconds of each round. Nothing is printed of a round that was not equal.
    """
    found: Seconds = {name: [] for name in sides}
    order = list(sides)
    for number in range(rounds):
        made = {}
        for name in order[number % len(order) :] + order[: number % len(order)]:
            begun = time.perf_counter()
            made[name] = sides[name]()
            found[name].append(time.perf_counter() - begun)
        check(made)
        said = ", ".join(f"{name} {found[name][-1]:.3f} s" for name in sides)
        print(f"  round {number + 1} of {rounds}: {said}", file=sys.stderr, flush=True)
    return found


Seconds = dict[str, list[float]]


def ratios(seconds: Seconds, side: str, against: str) -> list[float]:
    """How many times faster `side` was than `against`, round by round."""
    return [other / own for own, other in zip(seconds[side], seconds[against], strict=True)]


def keep(one: Comparison) -> None:
    """Print a comparison and keep it, in place of the one of this bench, work and sides on this kind of machine.

    A quick look never replaces what was measured in full.
    """
    told = one.told()
    print(line(told), flush=True)
    held = json.loads(RESULTS.read_text("utf-8")) if RESULTS.is_file() else []
    same = [old for old in held if _place(old) == _place(told)]
    if one.quick and any(not old["quick"] for old in same):
        return
    held = [old for old in held if old not in same] + [told]
    held.sort(key=_place)
    RESULTS.write_text(json.dumps(held, indent=1, ensure_ascii=False) + "\n", "utf-8")
    write()


def measured(bench: int, work: str, side: str, against: str) -> bool:
    """Whether this machine has measured a comparison in full already: a bench that was stopped goes on after it."""
    held = json.loads(RESULTS.read_text("utf-8")) if RESULTS.is_file() else []
    wanted = (bench, work, side, against, machine()["processor"], machine()["threads"])
    return any(_place(old) == wanted and not old["quick"] for old in held)


def _place(told: Mapping[str, Any]) -> tuple[Any, ...]:
    found = tuple(told[name] for name in ("bench", "work", "side", "against"))
    return (*found, told["machine"]["processor"], told["machine"]["threads"])


def line(told: Mapping[str, Any]) -> str:
    """A comparison in a line."""
    r, bound = told["ratio"], f", limit {told['limit']:g}" if told["limit"] else ""
    how = "cheap" if "in" in told.get("more", {}) else "fast"
    return (
        f"{told['work']}: {told['side']} is {r['median']:.2f} ({r['min']:.2f} to {r['max']:.2f}, {r['rounds']} rounds) "
        f"times as {how} as {told['against']}; goal {told['goal']:g}{bound}; {told['equal']['what']}: "
        f"{told['equal']['difference']}{paces(told, '; rho {}, phi {}')}"
    )


def paces(told: Mapping[str, Any], form: str) -> str:
    """rho and phi of a comparison, where it has them."""
    return form.format(f"{told['rho']:.2f}", f"{told['phi']:.2f}") if told.get("rho") else ""


def write() -> None:
    """RESULTS.md: the records as a table."""
    held = json.loads(RESULTS.read_text("utf-8"))
    rows = [
        "# What was measured",
        "",
        "Seconds of the other side over seconds of the side, measured turn by turn in one process: the median, then",
        "the least and the most of so many rounds. Nothing is timed before results are equal as is told.",
        "ρ is how many times as fast as eager float32 a frozen trunk runs with the best engine there, φ the same of a",
        "training step; `--precision auto` uses both. RESULTS.json has versions and commands. Benches 8 and",
        "14 count forward equivalents in place of seconds.",
        "",
        "| # | work | side | against | ratio | goal | limit | ρ, φ | equal | machine | date |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for told in held:
        r = told["ratio"]
        ratio = f"{r['median']:.2f} ({r['min']:.2f} – {r['max']:.2f}; {r['rounds']})" + (
            " quick" if told["quick"] else ""
        )
        rows.append(
            f"| {told['bench']} | {told['work']} | {told['side']} | {told['against']} | {ratio} | {told['goal']:g} | "
            f"{told['limit'] or '–'} | {paces(told, '{}, {}') or '–'} | "
            f"{told['equal']['what']}: {told['equal']['difference']} | "
            f"{told['machine']['processor']}, {told['machine']['threads']} threads | {told['date']} |"
        )
    (HERE / "RESULTS.md").write_text("\n".join(rows) + "\n", "utf-8")


def machine() -> dict[str, Any]:
    """The processor and the threads in use; a card's name where one is used is added by the bench."""
    import torch

    from regraft.kit import hardware

    return {"processor": hardware.processor(), "threads": torch.get_num_threads()}


def versions() -> dict[str, str]:
    """Versions of what decides speed, and the commit that was measured."""
    from regraft.kit import hardware

    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return dict(hardware.versions()) | {"commit": commit.stdout.strip()}


if __name__ == "__main__":
    write()
