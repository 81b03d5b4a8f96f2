"""Law: whatever is changed, and changed back, the cache never gives a stale state and never misses one that it has.

A thousand random changes, one after the other. What decides a state is kept beside the cache as plainly as can be: the
changes that were made below the frontier, and the example's own bytes. The cache must run the trunk on exactly what was
not seen under these before, and give what a fresh computation gives, bit for bit.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from regraft.backbone.state import leaves
from regraft.backbone.view import View
from regraft.data.open import open_data
from regraft.engine import cache
from regraft.engine.cache import Table
from regraft.engine.trunk import Trunk, parts_of
from regraft.kit import shelf
from regraft.modalities import text
from regraft.planner import survey
from regraft.planner.request import prepare
from regraft.waist import MachineCard, Options, Reading, Row
from tests import places

STEPS = 125
MACHINE: dict[str, tuple[Any, Any]] = {
    "versions": ((("torch", "1"),), (("torch", "2"),)),
    "threads": (1, 2),
    "micro_batch": (8, 4),
}


class World:
    """A backbone, its data and a machine, each of which can be changed a little and back again.

    `below` is all that decides a state but the example: (stage or -1, what) → its value.
    """

    def __init__(self, home: Path, draw: random.Random) -> None:
        self.home, self.draw, self.seed = home, draw, 0
        self.seen: dict[str, set[bytes]] = {}
        self.hits = self.runs = 0
        self.make()
        self.read()
        self.view: View = self.opened()
        self.plain = {name: t.clone() for name, _, t in (*self.view.named(), *self.view.buffers())}
        card = survey.machine(self.view, open_data(self.home / "data", 0, self.reading), self.view.encoder(), "fp32")
        assert card.promise == "exact"
        self.card: MachineCard = replace(card, versions=MACHINE["versions"][0], threads=1, micro_batch=8)
        self.below = {(-1, what): values[0] for what, values in MACHINE.items()} | {(-1, "inputs"): self.first}

    reading = Reading()
    first: tuple[Any, ...] = (16, 0.5)
    """What the inputs are at first, as `inputs` tells it."""

    def make(self) -> None:
        places.pictures(self.home / "some", train=4, val=0, test=0)
        (self.home / "some/train").rename(self.home / "data")
        places.model(self.home / "model")

    def opened(self) -> View:
        place = str(self.home / "model")
        data = open_data(self.home / "data", 0, self.reading)
        view: View = prepare(Options(str(self.home / "data"), place, self.reading), data, place)[0]
        return view

    def read(self) -> None:
        """The rows as they are now, in an order of their own."""
        data = open_data(self.home / "data", self.seed, self.reading)
        self.rows: list[Row] = [*data.train, *data.val, *data.test]
        self.draw.shuffle(self.rows)

    # ------------------------------------------------------------ changes

    def weight(self) -> None:
        """One number of one weight, below the frontier or above it; half of the time it is put back."""
        self._nudge([(name, stage, p) for name, stage, p in self.view.named()])

    def buffer(self) -> None:
        """One number of one buffer, such as a running mean."""
        self._nudge([(name, stage, b) for name, stage, b in self.view.buffers() if b.is_floating_point()])

    def _nudge(self, tensors: list[tuple[str, int, torch.Tensor]]) -> None:
        if not tensors:
            return
        name, stage, tensor = self.draw.choice(tensors)
        value = self.draw.choice((0, 1))
        with torch.no_grad():
            tensor.copy_(self.plain[name])
            tensor.view(-1)[-1] += value * 0.125
        if value:
            self.below[stage, name] = value
        else:
            self.below.pop((stage, name), None)

    def inputs(self) -> None:
        """The size of the crop, or the mean that is taken off."""
        side, mean = self.draw.choice((16, 20)), self.draw.choice((0.5, 0.5 + 1e-6))
        spec = self.view.inputs
        settings = dict(spec.settings) | {"height": side, "width": side}
        self.view.inputs = replace(
            spec, shape=(3, side, side), mean=(mean, *spec.mean[1:]), settings=tuple(sorted(settings.items()))
        )
        self.below[-1, "inputs"] = (side, mean)

    def machine(self) -> None:
        """A library's version, the threads, or the rows that go through at once."""
        what = self.draw.choice([*MACHINE])
        value: Any = self.draw.choice(MACHINE[what])
        self.card = replace(self.card, **{what: value})
        self.below[-1, what] = value

    def content(self) -> None:
        """One pixel of one picture."""
        path = self.draw.choice(self.files())
        image = Image.open(path).convert("RGB")
        image.putpixel((0, 0), (self.draw.choice((1, 2)), 2, 3))
        image.save(path)

    def label(self) -> None:
        """A picture moves to another class."""
        path = self.draw.choice(self.files())
        classes = [c for c in places.LABELS if c != path.parent.name]
        if len(list(path.parent.iterdir())) > 3:
            path.rename(self.home / "data" / self.draw.choice(classes) / f"{self.draw.random()}.png")

    def name(self) -> None:
        path = self.draw.choice(self.files())
        path.rename(path.with_name(f"{self.draw.random()}.png"))

    def copy(self) -> None:
        """A picture is there twice, or one of two is gone."""
        files = self.files()
        path = self.draw.choice(files)
        if len(files) < 16:
            shutil.copyfile(path, path.with_name(f"{self.draw.random()}.png"))
        elif len(list(path.parent.iterdir())) > 3:
            path.unlink()

    def date(self) -> None:
        os.utime(self.draw.choice(self.files()), (self.draw.randrange(10**9),) * 2)

    def split(self) -> None:
        self.seed = self.draw.randrange(5)

    def order(self) -> None:
        self.draw.shuffle(self.rows)

    def files(self) -> list[Path]:
        return sorted((self.home / "data").rglob("*.png"))

    def changes(self) -> list[Callable[[], None]]:
        net = [self.weight, self.weight, self.buffer, self.inputs, self.machine]
        return [*net, self.content, self.label, self.name, self.copy, self.date, self.split, self.order]

    # ------------------------------------------------------------ the law

    def bytes_of(self, value: Any) -> bytes:
        """What an example holds, whatever it is called."""
        return Path(value).read_bytes()

    def step(self) -> None:
        """One change, then the cache at one frontier against a fresh computation."""
        change = self.draw.choice(self.changes())
        change()
        if change.__name__ in ("content", "label", "name", "copy", "date", "split"):
            self.read()
        k = self.draw.randint(1, len(self.view.stages))
        known = {what: value for what, value in self.below.items() if what[0] < k}
        seen = self.seen.setdefault(repr((k, sorted(known.items(), key=repr))), set())
        wanted = {self.bytes_of(row.cell) for row in self.rows}
        trunk = Trunk(self.view, k, self.view.encoder(), self.card.micro_batch)
        store = cache.open_store(self.view, k, self.card)
        missing = store.lacking(parts_of(trunk.encoder, self.rows, 1))
        assert len(missing) == len(wanted - seen), f"{change.__name__}: {len(missing)} of {len(wanted - seen)} at {k}"
        for _ in store.fill(trunk, missing):
            pass
        self.runs, self.hits = self.runs + len(missing), self.hits + len(wanted & seen)
        seen |= wanted
        text._opened.cache_clear()  # as a process that begins now would
        anew = Trunk(self.view, k, self.view.encoder(), self.card.micro_batch)
        held, fresh = Table(trunk, self.rows, store), Table(anew, self.rows, None)
        for index, _ in fresh.micro_batches():
            (mine,), (theirs,) = held.batch(index), fresh.batch(index)
            pairs = zip(leaves(tuple(mine.state)[::2]), leaves(tuple(theirs.state)[::2]), strict=True)
            assert all(torch.equal(a, b) for a, b in pairs), f"stale at stage {k} after {change.__name__}"


class Texts(World):
    """The same with texts: a table of them, and a tokenizer."""

    reading = Reading(task="classify", target="y", text=("text",))
    first = (0, 128)

    def make(self) -> None:
        places.texts(self.home / "some", train=12, val=0, test=0)
        lines = (self.home / "some/train.csv").read_text("utf-8").splitlines()[1:]
        self.lines: list[tuple[str, str]] = [tuple(line.split(",")) for line in lines]  # type: ignore[misc]
        self.write()
        places.encoder_model(self.home / "model")
        self.vocabularies = [(self.home / "model/tokenizer.json").read_text("utf-8")]
        told = json.loads(self.vocabularies[0])
        ids = told["model"]["vocab"]
        ids["sea"], ids["rose"] = ids["rose"], ids["sea"]
        self.vocabularies.append(json.dumps(told))

    def write(self) -> None:
        places.sheet(self.home / "data/all.csv", ("text", "y"), list(self.lines))

    def content(self) -> None:
        """One word of one text."""
        i = self.draw.randrange(len(self.lines))
        text, y = self.lines[i]
        self.lines[i] = f"{self.draw.choice(('sea', 'rose'))} {text.split(maxsplit=1)[1]}", y
        self.write()

    def label(self) -> None:
        i = self.draw.randrange(len(self.lines))
        if sum(y == self.lines[i][1] for _, y in self.lines) > 3:
            self.lines[i] = self.lines[i][0], self.draw.choice(places.LABELS)
            self.write()

    def name(self) -> None:
        """The table has another name."""
        (path,) = self.files()
        path.rename(path.with_name(f"{self.draw.random()}.csv"))
        self.write = lambda: places.sheet(self.files()[0], ("text", "y"), list(self.lines))  # type: ignore[method-assign, assignment]

    def copy(self) -> None:
        """A text is there twice, or one of two is gone."""
        i = self.draw.randrange(len(self.lines))
        if len(self.lines) < 16:
            self.lines.append(self.lines[i])
        elif sum(y == self.lines[i][1] for _, y in self.lines) > 3:
            del self.lines[i]
        self.write()

    def inputs(self) -> None:
        """The tokenizer's vocabulary, in its own file, or how long a text may be."""
        version, most = self.draw.choice((0, 1)), self.draw.choice((40, 128))
        (self.home / "model/tokenizer.json").write_text(self.vocabularies[version], "utf-8")
        modality: Any = shelf.find("modalities", "text")
        self.view.inputs = modality.adjust(modality.described(self.home / "model"), Options("", "", max_tokens=most))
        self.below[-1, "inputs"] = (version, most)

    def files(self) -> list[Path]:
        return sorted((self.home / "data").glob("*.csv"))

    def bytes_of(self, value: Any) -> bytes:
        return str(value).encode()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", [World, Texts], ids=["pictures", "texts"])
def test_nothing_stale_is_read_and_nothing_is_missed_needlessly(
    tmp_path: Path, kind: type[World], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "HELD_SHARE", seed % 2)
    world = kind(tmp_path, random.Random(seed))
    for _ in range(STEPS):
        world.step()
    assert world.hits > STEPS < world.runs, "the law is held against hits and against misses"
