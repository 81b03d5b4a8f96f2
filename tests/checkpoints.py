"""Checkpoints in Hugging Face layout with random tiny weights: a folder for each architecture, ready to be opened."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from tests import places

WIDTH, LAYERS, CLASSES, POSITIONS = 32, 2, 5, 64
WORDS = [*places.PLAIN, *(word for words in places.TELLING.values() for word in words)]
BLOCKS: dict[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "initializer_range": 0.2,
    "num_labels": CLASSES,
}
PICTURES = BLOCKS | {"image_size": 32, "patch_size": 8}
STAGED: dict[str, Any] = {
    "num_labels": CLASSES,
    "hidden_sizes": [8, 12, 16, 24],
    "depths": [1, 1, 1, 1],
    "initializer_range": 0.2,
}
Tokenizer = Callable[[Path], int]


# ---------------------------------------------------------------- tokenizers


def wordpiece(kind: str = "BertTokenizer") -> Tokenizer:
    """Words of the tiny texts as BERT's and DistilBERT's folders have them."""

    def save(root: Path) -> int:
        vocabulary = [*places.SPECIAL, *WORDS, *"abcdefghijklmnopqrstuvwxyz", "##e", "##s"]
        ids = {word: i for i, word in enumerate(dict.fromkeys(vocabulary))}
        _library(kind)(vocab=ids, model_max_length=POSITIONS).save_pretrained(root)
        return len(ids)

    return save


def bytewise(kind: str, *special: str) -> Tokenizer:
    """Pairs of bytes, as GPT-2's and RoBERTa's folders have them; special tokens come first."""

    def save(root: Path) -> int:
        made = importlib.import_module("tokenizers").ByteLevelBPETokenizer()
        made.train_from_iterator([" ".join(WORDS)] * 2, vocab_size=340, special_tokens=list(special))
        return _saved(kind, root, made)

    return save


def sentencepiece(root: Path) -> int:
    """Pairs of letters with a mark before each word, as Llama's folders have them: nothing fills up."""
    made = importlib.import_module("tokenizers").SentencePieceBPETokenizer()
    made.train_from_iterator([" ".join(WORDS)] * 2, vocab_size=120, special_tokens=["<unk>", "<s>", "</s>"])
    return _saved("LlamaTokenizer", root, made)


def unigram(root: Path) -> int:
    """Whole words with a mark before each, as DeBERTa's folders have them."""
    pieces = [(word, 0.0) for word in ("[PAD]", "[CLS]", "[SEP]", "[UNK]")]
    pieces += [(f"▁{word}", -2.0) for word in WORDS] + [("▁", -3.0), *((c, -4.0) for c in "bcdefghijklmpqrstuvwxyz")]
    pieces = list(dict([*pieces, ("[MASK]", 0.0)]).items())
    _library("DebertaV2Tokenizer")(vocab=pieces, unk_id=3, model_max_length=POSITIONS).save_pretrained(root)
    return len(pieces)


def _saved(kind: str, root: Path, made: Any) -> int:
    model = json.loads(made.to_str())["model"]
    merges = [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in model["merges"]]
    _library(kind)(vocab=model["vocab"], merges=merges, model_max_length=POSITIONS).save_pretrained(root)
    return len(model["vocab"])


# ---------------------------------------------------------------- folders


def _library(name: str) -> Any:
    return getattr(importlib.import_module("transformers"), name)


def network(root: Path, name: str, settings: dict[str, Any], seed: int = 0) -> Path:
    """A model class of transformers with these settings and random weights, statistics and biases included."""
    kind = _library(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = kind(kind.config_class(**settings)).eval()
        for parameter in made.parameters():
            if parameter.ndim < 2:
                torch.nn.init.normal_(parameter, mean=0.5, std=0.2)
        for key, buffer in made.named_buffers():
            if key.endswith("running_mean"):
                buffer.uniform_(-0.1, 0.1)
    made.save_pretrained(root)
    return root


def seeing(name: str, side: int, settings: dict[str, Any]) -> Callable[[Path], Path]:
    """A network for pictures of `side` pixels, with the processor that Hugging Face's ViT has."""

    def save(root: Path) -> Path:
        network(root, name, settings)
        half = [0.5, 0.5, 0.5]
        told = {"image_processor_type": "ViTImageProcessor", "do_resize": True, "size": {"height": side, "width": side}}
        told |= {"resample": 2, "do_rescale": True, "do_normalize": True, "image_mean": half, "image_std": half}
        (root / "preprocessor_config.json").write_text(json.dumps(told))
        return root

    return save


def reading(
    name: str, tokenizer: Tokenizer, settings: dict[str, Any], drop: Iterable[str] = ()
) -> Callable[[Path], Path]:
    """A network for texts with its tokenizer; its vocabulary is the tokenizer's."""

    def save(root: Path) -> Path:
        size = tokenizer(root)
        return network(root, name, {k: v for k, v in settings.items() if k not in drop} | {"vocab_size": size})

    return save


BERT = BLOCKS | {"max_position_embeddings": POSITIONS}
DISTILBERT = {"dim": WIDTH, "n_layers": LAYERS, "n_heads": 2, "hidden_dim": 48, "num_labels": CLASSES}
DISTILBERT |= {"max_position_embeddings": POSITIONS, "initializer_range": 0.2}
ROBERTA = BLOCKS | {"max_position_embeddings": POSITIONS + 2, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
ROBERTA |= {"type_vocab_size": 1}
DEBERTA = BERT | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "norm_rel_ebd": "layer_norm"}
DEBERTA |= {"position_buckets": 8, "type_vocab_size": 0}
GPT2 = {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": 2, "n_positions": POSITIONS, "num_labels": CLASSES}
GPT2 |= {"bos_token_id": 0, "eos_token_id": 0, "initializer_range": 0.2}
LLAMA = BERT | {"num_key_value_heads": 1, "bos_token_id": 1, "eos_token_id": 2}
EFFICIENTNET = {"image_size": 64, "width_coefficient": 0.1, "depth_coefficient": 0.3, "hidden_dim": 128}
MARKED = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
ROBERTAS = bytewise("RobertaTokenizer", *MARKED)

SEEING: dict[str, Callable[[Path], Path]] = {
    "vit": seeing("ViTForImageClassification", 32, PICTURES),
    "dinov2": seeing("Dinov2ForImageClassification", 32, PICTURES | {"mlp_ratio": 2}),
    "clip": seeing("CLIPForImageClassification", 32, {"vision_config": PICTURES, "num_labels": CLASSES}),
    "convnext": seeing("ConvNextForImageClassification", 64, STAGED),
    "convnextv2": seeing("ConvNextV2ForImageClassification", 64, STAGED),
    "resnet": seeing("ResNetForImageClassification", 64, STAGED | {"embedding_size": 8, "layer_type": "basic"}),
    "mobilenet_v1": seeing("MobileNetV1ForImageClassification", 64, {"num_labels": CLASSES, "depth_multiplier": 0.25}),
    "mobilenet_v2": seeing("MobileNetV2ForImageClassification", 64, {"num_labels": CLASSES, "depth_multiplier": 0.35}),
    "efficientnet": seeing("EfficientNetForImageClassification", 64, EFFICIENTNET | {"num_labels": CLASSES}),
    "swin": seeing(
        "SwinForImageClassification",
        32,
        {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
        | {"num_labels": CLASSES},
    ),
}
READING: dict[str, Callable[[Path], Path]] = {
    "bert": reading("BertForSequenceClassification", wordpiece(), BERT),
    "distilbert": reading("DistilBertForSequenceClassification", wordpiece("DistilBertTokenizer"), DISTILBERT),
    "roberta": reading("RobertaForSequenceClassification", ROBERTAS, ROBERTA),
    "deberta": reading("DebertaV2ForSequenceClassification", unigram, DEBERTA),
    "gpt2": reading("GPT2ForSequenceClassification", bytewise("GPT2Tokenizer", "<|endoftext|>"), GPT2),
    "llama": reading("LlamaForSequenceClassification", sentencepiece, LLAMA),
}
BARE: dict[str, Callable[[Path], Path]] = {
    "bare bert": reading("BertModel", wordpiece(), BERT),
    "bare distilbert": reading("DistilBertModel", wordpiece("DistilBertTokenizer"), DISTILBERT),
    "bare roberta": reading("RobertaModel", ROBERTAS, ROBERTA),
    "bare gpt2": reading("GPT2Model", bytewise("GPT2Tokenizer", "<|endoftext|>"), GPT2),
}
"""Saved without a head: BERT with its pooler (which transformers' base class has), the others without their neck."""

ALL = SEEING | READING | BARE


def minilm(root: Path) -> Path:
    """A folder of sentence-transformers: BERT without its pooler, the mean of its tokens."""
    size = wordpiece()(root)
    kind = _library("BertModel")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        kind(kind.config_class(**BERT, vocab_size=size), add_pooling_layer=False).eval().save_pretrained(root)
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
        for i, (name, path) in enumerate((("Transformer", ""), ("Pooling", "1_Pooling")))
    ]
    pooling = {"word_embedding_dimension": WIDTH, "pooling_mode_mean_tokens": True}
    places.sheet(root / "1_Pooling" / "config.json", (), []).write_text(json.dumps(pooling))
    (root / "modules.json").write_text(json.dumps(modules))
    (root / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 24}))
    return root


ALL["minilm"] = minilm
