"""What the pages speak of, put into a folder: tiny stand-ins, the demo's digits, or real data from ../shared."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from regraft import embedded
from regraft.embedded.digits import write_digits
from tests import places
from tests.conftest import SHARED

Given = dict[str, Any]
Stage = Callable[[Path], Given]


def small(place: Path) -> Given:
    """Tiny pictures, reviews and pairs under the names of the README, and what its python finds."""
    import pandas

    places.pictures(place / "photos")
    (places.pictures(place / "others", train=0, val=0, seed=1) / "test").rename(place / "more_labelled_photos")
    (place / "more_photos").mkdir()
    for number in (1, 2):
        shutil.copyfile(place / f"photos/test/red/{number}.png", place / f"more_photos/{number}.png")
    shutil.copyfile(place / "photos/test/red/0.png", place / "photo.jpg")
    places.model(place / "path/to/model")
    places.sheet(place / "reviews.csv", ("review", "label"), table(places.texts(place / "words") / "train.csv"))
    (place / "lines.txt").write_text("rose fire\nsea sky\n", "utf-8")
    pairs = table(places.pairs(place / "parts") / "train.csv")
    places.sheet(place / "pairs/train.csv", ("sentence1", "sentence2", "score"), pairs)
    return {"frame": pandas.read_csv(place / "pairs/train.csv"), "network": None}


def digits(place: Path) -> Given:
    """The demo's digits, and the embedded backbone beside them."""
    write_digits(place / "digits", 0).rename(place / "digits")
    shutil.copytree(embedded.folder(), place / "strokes")
    return {}


def tasks(place: Path) -> Given:
    """The demo's digits and the embedded backbone, and the same pictures as even and odd ones."""
    digits(place)
    for path in sorted((place / "digits").glob("*/*/*.png")):
        split, label = path.parts[-3:-1]
        target = place / "parity" / split / ("even", "odd")[int(label) % 2] / f"{label}-{path.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return {}


def zoo(place: Path) -> Given:
    """The demo's digits, and beside the embedded backbone a folder of three models, one of them for texts."""
    digits(place)
    shutil.copytree(embedded.folder(), place / "models/strokes")
    places.model(place / "models/untrained")
    places.encoder_model(place / "models/words")
    return {}


def wrong(place: Path) -> Given:
    """Digits, and the same with a few broken pictures and with many; a table of texts, one of numbers."""
    digits(place)
    for name, count in (("torn", 2), ("ruined", 20)):
        shutil.copytree(place / "digits", place / name)
        for path in sorted((place / name / "train/3").glob("*.png"))[:count]:
            path.write_bytes(path.read_bytes()[:60])
    places.sheet(place / "reviews.csv", ("review", "stars"), [("a quiet triumph", "5"), ("dull", "1")] * 20)
    numbers = [(str(i / 10), str(i % 7), str(i % 2)) for i in range(40)]
    places.sheet(place / "numbers.csv", ("width", "height", "label"), numbers)
    return {}


def network(place: Path) -> Given:
    """Tiny pictures, and a network of one's own that reads 32 x 32."""
    from torch import nn

    places.pictures(place / "photos")
    shutil.copyfile(place / "photos/test/red/0.png", place / "photo.jpg")
    layers = [nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return {"network": nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, 5)).eval()}


def photos(place: Path) -> Given:
    """Ants and bees as class folders, and MobileNetV2."""
    for path in sorted((SHARED / "data/ants_bees").glob("*/*/*")):
        target = place / "photos" / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    shutil.copytree(SHARED / "models/mobilenet_v2_1.0_224", place / "mobilenet_v2_1.0_224")
    return {}


def requests(place: Path) -> Given:
    """20 requests to a bank for each of 77 intents, some new ones, and pairs of sentences."""
    seen: Counter[str] = Counter()
    rows = [row for row in table(SHARED / "data/banking77/train.csv") if (seen.update([row[1]]), seen[row[1]] <= 20)[1]]
    places.sheet(place / "requests.csv", ("text", "label"), rows)
    places.sheet(place / "new.csv", ("text", "label"), table(SHARED / "data/banking77/test.csv")[::20])
    (place / "lines.txt").write_text("where is my card\ni want my money back\n", "utf-8")
    shutil.copyfile(SHARED / "data/stsb/train.csv", place / "pairs.csv")
    return {}


GRADES = ("very negative", "negative", "neutral", "positive", "very positive")


def ratings(place: Path) -> Given:
    """Movie reviews with the numbers 1 to 5 for SST's five labels, requests to an assistant, and tables of numbers."""
    rows = [(text, str(1 + GRADES.index(label))) for text, label in table(SHARED / "data/sst5/train.csv")]
    places.sheet(place / "ratings.csv", ("review", "rating"), rows)
    shutil.copyfile(SHARED / "data/clinc150/train.csv", place / "intents.csv")
    shutil.copyfile(SHARED / "data/abalone/train.csv", place / "abalone.csv")
    shutil.copyfile(SHARED / "data/phoneme/train.csv", place / "phoneme.csv")
    return {}


def table(path: Path) -> list[tuple[str, ...]]:
    """The rows of a table, without its head."""
    with path.open(encoding="utf-8", newline="") as file:
        return [tuple(row) for row in csv.reader(file)][1:]
