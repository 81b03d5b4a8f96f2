"""Features in a backbone's place: a view of one stage without weights, dense or sparse, that rooms use unchanged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from regraft.backbone import plain
from regraft.backbone.plain import FEATURES, Plain, Recipe, compressed
from regraft.backbone.state import State
from regraft.backbone.view import View
from regraft.engine import freeze
from regraft.engine.cache import Table
from regraft.engine.predict import Graft, outputs
from regraft.engine.trunk import Trunk
from regraft.errors import ModelError, UsageError
from regraft.waist import Encoder, InputSpec, Opening, Phase, Pooled, Row, Stage, Target

WIDTH = 6


def made(sparse: bool = False, native: nn.Linear | None = None) -> Plain:
    """Cells that are numbers, one-hot; a cell of six or more is no feature at all."""

    def tensors(cells: list[int]) -> dict[str, Tensor]:
        rows = torch.stack([torch.nn.functional.one_hot(torch.tensor(c), 20)[:WIDTH].float() for c in cells])
        held = rows.numpy()
        starts = np.concatenate([[0], (held != 0).sum(1).cumsum()])
        return {FEATURES: compressed(starts, held.nonzero()[1], held[held != 0], WIDTH) if sparse else rows}

    def write(view: View, head: nn.Module, target: Target, folder: str) -> Opening:
        return Opening("numpy", folder, target.name)

    recipe = Recipe(
        name="counts",
        provider="mine",
        inputs=InputSpec("text", (WIDTH,)),
        encoder=Encoder(lambda cells: [[(cell, 0)] for cell in cells], tensors, lambda cells: ()),  # type: ignore[arg-type]
        noise=lambda rows, seed: {FEATURES: torch.full((rows, WIDTH), float(seed))},
        write=write,
        notes=("counted",),
    )
    return Plain(recipe, native)


def test_it_is_a_view_of_one_stage_without_weights() -> None:
    view = made()
    assert isinstance(view, View) and view.stages == (Stage("features", "", 0, 0, 4 * WIDTH),)
    assert (view.name, view.provider, view.dim, view.notes) == ("counts", "mine", WIDTH, ("counted",))
    assert (view.labels, view.source, view.pooling, list(view.calls)) == ((), "", "native", ["native"])
    assert view.module.get_submodule(view.paths[0]) is view.module and view.config == view.inputs.fingerprint
    assert not [*view.named()] and not [*view.buffers()] and not view.members(0)
    assert view.card() == Pooled("native", view.stages, WIDTH, 0) and view.biased
    assert view.clone(0) is view and view.clone(1) is view


def test_no_other_pooling_is_known() -> None:
    view = made()
    assert view.pooled("native") is view
    with pytest.raises(UsageError, match="mean"):
        view.pooled("mean")


def test_it_cannot_start_at_random() -> None:
    with pytest.raises(ModelError, match="counts"):
        made().randomise(3)


def test_a_bundles_head_is_its_native_one() -> None:
    head = nn.Linear(WIDTH, 2)
    assert made(native=head).native is head and isinstance(made().native, nn.Identity)


def test_it_exports_as_its_recipe_says(tmp_path: Path) -> None:
    opening = made().export(nn.Linear(WIDTH, 1), Target("grams", "number"), str(tmp_path))
    assert opening == Opening("numpy", str(tmp_path), "grams")


def test_the_noise_is_its_recipes() -> None:
    assert made().noise(2, 7)[FEATURES].tolist() == [[7.0] * WIDTH] * 2


@pytest.mark.parametrize("sparse", [False, True])
def test_the_split_law_holds(sparse: bool) -> None:
    view = made(sparse)
    batch = view.encoder().tensors([1, 3, 9])
    whole = view.run(batch)
    assert whole is batch[FEATURES] and view.run(batch, stop=1) is whole
    assert view.run(start=1, state=view.run(batch, stop=1)) is whole
    assert view.run(state=State(None, {}, batch)) is whole


@pytest.mark.parametrize("sparse", [False, True])
def test_a_graft_on_it_predicts_from_frontier_0(sparse: bool) -> None:
    view, head = made(sparse), nn.Linear(WIDTH, 2)
    cells = [2, 0, 5, 11, 1]
    rows = [Row(str(c), c, None, "", str(c)) for c in cells]
    found = outputs(Graft(view, head), Table(Trunk(view, 0, view.encoder(True), 4), rows, None))
    with torch.no_grad():
        wanted = head(torch.eye(20)[cells, :WIDTH])
    assert torch.allclose(found, wanted, atol=1e-6)


def test_only_the_head_trains() -> None:
    view, head, phase = made(), nn.Linear(WIDTH, 2), Phase(1, 0, (("head/*", 1.0),))
    assert sorted(freeze.trainable(view, head, phase)) == ["head/bias", "head/weight"]
    assert freeze.frozen(view, head, phase) == {}
    with freeze.mode(view, head, phase):
        assert head.training
    assert not head.training


def test_sparse_rows_give_gradients_and_stay_sparse() -> None:
    batch = made(sparse=True).encoder().tensors([4, 0, 4])[FEATURES]
    assert batch.layout == torch.sparse_csr and batch.dtype == torch.float32 and batch.values().tolist() == [1.0] * 3
    head = nn.Linear(WIDTH, 2)
    head(batch).sum().backward()
    assert head.weight.grad is not None and head.weight.grad.tolist() == [[1.0, 0, 0, 0, 2.0, 0]] * 2


def test_rows_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(RuntimeError, match="col_indices"):
        compressed(np.array([0, 1]), np.array([9]), np.array([1.0]), 3)


def test_what_it_cannot_do_is_refused() -> None:
    plain.asked("text", "", "")
    plain.asked("text", "text", "")
    with pytest.raises(ModelError, match="reads texts") as error:
        plain.asked("text", "image", "")
    assert "pictures" in error.value.saw
    with pytest.raises(UsageError, match="no network") as refused:
        plain.asked("image", "image", "resnet18")
    assert refused.value.saw == "--arch resnet18"


def test_a_folder_without_its_files_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one")
    with pytest.raises(ModelError) as error:
        plain.digest_of(tmp_path, ("a", "b"))
    assert error.value.saw == f"{tmp_path} without b"
    (tmp_path / "b").write_text("two")
    before = plain.digest_of(tmp_path, ("a", "b"))
    (tmp_path / "b").write_text("three")
    assert before != plain.digest_of(str(tmp_path), ("a", "b"))
