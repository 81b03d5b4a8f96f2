"""Open a bundle with its native library alone, in a process that never sees regraft; run by path, prints JSON."""

from __future__ import annotations

import json
import sys


def main(folder: str, golden_seed: int, micro: int, threads: int, pictures: list[str]) -> dict[str, object]:
    """Logits of the golden inputs, and what the library's own pipeline says of some pictures."""
    import numpy
    import torch

    try:
        import torchvision  # noqa: F401
    except Exception:  # absent, or of another build than torch: the pictures are then prepared with Pillow
        sys.modules["torchvision"] = None  # type: ignore[assignment]
    from transformers import AutoModelForImageClassification, pipeline

    torch.set_num_threads(threads)
    model = AutoModelForImageClassification.from_pretrained(folder, local_files_only=True)
    shape = json.loads(sys.stdin.read())
    noise = numpy.random.default_rng(golden_seed).standard_normal((micro, *shape), dtype=numpy.float32)
    with torch.no_grad():
        logits = model(pixel_values=torch.from_numpy(noise)).logits
    found: list[object] = []
    if pictures:
        with torch.no_grad():
            classify = pipeline("image-classification", model=folder, device="cpu")
            found = [classify(path, top_k=1)[0] for path in pictures]
    return {"logits": logits.tolist(), "pipeline": found}


if __name__ == "__main__":
    print("\n" + json.dumps(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])))
