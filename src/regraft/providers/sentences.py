"""Sentence encoders in folders of sentence-transformers, which mean-pooled bundles are too; transformers opens them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.kit import durable, shelf
from regraft.waist import READY, Opening, Target

if TYPE_CHECKING:
    from torch import nn

    from regraft.backbone.view import View

MODULES, POOLING, DENSE = "modules.json", "1_Pooling/config.json", "2_Dense"
HEAD = "head.safetensors"
LABELS = "labels.json"


def find(query: Any) -> bool:
    """Whether `query` is a folder of sentence-transformers with a Hugging Face network in it."""
    return isinstance(query, (str, Path)) and all((Path(query) / name).is_file() for name in (MODULES, "config.json"))


def fingerprint(query: Any) -> str:
    """As the provider that opens the network says, and the head of a bundle; pooling is ours to choose."""
    made: str = shelf.find("providers", "transformers").fingerprint(query)
    heads = [file for file in (Path(query) / DENSE / "model.safetensors", Path(query) / HEAD) if file.is_file()]
    return durable.digest("".join([made, *map(durable.file_digest, heads)]).encode()) if heads else made


def load(query: Any, modality: str = "", arch: str = "") -> View:
    """The encoder in a folder; the head of a bundle of ours is its native one.

    Raises: ModelError: as the provider of Hugging Face folders.
    """
    view: View = shelf.find("providers", "transformers").load(query, modality or "text", arch)
    view.provider = "sentences"
    native = _head(Path(query))
    if native is not None:
        view.native = native
    pooling = _told(Path(query) / POOLING)
    if pooling and not (pooling.get("pooling_mode_mean_tokens") or pooling.get("pooling_mode") == "mean"):
        view.notes = (*view.notes, "this encoder was trained with another pooling than the mean")
    return view


def write(view: View, head: nn.Linear, target: Target, place: Path, source: Path) -> Opening:
    """Write the encoder, its pooling and the head: for one text a Dense module, for pairs a file beside it.

    So `SentenceTransformer(folder).encode(texts)` gives the head's outputs for texts, and embeddings for pairs.
    """
    from safetensors.torch import save

    module: Any = view.module
    pair = head.in_features != view.dim
    module.base_model.save_pretrained(str(place), safe_serialization=True)
    item = shelf.find("modalities", "text")
    for name, data in item.carried(source, view.inputs).items():
        durable.fill(place / name, data)
    kinds = ["Transformer", "Pooling"] + ([] if pair else ["Dense"])
    paths = ["", "1_Pooling", DENSE]
    modules = [
        {"idx": i, "name": str(i), "path": paths[i], "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    modes = {f"pooling_mode_{mode}": mode == "mean_tokens" for mode in ("cls_token", "mean_tokens", "max_tokens")}
    told: dict[str, Any] = {
        MODULES: modules,
        POOLING: {"word_embedding_dimension": view.dim, **modes, "pooling_mode_mean_sqrt_len_tokens": False},
        "sentence_bert_config.json": {"max_seq_length": view.inputs.setting("max_tokens", 256), "do_lower_case": False},
        LABELS: list(target.labels),
    }
    weights = {name: tensor.detach().contiguous() for name, tensor in head.named_parameters()}
    if pair:
        durable.fill(place / HEAD, save(weights))
    else:
        durable.fill(place / DENSE / "model.safetensors", save({f"linear.{n}": t for n, t in weights.items()}))
        told[f"{DENSE}/config.json"] = {
            "in_features": head.in_features,
            "out_features": head.out_features,
            "bias": head.bias is not None,
            "activation_function": "torch.nn.modules.linear.Identity",
        }
    for name, value in told.items():
        durable.fill(place / name, json.dumps(value, indent=2, ensure_ascii=False).encode())
    lines: tuple[str, ...] = PAIRS if pair else SINGLE
    if view.inputs.setting("long", "cut") != "cut":
        some = item.lines(view.inputs, str(source), "text[side]" if pair else "text")
        lines = (*(PIECES_PAIRS if pair else PIECES), *("    " + ("    " if pair else "") + line for line in some))
        lines += PIECES_PAIRS_END if pair else PIECES_END
    use = "\n".join(["import json", "from pathlib import Path", *lines, _end(target)])
    return Opening("sentence_transformers", use, CHECK_PAIRS if pair else CHECK, "sentences")


def _end(target: Target) -> str:
    """The line that makes answers of outputs."""
    scores = {"class": "softmax(-1)", "multi": "sigmoid()"}
    if target.kind not in scores:
        return "outputs = made[:, 0].tolist()"
    return (
        f"labels = json.loads(Path(folder, '{LABELS}').read_text('utf-8'))\n"
        f"outputs = [dict(zip(labels, row)) for row in made.{scores[target.kind]}.tolist()]"
    )


SINGLE = (
    "from sentence_transformers import SentenceTransformer",
    'model = SentenceTransformer(folder, device="cpu")',
    f"{READY}model[0].auto_model",
    "made = model.encode(inputs, convert_to_tensor=True)",
)
PAIRS = (
    "import torch",
    "from safetensors.torch import load_file",
    "from sentence_transformers import SentenceTransformer",
    'encoder = SentenceTransformer(folder, device="cpu")',
    f"{READY}encoder[0].auto_model",
    "a, b = (encoder.encode([pair[side] for pair in inputs], convert_to_tensor=True) for side in (0, 1))",
    "a, b = (x * x.shape[1] ** 0.5 / x.norm(dim=1, keepdim=True) for x in (a, b))",
    'head = load_file(folder + "/head.safetensors")',
    'made = torch.cat([a, b, (a - b).abs(), a * b], 1) @ head["weight"].T + head["bias"]',
)
PIECES = (
    "import torch",
    "from sentence_transformers import SentenceTransformer",
    'model = SentenceTransformer(folder, device="cpu")',
    f"{READY}model[0].auto_model",
    "tokenizer, rows = model.tokenizer, []",
    "for text in inputs:",
)
PIECES_END = (
    '    rows.append(model(dict(batch))["sentence_embedding"].mean(0))',
    "made = torch.stack(rows)",
)
PIECES_PAIRS = (
    "import torch",
    "from safetensors.torch import load_file",
    "from sentence_transformers import SentenceTransformer",
    'model = SentenceTransformer(folder, device="cpu")',
    f"{READY}model[0].auto_model",
    "tokenizer, sides = model.tokenizer, ([], [])",
    "for text in inputs:",
    "    for side in (0, 1):",
)
PIECES_PAIRS_END = (
    '        sides[side].append(model(dict(batch))["sentence_embedding"].mean(0))',
    "a, b = (torch.stack(side) for side in sides)",
    *PAIRS[6:],
)
_MEANS = f"""\
import torch
from safetensors.torch import load_file
from transformers import AutoModel
encoder = AutoModel.from_pretrained(folder, local_files_only=True)
{READY}encoder
means = []
for batch in batches:
    mask = batch["attention_mask"][..., None].float()
    means.append((encoder(**batch).last_hidden_state * mask).sum(1) / mask.sum(1))
"""
CHECK = (
    _MEANS
    + """head = load_file(folder + "/2_Dense/model.safetensors")
made = means[0] @ head["linear.weight"].T + head["linear.bias"]"""
)
CHECK_PAIRS = (
    _MEANS
    + """a, b = (x * x.shape[1] ** 0.5 / x.norm(dim=1, keepdim=True) for x in means)
head = load_file(folder + "/head.safetensors")
made = torch.cat([a, b, (a - b).abs(), a * b], 1) @ head["weight"].T + head["bias"]"""
)


def _head(folder: Path) -> nn.Linear | None:
    """The head of a bundle of ours, as a linear layer; None for an encoder without one."""
    import torch
    from safetensors.torch import load_file
    from torch import nn

    single = folder / DENSE / "model.safetensors"
    if not (folder / LABELS).is_file():
        return None
    tensors = {
        name.removeprefix("linear."): t for name, t in load_file(single if single.is_file() else folder / HEAD).items()
    }
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, tensors["weight"].shape[1], tensors["weight"].shape[0])
    with torch.no_grad():
        layer.weight.copy_(tensors["weight"])
        layer.bias.copy_(tensors["bias"])
    return layer


def _told(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found
