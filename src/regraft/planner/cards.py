"""What named accelerators and processors can do by their makers' figures, each with its date and its source."""

from __future__ import annotations

from dataclasses import dataclass

from regraft.errors import unknown


@dataclass(frozen=True, slots=True)
class Card:
    """Published peaks: `fp32` and `bf16` in dense FLOP/s (no sparsity; bf16 with float32 sums), memory in bytes,
    bandwidth in bytes/s, board power in watts. `date` is the month in which the maker announced the part of `source`.

    `reserved_bytes` is what the driver and its libraries hold of the memory: an assumption.
    """

    name: str
    fp32: float
    bf16: float
    memory_bytes: int
    bandwidth: float
    watts: float
    date: str
    source: str
    reserved_bytes: int = 1_000_000_000


CARDS = {
    card.name: card
    for card in (
        Card(
            "h200", 67e12, 989e12, 141_000_000_000, 4.8e12, 700, "2023-11", "NVIDIA H200 Tensor Core GPU datasheet, SXM"
        ),
        Card(
            "h100",
            67e12,
            989e12,
            80_000_000_000,
            3.35e12,
            700,
            "2022-03",
            "NVIDIA H100 Tensor Core GPU datasheet, SXM, 80 GB",
        ),
        Card(
            "a100-80g",
            19.5e12,
            312e12,
            80_000_000_000,
            2.039e12,
            400,
            "2020-11",
            "NVIDIA A100 Tensor Core GPU datasheet, SXM, 80 GB",
        ),
        Card("l4", 30.3e12, 121e12, 24_000_000_000, 300e9, 72, "2023-03", "NVIDIA L4 Tensor Core GPU datasheet"),
        Card(
            "rtx-4090",
            82.6e12,
            165.2e12,
            24_000_000_000,
            1.008e12,
            450,
            "2022-09",
            "NVIDIA Ada GPU Architecture whitepaper, GeForce RTX 4090",
        ),
        Card(
            "cpu-16",
            1.536e12,
            3.072e12,
            128_000_000_000,
            460.8e9,
            200,
            "2022-11",
            "AMD EPYC 9124 datasheet: 16 cores at the base clock of 3.0 GHz, 32 FLOP a cycle in float32 and 64 in "
            "bfloat16, 12 channels of DDR5-4800; 128 GB of memory is an assumption",
        ),
    )
}


def find(name: str) -> Card:
    """A card by its name.

    Raises: UsageError: there is no card of that name; those that there are, are named.

    >>> find("l4").memory_bytes
    24000000000
    """
    if name not in CARDS:
        raise unknown("card", name, CARDS)
    return CARDS[name]
