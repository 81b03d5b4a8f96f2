"""A folder that peft saved answers as peft does, with the network that it names or the one that is named."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from tests import places
from tests.calls import error_of, object_of

TEXTS = ["rose fire of the old", "sea sky", "moss and leaf near the ice"]


def saved(place: Path, model: Path, task: str) -> list[list[float]]:
    """Let peft put LoRA into the model's queries and save it; what it answers to TEXTS."""
    import peft
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(3)
    network = AutoModelForSequenceClassification.from_pretrained(str(model), num_labels=2)
    kept = ["classifier", "pooler"] if task == "SEQ_CLS" else None
    config = peft.LoraConfig(task_type=task, r=2, target_modules=["query"], modules_to_save=kept)
    made = peft.get_peft_model(network if kept else network.base_model, config).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    made.save_pretrained(place)
    if not kept:
        return []
    with torch.no_grad():
        batch = AutoTokenizer.from_pretrained(str(model))(TEXTS, padding=True, return_tensors="pt")
        answers: list[list[float]] = made(**batch).logits.softmax(-1).tolist()
    return answers


def test_an_adapter_predicts_and_is_scored_as_peft_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = places.encoder_model(tmp_path / "model")
    wanted = saved(tmp_path / "adapter", model, "SEQ_CLS")
    capsys.readouterr()
    told = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    labels = ["--labels", "cold,warm"]
    texts = [part for text in TEXTS for part in ("--text", text)]
    named = object_of(["predict", tmp_path / "adapter", *labels, *texts], capsys)["predictions"]
    for one, probabilities in zip(named, wanted, strict=True):
        assert list(one["probabilities"]) == ["cold", "warm"]
        assert list(one["probabilities"].values()) == pytest.approx(probabilities, abs=1e-5)
    (tmp_path / "adapter/adapter_config.json").write_text(json.dumps(told | {"base_model_name_or_path": "elsewhere"}))
    assert "is not here" in error_of(["predict", tmp_path / "adapter", *labels, *texts], capsys)["what"]
    ask = [tmp_path / "adapter", "--arch", model]
    assert object_of(["predict", *ask, *labels, *texts], capsys)["predictions"] == named
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *((text, "warm") for text in TEXTS)])
    found = object_of(["evaluate", *ask, *labels, tmp_path / "a.csv"], capsys)
    assert found["scores"][0]["value"] == pytest.approx(sum(b > a for a, b in wanted) / 3)
    assert found["trained"] == -1 and found["rows"] == 3
    for given in ([], ["--labels", "a,b,c"]):
        error = error_of(["predict", *ask, *given, *texts], capsys)
        assert error["code"] == 2 and error["allowed"] == "2, in the head's order"


def test_an_adapter_without_a_head_and_a_folder_without_an_adapter_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = places.encoder_model(tmp_path / "model")
    saved(tmp_path / "adapter", model, "FEATURE_EXTRACTION")
    capsys.readouterr()
    ask = ["--arch", model, "--labels", "cold,warm", "--text", "sea"]
    assert error_of(["predict", tmp_path / "adapter", *ask], capsys)["what"] == "this adapter brings no head"
    error = error_of(["predict", model, *ask], capsys)
    assert error["what"] == "there is no adapter here" and "leave out --arch" in error["do"]
