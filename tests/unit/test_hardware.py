"""The machine: what the environment may set, rules that are no measurements, quiet libraries."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from regraft.kit import hardware


def test_threads_follow_our_variable_before_openmp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert hardware.threads() == 3
    monkeypatch.setenv("REGRAFT_THREADS", "5")
    assert hardware.threads() == 5


@pytest.mark.parametrize("value", ["", "0", "-1", "many", "2,1", "²"])
def test_a_setting_that_is_no_count_is_passed_over(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("REGRAFT_THREADS", value)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert hardware.threads() == 3


def test_threads_without_a_setting_fit_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert 1 <= hardware.threads() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(("text", "processors"), [("150000 100000", 2), ("50000 100000", 1), ("max 100000", 1 << 20)])
def test_the_quota_is_rounded_up(monkeypatch: pytest.MonkeyPatch, text: str, processors: int) -> None:
    monkeypatch.setattr(hardware, "_read", lambda _: text)
    assert hardware._quota() == processors


def test_a_control_group_bounds_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = hardware.memory_bytes()
    monkeypatch.setattr(hardware, "_read", lambda _: "1000")
    assert hardware.memory_bytes() == 1000 < whole
    monkeypatch.setattr(hardware, "_read", lambda _: "max")
    assert hardware.memory_bytes() >= whole


@pytest.mark.parametrize("flops", [0, 1, 10**6, 10**7, 10**8, 6 * 10**8, 4 * 10**9, 10**12])
def test_a_micro_batch_is_a_power_of_two_that_falls_with_work(flops: int) -> None:
    for threads, least in ((1, 4), (2, 8), (3, 16), (64, 16)):
        found = hardware.micro_batch(flops, threads)
        assert least <= found <= 64 and math.log2(found).is_integer()
        assert found >= hardware.micro_batch(flops * 2 + 1, threads)


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert hardware.cache_folder() == Path(os.environ["XDG_CACHE_HOME"]) / "regraft"
    monkeypatch.setenv("REGRAFT_CACHE", str(tmp_path / "own"))
    assert hardware.cache_folder() == tmp_path / "own"
    monkeypatch.delenv("REGRAFT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert hardware.cache_folder() == tmp_path / ".cache" / "regraft"


def test_versions_name_each_library_once() -> None:
    found = dict(hardware.versions())
    assert {"python", "regraft", "torch", "transformers", "numpy"} <= set(found)
    assert "absent" not in found.values() and len(found) == len(hardware.versions())


def test_libraries_are_quiet_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.delenv("DO_NOT_TRACK")
    hardware.quiet_libraries()
    assert os.environ["HF_HUB_OFFLINE"] == "0" and os.environ["DO_NOT_TRACK"] == "1"
    child = hardware.child_environment()
    assert child["HF_HUB_OFFLINE"] == "0" and child["TRANSFORMERS_VERBOSITY"] == "error"


def test_settle_gives_torch_its_threads() -> None:
    import torch

    hardware.settle(2)
    assert torch.get_num_threads() == 2
    hardware.settle(1)
    assert torch.get_num_threads() == 1


def test_the_processor_is_named_with_its_instructions() -> None:
    assert hardware.processor().endswith(")") and hardware.processor() == hardware.processor()


def test_the_gain_of_bfloat16_is_a_ratio() -> None:
    assert 0 < hardware.bf16_gain() < 1000


def test_hub_folders_follow_the_variables_of_the_libraries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_HOME", "HF_HUB_CACHE", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    home = Path(os.environ["XDG_CACHE_HOME"])
    usual = dict(hardware.hub_folders())
    assert usual == {"huggingface": home / "huggingface" / "hub", "torch": home / "torch" / "hub" / "checkpoints"}
    monkeypatch.setenv("HF_HOME", str(tmp_path / "face"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    assert dict(hardware.hub_folders())["huggingface"] == tmp_path / "face" / "hub"
    assert dict(hardware.hub_folders())["torch"] == tmp_path / "torch" / "hub" / "checkpoints"
    monkeypatch.setenv("HF_HUB_CACHE", "~/elsewhere")
    assert dict(hardware.hub_folders())["huggingface"] == Path.home() / "elsewhere"


def test_free_room_is_that_of_the_disk_a_place_would_lie_on(tmp_path: Path) -> None:
    assert hardware.free_bytes(tmp_path / "not" / "yet") == pytest.approx(hardware.free_bytes(tmp_path), rel=0.1)
    assert hardware.free_bytes(Path("relative")) > 0
