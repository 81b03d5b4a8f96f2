"""Harm whole runs between any two of their file operations, in forks of this process; they must end as unharmed ones.

python -m tests.laws.kills FOLDER HARM [one|race] [HOW MANY|all] [SEED]

HARM is kill (SIGKILL, now and then again in what recovers), full (no room, or a disk that fails, from then on or once)
or power (what was not synced is lost).
"""

from __future__ import annotations

import dataclasses
import errno
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from regraft import flow
from regraft.deliver import pack
from regraft.engine.snapshot import Keeper
from regraft.errors import RegraftError
from regraft.kit import durable
from regraft.kit.store import Folder
from regraft.waist import Budget, Options, Trial
from tests import places
from tests.disk import Disk, Fault, Lost, fail_at, kill_at

REQUESTS: dict[str, dict[str, Any]] = {
    "one": {"strategies": ("partial",), "knobs": (("partial.batch", "14"), ("partial.epochs", "2"))},
    "race": {
        "strategies": ("asis", "scratch", "probe", "partial"),
        "budget": Budget(trials=6),
        "knobs": (
            *(("scratch.by", "plain"), ("probe.batch", "14"), ("probe.epochs", "4")),
            *(("partial.batch", "14"), ("partial.epochs", "3")),
        ),
    },
}
"""One strategy to its end; a race of six trials in which the rates of the probe compete."""
NESTED = (0.6, 0.3, 0.1)
"""How often a run is killed once, killed again while it goes on, and once more after that."""
CODES = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)


class Harness:
    """A request, its unharmed run with all that it did to files, and what is promised of a harmed one."""

    def __init__(self, place: Path, asked: str, seed: int) -> None:
        import torch

        torch.set_num_threads(1)
        pack._self_test = lambda *_: None  # type: ignore[assignment]  # a process of its own, which journeys run
        Keeper.due = lambda _: True  # type: ignore[method-assign]  # a snapshot at each step
        places.pictures(place / "data")
        places.model(place / "model")
        self.place, self.draw = place, random.Random(seed)
        self.options = Options(str(place / "data"), str(place / "model"), **REQUESTS[asked])
        self.whole, made = self.run("whole")  # all is imported from here on
        self.trace, self.wanted = self.whole.trace, content(made.folder)

    def out(self, name: str) -> Path:
        """Where a run and its cache lie; both are watched."""
        os.environ["REGRAFT_CACHE"] = str(self.place / "at" / name / "cache")
        return self.place / "at" / name

    def run(self, name: str, fault: Fault | None = None) -> tuple[Disk, flow.Run]:
        out = self.out(name)
        with Disk(out, fault).used() as disk:
            return disk, flow.finish(flow.steps(self.options, out / "runs"))

    def killed(self, name: str, number: int) -> bool:
        """Kill the run at an operation; whether it had that many."""
        share = self.draw.random()
        code = os.waitstatus_to_exitcode(child(lambda: self.run(name, kill_at(number, share))))
        assert code in (0, -signal.SIGKILL), f"{name} ended by itself with {code}"
        return code != 0

    def goes_on(self, name: str, told: str = "", *, keeps: bool = True) -> None:
        """The promise: it ends with the same bits, what had ended keeps its bytes, and nothing is left lying about.

        Without `keeps` power was lost: a file that was never synced may be gone, and is made again. `told` says what
        was done to it.
        """
        told = told or name

        def again() -> None:
            out = self.out(name)
            torn = next(out.glob("runs/*/options.json"), out / "none").parent
            if keeps:
                usable(torn, self.place)
            ended, spent = trials(torn), clock(torn)
            _, run = self.run(name)
            made = content(run.folder)
            wrong = [part for part in self.wanted if made[part] != self.wanted[part]]
            assert not wrong, f"{told}: {[(made[n], self.wanted[n]) for n in wrong]}"
            litter = files(run.folder) ^ files(self.place / "at/whole/runs" / run.folder.name)
            assert not litter, f"{told}: {litter}"
            assert not list(out.rglob(".part-*")), f"{told}: half-written files stay"
            assert not keeps or ended.items() <= trials(run.folder).items(), f"{told}: a finished trial was run again"
            assert not keeps or clock(run.folder) >= spent, f"{told}: the clock went back"

        assert os.waitstatus_to_exitcode(child(again)) == 0, told
        shutil.rmtree(self.place / "at" / name)


def kills(of: Harness, points: list[int]) -> int:
    """Kill before an operation or within a write, go on, kill that too, and see the promise kept."""
    made = 0
    for point in points:
        at = [point]
        for _ in range(of.draw.choices((1, 2, 3), NESTED)[0]):
            if not of.killed(f"killed-{point}", at[-1]):
                break
            made += 1
            at.append(of.draw.randint(1, max(2, len(of.trace) - point)))
        of.goes_on(f"killed-{point}", f"killed at {at}")
    return made


def faults(of: Harness, points: list[int]) -> int:
    """Refuse an operation: the run ends well without a cache, or stops with a typed error and goes on afterwards."""
    stopped = 0
    for point in points:
        code, once = of.draw.choice(CODES), of.draw.random() < 0.5
        name = f"{errno.errorcode[code]}-{'once' if once else 'from'}-{point}"

        def refused(name: str = name, code: int = code, once: bool = once, point: int = point) -> None:
            try:
                _, run = of.run(name, fail_at(point, code, once=once))
            except RegraftError as error:
                assert error.code == (2 if code == errno.EROFS else 5), repr(error)
                assert str(of.place / "at" / name) in error.saw and error.do, repr(error)
                assert not once or not list((of.place / "at" / name).rglob(".part-*")), "half-written files stay"
                os._exit(5)
            assert content(run.folder) == of.wanted, "it ended otherwise"

        ended = os.waitstatus_to_exitcode(child(refused))
        assert ended in (0, 5), f"{name}: neither an end nor a typed error"
        stopped += ended == 5
        of.goes_on(name)
    return stopped


def losses(of: Harness, points: list[int]) -> int:
    """Lose power after an operation: names changed in their order, bytes that were not synced gone or zeros."""
    for point in points:
        for kind in ("zeros", "short"):
            name = f"lost-{kind}-{point}"
            Lost(of.trace[:point], of.place / "at/whole").write(of.place / "at" / name, kind)
            of.goes_on(name, keeps=False)
    return 2 * len(points)


HARMS: dict[str, Callable[[Harness, list[int]], int]] = {"kill": kills, "full": faults, "power": losses}


def main(place: Path, harm: str, asked: str = "one", many: str = "25", seed: str = "0") -> int:
    """Do harm at random operations of the run, or at all; returns how often. An assertion says where it did lasting
    harm.
    """
    of = Harness(place, asked, int(seed))
    count = len(of.trace)
    points = list(range(1, count + 1))
    if many != "all":
        points = sorted(of.draw.randint(1, count) for _ in range(int(many)))
    made = HARMS[harm](of, points)
    print(f"{made} of {harm} in {len(points)} runs of {count} operations")
    return made


def content(run: Path) -> dict[str, Any]:
    """All that a run ended with but what was measured by a clock: weights and predictions by their bytes."""
    found = flow.read_run(run)
    files = [name for t in found.trials if t.whole for name in (t.snapshot, t.predictions)]
    return {
        "trials": [(t.plan, t.scores, t.curve, t.calibration, t.stopped, t.notes) for t in found.trials],
        "bytes": {name: durable.file_digest(run / name) for name in files},
        "bundle": {name: found_ for name, found_ in durable.sums(found.bundle).items() if name.startswith("model.")},
        "verdict": found.verdict,
        "account": dataclasses.replace(found.account, seconds=0.0, saved=None, kwh=None),
    }


def files(run: Path) -> set[str]:
    """The names of all files and folders of a run; how often its bundle was packed does not matter."""
    names = {path.relative_to(run).as_posix() for path in run.rglob("*")}
    return {name.replace(os.readlink(run / "bundle"), "bundle-n") for name in names}


def trials(run: Path) -> dict[str, bytes]:
    """The records of finished trials, as they lie there."""
    return {str(path.relative_to(run)): path.read_bytes() for path in run.glob("trials/*/trial.json")}


def clock(run: Path) -> float:
    """The seconds that a run has written down so far."""
    return Folder(run).read("clock", float) or 0.0


def usable(run: Path, place: Path) -> None:
    """Where one trial of several has ended and another has begun, the bundle opens and says what its trial said."""
    several = len(list(run.glob("trials/*"))) > 1
    if not (run / "bundle").exists():
        assert not several, "a trial has ended, and there is no bundle"
        return
    import numpy as np
    from safetensors.numpy import load_file

    from regraft.data.open import open_data
    from regraft.deliver.model import Model

    model = Model.load(run / "bundle")
    answers = model.predict([row.cell for row in open_data(place / "data").test])
    ended = [Folder(path.parent).load("trial", Trial) for path in run.glob("trials/*/trial.json")]
    (source,) = [trial for trial in ended if trial.plan == model.told.plan and trial.whole]
    said = np.argmax(load_file(run / source.predictions)["test"], 1)
    assert [answer["label"] for answer in answers] == [model.labels[i] for i in said]


def child(work: Callable[[], object]) -> int:
    """Run `work` in a fork; its wait status."""
    number = os.fork()
    if number == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            import traceback

            traceback.print_exception(error, file=sys.stderr)
            sys.stderr.flush()
            os._exit(9)
    return os.waitpid(number, 0)[1]


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
