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
Init = Literal["pretrained", "random", "plain"]
Start = Literal["zero", "centroids", "labels", "names", "cosine"]
Pooling = Literal["native", "mean", "tokens"]
Norm = Literal["keep", "update", "mix"]
Schedule = Literal["constant", "linear", "cosine"]
Count = Annotated[int, Ge(1)]
Passes = Annotated[int, Ge(0)]
Rate = Annotated[float, Interval(gt=0, lt=inf)]
Share = Annotated[float, Interval(ge=0, lt=1)]
Status = Literal["pass", "warn", "fail", "skip"]
Decision = Literal["ship", "warn", "refuse", "fall back"]


# ---------------------------------------------------------------- data


@dataclass(frozen=True, slots=True)
class Target:
    """What is predicted; everything here comes from the training split alone, and the order of labels is for good.

    `counts` says how many rows carry each label, `unequal` whether these are far apart. Of two labels the last is the
    positive one; `ordered` says that they stand in a meaningful order. For a number, `labels` is empty and `centre` and
    `spread` are its mean and standard deviation (above 0).
    """

    name: str
    kind: TargetKind
    labels: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    centre: float = 0.0
    spread: float = 1.0
    ordered: bool = False

    @property
    def unequal(self) -> bool:
        """Whether the largest class has three times the rows of the smallest, or more.

        A guess of the larger of two such classes is right 75 % of the time: accuracy has lost half its scale, and rows
        of the smaller class hardly move it.

        >>> Target("y", "class", ("a", "b"), (64, 36)).unequal, Target("y", "class", ("a", "b"), (9, 3)).unequal
        (False, True)
        """
        return bool(self.counts) and max(self.counts) >= 3 * min(self.counts)


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a cell shows: why it cannot be used ("" if it can), its size, a sketch that like cells share.

    `size` is (width, height) in pixels or (characters,); of two sketches of 64 bits, few differ where the cells are
    almost equal.
    """

    problem: str = ""
    size: tuple[int, ...] = ()
    sketch: int | None = None


@dataclass(frozen=True, slots=True)
class Bad:
    """What cannot be used and is left out: a whole file (`row` 0), or a row of it, counted from 1; and why."""

    split: str
    file: str
    row: int
    why: str


@dataclass(frozen=True, slots=True)
class Flag:
    """Something about the data that its owner should know: `count` of `of` rows, columns or classes, and what to do.

    `examples` name some of them. `leaks` are the ids of test rows whose answer training gives away, `shown` those of
    rows that a report shows beside each other.
    """

    flag: str
    status: Literal["note", "warn"]
    count: int
    of: int
    text: str
    examples: tuple[str, ...]
    advice: str
    leaks: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """One example: `cell` is what a modality reads (a path, a text, two texts), `key` the fingerprint of its content.

    `y` is a label, a tuple of labels or a number, by the target's kind; `facets` are values of the sensitive columns.
    """

    id: str
    cell: Any
    y: Any
    group: str
    key: str
    facets: tuple[str, ...] = ()
    look: Look = Look()


@dataclass(frozen=True, slots=True)
class Varied:
    """A cell as a view of it shows it: `how` the modality varies cells, drawn by `seed`; `view` counts from 0."""

    cell: Any
    how: str
    view: int
    seed: int


@dataclass(frozen=True, slots=True)
class Data:
    """A data set with its three splits, each a sequence of rows; `notes` say what was decided, `flags` what was found.

    `columns` are the table's columns that a cell is made of (two for a pair; none for a folder of files), `sensitive`
    those that rows keep as facets. `unlabelled` are rows whose class nobody told: none of them is in a split.
    """

    name: str
    modality: str
    target: Target
    train: Sequence[Row]
    val: Sequence[Row]
    test: Sequence[Row]
    fingerprint: str
    notes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    sensitive: tuple[str, ...] = ()
    bad: tuple[Bad, ...] = ()
    flags: tuple[Flag, ...] = ()
    unlabelled: Sequence[Row] = ()


@dataclass(frozen=True, slots=True)
class Seen:
    """What files in flags/ look at: rows in their splits; `table` has all columns of training as they stand, `ids` its
    rows. `inputs` and `encoder` are those of the backbone, None before there is one.
    """

    data: Data
    noun: str
    ids: Sequence[str] = ()
    table: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict)
    group: str = ""
    inputs: InputSpec | None = None
    encoder: Encoder | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """How data is read, where the user does not leave it to guesses: names of columns, paths of splits.

    An empty field is guessed. `task` is a name in tasks/, `order` the labels from low to high. `max_rows` bounds each
    split, 0 is no bound. `allow_bad` is the share of files and rows that may be unusable. With `shots` training and
    validation have so many rows of each class together, 0 for all. `unlabelled` is the path of rows without labels.
    """

    target: str = ""
    text: tuple[str, ...] = ()
    image: str = ""
    group: str = ""
    sensitive: tuple[str, ...] = ()
    time: str = ""
    task: str = ""
    val: str = ""
    test: str = ""
    max_rows: int = 0
    positive: str = ""
    order: tuple[str, ...] = ()
    allow_bad: float = 0.01
    shots: int = 0
    unlabelled: str = ""


@dataclass(frozen=True, slots=True)
class Encoder:
    """How cells become tensors. `parts(cells)` gives each cell's parts with their padded size, a function of the cell
    alone; `tensors(parts)` makes a batch of parts of one size.

    A part is what goes through the network at once: the cell itself, or a window of a long text. `told` says what is
    worth knowing of many cells: their sizes, how many did not fit and what becomes of them. `unknown` is the token for
    what a tokenizer does not know, -1 where there is none.
    """

    parts: Callable[[Sequence[Any]], list[list[tuple[Any, int]]]]
    tensors: Callable[[Sequence[Any]], dict[str, Tensor]]
    told: Callable[[Sequence[Any]], tuple[str, ...]]
    unknown: int = -1


@dataclass(frozen=True, slots=True)
class Opening:
    """How a bundle is opened by `library` alone: Python source that ships in its README and is run before it ships.

    `use` finds `folder` and `inputs` (paths, texts or pairs of texts) and leaves `outputs`: an entry per input, for
    labels a dictionary label → score, otherwise a number. `check` finds `folder` and `batches` (tensors of golden
    inputs, one dictionary per side) and leaves `made`: the outputs as a tensor [n, …]. `provider` is the file in
    providers/ that reads the layout back, where it is not the one that the backbone came from. As a provider writes
    them, a line `READY` in both names the network as soon as it is built: there inserts are put in, if there are any.
    """

    library: str
    use: str
    check: str
    provider: str = ""


READY = "# ready: "
"""How the line begins that names a network in an opening; a bundle's own lines have none."""


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
    """One cuttable step of a backbone: `path` is its module; counts are per example, `out_bytes` in float32.

    `biases` counts numbers in biases; `norms` are the weights of its normalisation layers by their names in the stage.
    """

    name: str
    path: str
    params: int
    flops: int
    out_bytes: int
    biases: int = 0
    norms: tuple[str, ...] = ()


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

    def export(self, head: Module, target: Target, folder: str) -> Opening: ...


# ---------------------------------------------------------------- task


@dataclass(frozen=True, slots=True)
class Metric:
    """A number computed from predictions: `fn(pred, y, weight)`; `chance(y)` is what a constant guess reaches.

    `proportion` says that it is a share of rows, so that a binomial interval fits it. `takes` names the decoded array
    that it is computed from: "pred", or "prob" for what looks at probabilities. `equal` says that every class counts
    the same in it, however rare. `many(pred, y, rows)` is `fn(pred[i], y[i], None)` for each line i of `rows` [R, n] at
    once, [R]: a bootstrap takes a thousand of them.
    """

    name: str
    better: Literal["higher", "lower"]
    fn: Callable[[numpy.ndarray, numpy.ndarray, numpy.ndarray | None], float]
    chance: Callable[[numpy.ndarray], float]
    proportion: bool = False
    takes: Literal["pred", "prob"] = "pred"
    equal: bool = False
    many: Callable[[numpy.ndarray, numpy.ndarray, numpy.ndarray], numpy.ndarray] | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """What is learned, as a record of functions. `metrics[0]` decides.

    head(dim, bias) → module from features [n, dim] to outputs, in the target's own units; fold(head) → the same as a
    plain linear layer, to ship; settle(head, features, targets) sets a head without a gradient, from the centroids of
    classes, or by least squares where a row's features are one number (ValueError: it cannot); encode(ys) → targets;
    loss(outputs, targets, options) → one loss per row, [n]; decode(outputs) → arrays, always with "pred";
    calibrate(outputs, targets) → numbers found on validation, which answers(outputs, numbers) may use: what a user
    reads, a dictionary per row. `takes` names the options of `Loss` that the loss honours, and "sampling" where rows
    have a class to be drawn by; the engine refuses others.
    """

    name: str
    head: Callable[[int, bool], Module]
    fold: Callable[[Module], Module]
    settle: Callable[[Module, Tensor, Tensor], None]
    encode: Callable[[Sequence[Any]], Tensor]
    loss: Callable[[Tensor, Tensor, Loss], Tensor]
    decode: Callable[[Tensor], dict[str, numpy.ndarray]]
    calibrate: Callable[[Tensor, Tensor], tuple[tuple[str, float], ...]]
    answers: Callable[[Tensor, Mapping[str, float]], list[dict[str, Any]]]
    metrics: tuple[Metric, ...]
    takes: tuple[str, ...] = ("smoothing", "balance")


# ---------------------------------------------------------------- plan


@dataclass(frozen=True, slots=True)
class Insert:
    """Parameters put into a backbone: `kind` is a file in inserts/, `stages` where, `size` its rank or width.

    `reads` are stages that it enters by nothing but looks at: what they give is kept beside the features.
    """

    kind: str
    stages: tuple[int, ...]
    size: int
    where: str = ""
    settings: Settings = ()
    reads: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of training with one trainable set.

    `rates` are (pattern, multiplier) pairs over names such as "head/weight" or "layer.15/conv.weight": a parameter
    trains if one pattern matches it. Each trainable parameter is matched exactly once, every pattern matches
    something at or above `frontier`, and no multiplier is zero. `patience_epochs` 0 means no early stopping.
    `stop` ends the phase after that many of its epochs and keeps the last weights; at 0 it ends by itself, and the
    epoch with the lowest validation loss is kept. With `norm` "mix" normalisation layers take moving statistics in
    some channels and the batch's in the others, drawn anew in each step.
    """

    epochs: int
    frontier: int
    rates: tuple[tuple[str, float], ...]
    schedule: Schedule = "cosine"
    norm: Norm = "keep"
    warmup_frac: float = 0.0
    patience_epochs: int = 0
    stop: int = 0


@dataclass(frozen=True, slots=True)
class Optimizer:
    """The update rule. `lr` is multiplied by a phase's rates; `clip` bounds the gradient's norm, 0 means none.

    "lbfgs" is for a head alone on features that do not change: it takes all rows at once, has no rate, and its
    `weight_decay` is the L2 penalty on the mean loss of a row. "path" is so too, and finds family and penalty of the
    head itself, by cross-validation on the training rows. So does "grid" with the settings of SGD: every combination of
    the rates, momenta and weight decays in `grid` is run over the phase's epochs, with its schedule, in one step.
    "means" takes no step: it chooses among kinds of class means.
    """

    name: Literal["adamw", "sgd", "lbfgs", "path", "grid", "means"] = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.0
    momentum: float = 0.9
    clip: float = 1.0
    grid: tuple[tuple[float, ...], ...] = ()

    @property
    def whole(self) -> bool:
        """Whether the head is fitted to features of all rows that are at hand: one step is the fit."""
        return self.name == "lbfgs" or self.chosen

    @property
    def chosen(self) -> bool:
        """Whether cross-validation on the training rows chooses the head."""
        return self.name in ("path", "grid", "means")


@dataclass(frozen=True, slots=True)
class Loss:
    """Options of the task's loss: `smoothing` is the share of probability spread over all classes.

    `balance` b weighs rows by how rare their labels are: by the frequency to the power -b, so that at 1 every class
    counts equally, and at 0 every row. `focal` is the gamma of the focal loss, `adjust` the tau of logit adjustment,
    `robust` the q of generalised cross-entropy, `reverse` how much its reverse weighs beside cross-entropy,
    `asymmetric` the gamma of a no in the asymmetric loss, where `focal` is that of a yes; at 0 they leave
    cross-entropy as it is. With a `contrast` above 0, features of rows are pulled together by class in place of the
    task's loss, and after each epoch class means of them are the head.
    """

    smoothing: float = 0.0
    balance: float = 0.0
    focal: float = 0.0
    adjust: float = 0.0
    robust: float = 0.0
    contrast: float = 0.0
    reverse: float = 0.0
    asymmetric: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What trains, how fast, when. The engine, the price, the cache, the report and resuming all read this alone.

    `init` "plain" puts the modality's plain features (TF-IDF, pixels) in the backbone's place. `start` is how the head
    begins: at zero, at the centroids of the classes, at the checkpoint's own labels, at the embedded names of the
    classes, or at the cosine of a pair. `fold` "all" trains on the validation rows too. `augment` is how training cells
    are varied and in how many `views`; a row shows another of its views in each epoch. `blocks` is after how many of
    its blocks the network ends, 0 for all. `regularise` are files in regularisers/ with their strengths: what keeps
    weights that are trained close to those that they start from. `sampling` s draws rows of a class in proportion to
    its frequency to the power 1 - s: at 1 every class as often, at 0 every row.
    """

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
    start: Start = "zero"
    fold: Literal["train", "all"] = "train"
    blocks: int = 0
    sampling: float = 0.0

    @property
    def label(self) -> str:
        """The plan in a few words: its strategy, and what sets it apart from others of it.

        >>> Plan("full", (), (("lr", 1e-3), ("ratio", 0.1)), pooling="mean").label
        'full lr 0.001 (mean)'
        >>> Plan("full", (), (("lr", 1e-3), ("norm", "mix")), regularise=(("l2sp", 0.01), ("ema", 0.99))).label
        'full lr 0.001 l2sp 0.01 ema 0.99 norm mix'
        """
        knobs = dict(self.knobs)
        told = [self.strategy]
        told += [str(knobs["by"])] if "by" in knobs else []
        named = ["depth", "blocks", "last", "rank", "bits", "lr", "c", "soup", "wise"]
        named += ["balance", "focal", "adjust", "robust", "reverse", "asymmetric"]
        told += [f"{name} {knobs[name]:g}" for name in named if name in knobs]
        told += [f"sampling {knobs['sampling']}"] if "sampling" in knobs else []
        told += [f"{name} {strength:g}" for name, strength in self.regularise]
        told += ["norm mix"] if knobs.get("norm") == "mix" else []
        told += [f"with {knobs['with']}"] if "with" in knobs else []
        told += [f"({self.pooling})"] if self.pooling != "native" else []
        return " ".join([*told, "and validation"] if self.fold == "all" else told)

    @property
    def reading(self) -> str:
        """How the backbone is read for features: its pooling, its blocks where not all, and stages on the way.

        >>> Plan("probe", (), pooling="mean").reading, Plan("probe", (), pooling="mean", blocks=4).reading
        ('mean', 'mean@4')
        >>> Plan("side", (), inserts=(Insert("side", (), 8, reads=(1, 3)),)).reading
        'native+1,3'
        """
        return reading(self.pooling, self.blocks, [stage for insert in self.inserts for stage in insert.reads])

    @property
    def judged(self) -> Loss:
        """The loss that validation is judged by: cross-entropy, which all plans share, whatever they are trained with.

        Focal, robust and smoothed losses are on scales of their own. A row weighs what training makes of its class, by
        weights, by adjusted logits or by how often it is drawn: all three move the minimum to the same place.

        >>> Plan("full", (), loss=Loss(smoothing=0.1, focal=2.0, adjust=1.0)).judged == Loss(balance=1.0)
        True
        """
        return Loss(balance=self.loss.balance + self.loss.adjust + self.sampling)

    @property
    def means(self) -> bool:
        """Whether class means of features are its head: rows without labels may move these."""
        return self.optimizer.name == "means" or self.loss.contrast > 0

    @property
    def views(self) -> int:
        """How many variations of a training row there are; 1 where nothing is varied."""
        return max(1, int(dict(self.augment).get("views", 1)))

    @property
    def anew(self) -> bool:
        """Whether a training row is shown in no view twice; a head that is fitted to all views at once may be again."""
        return 1 < self.views >= sum(phase.epochs for phase in self.phases) and not self.optimizer.whole

    @property
    def trunk(self) -> int:
        """How deep the cache may reach: `frontier`, where what lies below is the backbone as it came."""
        return 0 if self.init == "random" else self.frontier

    @property
    def frontier(self) -> int:
        """The lowest stage that any phase trains or any insert enters."""
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
class DataCard:
    """The data in numbers: rows per split and classes."""

    name: str
    modality: str
    fingerprint: str
    target: Target
    rows: tuple[tuple[str, int], ...]
    notes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pooled:
    """A backbone under one pooling: its stages, the features' width, parameters that belong to no stage (`glue`).

    `new` are the stages with weights that the checkpoint lacks: they start at random, so every plan must train them.
    `row` are the stages after which the network may end, one for each block; none where it must stay whole. `blocks` is
    how many of them it has kept, 0 for all.
    """

    pooling: Pooling
    stages: tuple[Stage, ...]
    dim: int
    glue: int
    new: tuple[int, ...] = ()
    row: tuple[int, ...] = ()
    blocks: int = 0

    def short(self, blocks: int) -> Pooled:
        """The same where the network ends after so many of its blocks, from 1 to all but one; what follows them stays.

        >>> stages = tuple(Stage(name, name, 1, 1, 4) for name in ("words", "block.0", "block.1", "pooler"))
        >>> short = Pooled("native", stages, 8, 0, new=(3,), row=(1, 2)).short(1)
        >>> [stage.name for stage in short.stages], short.new, short.row, short.blocks
        (['words', 'block.0', 'pooler'], (2,), (1,), 1)
        """
        assert 0 < blocks < len(self.row), blocks
        left = [i for i in range(len(self.stages)) if i not in self.row[blocks:]]
        stages = [self.stages[i] for i in left]
        stages[-1] = dataclasses.replace(stages[-1], out_bytes=self.stages[-1].out_bytes)
        return dataclasses.replace(
            self,
            stages=tuple(stages),
            new=tuple(left.index(i) for i in self.new if i in left),
            row=self.row[:blocks],
            blocks=blocks,
        )


@dataclass(frozen=True, slots=True)
class BackboneCard:
    """The backbone in numbers; `fingerprint` covers weights, buffers, configuration and preprocessing.

    `poolings` are the ways to make features of it, the one that suits the checkpoint first; `norms` counts layers with
    running statistics; `labels` are what the checkpoint's own head tells apart, in its order, empty where it has none.
    """

    name: str
    provider: str
    fingerprint: str
    inputs: InputSpec
    norms: int
    poolings: tuple[Pooled, ...]
    notes: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    def read(self, plan: Plan) -> Pooled:
        """The backbone as a plan reads it."""
        found = next(one for one in self.poolings if one.pooling == plan.pooling)
        return found.short(plan.blocks) if plan.blocks else found

    @property
    def stages(self) -> tuple[Stage, ...]:
        return self.poolings[0].stages

    @property
    def dim(self) -> int:
        return self.poolings[0].dim

    @property
    def params(self) -> int:
        return sum(s.params for s in self.stages)


@dataclass(frozen=True, slots=True)
class Training:
    """How what is trained computes: kernels as they stand or with channels last, with or without bfloat16 inside.

    Weights, losses and scores are float32 in any case. `gain` is how many times as fast as "eager" in float32 a step
    was measured to be.
    """

    engine: str = "eager"
    dtype: Literal["float32", "bfloat16"] = "float32"
    gain: float = 1.0


@dataclass(frozen=True, slots=True)
class MachineCard:
    """The machine and every choice that a clock or a probe made on it; a resumed run replays these.

    `forward_s` is what a row takes through the whole backbone, from its cell on; it decides nothing without a budget in
    seconds. `engine` is how the frozen trunk computes; `compiles` is whether it may be compiled where that pays.
    `watts` is what the processor drew in these passes, 0 where it does not say. `inputs` is how cells are prepared for
    the frozen trunk, where that is not as the backbone has it. `training` is how what is trained computes.
    """

    processor: str
    threads: int
    memory_bytes: int
    device: str
    dtype: Literal["float32", "bfloat16"]
    promise: Literal["exact", "tolerance"]
    micro_batch: int
    versions: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    forward_s: float = 0.0
    engine: str = "eager"
    compiles: bool = False
    watts: float = 0.0
    inputs: InputSpec | None = None
    training: Training = Training()


@dataclass(frozen=True, slots=True)
class Room:
    """How much goes through the network at once, where memory did not suffice for what the machine card says.

    `micro_batch` is rows of one pass without gradients; `pieces` is how many a training batch is cut into.
    """

    micro_batch: int
    pieces: int = 1


@dataclass(frozen=True, slots=True)
class Facts:
    """All that plans may rest on: the cards of data, backbone and machine."""

    data: DataCard
    backbone: BackboneCard
    machine: MachineCard

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
    better: Literal["higher", "lower"] = "higher"


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
    """A plan that was run: scores, curve, cost, and where its predictions and weights lie (paths in the run).

    `stopped` says why it was not run to its end. One that lost to another rate of its own strategy has no scores on
    test, no predictions and no weights then; any other has those of its best epoch. `address` is the fingerprint of all
    that its bits follow from, "" where a clock had a say.
    """

    plan: Plan
    seed: int
    scores: tuple[Score, ...]
    curve: tuple[Epoch, ...]
    cost: Cost
    predictions: str
    snapshot: str
    notes: tuple[str, ...] = ()
    calibration: tuple[tuple[str, float], ...] = ()
    stopped: str = ""
    address: str = ""

    @property
    def label(self) -> str:
        """The plan in a few words."""
        return self.plan.label

    @property
    def whole(self) -> bool:
        """Whether it can be chosen: it has predictions and weights."""
        return bool(self.snapshot)

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


@dataclass(frozen=True, slots=True)
class Standing:
    """How a plan stands on its way to a rung of a race: to epoch `rung`, or to its end where that is 0.

    `seconds` were spent on it so far, of about `forecast_s`; `score` is the best so far, on validation.
    """

    number: int
    label: str
    rung: int
    state: Literal["runs", "paused", "lost", "finished", "left out"]
    seconds: float = 0.0
    forecast_s: float = 0.0
    score: Score | None = None


@dataclass(frozen=True, slots=True)
class Raced:
    """A race is over."""


Event = Step | Scored | PhaseDone | Said | Filled | Finished | Standing | Raced


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
    """What checks may look at: trials, the winner, baseline scores, arrays by name, and the metric that decides."""

    winner: Trial
    trials: tuple[Trial, ...]
    baselines: tuple[Score, ...]
    arrays: Mapping[str, numpy.ndarray]
    metric: Metric | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """How much better the winner is than the trial at `trial`, paired on the same validation rows.

    The intervals hold for all trials of a run at once, 95 %. `gain` is in the deciding metric, above 0 where the winner
    is better, `loss` what it saves of the loss of a row.
    """

    trial: int
    gain: float
    low: float
    high: float
    loss: float
    loss_low: float
    loss_high: float
    n: int

    @property
    def significant(self) -> bool:
        """Whether one of the two intervals lies on one side of zero."""
        return self.low > 0 or self.high < 0 or self.loss_low > 0 or self.loss_high < 0


@dataclass(frozen=True, slots=True)
class Skipped:
    """A plan that was not run, and why."""

    plan: Plan
    why: str


@dataclass(frozen=True, slots=True)
class Saved:
    """What the cache spared: rows that went through a frozen trunk, and those that a loop without a cache takes.

    `seconds` and `joules` are computed from the pass that was timed on this machine; 0 joules where it counts none.
    """

    ran: int
    plain: int
    seconds: float
    joules: float = 0.0

    @property
    def avoided(self) -> int:
        """Passes of rows through a trunk that were not needed."""
        return max(0, self.plain - self.ran)


@dataclass(frozen=True, slots=True)
class Account:
    """How a race spent its budget: seconds over all sittings, trials, epochs through the backbone, what was left out.

    `rows` are (split, rows used of it): fewer than there are where the clock did not allow more. `kwh` was drawn, and
    `metered` says whether by the processor's counters: it is estimated otherwise.
    """

    budget: Budget
    seconds: float
    trials: int
    epochs: int
    rows: tuple[tuple[str, int], ...]
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()
    saved: Saved | None = None
    kwh: float | None = None
    metered: bool = False


@dataclass(frozen=True, slots=True)
class Example:
    """A test row that was answered wrongly: its cell as text or as a small JPEG in base64, the truth, the answer."""

    id: str
    text: str
    picture: str
    y: str
    said: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Examined:
    """What the winner got right and wrong on the test split.

    `confusion` counts rows, [truth][answer] in the order of `labels`; for sets of labels it has for each label the rows
    [neither, only answered, only true, both]; for numbers it is empty and `numbers` holds (truth, answer) pairs.
    `alike` are rows that a finding about the data shows beside each other; `said` is then their split.
    """

    labels: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    examples: tuple[Example, ...]
    numbers: tuple[tuple[float, float], ...] = ()
    alike: tuple[Example, ...] = ()


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
    comparisons: tuple[Comparison, ...] = ()


@dataclass(frozen=True, slots=True)
class Bundle:
    """The result on disk, readable without the code that trained it; `files` are (name, sha256).

    `golden` are the outputs for some rows of noise drawn from `golden_seed`: a test without the user's data. `inserts`
    are those that are no part of its weights, in the order of their folders.
    """

    schema: int
    name: str
    modality: str
    task: str
    target: Target
    inputs: InputSpec
    plan: Plan
    provider: str
    base: str
    scores: tuple[Score, ...]
    golden_seed: int
    golden: tuple[tuple[float, ...], ...]
    micro_batch: int
    versions: tuple[tuple[str, str], ...]
    files: tuple[tuple[str, str], ...]
    opening: Opening
    columns: tuple[str, ...] = ()
    calibration: tuple[tuple[str, float], ...] = ()
    card: str = "README.md"
    inserts: tuple[Insert, ...] = ()


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
        if counted and float(counted[1]) > 0:
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
    reading: Reading = Reading()
    strategies: tuple[str, ...] = ()
    knobs: tuple[tuple[str, str], ...] = ()
    metric: str = ""
    balance: Literal["auto", "none", "classes"] = "auto"
    long: Literal["cut", "ends", "windows"] = "cut"
    max_tokens: int = 0
    arch: str = ""
    budget: Budget = Budget()
    refit: Literal["train", "all"] = "train"
    precision: Literal["fp32", "auto"] = "fp32"
    cache: bool = True
    seed: int = 0
    advice: bool = False


def plain(record: Any) -> Any:
    """A record as JSON values: dictionaries, lists, strings, numbers; tuples become lists."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {f.name: plain(getattr(record, f.name)) for f in dataclasses.fields(record)}
    if isinstance(record, Mapping):
        return {str(k): plain(v) for k, v in record.items()}
    if isinstance(record, (list, tuple)):
        return [plain(v) for v in record]
    return record


def reading(pooling: str, blocks: int, taps: Sequence[int] = ()) -> str:
    """A pooling, after how many blocks the network ends where it does not keep all, stages that are read on the way."""
    end = f"@{blocks}" if blocks else ""
    return f"{pooling}{end}+{','.join(map(str, taps))}" if taps else f"{pooling}{end}"


def fingerprint(*parts: Any) -> str:
    """SHA-256 of the canonical JSON of records or plain values: 64 hex digits, equal for equal content.

    >>> fingerprint(Target("label", "class", ("a",), (1,)))[:6] == fingerprint(("label", "class"))[:6]
    False
    """
    text = json.dumps(plain(list(parts)), sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
