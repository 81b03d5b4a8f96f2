"""Backbones in Hugging Face layout, opened by transformers: a folder with safetensors, or a name in the hub's cache."""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.backbone.names import named
from regraft.errors import ModelError
from regraft.kit import durable, hardware, optional, shelf
from regraft.waist import READY, Opening, Pooling, Target

if TYPE_CHECKING:
    from torch import Tensor, nn

    from regraft.backbone.short import Blocks
    from regraft.backbone.view import View

PREFIX = "transformers/"
SENTENCES = "modules.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack")
PROBLEMS = {"class": "single_label_classification", "multi": "multi_label_classification", "number": "regression"}
SEED = 0
COUNT = "num_hidden_layers"
KINDS = "layer_types"


def find(query: Any) -> bool:
    """Whether `query` is a folder in Hugging Face layout, or `transformers/NAME` with a name of the hub."""
    if not isinstance(query, (str, Path)):
        return False
    if Path(query).exists():
        return (Path(query) / "config.json").is_file() and not _foreign(Path(query))
    return str(query).startswith(PREFIX)


def fingerprint(query: Any) -> str:
    """SHA-256 over the names and contents of weights, configuration and preprocessing."""
    folder = located(query)
    kinds = ("*.safetensors", "*.json", "*.txt", "*.model")
    files = sorted(file for kind in kinds for file in folder.glob(kind))
    return durable.digest("".join(f"{f.name} {durable.file_digest(f)}\n" for f in files).encode())


def located(query: Any) -> Path:
    """The folder of a query: itself, or the hub's cache for `transformers/NAME`.

    Raises: ModelError: the name is not in the cache; nothing is fetched.
    """
    if Path(query).exists():
        return Path(query)
    name = str(query).removeprefix(PREFIX)
    from huggingface_hub import constants

    snapshots = Path(constants.HF_HUB_CACHE, "models--" + name.replace("/", "--"), "snapshots")
    held = sorted(snapshots.glob("*/config.json"), key=lambda path: path.stat().st_mtime) if name else []
    if not held:
        raise ModelError(
            "this model is not on this machine, and nothing is fetched",
            saw=f"{query}: no {snapshots.parent.name} in {constants.HF_HUB_CACHE}",
            allowed="a folder, or a name that the hub's cache holds",
            do=f"where there is a network: hf download {name or 'NAME'}",
        )
    return held[-1].parent


def load(query: Any, modality: str = "", arch: str = "") -> View:
    """Open a folder as a backbone with its native head taken out.

    Args:
        modality: What the data is; "" takes what the folder has preprocessing for.
    Raises: ModelError: no safetensors, remote code, an architecture or preprocessing that is not understood.
    """
    import torch

    from regraft.backbone.stages import find_head, outline
    from regraft.backbone.view import View

    folder = located(query)
    config = _safe_config(folder)
    hardware.quiet_libraries()
    broken = optional.trouble("torchvision")
    ready = [m for m in shelf.names("modalities") if _prepares(m, folder)]
    kind = modality or next(iter(ready), "image")
    if ready and kind not in ready:
        raise ModelError(
            f"this model reads {shelf.find('modalities', ready[0]).NOUN}",
            saw=f"data of {shelf.find('modalities', kind).NOUN}",
            allowed=shelf.find("modalities", ready[0]).NOUN,
            do="choose a model for this kind of data, such as minilm for texts",
        )
    item = shelf.find("modalities", kind)
    with _explained(folder, item.PIPELINE):
        inputs = item.described(folder)
        import transformers

        with _quiet(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)  # for weights that the checkpoint lacks
            module, info = getattr(transformers, item.AUTO).from_pretrained(
                str(folder),
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
            )
    if item.TOKENS and module.config.get_text_config().pad_token_id is None:
        module.config.get_text_config().pad_token_id = int(inputs.setting("pad", 0))
    example = item.noise(inputs, 2, SEED)
    module.eval()
    calls = _calls(module, item.TOKENS, _bare(config, folder))
    native = calls["native"]
    bare, batch = outline(module, native, example)
    head = find_head(bare, module.config.num_labels, lambda: native(bare, batch))
    first, *others = calls
    missing = {key for key in info["missing_keys"] if not key.startswith(head)}
    view = View(
        name=folder.resolve().name if Path(query).exists() else str(query).removeprefix(PREFIX),
        provider="transformers",
        module=module,
        call=calls[first],
        pooling=first,
        others={name: calls[name] for name in others},
        inputs=inputs,
        example=example,
        head=head,
        missing=missing,
        labels=_labels(module, head, info["missing_keys"]),
        row=_row(module),
        source=str(folder),
        notes=(broken,) if broken else (),
        config=json.dumps({k: v for k, v in config.items() if "label" not in k}, sort_keys=True),
        fresh=lambda seed: _fresh(module, seed),
        write=lambda view, layer, target, place: _write(view, layer, target, Path(place), folder),
    )
    _refuse_gaps(view, missing)
    return view


def _calls(
    module: nn.Module, tokens: bool, bare: bool
) -> dict[Pooling, Callable[[nn.Module, Mapping[str, Tensor]], Tensor]]:
    """The ways to make features, the first being the one that suits the checkpoint: the mean for a bare encoder."""
    plain = {"use_cache": False} if "use_cache" in inspect.signature(module.forward).parameters else {}

    def native(network: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """What the native head would take: the module's own pooling, [n, dim]."""
        logits: Tensor = network(**batch, **plain).logits
        return logits

    def mean(network: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """The mean of the last hidden states over the tokens that are no padding, [n, dim]."""
        hidden = network.base_model(**batch, **plain).last_hidden_state
        mask = batch["attention_mask"][..., None].to(hidden.dtype)
        made: Tensor = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
        return made

    if not tokens:
        return {"native": native}
    return {"mean": mean, "native": native} if bare else {"native": native, "mean": mean}


def _row(module: Any) -> Blocks | None:
    """The list of the network's blocks, where there is one that its configuration counts."""
    from torch import nn

    from regraft.backbone.short import Blocks

    config = module.config.get_text_config()
    count = getattr(config, COUNT, 0)
    lists = [name for name, m in module.named_modules() if isinstance(m, nn.ModuleList) and len(m) == count > 1]
    return Blocks(lists[0], lambda network, n: _end(network, lists[0], n)) if len(lists) == 1 else None


def _end(module: Any, row: str, blocks: int) -> None:
    """Leave the first blocks of a network, in its configuration too, where lists may name a kind for each."""
    config = module.config.get_text_config()
    kinds = {name: value for name, value in config.to_dict().items() if name.endswith(KINDS) and value}
    for name, value in kinds.items():
        if isinstance(value, list) and len(value) == getattr(config, COUNT):
            setattr(config, name, value[:blocks])
    setattr(config, COUNT, blocks)
    del module.get_submodule(row)[blocks:]


def _bare(config: Mapping[str, Any], folder: Path) -> bool:
    """Whether a checkpoint was saved as an encoder without any head, as sentence encoders are."""
    names = config.get("architectures") or [""]
    return (folder / SENTENCES).is_file() or str(names[0]).endswith("Model")


def _labels(module: Any, head: str, lacking: Collection[str]) -> tuple[str, ...]:
    """What the checkpoint's own head tells apart; nothing where it lacks the head, or says a number."""
    config = module.config
    if f"{head}.weight" in lacking or config.problem_type == PROBLEMS["number"]:
        return ()
    names = [str(config.id2label.get(i, f"LABEL_{i}")) for i in range(config.num_labels)]
    return named(names, module.get_submodule(head).out_features)


def _refuse_gaps(view: View, missing: set[str]) -> None:
    """Weights may lack at the end alone, between the blocks and the head, where training fills them."""
    lacking = {id(p) for name, p in view.module.named_parameters() if name in missing}
    statistics = [name for name, _ in view.module.named_buffers() if name in missing and "num_batches" not in name]
    for pooling in view.calls:
        one = view.pooled(pooling)
        filled = [stage for _, stage, p in one.named() if id(p) not in lacking]
        gaps = [name for name, stage, p in one.named() if id(p) in lacking and stage <= max(filled, default=-1)]
        if gaps := gaps + statistics:
            raise ModelError(
                "these weights do not fill the network",
                saw=f"{len(gaps)} tensors missing, such as {sorted(gaps)[0]}",
                allowed="a checkpoint that holds every weight but the head's",
                do="check that config.json belongs to these weights",
            )


def _fresh(module: nn.Module, seed: int) -> dict[str, Tensor]:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        twin = type(module)(module.config)
    wanted = module.state_dict()
    return {name: tensor for name, tensor in twin.state_dict().items() if name in wanted}


def _write(view: View, head: nn.Module, target: Target, place: Path, source: Path) -> Opening:
    """Save the network with its new head and names; the head's place holds the identity again afterwards."""
    from torch import nn

    from regraft.backbone.view import replace

    if view.pooling == "mean":
        opening: Opening = shelf.find("providers", "sentences").write(view, head, target, place, source)
        return opening
    module: Any = view.module
    config = module.config
    names = target.labels or (target.name,)
    kept = config.id2label, config.label2id, config.problem_type
    config.id2label, config.label2id = dict(enumerate(names)), {name: i for i, name in enumerate(names)}
    config.problem_type = PROBLEMS[target.kind]
    replace(view.module, view.head, head)
    try:
        with _quiet():
            module.save_pretrained(str(place), safe_serialization=True)
    finally:
        replace(view.module, view.head, nn.Identity())
        config.id2label, config.label2id, config.problem_type = kept
    item = shelf.find("modalities", view.inputs.modality)
    for name, data in item.carried(source, view.inputs).items():
        durable.fill(place / name, data)
    return Opening("transformers", _use(item.PIPELINE, target, view), CHECK.replace("AUTO", item.AUTO), "transformers")


CHECK = f"""\
from transformers import AUTO
model = AUTO.from_pretrained(folder, local_files_only=True)
{READY}model
made = model(**batches[0]).logits"""


def _use(pipeline: str, target: Target, view: View) -> str:
    """The lines of a bundle's README that open it."""
    if view.inputs.setting("long", "cut") != "cut":
        return _piecewise(target, view)
    lines = [
        "from transformers import pipeline",
        f'ask = pipeline("{pipeline}", model=folder, device="cpu")',
        f"{READY}ask.model",
    ]
    options = {"class": "top_k=1_000_000", "multi": 'top_k=1_000_000, function_to_apply="sigmoid"'}.get(
        target.kind, 'top_k=1, function_to_apply="none"'
    )
    if not shelf.find("modalities", view.inputs.modality).LITERAL:
        lines.append(f"answers = [ask(each, {options}) for each in inputs]")
    else:
        lines.append('texts = [{"text": x[0], "text_pair": x[1]} if type(x) is tuple else {"text": x} for x in inputs]')
        lines.append(f"answers = [ask(each, truncation=True, {options}) for each in texts]")
    told = 'answer[0]["score"]' if target.kind == "number" else '{a["label"]: a["score"] for a in answer}'
    return "\n".join([*lines, f"outputs = [{told} for answer in answers]"])


def _piecewise(target: Target, view: View) -> str:
    """The same for long texts that are not simply cut."""
    item = shelf.find("modalities", view.inputs.modality)
    auto = item.AUTO
    scores = {"class": ".softmax(-1)", "multi": ".sigmoid()"}
    end = ["outputs = made[:, 0].tolist()"]
    if target.kind in scores:
        end = ["labels = [model.config.id2label[i] for i in range(made.shape[1])]"]
        end += [f"outputs = [dict(zip(labels, row)) for row in made{scores[target.kind]}.tolist()]"]
    return "\n".join(
        [
            "import torch",
            f"from transformers import {auto}, AutoTokenizer",
            f"tokenizer, model = AutoTokenizer.from_pretrained(folder), {auto}.from_pretrained(folder)",
            f"{READY}model",
            "rows = []",
            "for text in inputs:",
            *("    " + line for line in item.lines(view.inputs, view.source)),
            "    rows.append(model(**batch).logits.mean(0))",
            "made = torch.stack(rows)",
            *end,
        ]
    )


def _prepares(modality: str, folder: Path) -> bool:
    """Whether a folder holds what a modality's cells are prepared with."""
    files = {*shelf.find("modalities", modality).FILES} - {"tokenizer_config.json"}
    return any((folder / name).is_file() for name in files)


def _foreign(folder: Path) -> bool:
    """Whether another provider's files lie in a folder: a sentence encoder's, or a configuration without a type."""
    try:
        return (folder / SENTENCES).is_file() or "model_type" not in json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return False


def _safe_config(folder: Path) -> dict[str, Any]:
    """config.json, refused where it asks for code of its own or where only pickles hold the weights."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError("config.json cannot be read", saw=f"{folder}: {error}", do="check the folder") from error
    if not isinstance(config, dict):
        config = {}
    if _asks_for_code(config):
        raise ModelError(
            "this model wants to run code of its own",
            saw=f"auto_map in {folder / 'config.json'}",
            allowed="architectures that transformers itself holds",
            do="use a checkpoint without auto_map; regraft never runs remote code",
        )
    if not list(folder.glob("*.safetensors")):
        pickles = sorted(p.name for pattern in PICKLES for p in folder.glob(pattern))
        raise ModelError(
            "these weights are pickles, which can run code when opened" if pickles else "there are no weights here",
            saw=", ".join(pickles[:3]) or str(folder),
            allowed="model.safetensors",
            do="convert them where you trust their origin, with save_pretrained(safe_serialization=True)",
        )
    if "model_type" not in config:
        raise ModelError(
            "this folder is not in Hugging Face layout",
            saw=f"config.json without model_type in {folder}",
            allowed="a checkpoint that transformers' Auto classes open",
            do="choose another model",
        )
    return dict(config)


def _asks_for_code(value: Any) -> bool:
    if isinstance(value, dict):
        return "auto_map" in value or any(_asks_for_code(v) for v in value.values())
    return isinstance(value, list) and any(_asks_for_code(v) for v in value)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars of the library's own."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    yield


@contextlib.contextmanager
def _explained(folder: Path, pipeline: str) -> Iterator[None]:
    """Turn what transformers raises for a folder it cannot open into an error with a way out."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # any class: a library that is broken raises whatever it likes at import
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"transformers could not open this model for {pipeline.replace('-', ' ')}",
            saw=f"{folder}: {type(error).__name__}: {first[:200]}",
            allowed=f"an architecture that transformers knows for {pipeline.replace('-', ' ')}",
            do="check the folder with transformers alone, or choose another model",
        ) from error
