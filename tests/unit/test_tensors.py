"""Weights from files: safe to open, found where training scripts put them, held against the network's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save_file
from torch import nn

from regraft.backbone import tensors
from regraft.backbone.view import View
from regraft.errors import ModelError, ResourceError
from regraft.kit import hardware
from tests import tiny

STATE = {"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(2)}


class Bomb:
    """A pickle that leaves a trace where it is run."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return (Path.touch, (self.trace,))


@pytest.mark.parametrize(
    "held",
    [
        STATE,
        {"state_dict": STATE, "epoch": 3, "optimizer": {"lr": 0.1}},
        {"model": {"model_state": STATE}},
        {"model_state_dict": {f"module.{k}": v for k, v in STATE.items()}},
        {f"_orig_mod.model.{k}": v for k, v in STATE.items()},
    ],
    ids=["plain", "state_dict", "two levels", "data parallel", "compiled"],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_a_state_dict_is_found(held: dict[str, Any], legacy: bool, tmp_path: Path) -> None:
    torch.save(held, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    found, notes = tensors.read_state(tmp_path / "a.pth")
    assert list(found) == list(STATE) and all(torch.equal(found[k], STATE[k]) for k in STATE)
    assert len(notes) == str(held).count("module.a.w") + 2 * str(held).count("_orig_mod.model.a.w")


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "a.safetensors")
    assert list(tensors.read_state(tmp_path / "a.safetensors")[0]) == sorted(STATE)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_that_runs_code_is_refused_and_not_run(legacy: bool, tmp_path: Path) -> None:
    torch.save({**STATE, "x": Bomb(tmp_path / "ran")}, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(
        ModelError, match=r"a pickle that runs code when opened · saw: .*a\.pth: .*save network\.state_dict"
    ):
        tensors.read_state(tmp_path / "a.pth")
    assert not (tmp_path / "ran").exists()


def test_a_whole_network_as_a_pickle_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "a.pth")
    with pytest.raises(ModelError, match=r"runs code when opened · saw: .*torch\.nn\.modules\.linear\.Linear"):
        tensors.read_state(tmp_path / "a.pth")


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
@pytest.mark.parametrize("data", [b"", b"garbage" * 50, b"PK\x05\x06" + b"\0" * 18])
def test_a_broken_file_cannot_be_read(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ModelError, match=rf"(cannot be read|runs code when opened) · saw: .*{name}"):
        tensors.read_state(tmp_path / name)


@pytest.mark.parametrize("held", [torch.ones(2), [STATE], {"epoch": 3}, {}])
def test_what_is_no_state_dict_is_said_to_be_none(held: Any, tmp_path: Path) -> None:
    torch.save(held, tmp_path / "a.pt")
    with pytest.raises(ModelError, match=r"holds no state dict · saw: .*a\.pt: \w+ · allowed: names with tensors"):
        tensors.read_state(tmp_path / "a.pt")


def test_a_nest_without_end_is_left(tmp_path: Path) -> None:
    held: dict[str, Any] = {}
    held["model"] = held
    torch.save(held, tmp_path / "a.pt")
    with pytest.raises(ModelError, match="holds no state dict"):
        tensors.read_state(tmp_path / "a.pt")


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_more_than_memory_is_refused_before_it_is_opened(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"a{ending}").write_bytes(bytes(3_000_000))
    monkeypatch.setattr(hardware, "memory_bytes", lambda: 2_000_000)
    with pytest.raises(ResourceError, match=rf"do not fit into memory · saw: .*a{ending}: 0\.0 GB"):
        tensors.read_state(tmp_path / f"a{ending}")


# ---------------------------------------------------------------- filling, packing


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def test_a_network_is_filled() -> None:
    held = {k: torch.rand_like(v.float()).to(v.dtype) for k, v in network().state_dict().items()}
    module = network()
    tensors.fill(module, {k: v for k, v in held.items() if "num_batches" not in k}, "2")
    assert torch.equal(module.state_dict()["0.weight"], held["0.weight"])
    without = {k: v for k, v in held.items() if not k.startswith("2.")}
    kept = module.state_dict()["2.weight"].clone()
    tensors.fill(module, without, "2")
    assert torch.equal(module.state_dict()["2.weight"], kept)


def test_what_does_not_fit_is_counted() -> None:
    held = network().state_dict()
    del held["0.weight"], held["1.bias"]
    held["other"], held["0.bias"] = torch.ones(1), torch.ones(5)
    what = r"2 missing \(0\.weight, 1\.bias\), 1 unexpected \(other\), 1 of another shape \(0\.bias\)"
    with pytest.raises(ModelError, match=rf"do not belong to this network · saw: {what} .*check the architecture"):
        tensors.fill(network(), held, "2")


def test_weights_are_packed_with_the_head_in_its_place() -> None:
    view: View = tiny.build("resnet").view
    head = nn.Linear(view.dim, 4)
    held = load(tensors.packed(view, head))
    assert torch.equal(held[f"{view.head}.weight"], head.weight) and len(held) == len(view.module.state_dict()) + 2


def test_seeded_draws_leave_the_generator_alone() -> None:
    state = torch.get_rng_state()
    with tensors.seeded(3):
        one = torch.rand(3)
    with tensors.seeded(3):
        assert torch.equal(one, torch.rand(3))
    assert torch.equal(torch.get_rng_state(), state)
