"""Features that no network makes, in a backbone's place: word counts, pixels; learned from training rows alone."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from regraft.backbone.stages import Batch
from regraft.backbone.state import State
from regraft.backbone.view import View
from regraft.errors import ModelError, UsageError
from regraft.kit import durable, shelf
from regraft.waist import Encoder, InputSpec, Opening, Stage, Target

if TYPE_CHECKING:
    import numpy

FEATURES, WEIGHTS = "features", "model.safetensors"
FLOAT = 4
SCORES = {
    "class": (
        "made = numpy.exp(made - made.max(1, keepdims=True))",
        "made = (made / made.sum(1, keepdims=True)).tolist()",
        "outputs = [dict(zip(labels, row)) for row in made]",
    ),
    "multi": (
        "made = numpy.exp(-numpy.logaddexp(0, -made)).tolist()",
        "outputs = [dict(zip(labels, row)) for row in made]",
    ),
    "number": ("outputs = made[:, 0].tolist()",),
}
"""The last lines of a bundle's lines, by what is predicted: raw outputs `made`, an array, and `labels` to `outputs`."""
CHECK = f"""\
from safetensors.torch import load_file
held = load_file(folder + "/{WEIGHTS}")
made = batches[0]["{FEATURES}"] @ held["weight"].T + held["bias"]"""
"""The lines that leave raw outputs for `batches` in `made`."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How features are made: `encoder` gives batches {"features": [n, dim]}, `inputs` says all that they depend on.

    `inputs.shape` is (dim,); noise(rows, seed) gives a dense batch; write(view, plain linear head, target, folder) puts
    native files into the folder.
    """

    name: str
    provider: str
    inputs: InputSpec
    encoder: Encoder
    noise: Callable[[int, int], dict[str, Tensor]]
    write: Callable[[View, nn.Module, Target, str], Opening]
    notes: tuple[str, ...] = ()


class Plain(View):
    """A view of one stage without weights, whose output is the batch itself: only a head has anything to learn.

    Features may be sparse, in compressed rows. Those are never stored at a frontier: plans begin at 0.

    Args:
        native: The head of a reopened bundle.
    """

    def __init__(self, recipe: Recipe, native: nn.Linear | None = None) -> None:
        self.name, self.provider, self.inputs, self.notes = recipe.name, recipe.provider, recipe.inputs, recipe.notes
        self.source, self.labels, self.head, self.config = "", (), "", recipe.inputs.fingerprint
        self.module: nn.Module = nn.Identity()
        self.native = native or nn.Identity()
        self._recipe, self._fresh, self._write, self._missing = recipe, None, recipe.write, frozenset()
        self.pooling, self.call, self.row, self.blocks = "native", given, None, 0
        self.calls, self._read = {"native": given}, {}
        self.paths, (self.dim,) = [""], recipe.inputs.shape
        self.stages = (Stage(FEATURES, "", 0, 0, FLOAT * self.dim),)

    def encoder(self, train: bool = False) -> Encoder:
        """How cells become features."""
        return self._recipe.encoder

    def noise(self, rows: int, seed: int) -> dict[str, Tensor]:
        """Seeded features that hold nothing of anybody's data, dense."""
        return self._recipe.noise(rows, seed)

    def run(
        self, batch: Batch | None = None, start: int = 0, stop: int | None = None, state: State | None = None
    ) -> Any:
        """The features of a batch, or of the batch in `state`; from the last frontier on what is there already."""
        if start:
            return state.value if isinstance(state, State) else state
        batch = state.inputs if batch is None and state else batch
        assert batch is not None, "run() without a batch needs a state"
        return given(self.module, batch)

    def named(self) -> Iterator[tuple[str, int, nn.Parameter]]:
        """No parameter."""
        return iter(())

    def buffers(self) -> Iterator[tuple[str, int, Tensor]]:
        """No buffer."""
        return iter(())

    def members(self, stage: int) -> list[nn.Module]:
        """No module."""
        return []

    def clone(self, frontier: int, kept: Iterable[nn.Parameter] = ()) -> View:
        """The view itself: nothing in it can be trained."""
        return self


def given(module: nn.Module, batch: Batch) -> Tensor:
    """The features of a batch."""
    return batch[FEATURES]


def compressed(starts: numpy.ndarray, columns: numpy.ndarray, values: numpy.ndarray, width: int) -> Tensor:
    """Sparse rows [n, width] as scipy's CSR arrays hold them, columns ascending, as float32 in torch's CSR layout.

    >>> import numpy
    >>> arrays = numpy.array([0, 1, 3]), numpy.array([2, 0, 1]), numpy.array([5.0, 1.0, 2.0])
    >>> compressed(*arrays, width=3).to_dense().tolist()
    [[0.0, 0.0, 5.0], [1.0, 2.0, 0.0]]
    """
    _warned()
    return torch.sparse_csr_tensor(
        torch.from_numpy(starts),
        torch.from_numpy(columns).contiguous(),
        torch.from_numpy(values).float().contiguous(),
        size=(len(starts) - 1, width),
        check_invariants=True,
    )


def weights(head: nn.Linear, more: dict[str, numpy.ndarray]) -> bytes:
    """A head and arrays as safetensors: `weight`, `bias`, and the arrays by their names."""
    from safetensors.numpy import save

    return save(more | {name: p.detach().cpu().contiguous().numpy() for name, p in head.named_parameters()})


def linear(weight: Tensor, bias: Tensor, dim: int) -> nn.Linear:
    """A linear layer with these weights, for features of this width.

    Raises: ValueError: they do not fit together.

    >>> linear(torch.ones(1, 2), torch.zeros(1), 2)(torch.tensor([[2.0, 3.0]])).tolist()
    [[5.0]]
    """
    if weight.ndim != 2 or weight.shape[1] != dim or bias.shape != weight.shape[:1]:
        raise ValueError(f"weight {tuple(weight.shape)} and bias {tuple(bias.shape)} for {dim} features")
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta").to_empty(device="cpu")
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer


def digest_of(folder: str | Path, names: Sequence[str]) -> str:
    """SHA-256 over files of a folder.

    Raises: ModelError: one of them is not there.
    """
    lacking = [name for name in names if not (Path(folder) / name).is_file()]
    if lacking:
        raise ModelError(
            "this folder holds no such bundle",
            saw=f"{folder} without {', '.join(lacking)}",
            allowed=f"a folder with {', '.join(names)}",
            do="copy the bundle again, or run the command that made it",
        )
    return durable.digest("".join(durable.file_digest(Path(folder) / name) for name in names).encode())


def asked(wanted: str, modality: str, arch: str) -> None:
    """Refuse what features without a network cannot do.

    Raises: ModelError: the data is of another modality than `wanted`. UsageError: an architecture was named.
    """
    if modality not in ("", wanted):
        raise ModelError(
            f"this model reads {shelf.find('modalities', wanted).NOUN}",
            saw=f"data of {shelf.find('modalities', modality).NOUN}",
            allowed=shelf.find("modalities", wanted).NOUN,
            do="choose a model for this kind of data",
        )
    if arch:
        raise UsageError(
            "this model has no network", saw=f"--arch {arch}", allowed="a file of weights", do="leave --arch out"
        )


def broken(folder: str | Path, error: Exception) -> ModelError:
    """What to say of a folder whose files do not fit together."""
    return ModelError(
        "this model cannot be read",
        saw=f"{folder}: {type(error).__name__}: {error}",
        allowed="the files as they were packed",
        do="copy the bundle again, or run the command that made it",
    )


@cache
def _warned() -> None:
    """Let torch say, unheard, that its compressed rows are new: it says so once in a process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor(torch.tensor([0, 0]), torch.tensor([], dtype=torch.long), torch.tensor([]), size=(1, 1))
