"""What a request means: its provider, its task, its strategies; refused before any work where it cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.errors import ModelError, UsageError, near, unknown
from regraft.kit import shelf
from regraft.planner.propose import check_knobs
from regraft.waist import Budget, Data, Encoder, Options, Settings, Target, Task

if TYPE_CHECKING:
    from types import ModuleType

    from regraft.backbone.view import View
    from regraft.planner.choose import Choice

USUAL = Budget(seconds=600.0)
"""What a race may take where nobody says: ten minutes."""


@dataclass
class Source:
    """A model that one run or several have: what it is called or is itself; marked once and opened once.

    `choice` is how it was chosen among others, if it was.
    """

    query: Any
    choice: Choice | None = None
    _mark: str = ""
    _views: dict[tuple[str, str], View] = field(default_factory=dict)

    @property
    def mark(self) -> str:
        """The fingerprint of its files.

        Raises: as the provider.
        """
        self._mark = self._mark or find_provider(self.query).fingerprint(self.query)
        return self._mark

    def view(self, modality: str, arch: str = "") -> View:
        """The network, as its provider opens it; those who ask again share its weights.

        Raises: as the provider.
        """
        if (modality, arch) not in self._views:
            self._views[modality, arch] = find_provider(self.query).load(self.query, modality, arch)
        view = self._views[modality, arch]
        return view.prepared(view.inputs)


def sharing(options: Options) -> Options:
    """The request for one of several tasks on one backbone: strategies that share it (`SHARED`), if none are named.

    >>> sharing(Options("photos", "minilm")).strategies
    ('lora', 'probe')
    """
    if options.strategies:
        return options
    items = {name: vars(shelf.find("strategies", name)).get("SHARED") for name in shelf.names("strategies")}
    shared = {name: knobs for name, knobs in items.items() if knobs is not None}
    usual = {f"{name}.{knob}": value for name, knobs in shared.items() for knob, value in knobs}
    return replace(options, strategies=tuple(shared), knobs=tuple(sorted((usual | dict(options.knobs)).items())))


def resolved(options: Options) -> Options:
    """The request with what it leaves open filled in: a race of all strategies has a budget.

    Raises: UsageError: an unknown strategy, knob or setting, or a budget that cannot be kept.

    >>> resolved(Options("photos", "minilm")).budget.seconds
    600.0
    >>> resolved(Options("photos", "minilm", strategies=("probe",))).budget == Budget()
    True
    """
    if options.reading.shots:
        options = replace(options, knobs=_for_few(options))
    check_request(options)
    if options.strategies or options.budget != Budget():
        return options
    return replace(options, budget=USUAL)


def _for_few(options: Options) -> tuple[tuple[str, str], ...]:
    """The knobs of a request for few rows: those that strategies have for these, where nothing else is said."""
    asked, running = dict(options.knobs), strategies_of(options)
    usual = {f"{name}.{k}": str(v) for name, knobs in few_rows().items() if name in running for k, v in knobs}
    said = {name.split(".")[0] for name in asked}
    return tuple(sorted(({k: v for k, v in usual.items() if k.split(".")[0] not in said} | asked).items()))


def parse_budget(text: str) -> Budget:
    """A budget as a user writes it; "" is none.

    Raises: UsageError: it is not one.
    """
    try:
        return Budget.parse(text) if text else Budget()
    except ValueError as error:
        raise UsageError(
            "this is no budget", saw=text, allowed="30s, 5m, 1h30m, 12trials, 20epochs, 0.1kWh", do="--budget 5m"
        ) from error


def parse_share(text: str | float) -> float:
    """A share as a user writes it: "5%" or "0.05".

    Raises: UsageError: it is not one.

    >>> parse_share("5%"), parse_share("0.05"), parse_share(1)
    (0.05, 0.05, 1.0)
    """
    try:
        word = str(text).strip()
        share = float(word.removesuffix("%")) / (100 if word.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise UsageError("this is no share", saw=str(text), allowed="0% to 100%, or 0 to 1", do="--allow-bad 5%")
    return share


def strategies_of(options: Options) -> tuple[str, ...]:
    """The strategies that were asked for, or all that need not be asked for by name (`NAMED`).

    Where few rows of each class are asked for, those that are for them (`FEW`) need no name either.
    """
    few = few_rows() if options.reading.shots else {}
    usual = (n for n in shelf.names("strategies") if n in few or not vars(shelf.find("strategies", n)).get("NAMED"))
    return options.strategies or tuple(usual)


def few_rows() -> dict[str, Settings]:
    """The strategies that suit a few rows of each class, with the knobs that make them so.

    >>> sorted(few_rows())
    ['contrast', 'probe', 'prototype']
    """
    found = {name: vars(shelf.find("strategies", name)).get("FEW") for name in shelf.names("strategies")}
    return {name: knobs for name, knobs in found.items() if knobs is not None}


def check_request(options: Options) -> None:
    """Refuse a request that cannot be, before any work.

    Raises: UsageError: an unknown strategy, knob or precision.
    """
    for name in options.strategies:
        shelf.find("strategies", name)
    for kind, value, known in (
        ("precision", options.precision, ("fp32", "auto")),
        ("balance", options.balance, ("auto", "none", "classes")),
        ("way with long texts", options.long, ("cut", "ends", "windows")),
        ("refit", options.refit, ("train", "all")),
    ):
        if value not in known:
            raise unknown(kind, value, known)
    if options.budget.bytes:
        raise UsageError(
            "a budget in bytes cannot be kept yet",
            saw=f"{options.budget.bytes / 1e9:g}GB",
            allowed="30s, 5m, 1h30m, 12trials, 20epochs, 0.1kWh",
            do="choose one of these",
        )
    check_knobs(strategies_of(options), options.knobs)


def prepare(options: Options, data: Data, query: Any) -> tuple[View, Encoder, Task]:
    """The backbone with its preprocessing as asked for, the encoder and the task of a request.

    Raises: as the provider; UsageError: an option that the modality does not know.
    """
    view = (query if isinstance(query, Source) else Source(query)).view(data.modality, options.arch)
    if not any(stage.params for stage in view.stages):
        raise ModelError(
            "there is no network in this bundle to adapt",
            saw=view.name,
            allowed="a pretrained network",
            do="predict with it, or choose another --model",
        )
    item = shelf.find("modalities", data.modality)
    view.inputs = item.adjust(view.inputs, options)
    return view, view.encoder(True), choose_task(data.target, options)


def find_provider(query: Any) -> ModuleType:
    """The first provider on the shelf that knows `query`: a path that exists comes before any name.

    Raises: UsageError: a name without its provider; ModelError: nobody knows it; the nearest folder is shown.
    """
    for name in shelf.names("providers"):
        if (item := shelf.find("providers", name)).find(query):
            return item
    path = Path(query) if isinstance(query, (str, Path)) else Path()
    bare = isinstance(query, str) and bool(query) and not {"/", "\\"} & set(query) and not path.suffix
    if bare and not path.exists():
        named = [f"{name}/{query}" for name in ("timm", "torchvision", "transformers")]
        raise UsageError(
            "this name could mean several things",
            saw=query,
            allowed=", ".join([*named, "minilm", "a path"]),
            do="say where it comes from",
        )
    beside = [p.name for p in path.parent.iterdir() if (p / "config.json").is_file()] if path.parent.is_dir() else []
    guess = near(path.name, beside)
    raise ModelError(
        "this folder holds no model" if path.exists() else "there is no model of that name here",
        saw=str(query),
        allowed="a folder with config.json and model.safetensors, a bundle, a state dict with --arch, minilm, or "
        "timm/NAME, torchvision/NAME, transformers/NAME from the local caches; nothing is fetched from the network",
        do=f"did you mean {path.parent / guess}?" if guess else "check the path",
    )


def zoo_of(folder: str, named: Mapping[str, Any]) -> dict[str, str]:
    """The folders in a folder of models, as queries by their names; whether each can be opened is not looked at.

    Raises: UsageError: it is no folder, or has none in it, or it is not named where no model is; ModelError: nobody
    knows one of those that are `named`.
    """
    if not folder and not named:
        raise UsageError(
            "no model is named to advise on", "neither --model nor --zoo", "one of the two", "--model path/to/model"
        )
    for query in named.values():
        find_provider(query)
    inside = sorted(p for p in Path(folder).glob("[!.]*") if p.is_dir()) if folder else []
    if folder and not inside:
        raise UsageError(
            "there are no models in this zoo",
            saw=f"{folder}: {'no folder in it' if Path(folder).is_dir() else 'no folder'}",
            allowed="a folder with a folder for each model",
            do="check --zoo, or name models with --model",
        )
    return {str(path): str(path) for path in inside}


def choose_task(target: Target, options: Options) -> Task:
    """The task that was asked for, or the first on the shelf that fits the target.

    Raises: UsageError: there is none, or no such metric.
    """
    names = (options.reading.task,) if options.reading.task else shelf.names("tasks")
    for name in names:
        item = shelf.find("tasks", name)
        if options.reading.task or item.fits(target):
            made: Task = item.make(target, options.metric)
            return made
    raise UsageError("no task fits this target", saw=target.kind, allowed=", ".join(shelf.names("tasks")))


def balance_of(options: Options, data: Data, task: Task) -> float:
    """How much rows weigh by how rare their labels are, as `Loss.balance`.

    "auto" takes the root where labels are far from equally frequent and the deciding metric counts classes the same.
    """
    auto = 0.5 if data.target.unequal and task.metrics[0].equal else 0.0
    return {"auto": auto, "none": 0.0, "classes": 1.0}[options.balance]
