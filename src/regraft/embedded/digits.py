"""The demo's data: scikit-learn's handwritten digits as class folders of small pictures, few of them labelled."""

from __future__ import annotations

import io
from pathlib import Path

from regraft.kit import durable

TRAIN_PER_CLASS, TEST_PER_CLASS = 20, 50


def write_digits(parent: Path, seed: int) -> Path:
    """Write `parent-<seed>/{train,test}/<digit>/<number>.png`, 8 × 8 grey, unless it is there; returns it."""
    place = parent.with_name(f"{parent.name}-{seed}")
    if place.is_dir():
        return place
    import numpy
    from PIL import Image
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    order = numpy.random.default_rng(seed).permutation(len(labels))
    with durable.folder(place) as part:
        for digit in range(10):
            chosen = [i for i in order if labels[i] == digit][: TRAIN_PER_CLASS + TEST_PER_CLASS]
            for j, i in enumerate(chosen):
                grey = (pixels[i].reshape(8, 8) * (255 / 16)).round().astype(numpy.uint8)
                file = io.BytesIO()
                Image.fromarray(grey).save(file, "PNG")
                split = "train" if j < TRAIN_PER_CLASS else "test"
                path = part / split / str(digit) / f"{i:04d}.png"
                durable.fill(path, file.getvalue())
    return place
