"""Small places to work in: picture folders that can be learned, a tiny model folder, a course over both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from regraft.api import choose_task, find_provider
from regraft.data.open import open_data
from regraft.kit import shelf
from regraft.kit.store import Folder
from regraft.planner import survey
from regraft.planner.propose import propose
from regraft.planner.race import Course
from regraft.waist import Facts, Finished, Plan, Trial

LABELS = ("blue", "green", "red")
SIDE = 24


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


def course(tmp: Path, *, seed: int = 0, cached: bool = True, every_s: float = 1e9, run: str = "run") -> Course:
    """A course over `tmp/data` and `tmp/model`, made there if they are not; its run folder is `tmp/<run>`."""
    data = open_data(tmp / "data" if (tmp / "data").is_dir() else pictures(tmp / "data"), seed)
    place = tmp / "model" if (tmp / "model").is_dir() else model(tmp / "model")
    view = find_provider(str(place)).load(str(place))
    encode = shelf.find("modalities", data.modality).encoder(view.inputs, True)
    machine = survey.machine(view, data, encode, "fp32")
    return Course(view, data, choose_task(data), encode, machine, Folder(tmp / run), seed, cached, every_s)


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


def weights(of: Course, trial: Trial) -> bytes:
    """The bytes of a finished trial's weights."""
    return (of.folder.path / trial.snapshot).read_bytes()
