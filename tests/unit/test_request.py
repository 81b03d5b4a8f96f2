"""What a request means: refused before any work where it cannot be; its provider, its task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from regraft.errors import ModelError, UsageError
from regraft.planner import request
from regraft.waist import Data, Options, Reading, Target
from tests import places


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and a model."""
    place = tmp_path_factory.mktemp("home")
    places.pictures(place / "data", train=2, val=1, test=1)
    places.model(place / "model")
    return place


def test_a_sound_request_passes() -> None:
    asked = Options("d", "m", strategies=("probe", "partial"), knobs=(("partial.depth", "1"),))
    request.check_request(asked)
    assert request.resolved(asked) == asked


def test_a_model_that_is_not_there_gets_the_nearest(home: Path) -> None:
    with pytest.raises(ModelError) as caught:
        request.find_provider(str(home / "modle"))
    assert caught.value.what == "there is no model of that name here" and caught.value.saw == str(home / "modle")
    assert caught.value.do == f"did you mean {home / 'model'}?"
    with pytest.raises(ModelError, match=r"this folder holds no model .* nothing is fetched from the network .* check"):
        request.find_provider(str(home / "data"))


def test_a_target_without_a_task_is_refused() -> None:
    data = Data("d", "image", Target("where", "boxes"), (), (), (), "f")
    with pytest.raises(UsageError, match=r"no task fits this target · saw: boxes · allowed: classify, multilabel"):
        request.choose_task(data.target, Options("d", "m"))


@pytest.mark.parametrize(
    ("kind", "task", "name"),
    [
        ("class", "", "classify"),
        ("multi", "", "multilabel"),
        ("number", "", "regress"),
        ("class", "ordinal", "ordinal"),
        ("class", "classify", "classify"),
    ],
)
def test_a_task_is_guessed_from_the_target_or_asked_for(kind: Any, task: str, name: str) -> None:
    labels = () if kind == "number" else ("a", "b")
    data = Data("d", "text", Target("y", kind, labels, (3, 3)[: len(labels)], ordered=True), (), (), (), "f")
    assert request.choose_task(data.target, Options("d", "m", Reading(task=task))).name == name


def test_a_metric_that_is_asked_for_decides_and_an_unknown_one_is_refused() -> None:
    data = Data("d", "text", Target("y", "class", ("a", "b"), (3, 3)), (), (), (), "f")
    assert request.choose_task(data.target, Options("d", "m", metric="macro_f1")).metrics[0].name == "macro_f1"
    with pytest.raises(UsageError, match=r"no metric of that name · saw: 'acuracy' .* did you mean accuracy\?"):
        request.choose_task(data.target, Options("d", "m", metric="acuracy"))


@pytest.mark.parametrize(
    ("balance", "counts", "metric", "wanted"),
    [
        ("auto", (9, 3), "balanced_accuracy", 0.5),
        ("auto", (9, 3), "accuracy", 0.0),
        ("auto", (8, 3), "", 0.0),
        ("auto", (9, 3), "", 0.5),
        ("none", (9, 1), "balanced_accuracy", 0.0),
        ("classes", (5, 5), "accuracy", 1.0),
    ],
)
def test_rare_classes_weigh_more_where_it_is_asked_or_the_metric_wants_it(
    balance: Any, counts: tuple[int, ...], metric: str, wanted: float
) -> None:
    data = Data("d", "text", Target("y", "class", ("a", "b"), counts), (), (), (), "f")
    asked = Options("d", "m", balance=balance, metric=metric)
    assert request.balance_of(asked, data, request.choose_task(data.target, asked)) == wanted


def provider_of(query: Any) -> str:
    return request.find_provider(query).__name__.rpartition(".")[2]


def test_a_path_that_exists_comes_before_every_name(folder: Path) -> None:
    assert provider_of("minilm") == "minilm"
    assert [provider_of(f"{name}/resnet18") for name in NAMED] == list(NAMED)
    for name in ("minilm", *(f"{name}/resnet18" for name in NAMED)):
        places.model(folder / name)
        assert provider_of(name) == "transformers" == provider_of(folder / name)
        assert Path(name).exists()


NAMED = ("timm", "torchvision", "transformers")


@pytest.mark.parametrize("name", ["resnet18", "modl", "bert-base-uncased", "minlm", "all_minilm_l6_v2"])
def test_a_bare_name_is_not_guessed_at(folder: Path, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        request.find_provider(name)
    assert (caught.value.code, caught.value.what, caught.value.saw) == (2, "this name could mean several things", name)
    assert caught.value.allowed == f"timm/{name}, torchvision/{name}, transformers/{name}, minilm, a path"


@pytest.mark.parametrize(
    "name", ["some/where", "./model", "../model", "a/b/c", "model.pt", "model.safetensors", "/nope"]
)
def test_a_path_that_is_not_there_is_no_name(folder: Path, name: str) -> None:
    with pytest.raises(ModelError, match="there is no model of that name here"):
        request.find_provider(name)


@pytest.mark.parametrize("query", [None, 3, "", b"model"])
def test_what_is_no_model_at_all_is_refused(folder: Path, query: Any) -> None:
    with pytest.raises((ModelError, UsageError)):
        request.find_provider(query)


def test_a_module_and_a_state_dict_have_providers(folder: Path) -> None:
    from torch import nn

    assert provider_of(nn.Linear(2, 2)) == "module"
    (folder / "w.safetensors").write_bytes(b"")
    assert provider_of("w.safetensors") == "weights"
