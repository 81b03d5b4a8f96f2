"""Small places to work in: pictures, texts and pairs that can be learned, tiny models for them, a course over both."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from regraft.backbone.view import View
from regraft.data.open import card as card_of
from regraft.data.open import open_data
from regraft.kit import shelf
from regraft.kit.store import Folder
from regraft.planner import survey
from regraft.planner.course import Course
from regraft.planner.propose import propose
from regraft.planner.request import prepare
from regraft.waist import DataCard, Facts, Finished, Options, Plan, Reading, Step, Trial

LABELS = ("blue", "green", "red")
ATTENDING = ("prefix", "prompt")
"""Strategies for networks with attention: they have no place in the network of these pictures."""
SIDE = 24
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
TELLING = {
    "blue": ("sea", "sky", "ice", "deep"),
    "green": ("moss", "leaf", "fern", "lime"),
    "red": ("rose", "fire", "rust", "wine"),
}
PLAIN = ("a", "the", "and", "of", "one", "two", "near", "over", "old", "new", "far", "by", "is", "was", "in", "on")
WORDS = (3, 14), (18, 28), (34, 58)
"""How many words a text has: with two special tokens it is padded to 16, 32 or 64."""
Kind = Literal["class", "number", "multi"]
Network = Literal["encoder", "classifier"]


def pictures(root: Path, train: int = 9, val: int = 5, test: int = 6, seed: int = 0) -> Path:
    """`root/<split>/<class>/<n>.png`: noise with one channel raised; a split of 0 is left out."""
    draw = np.random.default_rng(seed)
    for split, count in (("train", train), ("val", val), ("test", test)):
        for channel, label in enumerate(LABELS):
            for i in range(count):
                pixels = draw.integers(0, 200, (SIDE, SIDE + i % 3, 3), np.uint8)
                pixels[..., channel] += 40
                path = root / split / label / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    return root


def photographs(root: Path, side: int, splits: dict[str, int]) -> Path:
    """`root/<split>/<class>/<n>.jpg`: noise with one channel raised, so many pixels a side, so many a class."""
    draw = np.random.default_rng(0)
    for split, count in splits.items():
        for channel, label in enumerate(LABELS):
            for i in range(count):
                pixels = draw.integers(0, 200, (side, side, 3), np.uint8)
                pixels[..., channel] += 40
                path = root / split / label / f"{i}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path, quality=90)
    return root


def model(root: Path, seed: int = 0) -> Path:
    """A random ResNet with batch normalisation in Hugging Face layout: embedder and three stages, 16 features."""
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(
        num_channels=3,
        embedding_size=8,
        hidden_sizes=[8, 12, 16],
        depths=[1, 1, 1],
        layer_type="basic",
        num_labels=5,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = ResNetForImageClassification(config).eval()
        for name, buffer in made.named_buffers():
            if name.endswith("running_mean"):
                buffer.uniform_(-0.1, 0.1)
    made.save_pretrained(root)
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": 16, "width": 16},
        "resample": 2,
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    (root / "preprocessor_config.json").write_text(json.dumps(processor))
    return root


def texts(root: Path, kind: Kind = "class", train: int = 36, val: int = 18, test: int = 15, seed: int = 0) -> Path:
    """`root/<split>.csv` with the columns text and y: words tell the colour, lengths are padded to 16, 32 and 64.

    For "number", y is how many reds there are among the telling words less how many blues; for "multi" all colours
    that occur.
    """
    draw = np.random.default_rng(seed)
    for split, count in (("train", train), ("val", val), ("test", test)):
        rows = []
        for i in range(count):
            colours = [LABELS[i % 3]] if kind == "class" else [c for c in LABELS if draw.random() < 0.6] or ["green"]
            length = int(draw.integers(*WORDS[(i // 3) % 3]))
            said = [str(draw.choice(TELLING[str(draw.choice(colours))])) for _ in range(length)]
            words = [
                word if i < len(colours) or draw.random() < 0.8 else str(draw.choice(PLAIN))
                for i, word in enumerate(said)
            ]
            reds, blues = (sum(word in TELLING[c] for word in words) for c in ("red", "blue"))
            y = {"class": colours[0], "number": f"{(reds - blues) / length:.3f}", "multi": json.dumps(colours)}[kind]
            rows.append((" ".join(words), y))
        sheet(root / f"{split}.csv", ("text", "y"), rows)
    return root


def pairs(root: Path, train: int = 36, val: int = 18, test: int = 15, seed: int = 0) -> Path:
    """`root/<split>.csv` with the columns text1, text2 and score: the share of words that both texts hold."""
    draw = np.random.default_rng(seed)
    everything = [*PLAIN, *(word for words in TELLING.values() for word in words)]
    for split, count in (("train", train), ("val", val), ("test", test)):
        rows = []
        for i in range(count):
            first = [str(w) for w in draw.choice(everything, int(draw.integers(*WORDS[i % 3])))]
            other = [str(w) for w in draw.choice(everything, int(draw.integers(*WORDS[(i // 3) % 2])))]
            kept = int(len(other) * draw.random())
            other[:kept] = [str(w) for w in draw.choice(first, kept)]
            both = len({*first} & {*other}) / len({*first} | {*other})
            rows.append((" ".join(first), " ".join(other), f"{both:.4f}"))
        sheet(root / f"{split}.csv", ("text1", "text2", "score"), rows)
    return root


def sheet(path: Path, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> Path:
    """A CSV table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def tokenizer(root: Path, longest: int = 128) -> Path:
    """A WordPiece tokenizer of the words above, as BERT's folders have it."""
    from transformers import BertTokenizer

    vocabulary = [
        *SPECIAL,
        *PLAIN,
        *(word for words in TELLING.values() for word in words),
        *"abcdefghij",
        "##e",
        "##s",
    ]
    ids = {word: i for i, word in enumerate(dict.fromkeys(vocabulary))}
    BertTokenizer(vocab=ids, model_max_length=longest).save_pretrained(root)
    return root


def encoder_model(root: Path, kind: Network = "encoder", seed: int = 0) -> Path:
    """A random BERT with dropout in Hugging Face layout: embeddings and three layers, 32 features, 128 positions.

    "encoder" was saved without a head, as sentence encoders are: it lacks its pooler, and the mean suits it.
    "classifier" was saved with pooler and head, and its own pooling suits it.
    """
    from transformers import BertConfig, BertForSequenceClassification, BertModel

    tokenizer(root)
    config = BertConfig(
        vocab_size=48,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=128,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1,
        initializer_range=0.3,
        num_labels=5,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = (
            BertModel(config, add_pooling_layer=False) if kind == "encoder" else BertForSequenceClassification(config)
        )
    made.eval().save_pretrained(root)
    return root


def course(
    tmp: Path, *, seed: int = 0, cached: bool = True, every_s: float = 1e9, run: str = "run", **asked: Any
) -> Course:
    """A course over `tmp/data` and `tmp/model`: pictures, made there, if they are not; its run folder is `tmp/<run>`.

    `asked` are options of the request, such as `long`, or a `reading`.
    """
    data = tmp / "data" if (tmp / "data").is_dir() else pictures(tmp / "data")
    place = tmp / "model" if (tmp / "model").is_dir() else model(tmp / "model")
    options = Options(str(data), str(place), seed=seed, **asked)
    rows = open_data(options.data, seed, options.reading)
    view, encoder, task = prepare(options, rows, options.model)
    machine = survey.machine(view, rows, encoder, "fp32")
    return Course(view, rows, task, encoder, machine, Folder(tmp / run), seed, cached, every_s)


def card(course: Course) -> DataCard:
    """What a course's data is."""
    return card_of(course.data)


def text_course(tmp: Path, of: Kind | Literal["pairs"] = "class", network: Network = "encoder", **asked: Any) -> Course:
    """A course over texts or pairs, made in `tmp/data` if they are not, and an encoder in `tmp/model`; as `course`."""
    if not (tmp / "data").is_dir():
        pairs(tmp / "data") if of == "pairs" else texts(tmp / "data", of)
    if not (tmp / "model").is_dir():
        encoder_model(tmp / "model", network)
    return course(tmp, **{"reading": Reading(task=TASKS[of]), **asked})


TASKS = {"class": "classify", "number": "regress", "multi": "multilabel", "pairs": "regress"}


def noise(view: View, rows: int, seed: int = 3) -> dict[str, torch.Tensor]:
    """A batch of noise, as golden outputs are made from."""
    batch: dict[str, torch.Tensor] = shelf.find("modalities", view.inputs.modality).noise(view.inputs, rows, seed)
    return batch


def plan(of: Course, strategy: str, **knobs: Any) -> Plan:
    """The strategy's plan for a course."""
    from regraft.data.open import card

    facts = Facts(card(of.data), survey.backbone(of.view, "mark"), of.machine)
    return propose(facts, [strategy], [(f"{strategy}.{k}", str(v)) for k, v in knobs.items()])[0]


def finish(of: Course, chosen: Plan, number: int = 0) -> Trial:
    """Run a plan to its end."""
    for event in of.trial(number, chosen):
        if isinstance(event, Finished):
            return event.trial
    raise AssertionError("a trial ended without its last event")


def whole_and_stopped(of: Course, chosen: Plan, tmp: Path) -> tuple[Trial, Trial]:
    """The trial of a plan that ran to its end, and of one that was left after its first step and went on."""
    whole, stopped = (dataclasses.replace(of, folder=Folder(tmp / name)) for name in ("whole", "stopped"))
    run = stopped.trial(0, chosen)
    while not isinstance(next(run), Step):
        pass
    run.close()
    return finish(whole, chosen), finish(stopped, chosen)


def weights(of: Course, trial: Trial) -> bytes:
    """The bytes of a finished trial's weights."""
    return (of.folder.path / trial.snapshot).read_bytes()
