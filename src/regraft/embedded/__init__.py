"""The embedded backbone: a small network for pen strokes that comes with the package."""

from pathlib import Path


def folder() -> Path:
    """Return the folder of the embedded model, which holds its configuration, weights and preprocessor."""
    return Path(__file__).resolve().parent / "strokes"
