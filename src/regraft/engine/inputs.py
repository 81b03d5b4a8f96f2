"""Rows at the network's input, read from their cells once: where training begins there, each epoch reads them again."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from regraft.engine.trunk import Part
from regraft.waist import Encoder, InputSpec


class Inputs:
    """What an encoder makes of parts of one shape, held while `room` bytes of memory are left for it.

    What is held has the bits of what is read.

    >>> from regraft.waist import InputSpec
    >>> from regraft.modalities.image import encoder
    >>> import numpy
    >>> inputs = Inputs(encoder(InputSpec("image", (3, 2, 2), settings=(("height", 2),)), False), 1000)
    >>> parts = [Part(name, numpy.full((2, 2, 3), 51, numpy.uint8), 0) for name in "ab"]
    >>> inputs.tensors(parts)["pixel_values"].unique(), inputs.room, inputs.held
    (tensor([0.2000]), 904, 2)
    """

    def __init__(self, encoder: Encoder, room: int) -> None:
        self.encoder, self.room = encoder, room
        self._rows: dict[str, dict[str, Tensor]] = {}

    @property
    def held(self) -> int:
        """How many parts are held."""
        return len(self._rows)

    def tensors(self, parts: Sequence[Part]) -> dict[str, Tensor]:
        """The batch of these parts in their order, name → [n, …] as the encoder makes it; equal parts are read once.

        Raises: as the encoder, for what cannot be read.
        """
        found = {part.key: self._rows[part.key] for part in parts if part.key in self._rows}
        if lacking := [part for part in {part.key: part for part in parts}.values() if part.key not in found]:
            made = self.encoder.tensors([part.value for part in lacking])
            fresh = {part.key: {name: rows[i] for name, rows in made.items()} for i, part in enumerate(lacking)}
            need = sum(rows.numel() * rows.element_size() for rows in made.values())
            if need <= self.room:
                self.room -= need
                self._rows |= fresh
            found |= fresh
        return {name: torch.stack([found[part.key][name] for part in parts]) for name in found[parts[0].key]}


def fixed(spec: InputSpec) -> bool:
    """Whether all rows have one shape, as pictures have; texts take little to read, and each batch its own length."""
    return len(spec.shape) == 3
