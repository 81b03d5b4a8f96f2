"""Kill whole runs at their durable operations, in forks of this process; they must end as an unkilled run does.

python -m tests.laws.kills FOLDER [one|race]
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from regraft import flow
from regraft.deliver import pack
from regraft.engine.snapshot import Keeper
from regraft.kit import durable
from regraft.kit.store import Folder
from regraft.waist import Budget, Options, Trial
from tests import places

KILLS = 25
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


def main(place: Path, asked: str = "one") -> int:
    """Make the kills; returns how many. An assertion says where one did harm."""
    import torch

    torch.set_num_threads(1)
    pack._self_test = lambda *_: None  # type: ignore[assignment]  # a process of its own, which journeys run
    Keeper.due = lambda _: True  # type: ignore[method-assign]  # a snapshot at each step
    places.pictures(place / "data")
    places.model(place / "model")
    options = Options(str(place / "data"), str(place / "model"), **REQUESTS[asked])

    def run(out: Path) -> flow.Run:
        return flow.finish(flow.steps(options, out))

    def unkilled() -> None:
        counted = [0]
        durable.before = lambda _op, _path: counted.__setitem__(0, counted[0] + 1)
        run(place / "whole")
        (place / "counted").write_text(str(counted[0]))

    assert os.waitstatus_to_exitcode(child(unkilled)) == 0
    (whole,) = (place / "whole").iterdir()
    wanted, counted = content(whole), int((place / "counted").read_text())
    points = range(1, counted + 1, max(1, counted // KILLS))
    for point in points:
        out = place / f"killed-{point}"
        os.environ["XDG_CACHE_HOME"] = str(place / f"cache-{point}")
        left = [point]

        def die(_op: str, _path: Path, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        def again(out: Path = out, point: int = point) -> None:
            torn = next(out.glob("*/options.json"), out / "none").parent
            usable(torn, place)
            ended, spent = trials(torn), clock(torn)
            run_ = run(out)
            made = content(run_.folder)
            wrong = [name for name in wanted if made[name] != wanted[name]]
            assert not wrong, f"killed at operation {point}: {[(made[n], wanted[n]) for n in wrong]}"
            assert not list(run_.folder.rglob(".part-*")), f"litter after operation {point}"
            assert run_.bundle.is_symlink() and (run_.bundle / "regraft.json").is_file()
            assert ended.items() <= trials(run_.folder).items(), f"a finished trial was run again: operation {point}"
            assert clock(run_.folder) >= spent, f"the clock went back after operation {point}"

        durable.before = die
        assert os.WTERMSIG(child(lambda out=out: run(out))) == signal.SIGKILL, f"operation {point} was not reached"
        durable.before = lambda _op, _path: None
        assert os.waitstatus_to_exitcode(child(again)) == 0, f"killed at operation {point} of {counted}"
    return len(points)


def content(run: Path) -> dict[str, Any]:
    """All that a run ended with but what was measured by a clock: weights and predictions by their bytes."""
    found = flow.read_run(run)
    files = [name for t in found.trials if t.whole for name in (t.snapshot, t.predictions)]
    return {
        "trials": [(t.plan, t.scores, t.curve, t.calibration, t.stopped, t.notes) for t in found.trials],
        "bytes": {name: durable.file_digest(run / name) for name in files},
        "bundle": {name: found_ for name, found_ in durable.sums(found.bundle).items() if name.startswith("model.")},
        "verdict": found.verdict,
        "account": dataclasses.replace(found.account, seconds=0.0),
    }


def trials(run: Path) -> dict[str, bytes]:
    """The records of finished trials, as they lie there."""
    return {str(path.relative_to(run)): path.read_bytes() for path in run.glob("trials/*/trial.json")}


def clock(run: Path) -> float:
    """The seconds that a run has written down so far."""
    folder = Folder(run)
    return folder.load("clock", float) if folder.has("clock") else 0.0


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
            print(f"child: {error!r}", file=sys.stderr, flush=True)
            os._exit(9)
    return os.waitpid(number, 0)[1]


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), *itertools.islice(sys.argv, 2, 3)), "kills")
