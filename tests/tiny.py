"""Tiny networks with random weights, one for each architecture that the laws are held against: no hub, no downloads."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from regraft.backbone.stages import Batch, Call, find_head
from regraft.backbone.view import View
from regraft.waist import InputSpec

CLASSES = 5
WIDTH, LAYERS = 32, 3
BLOCKS: dict[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "num_labels": CLASSES,
}
PICTURES: dict[str, Any] = BLOCKS | {"image_size": 32, "patch_size": 8}
SPECIAL: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1, "decoder_start_token_id": 1}
TOKENS: dict[str, Any] = BLOCKS | {"vocab_size": 50, "max_position_embeddings": 40}


@dataclass(frozen=True)
class Tiny:
    """A view with its batches: `batch(n, length)` draws n rows, `lengths` are those that the network takes."""

    view: View
    batch: Callable[[int, int], dict[str, Tensor]]
    lengths: tuple[int, ...]


@functools.cache
def build(name: str) -> Tiny:
    """The tiny network of that name, always with the same weights; tests share it, so train a clone of it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tiny = NETWORKS[name]()
        for parameter in tiny.view.module.parameters():
            if parameter.ndim < 2:  # libraries start norms, biases and layer scales where they do nothing
                nn.init.normal_(parameter, mean=0.5, std=0.2)
    return tiny


# ---------------------------------------------------------------- batches


def pixels(n: int, length: int) -> dict[str, Tensor]:
    """Square pictures of `length` pixels."""
    return {"pixel_values": torch.randn(n, 3, length, length, generator=_seed(n + length))}


def tokens(n: int, length: int) -> dict[str, Tensor]:
    """Token ids and a mask; every row has another number of tokens, the first row is full."""
    ids = torch.randint(3, 50, (n, length), generator=_seed(n + length))
    mask = (torch.arange(length) < length - torch.arange(n)[:, None] % 3).long()
    return {"input_ids": ids * mask, "attention_mask": mask}


def sound(n: int, length: int) -> dict[str, Tensor]:
    """Waves and a mask."""
    mask = (torch.arange(length) < length - 60 * (torch.arange(n)[:, None] % 3)).long()
    return {"input_values": torch.randn(n, length, generator=_seed(n + length)) * mask, "attention_mask": mask}


def numbers(name: str, *shape: int) -> Callable[[int, int], dict[str, Tensor]]:
    """Real numbers of one shape, whatever length is asked for."""
    return lambda n, _length: {name: torch.randn(n, *shape, generator=_seed(n))}


def _seed(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


# ---------------------------------------------------------------- what a network gives


def logits(module: nn.Module, batch: Batch) -> Tensor:
    """What the native head took, in transformers' models for classification."""
    features: Tensor = module(**batch).logits
    return features


def uncached(module: nn.Module, batch: Batch) -> Tensor:
    """The same for decoders, which would keep keys and values for the next token."""
    features: Tensor = module(**batch, use_cache=False).logits
    return features


def last(module: nn.Module, batch: Batch) -> Tensor:
    """The mean of transformers' last hidden state over its unmasked tokens."""
    hidden: Tensor = module(**batch).last_hidden_state
    mask = batch.get("attention_mask", torch.ones(hidden.shape[:2]))[..., None].to(hidden.dtype)
    return (hidden * mask).sum(1) / mask.sum(1)


def prediction(module: nn.Module, batch: Batch) -> Tensor:
    """What the native head took, in PatchTST's model for classification."""
    features: Tensor = module(**batch).prediction_logits
    return features


def plain(module: nn.Module, batch: Batch) -> Tensor:
    """What a network of timm or torchvision gives for pictures."""
    features: Tensor = module(batch["pixel_values"])
    return features


def viewed(
    module: nn.Module,
    call: Call,
    batch: Callable[[int, int], dict[str, Tensor]],
    *lengths: int,
    head: bool = True,
) -> Tiny:
    """A view of the module, its head found by structure where it has one."""
    module.eval()
    example = batch(2, lengths[0])
    path = find_head(module, CLASSES, lambda: call(module, example)) if head else ""
    kind = next(iter(example))
    view = View(
        name=type(module).__name__,
        provider="tiny",
        module=module,
        call=call,
        inputs=InputSpec(kind, tuple(example[kind].shape[1:])),
        example=example,
        head=path,
        fresh=lambda seed: _fresh(module, seed),
    )
    return Tiny(view, batch, lengths)


def _fresh(module: nn.Module, seed: int) -> dict[str, Tensor]:
    generator = _seed(seed)
    return {
        name: torch.rand(t.shape, generator=generator).to(t.dtype) if t.is_floating_point() else t.clone()
        for name, t in module.state_dict().items()
    }


# ---------------------------------------------------------------- timm and torchvision


def of_timm(name: str, length: int, **options: Any) -> Tiny:
    """A network of timm at another size; its global pooling feeds the head."""
    create = importlib.import_module("timm").create_model
    return viewed(create(name, pretrained=False, num_classes=CLASSES, **options), plain, pixels, length)


def of_torchvision(name: str, length: int) -> Tiny:
    """A network of torchvision, as wide as it is sold."""
    models = importlib.import_module("torchvision.models")
    return viewed(getattr(models, name)(weights=None, num_classes=CLASSES), plain, pixels, length)


def vgg11() -> Tiny:
    """torchvision's VGG, narrowed: as sold it holds 129 million weights."""
    vgg = importlib.import_module("torchvision.models.vgg")
    with torch.device("meta"):
        model = vgg.vgg11(weights=None, num_classes=CLASSES)
    model.features = vgg.make_layers([4, "M", 6, "M", 8, 8, "M", 12, 12, "M", 12, 12, "M"])
    model.classifier[0], model.classifier[3], model.classifier[6] = (
        nn.Linear(12 * 49, WIDTH),
        nn.Linear(WIDTH, WIDTH),
        nn.Linear(WIDTH, CLASSES),
    )
    return viewed(model, plain, pixels, 64)


# ---------------------------------------------------------------- transformers


def of_transformers(name: str, **settings: Any) -> nn.Module:
    """A model class of transformers with these settings in its configuration."""
    library = importlib.import_module("transformers")
    model = getattr(library, name)
    module: nn.Module = model(model.config_class(**settings))
    return module


def gpt2() -> Tiny:
    sizes = {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": 2, "vocab_size": 50, "n_positions": 40}
    model = of_transformers("GPT2ForSequenceClassification", **sizes, **SPECIAL, **LABELS)
    return viewed(model, uncached, tokens, 12, 17)


def llama() -> Tiny:
    settings = TOKENS | SPECIAL | {"num_key_value_heads": 1, "attention_dropout": 0.1}
    model = of_transformers("LlamaForSequenceClassification", **settings)
    return viewed(model, uncached, tokens, 12, 17)


def distilbert() -> Tiny:
    sizes = {"dim": WIDTH, "n_layers": LAYERS, "n_heads": 2, "hidden_dim": 48}
    model = of_transformers(
        "DistilBertForSequenceClassification", **sizes, **LABELS, vocab_size=50, max_position_embeddings=40
    )
    return viewed(model, logits, tokens, 12, 17)


def roberta() -> Tiny:
    """Positions count from the padding id on, so there are more of them than tokens; the head has a layer before it."""
    settings = TOKENS | SPECIAL | {"pad_token_id": 0, "type_vocab_size": 1}
    return viewed(of_transformers("RobertaForSequenceClassification", **settings), logits, tokens, 12, 17)


def minilm() -> Tiny:
    """A BERT without its pooler, as sentence encoders are: the mean of its tokens is what it gives."""
    library = importlib.import_module("transformers")
    model = library.BertModel(library.BertConfig(**TOKENS), add_pooling_layer=False)
    return viewed(model, last, tokens, 12, 17, head=False)


def deberta() -> Tiny:
    """With relative positions in every layer and the convolution that large checkpoints have beside layer 0."""
    relative = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "norm_rel_ebd": "layer_norm"}
    model = of_transformers(
        "DebertaV2ForSequenceClassification", **TOKENS, **relative, position_buckets=8, conv_kernel_size=3
    )
    return viewed(model, logits, tokens, 12, 17)


def t5() -> Tiny:
    sizes = {"d_model": WIDTH, "d_kv": 16, "d_ff": 48, "num_layers": LAYERS, "num_heads": 2, "vocab_size": 50}
    return viewed(of_transformers("T5EncoderModel", **sizes), last, tokens, 12, 17, head=False)


def wav2vec2() -> Tiny:
    sizes = {"conv_dim": [16] * 4, "conv_kernel": [10, 3, 3, 2], "conv_stride": [5, 2, 2, 2]}
    position = {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "classifier_proj_size": 24}
    model = of_transformers(
        "Wav2Vec2ForSequenceClassification", **BLOCKS, **sizes, **position, num_feat_extract_layers=4
    )
    return viewed(model, logits, sound, 640, 900)


def whisper() -> Tiny:
    """The encoder alone; it takes one length and knows no mask."""
    sizes = {"d_model": WIDTH, "encoder_layers": LAYERS, "encoder_attention_heads": 2, "encoder_ffn_dim": 48}
    config = importlib.import_module("transformers").WhisperConfig(
        **sizes, num_mel_bins=8, max_source_positions=12, vocab_size=50, dropout=0.1, **SPECIAL
    )
    encoder = importlib.import_module("transformers.models.whisper.modeling_whisper").WhisperEncoder(config)
    return viewed(encoder, last, numbers("input_features", 8, 24), 24, head=False)


def patchtst() -> Tiny:
    sizes = {"d_model": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "ffn_dim": 48}
    shape = {"num_input_channels": 3, "context_length": 24, "patch_length": 8, "patch_stride": 4}
    model = of_transformers(
        "PatchTSTForClassification", **sizes, **shape, num_targets=CLASSES, ff_dropout=0.1, pooling_type="mean"
    )
    return viewed(model, prediction, numbers("past_values", 24, 3), 24)


def clip() -> Tiny:
    """The picture half; its text half is never made."""
    return of_pictures("CLIPForImageClassification", 32, vision_config=PICTURES | {"attention_dropout": 0.1}, **LABELS)


def efficientnet() -> Tiny:
    """With squeeze and excitation inside the blocks, and short ways round those that repeat."""
    sizes = {"width_coefficient": 0.1, "depth_coefficient": 0.3, "hidden_dim": 128, "image_size": 64}
    return of_pictures("EfficientNetForImageClassification", 64, 96, **LABELS, **sizes)


def swin() -> Tiny:
    """Every other block shifts its windows."""
    sizes = {"image_size": 64, "patch_size": 4, "embed_dim": 8, "depths": [2, 2, 2], "num_heads": [1, 2, 4]}
    return of_pictures("SwinForImageClassification", 64, **LABELS, **sizes, window_size=4, drop_path_rate=0.2)


def audio_spectrogram() -> Tiny:
    shape = {"patch_size": 8, "frequency_stride": 8, "time_stride": 8, "max_length": 24, "num_mel_bins": 16}
    model = of_transformers("ASTForAudioClassification", **BLOCKS, **shape, hidden_dropout_prob=0.1)
    return viewed(model, logits, numbers("input_values", 24, 16), 24)


def of_pictures(name: str, *lengths: int, **settings: Any) -> Tiny:
    """A transformers model for image classification."""
    return viewed(of_transformers(name, **settings), logits, pixels, *lengths)


LABELS: dict[str, Any] = {"num_labels": CLASSES}
STAGED: dict[str, Any] = LABELS | {"hidden_sizes": [8, 12, 16, 24], "depths": [1, 1, 2, 1]}
TIMM_VIT: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": WIDTH, "depth": LAYERS, "num_heads": 2}
TIMM_CONVNEXT: dict[str, Any] = {"dims": (8, 12, 16, 24), "depths": (2, 2, 2, 2), "drop_path_rate": 0.2}
TIMM_SWIN: dict[str, Any] = {"embed_dim": 8, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 2, 4), "window_size": 4}
NETWORKS: dict[str, Callable[[], Tiny]] = {
    "timm/resnet18": lambda: of_timm("resnet18", 64, channels=(8, 12, 16, 24)),
    "timm/vit": lambda: of_timm("vit_tiny_patch16_224", 32, **TIMM_VIT, proj_drop_rate=0.1),
    "timm/convnext": lambda: of_timm("convnext_atto", 64, **TIMM_CONVNEXT),
    "timm/swin": lambda: of_timm("swin_tiny_patch4_window7_224", 64, **TIMM_SWIN, img_size=64),
    "torchvision/resnet18": lambda: of_torchvision("resnet18", 64),
    "torchvision/mobilenet_v3": lambda: of_torchvision("mobilenet_v3_small", 64),
    "torchvision/efficientnet": lambda: of_torchvision("efficientnet_b0", 64),
    "torchvision/vgg11": vgg11,
    "bert": lambda: viewed(of_transformers("BertForSequenceClassification", **TOKENS), logits, tokens, 12, 17),
    "distilbert": distilbert,
    "roberta": roberta,
    "minilm": minilm,
    "gpt2": gpt2,
    "llama": llama,
    "deberta": deberta,
    "t5": t5,
    "wav2vec2": wav2vec2,
    "whisper": whisper,
    "patchtst": patchtst,
    "ast": audio_spectrogram,
    "vit": lambda: of_pictures("ViTForImageClassification", 32, **PICTURES, hidden_dropout_prob=0.1),
    "dinov2": lambda: of_pictures("Dinov2ForImageClassification", 32, 40, **PICTURES, mlp_ratio=2, drop_path_rate=0.2),
    "clip": clip,
    "swin": swin,
    "efficientnet": efficientnet,
    "convnext": lambda: of_pictures("ConvNextForImageClassification", 64, 96, **STAGED, drop_path_rate=0.2),
    "convnextv2": lambda: of_pictures("ConvNextV2ForImageClassification", 64, 96, **STAGED, drop_path_rate=0.2),
    "resnet": lambda: of_pictures("ResNetForImageClassification", 64, 96, **STAGED, embedding_size=8),
    "mobilenet_v2": lambda: of_pictures("MobileNetV2ForImageClassification", 64, 96, **LABELS, depth_multiplier=0.35),
}
