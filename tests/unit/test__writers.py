"""The layers that write to a block's sum, and its feed-forward part: found in every kind of transformer, by no name."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from regraft.inserts import _writers
from regraft.waist import Insert
from tests import tiny

FOUND = [
    ("bert", ("attention.output.dense", "output.dense"), ""),
    ("gpt2", ("attn.c_proj", "mlp.c_proj"), "mlp"),
    ("llama", ("self_attn.o_proj", "mlp.down_proj"), "mlp"),
    ("t5", ("layer.0.SelfAttention.o", "layer.1.DenseReluDense.wo"), "layer.1.DenseReluDense"),
    ("deberta", ("attention.output.dense", "output.dense"), ""),
    ("swin", ("attention.o_proj", "mlp.fc2"), "mlp"),
    ("dinov2", ("attention.o_proj", "mlp.fc2"), "mlp"),
    ("whisper", ("self_attn.out_proj", "fc2"), ""),
    ("convnext", (), ""),
]


@pytest.mark.parametrize(("name", "writers", "part"), FOUND, ids=[name for name, _, _ in FOUND])
def test_writers_are_found_by_what_a_block_adds(name: str, writers: tuple[str, ...], part: str) -> None:
    """Not: queries, keys, values; what is gated, rotated or goes into an activation's own polynomial."""
    view = tiny.build(name).view
    bare, batch = view.outline()
    kinds = {"swin": "SwinLayer", "convnext": "ConvNextLayer"}
    paths = [p for i in range(len(view.stages)) for p in _writers.blocks_of(bare, view.seams.mains[i])]
    paths = [p for p in paths if name not in kinds or type(bare.get_submodule(p)).__name__ == kinds[name]]
    seen = _writers.watched(bare, lambda: view.call(bare, batch), paths)
    path = next(p for p in reversed(paths) if p in seen and (seen[p].writers or name == "convnext"))
    block = seen[path]
    assert tuple(p.removeprefix(f"{path}.") for p in block.writers) == writers
    assert block.part == (f"{path}.{part}" if part else "")
    assert len(block.taken) == len(block.given) and (block.taken == block.given or name == "convnext")


class Attending(nn.Module):
    """A block with torch's own attention, and a chain for its feed-forward part, as torchvision's transformers have."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8), nn.Dropout(0.1))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return x + self.mlp(x)


def test_torch_s_own_attention_writes_as_a_whole_and_chains_have_no_room() -> None:
    net = nn.Sequential(Attending(), Attending(), nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)).eval()
    seen = _writers.watched(net, lambda: net(torch.randn(2, 5, 8)), ["0", "1", "2"])
    assert [list(block.writers) for block in seen.values()] == [
        ["0.attention", "0.mlp.2"],
        ["1.attention", "1.mlp.2"],
        [],
    ], "what torch's encoder layer computes with, it may not call"
    assert [block.part for block in seen.values()] == ["", "", ""]


def test_adapters_come_behind_them() -> None:
    from regraft.kit import shelf

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.Sequential(Attending(), Attending())
            self.head = nn.Linear(8, tiny.CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.blocks(x).mean(1))

    torch.manual_seed(0)
    view = tiny.viewed(Net(), lambda m, b: m(b["values"]), tiny.numbers("values", 6, 8), 6).view
    batch = {"values": torch.randn(3, 6, 8)}
    wanted = view.run(batch)
    shelf.find("inserts", "bottleneck").put(view, Insert("bottleneck", (0, 1), 3, "houlsby"), 0)
    held = [name.partition(".narrow")[0] for name, _ in view.module.named_modules() if name.endswith(".narrow")]
    assert held == [f"blocks.{i}.{part}" for i in (0, 1) for part in ("attention", "mlp.2")]
    assert torch.equal(view.run(batch), wanted)
