"""A byte that flips, a file that is cut, a tail of zeros, in every file that a run, a cache and a bundle are made of.

It is noticed before use, by name and with what to do, or made anew; never is it taken for what was written.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from regraft import flow
from regraft.backbone import bundle as bundles
from regraft.deliver import compare, pack, runs, story
from regraft.deliver.model import Model
from regraft.engine.snapshot import Keeper
from regraft.errors import ModelError, RegraftError
from regraft.kit.store import Folder
from regraft.waist import Flag, Options, Plan, Said, Step, Trial
from tests import places
from tests.laws.kills import content

HARMS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "flip": lambda data, draw: flipped(data, draw.randrange(len(data)), draw.randrange(8)),
    "cut": lambda data, draw: data[: draw.randrange(len(data))],
    "zeros": lambda data, draw: data[: len(data) // 2] + bytes(len(data) - len(data) // 2),
}


def flipped(data: bytes, at: int, bit: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


@dataclass(frozen=True)
class Ran:
    """A finished run, the same one stopped in its second trial, and a bundle to compare with."""

    options: Options
    run: Path
    paused: Path
    cache: Path

    def again(self, run: Path) -> tuple[flow.Run, list[str]]:
        """The same command once more, on a run that is alone in its folder of runs; what was said."""
        work, said = flow.steps(self.options, run.parent), []
        while True:
            try:
                event = next(work)
            except StopIteration as end:
                return end.value, said
            if isinstance(event, Said):
                said.append(event.text)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    place = tmp_path_factory.mktemp("damage")
    knobs = tuple(
        (f"{name}.{knob}", n) for name in ("partial", "probe") for knob, n in (("batch", "14"), ("epochs", "2"))
    )
    data, model = places.pictures(place / "data", train=6, val=4, test=4), places.model(place / "model")
    options = Options(str(data), str(model), strategies=("probe", "partial"), knobs=knobs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack, "_self_test", lambda *_: None)
        patch.setattr(Keeper, "due", lambda _: True)
        patch.setenv("REGRAFT_CACHE", str(place / "cache"))
        run = flow.finish(flow.steps(options, place / "runs")).folder
        work = flow.steps(options, place / "paused")
        steps = (event for event in work if isinstance(event, Step))
        assert [next(steps).loss for _ in range(6)][-1] > 0
        work.close()
        (paused,) = (place / "paused").iterdir()
        assert len(list(paused.glob("trials/*/trial.json"))) == 1 and len(list(paused.rglob("*.snapshot"))) == 2
        yield Ran(options, run, paused, place / "cache")


def files(place: Path) -> list[str]:
    """The names of all files in a folder, so that a new kind of file is not forgotten."""
    return sorted(p.relative_to(place).as_posix() for p in place.rglob("*") if p.is_file() and not p.is_symlink())


def groups(names: list[str], draw: random.Random, size: int = 4) -> list[list[tuple[str, str]]]:
    """Every name once, with a harm, some at a time: a run is gone on with for each group."""
    drawn = [(name, draw.choice(list(HARMS))) for name in draw.sample(names, len(names))]
    return [drawn[i : i + size] for i in range(0, len(drawn), size)]


def copy(run: Path, place: Path) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    return Path(shutil.copytree(run, place / run.name, symlinks=True))


def damage(path: Path, how: str, draw: random.Random) -> bool:
    """Harm a file; whether it is another one now."""
    data = path.read_bytes()
    harmed = HARMS[how](data, draw) if data else b"\0"
    path.write_bytes(harmed)
    return harmed != data


def all_of(run: Path) -> dict[str, Any]:
    """All that verbs read of a finished run."""
    folder, made = Folder(run), flow.read_run(run)
    told = story.read(run)
    return {
        "run": (made.data, made.trials, made.verdict, made.account),
        "story": (told.options, told.backbone, told.machine, told.examined, told.opening),
        "rows": runs.rows(run, made.data.target),
        "compared": compare._predicted(compare._side(run)).tolist(),
        "list": [(one.state, one.winner, one.score) for one in runs.ls(run)],
        "bundle": bundles.read(run / "bundle"),
        "plans": folder.load("plans", list[Plan]),
        "request": folder.load("request", Options),
        "flags": folder.load("flags", list[Flag]),
        "trial": [
            folder.load(path.relative_to(run).with_suffix("").as_posix(), Trial) for path in run.glob("trials/*/*.json")
        ],
    }


# ---------------------------------------------------------------- a finished run


def test_damage_to_a_finished_run_is_noticed_or_harmless(ran: Ran, tmp_path: Path) -> None:
    """Whatever is read is as it was written, or refused with the file's name and what to do."""
    wanted = all_of(ran.run)
    draw, noticed = random.Random(0), set()
    for name in files(ran.run):
        for how in HARMS:
            run = copy(ran.run, tmp_path / "one")
            if not damage(run / name, how, draw):
                continue
            try:
                assert all_of(run) == wanted, f"{name}: {how} changed what is read"
            except RegraftError as error:
                noticed.add(name)
                assert Path(name).name in error.saw and error.do, f"{name}: {error}"
    unread = {Path(name).name for name in set(files(ran.run)) - noticed}
    people = {"events.jsonl", "report.html", "report.md", "quarantine.jsonl", "clock.json", "files.json", ".lock"}
    people |= {"energy.json", "kept.json", "rates.json", "trunk.json"}  # the account holds what came of them
    assert all(name in people or name.startswith(("weights-", "predictions-")) for name in unread), unread


def test_every_byte_of_a_record_is_vouched_for(ran: Ran, tmp_path: Path) -> None:
    run, draw = copy(ran.run, tmp_path / "one"), random.Random(1)
    for name in [name for name in files(run) if name.endswith(".json") and not name.startswith("bundle")]:
        data = (run / name).read_bytes()
        for at in sorted(draw.sample(range(len(data)), min(60, len(data)))):
            (run / name).write_bytes(flipped(data, at, draw.randrange(8)))
            try:
                same = json.loads((run / name).read_bytes())["record"] == json.loads(data)["record"]
            except (ValueError, TypeError, KeyError):
                same = False
            assert same or Folder(run).damaged() == run / name, f"{name}: byte {at}"
        (run / name).write_bytes(data)
    assert Folder(run).damaged() is None


def test_the_same_command_makes_what_was_damaged_anew(ran: Ran, tmp_path: Path) -> None:
    draw, wanted = random.Random(2), content(ran.run)
    weights = "trials/*/weights-*"  # nobody reads them any more: what ships is the bundle
    for some in groups([name for name in files(ran.run) if not Path(name).match(weights)], draw):
        run = copy(ran.run, tmp_path / "one")
        done = [(name, how) for name, how in some if damage(run / name, how, draw)]
        made, said = ran.again(run)
        assert made.folder == run and content(run) == wanted, done
        assert Folder(run).damaged() is None
        told = [text for text in said if "it is made anew" in text]
        assert not told or any(Path(name).name in told[0] for name, _ in done), told


# ---------------------------------------------------------------- a run that goes on, a cache


def test_a_run_goes_on_from_damaged_files_to_the_same_bits(ran: Ran, tmp_path: Path) -> None:
    """Steps, plans, trials and snapshots that were harmed are made again, from what is whole."""
    draw, wanted = random.Random(3), content(ran.run)
    for some in groups(files(ran.paused), draw):
        run = copy(ran.paused, tmp_path / "one")
        for name, how in some:
            damage(run / name, how, draw)
        made, _ = ran.again(run)
        assert made.folder == run and content(run) == wanted, some
        assert not list(run.rglob("*.snapshot")) and not list(run.rglob(".part-*"))


@pytest.mark.parametrize("how", HARMS)
def test_damaged_blocks_of_a_cache_are_said_and_computed_again(
    ran: Ran, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ran.cache, tmp_path / "cache")
    monkeypatch.setenv("REGRAFT_CACHE", str(tmp_path / "cache"))
    before = files(tmp_path / "cache")
    assert {Path(name).suffix for name in before} == {".block", ".json"}
    for name in before:
        damage(tmp_path / "cache" / name, how, random.Random(4))
    made, said = ran.again(tmp_path / "runs" / ran.run.name)
    assert content(made.folder) == content(ran.run) and files(tmp_path / "cache") == before
    assert sum("had changed bytes: dropped, computed again" in text for text in said) == 2


# ---------------------------------------------------------------- a bundle


def test_a_bundle_with_any_changed_file_is_refused_by_name(ran: Ran, tmp_path: Path) -> None:
    draw = random.Random(5)
    names = files(ran.run / "bundle")
    assert {"README.md", "config.json", "model.safetensors", "regraft.json"} <= set(names)
    for name in names:
        for how in HARMS:
            bundle = copy(ran.run / "bundle", tmp_path / "one")
            if damage(bundle / name, how, draw):
                with pytest.raises(ModelError) as caught:
                    Model.load(bundle)
                assert caught.value.code == 4 and name in caught.value.saw and caught.value.do


def test_every_byte_of_a_bundles_record_is_vouched_for(ran: Ran, tmp_path: Path) -> None:
    bundle, draw = copy(ran.run / "bundle", tmp_path / "one"), random.Random(6)
    wanted, data = bundles.read(bundle), (bundle / bundles.NAME).read_bytes()
    refused = 0
    for at in draw.sample(range(len(data)), 400):
        (bundle / bundles.NAME).write_bytes(flipped(data, at, draw.randrange(8)))
        try:
            assert bundles.read(bundle) == wanted, f"byte {at}"
        except ModelError as error:
            refused += 1
            assert bundles.NAME in error.saw, error
    assert refused > 300
