"""Bundles on disk: read back only as they were written; backbones again, given them or their run."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from regraft.backbone import bundle
from regraft.errors import ModelError
from regraft.kit import durable
from regraft.providers import bundle as provider
from regraft.providers import transformers
from regraft.waist import Bundle, InputSpec, Opening, Phase, Plan, Score, Target, fingerprint, plain
from tests import places

TARGET = Target("label", "class", ("blue", "red"), (3, 4))


def packed(place: Path) -> Bundle:
    """Put a record beside the files of a model; it names all of them."""
    told = Bundle(
        schema=bundle.SCHEMA,
        name="run",
        modality="image",
        task="classify",
        target=TARGET,
        inputs=InputSpec("image", (3, 16, 16), settings=(("resample", 2), ("scale", 0.5))),
        plan=Plan("probe", (Phase(1, 4, (("head/*", 1.0),)),)),
        provider="transformers",
        base="resnet",
        scores=(Score("accuracy", "test", 0.5, 0.4, 0.6, 9),),
        golden_seed=20,
        golden=((0.25, -1.5),),
        micro_batch=8,
        versions=(("torch", "2"),),
        files=tuple(durable.sums(place).items()),
        opening=Opening("transformers", "outputs = []", "made = None"),
    )
    bundle.write(place, told)
    return told


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("run") / "bundle"
    transformers.load(str(places.model(place.parent / "model"))).export(nn.Linear(16, 2), TARGET, str(place))
    packed(place)
    return place


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of the bundle that a test may spoil."""
    return Path(shutil.copytree(made, tmp_path / "bundle"))


def test_a_bundle_is_read_as_it_was_written(made: Path) -> None:
    told = json.loads((made / bundle.NAME).read_text())
    assert told.pop(bundle.ITSELF) == fingerprint(told) and plain(bundle.read(made)) == told
    assert bundle.read(made).target.labels == ("blue", "red")
    assert bundle.is_bundle(made) and not bundle.is_bundle(made.parent)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "preprocessor_config.json"])
def test_a_changed_byte_is_refused_by_name(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[-2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(ModelError) as caught:
        provider.load(str(folder))
    assert caught.value.what == "this bundle is not what was packed"
    assert caught.value.saw == f"{folder}: {name} has changed bytes"


def test_a_changed_record_is_refused_and_one_that_vouches_for_nothing_is_read(folder: Path) -> None:
    told = json.loads((folder / bundle.NAME).read_text())
    told["scores"][0]["value"] = 0.75
    durable.write_json(folder / bundle.NAME, told)
    with pytest.raises(ModelError, match=r"not what was packed · saw: .*: regraft\.json has changed bytes"):
        bundle.read(folder)
    del told[bundle.ITSELF]
    durable.write_json(folder / bundle.NAME, told)
    assert bundle.read(folder).scores[0].value == 0.75


def test_a_missing_file_is_refused_by_name(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"not what was packed · saw: .*: model\.safetensors is missing"):
        bundle.read(folder)


def test_a_record_that_points_outside_is_refused(folder: Path) -> None:
    told = dataclasses.replace(bundle.read(folder), files=(("../secret", durable.digest(b"x")),))
    (folder.parent / "secret").write_bytes(b"x")
    durable.write_json(folder / bundle.NAME, plain(told))
    with pytest.raises(ModelError, match=r"\.\./secret is missing"):
        bundle.read(folder)


def test_a_later_schema_is_refused(folder: Path) -> None:
    durable.write_json(folder / bundle.NAME, {"schema": 99, "of": "the future"})
    with pytest.raises(
        ModelError, match=r"by a later regraft · saw: schema 99 · allowed: schema 1 or below · do: upgrade"
    ):
        bundle.read(folder)


GARBAGE = ["", "{", "[]", "null", "3", '"x"', "{}", '{"schema": 1}', '{"schema": "new"}', '{"schema": Infinity}']


@pytest.mark.parametrize("text", GARBAGE)
def test_a_garbage_record_is_refused_with_its_path(folder: Path, text: str) -> None:
    (folder / bundle.NAME).write_text(text)
    with pytest.raises(ModelError, match=r"this bundle cannot be read · saw: .*regraft\.json: \w+Error · do: pack it"):
        bundle.read(folder)


def test_a_record_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot be read · saw: .*regraft\.json: FileNotFoundError"):
        bundle.read(tmp_path)


# ---------------------------------------------------------------- as a backbone


def test_a_bundle_and_its_run_are_found(made: Path, tmp_path: Path) -> None:
    assert provider.find(str(made)) and provider.find(str(made.parent)) and not provider.find(str(tmp_path))
    assert provider.folder(str(made)) == provider.folder(str(made.parent)) == made


def test_a_bundle_is_a_backbone_with_its_head(made: Path) -> None:
    view = provider.load(str(made.parent))
    assert view.dim == 16 and isinstance(view.native, nn.Linear) and view.native.out_features == 2
    batch = {"pixel_values": torch.zeros(2, 3, 16, 16)}
    assert torch.equal(view.run(batch), transformers.load(str(made)).run(batch))


def test_a_bundle_and_its_run_have_one_fingerprint(made: Path) -> None:
    assert (
        provider.fingerprint(str(made)) == provider.fingerprint(str(made.parent)) == transformers.fingerprint(str(made))
    )
