"""Law 5: stopped and resumed equals never stopped, at every step and at every kill."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from regraft.kit import durable
from regraft.waist import Finished, Options, Step
from tests import places

PLANS = [
    ("probe", {"epochs": 3, "batch": 9}),
    ("partial", {"depth": 2, "epochs": 3, "batch": 9, "norm": "update", "smoothing": 0.1}),
    ("scratch", {"epochs": 2, "batch": 9}),
]


@pytest.mark.parametrize(("strategy", "knobs"), PLANS, ids=lambda v: v if isinstance(v, str) else "")
def test_stopped_at_every_step(tmp_path: Path, strategy: str, knobs: dict[str, object]) -> None:
    whole = places.course(tmp_path, run="whole")
    chosen = places.plan(whole, strategy, **knobs)
    steps = sum(isinstance(event, Step) for event in whole.trial(0, chosen))
    wanted = next(e.trial for e in whole.trial(0, chosen) if isinstance(e, Finished))
    for stop in range(1, steps + 1):
        course = places.course(tmp_path, run=f"stopped-{stop}")
        taken = 0
        work = course.trial(0, chosen)
        for event in work:
            taken += isinstance(event, Step)
            if taken == stop:
                work.close()
                break
        again = places.course(tmp_path, run=f"stopped-{stop}")
        left = [event for event in again.trial(0, chosen) if isinstance(event, Step)]
        assert len(left) == steps - stop, "steps were lost or taken twice"
        trial = places.finish(again, chosen)
        assert places.weights(again, trial) == places.weights(whole, wanted)
        assert trial.curve == wanted.curve and trial.scores == wanted.scores


def test_a_torn_snapshot_is_passed_over(tmp_path: Path) -> None:
    whole = places.course(tmp_path, run="whole")
    chosen = places.plan(whole, "partial", depth=1, epochs=2, batch=9)
    wanted = places.finish(whole, chosen)
    course = places.course(tmp_path, run="torn", every_s=0)
    work = course.trial(0, chosen)
    for event in work:
        if isinstance(event, Step) and event.step == 4:
            break
    work.close()
    newest = sorted((tmp_path / "torn").rglob("*.snapshot"))[-1]
    newest.write_bytes(newest.read_bytes()[:-10])
    again = places.course(tmp_path, run="torn")
    assert places.weights(again, places.finish(again, chosen)) == places.weights(whole, wanted)
    assert not newest.exists()


def _child(work: object) -> int:
    """Run `work` in a child process; its wait status."""
    number = os.fork()
    if number == 0:
        try:
            work()  # type: ignore[operator]
            os._exit(0)
        except BaseException as error:
            print(f"child: {error!r}", file=sys.stderr)
            os._exit(9)
    return os.waitpid(number, 0)[1]


def test_killed_at_durable_operations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL before the n-th write, sync, rename … of a whole run; run again, it ends as an unkilled one does."""
    from regraft import api
    from regraft.deliver import pack

    monkeypatch.setattr(pack, "_self_test", lambda *_: None)  # it starts a process of its own; journeys run it
    monkeypatch.setattr("regraft.engine.snapshot.Keeper.due", lambda _: True)
    places.pictures(tmp_path / "data")
    places.model(tmp_path / "model")
    knobs = (("partial.batch", "14"), ("partial.epochs", "2"))
    options = Options(str(tmp_path / "data"), str(tmp_path / "model"), "", ("partial",), knobs)

    def run(out: Path) -> api.Run:
        return api.finish(api.steps(options, out))

    counted = 0

    def count(_op: str, _path: Path) -> None:
        nonlocal counted
        counted += 1

    monkeypatch.setattr(durable, "before", count)
    whole = run(tmp_path / "whole")
    wanted = (whole.folder / whole.winner.snapshot).read_bytes()
    assert counted > 40
    points = range(1, counted + 1, max(1, counted // 25))
    for point in points:
        out = tmp_path / f"killed-{point}"

        def die(_op: str, _path: Path, left: list[int] = [point]) -> None:  # noqa: B006
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"cache-{point}"))
        monkeypatch.setattr(durable, "before", die)
        assert os.WTERMSIG(_child(lambda out=out: run(out))) == signal.SIGKILL
        monkeypatch.setattr(durable, "before", lambda _op, _path: None)
        again = run(out)
        assert (again.folder / again.winner.snapshot).read_bytes() == wanted, f"killed at operation {point}"
        assert not list(again.folder.rglob(".part-*")), f"litter after operation {point}"
        assert again.bundle.is_symlink() and (again.bundle / "regraft.json").is_file()
