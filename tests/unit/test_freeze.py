"""Freezing in small: hashes see every bit, modes are put back, verification names what moved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from regraft.engine import freeze
from regraft.errors import RegraftError
from regraft.waist import Phase
from tests import places


def test_a_hash_sees_bits_shape_and_type() -> None:
    one = torch.tensor([1.0, 0.0])
    others = [torch.tensor([1.0, -0.0]), one.reshape(2, 1), one.double(), torch.tensor([1.0, 0.0, 0.0])]
    assert len({freeze.tensor_hash(t) for t in [one, *others]}) == 5
    strided = torch.tensor([[1.0, 9.0], [0.0, 9.0]])[:, 0]
    assert freeze.tensor_hash(strided) == freeze.tensor_hash(one.clone())
    assert freeze.tensor_hash(torch.tensor(3)) != freeze.tensor_hash(torch.tensor([3]))


def test_verification_counts_and_names_what_moved() -> None:
    tensors = {"a": torch.ones(2), "b": torch.zeros(2), "c": torch.zeros(1)}
    before = freeze.hashes(tensors)
    assert freeze.verify(before, tensors) == 3
    with pytest.raises(RegraftError, match=r"frozen tensors changed .* saw: 2 of 3, such as a · do: report this"):
        freeze.verify(before, {"a": torch.zeros(2), "c": torch.zeros(1)})


def test_modes_are_put_back_even_after_an_error(tmp_path: Path) -> None:
    course = places.course(tmp_path)
    head = torch.nn.Dropout()
    top = course.view.stages[3].name
    phase = Phase(1, 3, ((f"{top}/*", 1.0),), norm="update")
    with pytest.raises(ZeroDivisionError), freeze.mode(course.view, head, phase):
        training = {name for name, m in course.view.module.named_modules() if m.training}
        assert head.training and training and all(name.startswith(course.view.stages[3].path) for name in training)
        raise ZeroDivisionError
    assert not head.training and not any(m.training for m in course.view.module.modules())
    with freeze.mode(course.view, head, None):
        assert not head.training


# ---------------------------------------------------------------- hashes that are known already


def test_what_was_verified_is_not_hashed_again_until_it_is_written_into(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = torch.arange(4.0)
    first = freeze.known({"a": tensor})
    assert first == freeze.hashes({"a": tensor}) and freeze.verify(first, {"a": tensor}) == 1
    original, counted = freeze.tensor_hash, list[int]()
    monkeypatch.setattr(freeze, "tensor_hash", lambda t: counted.append(1) or original(t))
    assert freeze.known({"b": tensor}) == {"b": first["a"]} and not counted
    tensor += 1
    assert freeze.known({"a": tensor}) == {"a": original(tensor)} != first and len(counted) == 1


def test_a_change_behind_autograds_back_is_found_by_the_next_verification() -> None:
    tensor = torch.arange(4.0)
    freeze.verify(freeze.known({"a": tensor}), {"a": tensor})
    tensor.numpy()[0] = 7.0
    with pytest.raises(RegraftError, match="frozen tensors changed"):
        freeze.verify(freeze.known({"a": tensor}), {"a": tensor})


def test_tensors_that_are_gone_are_forgotten() -> None:
    tensor = torch.arange(4.0)
    number = id(tensor)
    freeze.verify(freeze.known({"a": tensor}), {"a": tensor})
    assert number in freeze._verified
    del tensor
    assert number not in freeze._verified
