"""Kill whole runs at their durable operations, in forks of this process; they must end as an unkilled run does.

python -m tests.laws.kills FOLDER
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from regraft import api
from regraft.deliver import pack
from regraft.engine.snapshot import Keeper
from regraft.kit import durable
from regraft.waist import Options
from tests import places

KILLS = 25


def main(place: Path) -> int:
    """Make the kills; returns how many. An assertion says where one did harm."""
    import torch

    torch.set_num_threads(1)
    pack._self_test = lambda *_: None  # type: ignore[assignment]  # a process of its own, which journeys run
    Keeper.due = lambda _: True  # type: ignore[method-assign]  # a snapshot at each step
    places.pictures(place / "data")
    places.model(place / "model")
    knobs = (("partial.batch", "14"), ("partial.epochs", "2"))
    options = Options(str(place / "data"), str(place / "model"), strategies=("partial",), knobs=knobs)

    def run(out: Path) -> api.Run:
        return api.finish(api.steps(options, out))

    def unkilled() -> None:
        counted = [0]
        durable.before = lambda _op, _path: counted.__setitem__(0, counted[0] + 1)
        whole = run(place / "whole")
        (place / "wanted").write_bytes((whole.folder / whole.winner.snapshot).read_bytes())
        (place / "counted").write_text(str(counted[0]))

    assert os.WEXITSTATUS(child(unkilled)) == 0
    wanted, counted = (place / "wanted").read_bytes(), int((place / "counted").read_text())
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
            run_ = run(out)
            assert (run_.folder / run_.winner.snapshot).read_bytes() == wanted, f"killed at operation {point}"
            assert not list(run_.folder.rglob(".part-*")), f"litter after operation {point}"
            assert run_.bundle.is_symlink() and (run_.bundle / "regraft.json").is_file()

        durable.before = die
        assert os.WTERMSIG(child(lambda out=out: run(out))) == signal.SIGKILL, f"operation {point} was not reached"
        durable.before = lambda _op, _path: None
        assert os.waitstatus_to_exitcode(child(again)) == 0, f"killed at operation {point} of {counted}"
    return len(points)


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
    print(main(Path(sys.argv[1])), "kills")
