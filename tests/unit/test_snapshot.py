"""Snapshots: all that a fit is made of comes back, the newest whole one counts, two are kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from regraft.engine import snapshot
from regraft.engine.snapshot import Keeper, Progress, Waiting, optimizer_state, restore_optimizer
from regraft.kit.meter import Meter
from regraft.waist import Epoch


def keeper(place: Path, every_s: float = 0.0) -> Keeper:
    return Keeper(place / "snapshots", Meter.start(), every_s)


def at(step: int) -> Progress:
    return Progress(phase=1, epoch=2, step_in_epoch=3, step=step, loss_sum=0.1, loss_rows=7, best_loss=float("inf"))


def test_progress_and_tensors_come_back(tmp_path: Path) -> None:
    wanted = at(5)
    wanted.curve.append(Epoch(0, 1, 0.1 + 0.2, float("nan"), 1.0))
    tensors = {
        "now/a": torch.tensor([0.1, -0.0]),
        "best/b": torch.tensor(3),
        "half": torch.ones(2, dtype=torch.bfloat16),
    }
    keeper(tmp_path).save(wanted, tensors)
    found = keeper(tmp_path).load()
    assert found is not None
    assert repr(found[0]) == repr(wanted)
    assert set(found[1]) == set(tensors)
    assert all(found[1][n].dtype == t.dtype and torch.equal(found[1][n], t) for n, t in tensors.items())


def test_tensors_that_share_memory_or_are_strided_are_saved(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    keeper(tmp_path).save(at(1), {"a": base.t(), "b": base[:, 1]})
    found = keeper(tmp_path).load()
    assert found is not None and torch.equal(found[1]["a"], base.t()) and torch.equal(found[1]["b"], base[:, 1])


def test_there_is_nothing_before_the_first(tmp_path: Path) -> None:
    assert keeper(tmp_path).load() is None


def test_the_newest_counts_and_two_are_kept(tmp_path: Path) -> None:
    for step in (9, 10, 11, 1000):
        keeper(tmp_path).save(at(step), {"x": torch.tensor(step)})
    found = keeper(tmp_path).load()
    assert found is not None and found[0].step == 1000 and found[1]["x"].item() == 1000
    assert len(list((tmp_path / "snapshots").iterdir())) == 2


@pytest.mark.parametrize("drawn", range(8))
def test_of_two_at_one_step_the_one_after_the_score_counts(tmp_path: Path, drawn: int) -> None:
    """The clock may ask at the last step of an epoch, and a race pause it once its score is there."""
    before, after = at(9), at(9)
    after.curve.append(Epoch(1, 2, 0.1, 0.2, 0.3))
    for progress in (before, after):
        keeper(tmp_path).save(progress, {"x": torch.tensor(drawn)})
    found = keeper(tmp_path).load()
    assert found is not None and len(found[0].curve) == 1, "an epoch that was scored was forgotten"
    ended = at(9)
    ended.curve, ended.phase = after.curve, 2
    keeper(tmp_path).save(ended, {"x": torch.tensor(drawn)})
    found = keeper(tmp_path).load()
    assert found is not None and found[0].phase == 2


@pytest.mark.parametrize("spoil", ["torn", "flipped", "empty"])
def test_one_that_is_not_whole_is_removed_and_the_one_before_counts(tmp_path: Path, spoil: str) -> None:
    for step in (1, 2):
        keeper(tmp_path).save(at(step), {"x": torch.tensor(step)})
    newest = sorted((tmp_path / "snapshots").iterdir())[-1]
    data = newest.read_bytes()
    newest.write_bytes({"torn": data[:-1], "flipped": data[:-1] + bytes([data[-1] ^ 1]), "empty": b""}[spoil])
    found = keeper(tmp_path).load()
    assert found is not None and found[0].step == 1 and not newest.exists()


def test_the_clock_asks_for_a_snapshot(tmp_path: Path) -> None:
    assert keeper(tmp_path, every_s=0).due() and not keeper(tmp_path, every_s=60).due()


def test_seconds_of_all_sittings_are_kept(tmp_path: Path) -> None:
    Keeper(tmp_path, Meter.start(spent_s=50.0)).save(at(1), {})
    found = Keeper(tmp_path, Meter.start()).load()
    assert found is not None and 50 <= found[0].seconds < 60


def test_a_finished_trial_keeps_no_snapshots(tmp_path: Path) -> None:
    kept = keeper(tmp_path)
    kept.save(at(1), {})
    kept.clear()
    assert kept.load() is None and not kept.folder.exists()


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_an_optimizer_goes_on_with_the_same_bits(kind: str) -> None:
    def start() -> tuple[list[torch.nn.Parameter], torch.optim.Optimizer]:
        torch.manual_seed(0)
        held = [torch.nn.Parameter(torch.randn(3, 2)), torch.nn.Parameter(torch.randn(2))]
        made = torch.optim.AdamW(held, lr=0.1) if kind == "adamw" else torch.optim.SGD(held, lr=0.1, momentum=0.9)
        return held, made

    def step(held: list[torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
        for parameter in held:
            parameter.grad = parameter.detach() ** 2
        optimizer.step()

    names = ["layer.1/a/weight", "head/bias"]
    held, optimizer = start()
    step(held, optimizer)
    saved = optimizer_state(optimizer, names)
    again, other = start()
    restore_optimizer(other, names, {k: v.clone() for k, v in saved.items()} | {"now/x": torch.zeros(1)})
    with torch.no_grad():
        for new, old in zip(again, held, strict=True):
            new.copy_(old)
    step(held, optimizer)
    step(again, other)
    assert all(torch.equal(a, b) for a, b in zip(held, again, strict=True))


def test_where_a_fit_stands_is_told_without_reading_what_this_process_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = at(5)
    wanted.curve.append(Epoch(0, 1, 0.1, 0.2, 1.0))
    keeper(tmp_path).save(wanted, {"now/a": torch.zeros(2)})
    monkeypatch.setattr(Keeper, "load", lambda _own: pytest.fail("it was read"))
    assert keeper(tmp_path).progress() == wanted
    monkeypatch.undo()
    snapshot._told.clear()
    assert keeper(tmp_path).progress() == wanted, "another process reads it"
    assert keeper(tmp_path / "empty").progress() is None


def test_a_damaged_snapshot_tells_nothing_to_another_process(tmp_path: Path) -> None:
    for step in (3, 5):
        keeper(tmp_path).save(at(step), {"x": torch.tensor(step)})
    newest = max((tmp_path / "snapshots").iterdir())
    newest.write_bytes(newest.read_bytes()[:-1] + b"?")
    snapshot._told.clear()
    found = keeper(tmp_path).progress()
    assert found is not None and found.step == 3


# ---------------------------------------------------------------- waiting in memory


def waits(place: Path, waiting: Waiting, name: str, every_s: float = 1e9) -> Keeper:
    return Keeper(place / name, Meter.start(), every_s, waiting)


def test_what_waits_comes_back_and_is_written_only_in_the_end(tmp_path: Path) -> None:
    waiting = Waiting(100)
    tensors = {"x": torch.ones(3)}
    waits(tmp_path, waiting, "a").pause(at(5), tensors)
    assert not list(tmp_path.iterdir())
    found = waits(tmp_path, waiting, "a").load()
    assert found is not None and found[0].step == 5 and found[1] is tensors
    found[0].step = 6  # whoever goes on from it does not change what waits
    assert (again := waits(tmp_path, waiting, "a").progress()) is not None and again.step == 5
    waiting.write()
    kept = Keeper(tmp_path / "a", Meter.start()).load()
    assert not waiting.fits and kept is not None and kept[0].step == 5 and torch.equal(kept[1]["x"], torch.ones(3))


def test_no_more_bytes_and_seconds_wait_than_may(tmp_path: Path) -> None:
    waiting = Waiting(100, most_s=1e9)
    for name in ("a", "b", "c"):
        waits(tmp_path, waiting, name).pause(at(5), {"x": torch.ones(12)})
    assert [path.name for path in waiting.fits] == ["a", "b"] and (tmp_path / "c").is_dir()
    late = Waiting(100, most_s=0.0)
    waits(tmp_path, late, "d").pause(at(5), {})
    assert not late.fits and (tmp_path / "d").is_dir()


def test_what_is_due_or_saved_or_cleared_waits_no_longer(tmp_path: Path) -> None:
    waiting = Waiting(100)
    waits(tmp_path, waiting, "a", every_s=0).pause(at(5), {})
    assert not waiting.fits and (tmp_path / "a").is_dir()
    for end in (lambda one: one.save(at(6), {}), lambda one: one.clear()):
        waits(tmp_path, waiting, "b").pause(at(5), {})
        assert waiting.fits
        end(waits(tmp_path, waiting, "b"))
        assert not waiting.fits


def test_seconds_without_a_snapshot_add_up_over_sittings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(snapshot.time, "monotonic", lambda: now[0])
    waiting = Waiting(100)
    for _ in range(2):
        one = waits(tmp_path, waiting, "a", every_s=30.0)
        one.load()
        now[0] += 20.0
        one.pause(at(5), {})
    assert not waiting.fits and (tmp_path / "a").is_dir()


def test_what_a_phase_ended_with_is_at_hand_and_written_when_due(tmp_path: Path) -> None:
    for every_s, files in ((1e9, 0), (0.0, 1)):
        one = keeper(tmp_path / str(every_s), every_s)
        one.end(at(5), {"x": torch.ones(1)})
        found = one.load()
        assert found is not None and found[0].step == 5 and len(list(tmp_path.rglob("*.snapshot"))) == files
