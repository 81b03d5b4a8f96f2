"""Make the embedded backbone: a small ResNet trained on procedurally drawn pen symbols.

Everything the network ever sees is drawn by this script from a random seed: no picture, font or data set of any
third party is read. Run it as

    python make.py --out strokes --epochs 60 --seed 7

A *symbol class* is a random arrangement of one to four pen strokes (straight lines, arcs, loops, corners and smooth
curves). An *instance* of a class is drawn with its own wobble of every stroke, slant, stretch, rotation, pen width,
sharpness, contrast, noise and resolution, and the network learns to tell which symbol it is.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetForImageClassification

SIZE = 32
"""Side of the square pictures, in pixels."""

MAX_STROKES = 4
"""The most strokes that a symbol has."""

POINTS = 48
"""Pen positions per stroke."""

WOBBLE_TERMS = 5
"""Cosine terms of the wobble that an instance adds to each stroke."""

PREPROCESSOR: dict[str, Any] = {
    "image_processor_type": "ViTImageProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"height": SIZE, "width": SIZE},
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
"""The image processor's settings, as `preprocessor_config.json` holds them."""


@dataclass(frozen=True)
class Symbols:
    """The symbol classes: pen positions in the square [-1, 1] x [-1, 1], x to the right and y down."""

    points: Tensor
    """Pen positions, of shape (classes, MAX_STROKES, POINTS, 2)."""

    used: Tensor
    """Which strokes a class has, 1.0 or 0.0, of shape (classes, MAX_STROKES)."""


def uniform(gen: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    """Draw numbers evenly from [low, high)."""
    return torch.rand(*shape, generator=gen) * (high - low) + low


def number(gen: torch.Generator, low: float, high: float) -> float:
    """Draw one number evenly from [low, high)."""
    return float(uniform(gen, low, high, 1))


def choice(gen: torch.Generator, weights: list[float]) -> int:
    """Draw an index with the given weights."""
    return int(torch.multinomial(torch.tensor(weights, dtype=torch.float32), 1, generator=gen))


def polyline(corners: Tensor) -> Tensor:
    """Walk through the corners in straight lines at an even pace; returns POINTS positions."""
    steps: Tensor = (corners[1:] - corners[:-1]).norm(dim=1)
    along = torch.cat([torch.zeros(1), steps.cumsum(0)])
    at = torch.linspace(0, float(along[-1]), POINTS)
    index = torch.searchsorted(along, at, right=True).clamp(1, len(corners) - 1)
    part = ((at - along[index - 1]) / steps[index - 1].clamp_min(1e-6)).unsqueeze(1)
    return corners[index - 1] * (1 - part) + corners[index] * part


def smooth(corners: Tensor) -> Tensor:
    """Lead a Catmull-Rom curve through the corners; returns POINTS positions at an even pace."""
    padded = torch.cat([2 * corners[:1] - corners[1:2], corners, 2 * corners[-1:] - corners[-2:-1]])
    t = torch.linspace(0, 1, 17)[:-1].unsqueeze(1)
    pieces = []
    for i in range(len(corners) - 1):
        a, b, c, d = padded[i], padded[i + 1], padded[i + 2], padded[i + 3]
        pieces.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - 3 * c + d - a) * t**3))
    return polyline(torch.cat([*pieces, corners[-1:]]))


def ellipse(gen: torch.Generator, turn: float) -> Tensor:
    """Draw a part of an ellipse around the origin, `turn` radians long; returns POINTS positions."""
    start = number(gen, 0, 2 * math.pi)
    angle = start + torch.linspace(0, turn, 64) * (1 if choice(gen, [1, 1]) else -1)
    curve = torch.stack([number(gen, 0.25, 0.8) * angle.cos(), number(gen, 0.25, 0.8) * angle.sin()], 1)
    tilt = number(gen, -0.6, 0.6)
    c, s = math.cos(tilt), math.sin(tilt)
    return polyline(curve @ torch.tensor([[c, s], [-s, c]]))


def stroke(gen: torch.Generator) -> Tensor:
    """Invent one stroke; returns POINTS positions."""
    kind = choice(gen, [3, 4, 2, 3, 4])
    if kind == 0:  # a straight line
        ends = uniform(gen, -1, 1, 2, 2)
        while float((ends[0] - ends[1]).norm()) < 0.7:
            ends = uniform(gen, -1, 1, 2, 2)
        return polyline(ends)
    if kind == 1:  # an arc
        return ellipse(gen, number(gen, 0.4, 1.7) * math.pi) + uniform(gen, -0.5, 0.5, 2)
    if kind == 2:  # a loop
        return ellipse(gen, number(gen, 1.95, 2.15) * math.pi) + uniform(gen, -0.5, 0.5, 2)
    corners = uniform(gen, -1, 1, 3 + choice(gen, [2, 2, 1]), 2)
    steps = (corners[1:] - corners[:-1]).norm(dim=1)
    while float(steps.min()) < 0.5:
        corners = uniform(gen, -1, 1, len(corners), 2)
        steps = (corners[1:] - corners[:-1]).norm(dim=1)
    return polyline(corners) if kind == 3 else smooth(corners)


def symbol(gen: torch.Generator) -> tuple[Tensor, Tensor]:
    """Invent one symbol; returns its pen positions and which of its strokes are used."""
    count = 1 + choice(gen, [5, 5, 3, 1])
    points = torch.zeros(MAX_STROKES, POINTS, 2)
    used = torch.zeros(MAX_STROKES)
    used[:count] = 1
    for i in range(count):
        line = stroke(gen)
        if i and number(gen, 0, 1) < 0.7:  # start (or end) this stroke on an earlier one
            earlier = points[choice(gen, [1] * i)]
            joint = earlier[(0, POINTS // 2, POINTS - 1)[choice(gen, [1, 1, 2])]]
            line = line - line[choice(gen, [2, 1]) * (POINTS - 1)] + joint
        points[i] = line
    flat = points[:count].reshape(-1, 2)
    low, high = flat.amin(0), flat.amax(0)
    span = (high - low).clamp_min(1e-3)
    # Fit the symbol's box to the square: the height always, the width to between a third and all of it.
    width = (float(span[0] / span[1]) * number(gen, 0.7, 1.0)) if number(gen, 0, 1) < 0.8 else 1.0
    box = torch.tensor([min(max(width, 0.35), 1.0), 1.0])
    points[:count] = (points[:count] - (low + high) / 2) / span * 2 * box
    return points, used


def invent(classes: int, gen: torch.Generator) -> Symbols:
    """Invent the symbol classes, none too much like another."""
    points: list[Tensor] = []
    used: list[Tensor] = []
    looks = torch.zeros(0, SIZE * SIZE)
    while len(points) < classes:
        p, u = symbol(gen)
        look = ink(p.unsqueeze(0) * 11, u.unsqueeze(0), torch.full((1,), 2.0), torch.full((1,), 8.0)).flatten(1)
        look = F.normalize(look - look.mean(), dim=1)
        if len(points) and float((looks @ look.T).max()) > 0.8:
            continue
        points.append(p)
        used.append(u)
        looks = torch.cat([looks, look])
    return Symbols(torch.stack(points), torch.stack(used))


def ink(points: Tensor, used: Tensor, pen: Tensor, sharpness: Tensor) -> Tensor:
    """Draw pen positions, in pixels from the centre, as pictures with values from 0 (no ink) to 1.

    The pen leaves a round Gaussian dab at each position. A dab is the product of a column and a row, so a whole
    batch of pictures is one batched matrix product; a soft threshold then turns the sum into a line with edges.
    """
    batch = len(points)
    step = (points[:, :, 1:] - points[:, :, :-1]).norm(dim=3)
    step = torch.cat([step, step[:, :, -1:]], 2) * used.unsqueeze(2)
    weight = (step / (pen.view(-1, 1, 1) * math.sqrt(2 * math.pi))).reshape(batch, -1, 1)
    grid = torch.arange(SIZE) - (SIZE - 1) / 2
    flat = points.reshape(batch, -1, 2)
    scale = (-0.5 / pen**2).view(-1, 1, 1)
    columns = ((flat[:, :, :1] - grid) ** 2 * scale).exp()
    rows = ((flat[:, :, 1:] - grid) ** 2 * scale).exp() * weight
    total = rows.transpose(1, 2) @ columns
    return torch.sigmoid(sharpness.view(-1, 1, 1) * (total - 0.5)) * (total > 0.02)


def draw(symbols: Symbols, labels: Tensor, gen: torch.Generator) -> Tensor:
    """Draw one instance of each label; returns pictures of shape (n, SIZE, SIZE) with values from 0 to 1."""
    n = len(labels)
    points, used = symbols.points[labels], symbols.used[labels]

    # Wobble: each stroke is bent by a few cosine terms along its length, the lowest ones strongest.
    careless = uniform(gen, 0.3, 1.3, n, 1, 1, 1)
    t = torch.linspace(0, math.pi, POINTS)
    terms = torch.stack([(k * t).cos() for k in range(WOBBLE_TERMS)])
    size = torch.tensor([0.09, 0.11, 0.09, 0.06, 0.04]).view(1, 1, WOBBLE_TERMS, 1)
    wobble = torch.randn(n, MAX_STROKES, WOBBLE_TERMS, 2, generator=gen) * size
    points = points + careless * torch.einsum("nskd,kp->nspd", wobble, terms)

    # Warp: the whole symbol is bent by a smooth field, so that strokes that touch keep touching.
    phase = uniform(gen, 0, 2 * math.pi, n, 1, 1, 2)
    pace = uniform(gen, 1.0, 2.5, n, 1, 1, 2)
    points = points + uniform(gen, -0.15, 0.15, n, 1, 1, 2) * (points.flip(3) * pace + phase).sin()

    # Place: fit the box again (writing is usually cut out and scaled), then stretch, slant, rotate and shift.
    mask = used.view(n, MAX_STROKES, 1, 1) > 0
    high = points.masked_fill(~mask, -9).amax((1, 2), keepdim=True)
    low = points.masked_fill(~mask, 9).amin((1, 2), keepdim=True)
    template = symbols.points[labels]
    wide = template.masked_fill(~mask, -9).amax((1, 2), keepdim=True)
    refit = 2 * wide / (high - low).clamp_min(0.1)
    points = (points - (high + low) / 2) * (1 + (refit - 1) * 0.7)
    stretch = torch.stack([uniform(gen, 0.65, 1.05, n), uniform(gen, 0.8, 1.05, n)], 1).view(n, 1, 1, 2)
    points = points * stretch
    slant = uniform(gen, -0.3, 0.3, n).view(n, 1, 1)
    angle = (uniform(gen, -15, 15, n) * math.pi / 180).view(n, 1, 1)
    x, y = points[..., 0] + slant * points[..., 1], points[..., 1]
    points = torch.stack([angle.cos() * x - angle.sin() * y, angle.sin() * x + angle.cos() * y], 3)
    points = points * (SIZE / 2 - 2) + uniform(gen, -2, 2, n, 1, 1, 2)

    pictures = ink(points, used, uniform(gen, 0.9, 2.4, n), uniform(gen, 5, 20, n))

    # Resolution: most pictures are made small (as little as 8 x 8) and enlarged again.
    order = torch.randperm(n, generator=gen)
    sides = (8, 8, 8, 10, 12, 16, SIZE)
    for side, chosen in zip(sides, order.chunk(len(sides)), strict=False):
        if side < SIZE:
            small = F.interpolate(pictures[chosen].unsqueeze(1), size=(side, side), mode="area")
            small = small + torch.randn(small.shape, generator=gen) * 0.03
            large = F.interpolate(small, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
            pictures[chosen] = large.squeeze(1)

    # Light: contrast, background, noise, and now and then dark ink on a light ground.
    ground = uniform(gen, -0.1, 0.15, n, 1, 1).clamp_min(0)
    top = uniform(gen, 0.7, 1.1, n, 1, 1)
    noise = torch.randn(n, SIZE, SIZE, generator=gen) * uniform(gen, 0, 0.04, n, 1, 1)
    pictures = (ground + (top - ground) * pictures + noise).clamp(0, 1)
    dark = (torch.rand(n, 1, 1, generator=gen) < 0.1).float()
    return pictures * (1 - dark) + (1 - pictures) * dark


def to_pixels(pictures: Tensor) -> Tensor:
    """Turn pictures with values from 0 to 1 into the network's input: three equal channels from -1 to 1."""
    return ((pictures - 0.5) / 0.5).unsqueeze(1).expand(-1, 3, -1, -1).contiguous()


def build(classes: int) -> ResNetForImageClassification:
    """Build the network with fresh weights."""
    names = {i: f"symbol-{i:03d}" for i in range(classes)}
    config = ResNetConfig(
        num_channels=3,
        embedding_size=32,
        hidden_sizes=[32, 64, 96, 128],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        hidden_act="relu",
        downsample_in_first_stage=False,
        id2label=names,
        label2id={name: i for i, name in names.items()},
    )
    return ResNetForImageClassification(config)


def groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Split the parameters into those that weight decay applies to (matrices and kernels) and the rest."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


@torch.no_grad()
def accuracy(model: nn.Module, symbols: Symbols, gen: torch.Generator, batches: int = 20, batch: int = 256) -> float:
    """Measure the share of fresh instances that the model names rightly."""
    model.eval()
    right = 0
    for _ in range(batches):
        labels = torch.randint(len(symbols.points), (batch,), generator=gen)
        right += int((model(pixel_values=to_pixels(draw(symbols, labels, gen))).logits.argmax(1) == labels).sum())
    return right / (batches * batch)


def train(model: nn.Module, symbols: Symbols, epochs: int, seed: int, steps: int = 100, batch: int = 256) -> None:
    """Train the model on an endless stream of fresh instances, `steps` batches to an epoch."""
    gen = torch.Generator().manual_seed(seed + 1)
    peak = 3e-3
    optimiser = torch.optim.AdamW(groups(model, 0.05), lr=peak)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=peak, total_steps=epochs * steps, pct_start=0.1, div_factor=10, final_div_factor=100
    )
    started = time.perf_counter()
    for epoch in range(epochs):
        model.train()
        loss_sum, right = 0.0, 0
        for _ in range(steps):
            labels = torch.randint(len(symbols.points), (batch,), generator=gen)
            logits = model(pixel_values=to_pixels(draw(symbols, labels, gen))).logits
            loss = F.cross_entropy(logits, labels)
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
            loss_sum += float(loss.detach())
            right += int((logits.argmax(1) == labels).sum())
        print(
            f"epoch {epoch + 1:3d}/{epochs}  loss {loss_sum / steps:.4f}  accuracy {right / (steps * batch):.4f}"
            f"  {time.perf_counter() - started:6.1f} s",
            flush=True,
        )


def save(folder: Path, model: ResNetForImageClassification) -> None:
    """Write the model folder: config.json, model.safetensors and preprocessor_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR, indent=2) + "\n", encoding="utf-8")
    for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
        (folder / name).chmod(0o644)


def main() -> None:
    """Make the backbone from the command line's settings."""
    parser = argparse.ArgumentParser(description="Train the embedded backbone on procedurally drawn pen symbols.")
    parser.add_argument("--out", type=Path, default=Path("strokes"), help="folder to write the model to")
    parser.add_argument("--epochs", type=int, default=60, help="epochs of 100 batches of 256 fresh pictures")
    parser.add_argument("--seed", type=int, default=7, help="seed of the symbols, the weights and the drawing")
    parser.add_argument("--classes", type=int, default=300, help="number of symbol classes")
    parser.add_argument("--threads", type=int, default=2, help="processor threads to use")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    symbols = invent(args.classes, torch.Generator().manual_seed(args.seed))
    model = build(args.classes)
    print(f"{args.classes} symbols, {sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    started = time.perf_counter()
    train(model, symbols, args.epochs, args.seed)
    minutes = (time.perf_counter() - started) / 60
    held = accuracy(model, symbols, torch.Generator().manual_seed(args.seed + 2))
    print(f"fresh instances named rightly: {held:.4f}; trained in {minutes:.1f} minutes", flush=True)
    save(args.out, model)


if __name__ == "__main__":
    main()
