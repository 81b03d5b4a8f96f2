"""The records that every room speaks: what the data, the backbone, a plan, a trial and a verdict are.

Everything here is frozen and imports nothing of ours, nor torch: arrays and tensors appear only as types.
A record is its content: `fingerprint(record)` is the same on every machine and in every process.
Letters: N rows, D width, C classes, L stages, k frontier (stages below k are frozen and in eval mode).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from annotated_types import Ge, Interval

if TYPE_CHECKING:
    import numpy
    from torch import Tensor
    from torch.nn import Module

Scalar = str | int | float | bool
Settings = tuple[tuple[str, Scalar], ...]
TargetKind = Literal["class", "multi", "number", "tags", "boxes", "text", "none"]
Init = Literal["pretrained", "random"]
Pooling = Literal["native", "mean", "tokens"]
Norm = Literal["keep", "update"]
Schedule = Literal["constant", "linear", "cosine"]
Count = Annotated[int, Ge(1)]
Rate = Annotated[float, Interval(gt=0, lt=inf)]
Share = Annotated[float, Interval(ge=0, lt=1)]
Status = Literal["pass", "warn", "fail", "skip"]
Decision = Literal["ship", "warn", "refuse", "fall back"]


# ---------------------------------------------------------------- data


@dataclass(frozen=True, slots=True)
class Target:
    """What is predicted; `labels` and `counts` come from the training split alone, in one order for good."""

    name: str
    kind: TargetKind
    labels: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """One example: `cell` is what a modality reads (a path, a text), `key` the fingerprint of its content."""

    id: str
    cell: Any
    y: Any
    group: str
    key: str


@dataclass(frozen=True, slots=True)
class Data:
    """A data set with its three splits, each a sequence of rows; `notes` say what was found and decided."""

    name: str
    modality: str
    target: Target
    train: Sequence[Row]
    val: Sequence[Row]
    test: Sequence[Row]
    fingerprint: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class InputSpec:
    """All that turns a cell into tensors. `shape` is one example's; `settings` belong to the modality alone.

    `rate` is a sampling rate in Hz and `vocab` a tokenizer's fingerprint, where there is one.
    """

    modality: str
    shape: tuple[int, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    rate: int = 0
    vocab: str = ""
    settings: Settings = ()

    @property
    def fingerprint(self) -> str:
        return fingerprint(self)

    def setting(self, name: str, default: Scalar) -> Scalar:
        return dict(self.settings).get(name, default)


# ---------------------------------------------------------------- backbone


@dataclass(frozen=True, slots=True)
class Stage:
    """One cuttable step of a backbone: `path` is its module; counts are per example, `out_bytes` in float32."""

    name: str
    path: str
    params: int
    flops: int
    out_bytes: int


class Backbone(Protocol):
    """A pretrained network seen as ordered stages (the class is `backbone.view.View`).

    `run(batch, start, stop, state)` obeys the split law: `run(x, start=k, state=run(x, stop=k)) == run(x)`.
    With `stop` below L it returns a state, otherwise features of shape [n, dim].
    """

    name: str
    provider: str
    stages: tuple[Stage, ...]
    dim: int
    inputs: InputSpec
    module: Module

    def run(self, batch: Mapping[str, Tensor], start: int = 0, stop: int | None = None, state: Any = None) -> Any: ...

    def randomise(self, seed: int) -> None: ...

    def export(self, head: Module, labels: Sequence[str], folder: str) -> None: ...


# ---------------------------------------------------------------- task


@dataclass(frozen=True, slots=True)
class Metric:
    """A number computed from predictions: `fn(pred, y, weight)`; `chance(y)` is what a constant guess reaches.

    `proportion` says that it is a share of rows, so that a binomial interval fits it.
    """

    name: str
    better: Literal["higher", "lower"]
    fn: Callable[[numpy.ndarray, numpy.ndarray, numpy.ndarray | None], float]
    chance: Callable[[numpy.ndarray], float]
    proportion: bool = False


@dataclass(frozen=True, slots=True)
class Task:
    """What is learned, as a record of functions. `metrics[0]` decides.

    head(dim) → module from features to outputs; encode(ys) → targets; loss(outputs, targets, smoothing) → one
    loss per row, [n]; decode(outputs) → arrays, always with "pred" (what the metrics take); answers(outputs) → what
    a user reads, a dictionary per row.
    """

    name: str
    head: Callable[[int], Module]
    encode: Callable[[Sequence[Any]], Tensor]
    loss: Callable[[Tensor, Tensor, float], Tensor]
    decode: Callable[[Tensor], dict[str, numpy.ndarray]]
    answers: Callable[[Tensor], list[dict[str, Any]]]
    metrics: tuple[Metric, ...]


# ---------------------------------------------------------------- plan


@dataclass(frozen=True, slots=True)
class Insert:
    """Parameters put into a backbone: `kind` is a file in inserts/, `stages` where, `size` its rank or width."""

    kind: str
    stages: tuple[int, ...]
    size: int
    where: str = ""
    settings: Settings = ()


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of training with one trainable set.

    `rates` are (pattern, multiplier) pairs over names such as "head/weight" or "layer.15/conv.weight": a parameter
    trains if one pattern matches it. Each trainable parameter is matched exactly once, every pattern matches
    something at or above `frontier`, and no multiplier is zero. `patience_epochs` 0 means no early stopping.
    """

    epochs: int
    frontier: int
    rates: tuple[tuple[str, float], ...]
    schedule: Schedule = "cosine"
    norm: Norm = "keep"
    warmup_frac: float = 0.0
    patience_epochs: int = 0


@dataclass(frozen=True, slots=True)
class Optimizer:
    """The update rule. `lr` is multiplied by a phase's rates; `clip` bounds the gradient's norm, 0 means none."""

    name: Literal["adamw", "sgd"] = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.0
    momentum: float = 0.9
    clip: float = 1.0


@dataclass(frozen=True, slots=True)
class Loss:
    """Options of the task's loss: `smoothing` is the share of probability spread over all classes."""

    smoothing: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What trains, how fast, when. The engine, the price, the cache, the report and resuming all read this alone."""

    strategy: str
    phases: tuple[Phase, ...]
    knobs: Settings = ()
    init: Init = "pretrained"
    pooling: Pooling = "native"
    inserts: tuple[Insert, ...] = ()
    optimizer: Optimizer = Optimizer()
    loss: Loss = Loss()
    regularise: tuple[tuple[str, float], ...] = ()
    batch: int = 32
    augment: Settings = ()

    @property
    def trunk(self) -> int:
        """How deep the cache may reach: the lowest stage that any phase trains or any insert enters."""
        if self.init == "random" or self.augment:
            return 0
        return min([p.frontier for p in self.phases] + [s for i in self.inserts for s in i.stages])


@dataclass(frozen=True, slots=True)
class Cost:
    """What a plan costs, forecast or measured; None where it is not known. `trainable` counts parameters."""

    seconds: float
    trainable: int
    peak_bytes: int | None = None
    disk_bytes: int | None = None
    kwh: float | None = None
    grams_co2: float | None = None


@dataclass(frozen=True, slots=True)
class Proposal:
    """A plan as advice: with its forecast and the reasons in words."""

    plan: Plan
    cost: Cost
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DataCard:
    """The data in numbers: rows per split and classes."""

    name: str
    modality: str
    fingerprint: str
    target: Target
    rows: tuple[tuple[str, int], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BackboneCard:
    """The backbone in numbers; `fingerprint` covers weights, buffers, configuration and preprocessing.

    `norms` counts layers with running statistics; `glue` the parameters that belong to no stage.
    """

    name: str
    provider: str
    fingerprint: str
    stages: tuple[Stage, ...]
    dim: int
    inputs: InputSpec
    norms: int
    glue: int
    notes: tuple[str, ...] = ()

    @property
    def params(self) -> int:
        return sum(s.params for s in self.stages)


@dataclass(frozen=True, slots=True)
class MachineCard:
    """The machine and every choice that a clock or a probe made on it; a resumed run replays these."""

    processor: str
    threads: int
    memory_bytes: int
    device: str
    dtype: Literal["float32", "bfloat16"]
    promise: Literal["exact", "tolerance"]
    micro_batch: int
    versions: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """All that advice may rest on: the cards, scores of quick probes, similarity and measured seconds per step."""

    data: DataCard
    backbone: BackboneCard
    machine: MachineCard
    scores: tuple[tuple[str, float], ...] = ()
    similarity: float | None = None
    seconds: tuple[tuple[str, float], ...] = ()

    @property
    def train_rows(self) -> int:
        return dict(self.data.rows)["train"]


# ---------------------------------------------------------------- events and trials


@dataclass(frozen=True, slots=True)
class Score:
    """A metric on a split with its 95 % interval and the number of rows behind it."""

    metric: str
    split: str
    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Epoch:
    """One line of a learning curve; losses are means over rows, `metric` is the task's deciding one on validation."""

    phase: int
    epoch: int
    train_loss: float
    val_loss: float
    metric: float


@dataclass(frozen=True, slots=True)
class Trial:
    """A plan that was run: scores, curve, cost, and where its predictions and weights lie (paths in the run)."""

    plan: Plan
    seed: int
    scores: tuple[Score, ...]
    curve: tuple[Epoch, ...]
    cost: Cost
    predictions: str
    snapshot: str
    notes: tuple[str, ...] = ()

    def score(self, split: str) -> Score:
        """The deciding metric on `split`: the first that was recorded."""
        return next(s for s in self.scores if s.split == split)


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step was taken; `step` counts from 1 over the whole plan."""

    phase: int
    step: int
    steps: int
    loss: float
    lr: float


@dataclass(frozen=True, slots=True)
class Scored:
    """An epoch ended and validation was scored."""

    epoch: Epoch


@dataclass(frozen=True, slots=True)
class PhaseDone:
    """A phase ended; `verified` counts the frozen tensors whose hashes were found unchanged."""

    phase: int
    verified: int


@dataclass(frozen=True, slots=True)
class Said:
    """Something the user should know happened (a setting put right, a cache left unused)."""

    text: str


@dataclass(frozen=True, slots=True)
class Filled:
    """The trunk below `frontier` has run on `done` of the `rows` examples that the cache lacked."""

    frontier: int
    done: int
    rows: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The plan was run to its end."""

    trial: Trial


Event = Step | Scored | PhaseDone | Said | Filled | Finished


# ---------------------------------------------------------------- verdict and bundle


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found: a value with its interval against a threshold, and what to do about it."""

    check: str
    status: Status
    value: float
    interval: tuple[float, float]
    threshold: float
    evidence: str
    advice: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """What checks may look at: the trials, the winner, baseline scores and the arrays they asked for by name."""

    winner: Trial
    trials: tuple[Trial, ...]
    baselines: tuple[Score, ...]
    arrays: Mapping[str, numpy.ndarray]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer: which plan, whether it may ship, the rule that decided and what speaks against it."""

    decision: Decision
    winner: int
    rule: str
    against: str
    baselines: tuple[Score, ...]
    findings: tuple[Finding, ...]
    fallback: str = ""


@dataclass(frozen=True, slots=True)
class Bundle:
    """The result on disk, readable without the code that trained it; `files` are (name, sha256).

    `golden` are the outputs for a micro-batch of noise drawn from `golden_seed`: a test without the user's data.
    """

    schema: int
    name: str
    modality: str
    task: str
    target: Target
    inputs: InputSpec
    plan: Plan
    base: str
    scores: tuple[Score, ...]
    golden_seed: int
    golden: tuple[tuple[float, ...], ...]
    micro_batch: int
    versions: tuple[tuple[str, str], ...]
    files: tuple[tuple[str, str], ...]
    card: str = "README.md"


# ---------------------------------------------------------------- the request


@dataclass(frozen=True, slots=True)
class Budget:
    """How much may be spent; 0 means no bound of that kind.

    >>> Budget.parse("1h30m").seconds
    5400.0
    >>> Budget.parse("12trials").trials
    12
    """

    seconds: float = 0.0
    bytes: int = 0
    kwh: float = 0.0
    trials: int = 0
    epochs: int = 0

    @staticmethod
    def parse(text: str) -> Budget:
        """Read "30s", "5m", "1h30m", "12trials", "20epochs", "8GB" or "0.1kWh".

        Raises: ValueError: the text is none of these; it is shown with the forms that are allowed.
        """
        word = text.strip().lower().replace(" ", "")
        counted = re.fullmatch(r"(\d+(?:\.\d+)?)(trials?|epochs?|kwh|gb|mb)", word)
        if counted:
            number, unit = float(counted[1]), counted[2]
            if unit == "kwh":
                return Budget(kwh=number)
            if unit in ("gb", "mb"):
                return Budget(bytes=int(number * (10**9 if unit == "gb" else 10**6)))
            if number == int(number) and number >= 1:
                return Budget(trials=int(number)) if unit[0] == "t" else Budget(epochs=int(number))
        clock = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", word)
        seconds = sum(int(n or 0) * u for n, u in zip(clock.groups(), (3600, 60, 1), strict=True)) if clock else 0
        if not seconds:
            raise ValueError(f"not a budget: {text!r}; write 30s, 5m, 1h30m, 12trials, 20epochs, 8GB or 0.1kWh")
        return Budget(seconds=float(seconds))


@dataclass(frozen=True, slots=True)
class Options:
    """The resolved request, written before any work; what is in it decides the result and the run's name."""

    data: str
    model: str
    task: str = ""
    strategies: tuple[str, ...] = ()
    knobs: tuple[tuple[str, str], ...] = ()
    precision: Literal["fp32", "auto"] = "fp32"
    cache: bool = True
    seed: int = 0


def plain(record: Any) -> Any:
    """A record as JSON values: dictionaries, lists, strings, numbers; tuples become lists."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {f.name: plain(getattr(record, f.name)) for f in dataclasses.fields(record)}
    if isinstance(record, Mapping):
        return {str(k): plain(v) for k, v in record.items()}
    if isinstance(record, (list, tuple)):
        return [plain(v) for v in record]
    return record


def fingerprint(*parts: Any) -> str:
    """SHA-256 of the canonical JSON of records or plain values: 64 hex digits, equal for equal content.

    >>> fingerprint(Target("label", "class", ("a",), (1,)))[:6] == fingerprint(("label", "class"))[:6]
    False
    """
    text = json.dumps(plain(list(parts)), sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
