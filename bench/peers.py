"""The other sides of the benches of training: a plain PyTorch loop and Hugging Face's Trainer, on the same work.

A `Work` is a plan of regraft in plain terms: the same rows in the same batches with the same padding, the same
parameters at the same rates, the same schedule and seeds. Rows are encoded by the same encoder on all sides, so that
pixels and tokens are equal; the loops have nothing of regraft's. Frozen parts rest in eval mode on every side, for
otherwise their dropout and batch norms would train another network.
"""

from __future__ import annotations

import copy
import importlib.util
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Batch = dict[str, Tensor]


class Net(nn.Module):
    """A native network with a linear head at zero; with labels it gives its loss, as models of transformers do."""

    def __init__(self, body: nn.Module, path: str, width: int, classes: int, moving: Sequence[str], scale: float):
        super().__init__()
        self.body, self.moving, self.scale = body, tuple(moving), scale
        self.head = nn.Linear(width, classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        if path:  # the native head's place
            parent, _, name = path.rpartition(".")
            setattr(body.get_submodule(parent), name, nn.Identity())

    def train(self, mode: bool = True) -> Net:
        super().train(mode)
        self.body.eval()
        for path in self.moving if mode else ():
            for part in self.body.get_submodule(path).modules():
                part.training = not isinstance(part, nn.BatchNorm2d)
        return self

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> dict[str, Tensor]:
        if pixel_values is not None:
            features = self.body(pixel_values).logits
        else:
            ids = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
            hidden = self.body(**ids).last_hidden_state
            mask = attention_mask[..., None].to(hidden.dtype)
            features = (hidden * mask).sum(1) / mask.sum(1)
        logits = self.head(features)
        if labels is None:
            return {"logits": logits}
        losses = functional.cross_entropy(logits, labels, reduction="none")
        return {"loss": losses.sum() * self.scale if self.training else losses.mean(), "logits": logits}


@dataclass(frozen=True)
class Work:
    """A plan in plain terms. `batch(split, index)` encodes rows; `orders` and `seeds` have a list for each epoch."""

    body: Callable[[], nn.Module]
    path: str
    width: int
    classes: int
    moving: tuple[str, ...]
    share: Callable[[str], float]
    lr: float
    decay: float
    momentum: float
    clip: float
    adam: bool
    epochs: int
    orders: list[list[list[int]]]
    seeds: list[list[int]]
    batch: Callable[[str, list[int]], Batch]
    targets: dict[str, Tensor]
    judged: dict[str, list[list[int]]]
    factor: Callable[[int], float]

    def net(self) -> Net:
        scale = len(self.orders[0]) / len(self.targets["train"])
        made = Net(self.body(), self.path, self.width, self.classes, self.moving, scale)
        for name, parameter in made.named_parameters():
            parameter.requires_grad_(self.share(name) > 0)
        return made.eval()

    def rule(self, net: Net, fused: bool = False) -> tuple[torch.optim.Optimizer, Any]:
        """The optimizer with a group for each rate and decay, and the schedule."""
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, p in net.named_parameters():
            if p.requires_grad:
                groups.setdefault((self.share(name), self.decay if p.ndim > 1 else 0.0), []).append(p)
        told = [{"params": some, "lr": self.lr * r, "weight_decay": d} for (r, d), some in groups.items()]
        made: torch.optim.Optimizer
        if self.adam:
            made = torch.optim.AdamW(told, lr=self.lr, fused=fused or None)
        else:
            made = torch.optim.SGD(told, lr=self.lr, momentum=self.momentum)
        return made, torch.optim.lr_scheduler.LambdaLR(made, self.factor)

    def labelled(self, split: str, index: list[int]) -> Batch:
        return self.batch(split, index) | {"labels": self.targets[split][index]}


@dataclass
class Made:
    """What a side made: losses by epoch, and the classes it answers on test with its best epoch's weights.

    `judged` are its answers on the rows to validate on, where they are asked for.
    `seconds` stands where a side was run for a few of its epochs and counts for all; otherwise 0.
    """

    train: list[float] = field(default_factory=list)
    val: list[float] = field(default_factory=list)
    said: Tensor | None = None
    judged: Tensor | None = None
    seconds: float = 0.0


def plain(work: Work, epochs: int = 0) -> Made:
    """The loop that tutorials write: for each epoch a pass for training and one for validation; the best is kept.

    With `epochs` it stops after so many, and answers nothing.
    """
    begun = time.perf_counter()
    torch.manual_seed(0)
    net, made, best = work.net(), Made(), None
    optimizer, schedule = work.rule(net)
    trained = [p for p in net.parameters() if p.requires_grad]
    ready = time.perf_counter()
    for epoch in range(epochs or work.epochs):
        net.train()
        total = 0.0
        for index, seed in zip(work.orders[epoch], work.seeds[epoch], strict=True):
            torch.manual_seed(seed)
            loss = net(**work.labelled("train", index))["loss"]
            optimizer.zero_grad()
            loss.backward()
            if work.clip:
                nn.utils.clip_grad_norm_(trained, work.clip)
            optimizer.step()
            schedule.step()
            total += loss.item() / net.scale
        made.train.append(total / len(work.targets["train"]))
        made.val.append(float(functional.cross_entropy(answers(work, net, "val"), work.targets["val"])))
        if made.val[-1] == min(made.val):
            best = copy.deepcopy({name: p.detach() for name, p in net.named_parameters() if p.requires_grad})
    if epochs:
        made.seconds = ready - begun + (time.perf_counter() - ready) / epochs * work.epochs
        return made
    net.load_state_dict(best or {}, strict=False)
    made.said = answers(work, net, "test").argmax(1)
    return made


def answers(work: Work, net: Net, split: str) -> Tensor:
    """Outputs for all rows of a split, in their order."""
    net.eval()
    found: dict[int, Tensor] = {}
    with torch.no_grad():
        for index in work.judged[split]:
            found |= dict(zip(index, net(**work.batch(split, index))["logits"], strict=True))
    return torch.stack([found[i] for i in range(len(found))])


def gap(made: Made, wanted: Made) -> float:
    """The largest difference between losses of the epochs that `made` has and those of `wanted`."""
    pairs = [*zip(made.train, wanted.train, strict=False), *zip(made.val, wanted.val, strict=False)]
    return max(abs(a - b) for a, b in pairs)


# ---------------------------------------------------------------- Hugging Face's Trainer


def lacks() -> str:
    """Why Trainer cannot be run here, or ""."""
    absent = [name for name in ("accelerate", "transformers") if importlib.util.find_spec(name) is None]
    return f"skipped: Trainer needs {' and '.join(absent)}, absent here" if absent else ""


class Rows(torch.utils.data.Dataset[Batch]):
    """The rows of a split one by one, as Trainer takes them."""

    def __init__(self, work: Work, split: str) -> None:
        self.work, self.split = work, split

    def __len__(self) -> int:
        return len(self.work.targets[self.split])

    def __getitem__(self, i: int) -> Batch:
        return {name: t[0] for name, t in self.work.labelled(self.split, [i]).items()}


def trainer(work: Work, epochs: int = 0, own: bool = False) -> Made:
    """Trainer with the same parameters frozen, the same optimizer (fused, as it would choose) and schedule.

    It takes the same batches; with `own` it draws and pads its own ones, as it comes.
    """
    import transformers

    begun = time.perf_counter()
    torch.manual_seed(0)
    net, made = work.net(), Made()
    marks: list[float] = []
    flat = [(index, seed) for one, seeds in zip(work.orders, work.seeds, strict=True) for index, seed in
            zip(one, seeds, strict=True)]  # fmt: skip

    class Watch(transformers.TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            marks.append(time.perf_counter())

        def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            if not own:
                torch.manual_seed(flat[state.global_step][1])

        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **rest: Any) -> None:
            made.val.append(metrics["eval_mean"])  # its own loss counts all batches alike, however short
            marks.append(time.perf_counter())
            if epochs and len(made.val) == epochs:
                control.should_training_stop = True

    class Same(transformers.Trainer):  # type: ignore[misc]
        def get_train_dataloader(self) -> Any:
            if own:
                return super().get_train_dataloader()
            return _Dealt(work)

        def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
            if own:
                return super().get_eval_dataloader(eval_dataset)
            return [work.labelled("val", index) for index in work.judged["val"]]

    size = max(len(index) for index in work.orders[0])
    with tempfile.TemporaryDirectory() as place:
        args = transformers.TrainingArguments(
            output_dir=place,
            num_train_epochs=work.epochs,
            per_device_train_batch_size=size,
            per_device_eval_batch_size=size,
            eval_strategy="epoch",
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            max_grad_norm=work.clip,
            dataloader_pin_memory=False,
        )
        run = Same(
            net,
            args,
            train_dataset=Rows(work, "train"),
            eval_dataset=Rows(work, "val"),
            data_collator=collate,
            optimizers=work.rule(net, fused=True),
            compute_metrics=mean_loss,
            callbacks=[Watch()],
        )
        run.remove_callback(transformers.PrinterCallback)
        run.train()
    if epochs:
        made.seconds = marks[0] - begun + (marks[-1] - marks[0]) / epochs * work.epochs
    else:
        made.said = answers(work, net, "test").argmax(1)
    return made


def mean_loss(seen: Any) -> dict[str, float]:
    """The mean loss of rows, as Trainer asks for a metric."""
    logits, labels = torch.from_numpy(seen.predictions), torch.from_numpy(seen.label_ids)
    return {"mean": float(functional.cross_entropy(logits, labels))}


class _Dealt:
    """The batches of each epoch in turn."""

    def __init__(self, work: Work) -> None:
        self.work, self.epoch = work, 0

    def __len__(self) -> int:
        return len(self.work.orders[0])

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Any:
        return (self.work.labelled("train", index) for index in self.work.orders[self.epoch])


def collate(rows: list[Batch]) -> Batch:
    """Rows as one batch; texts without what pads all of them."""
    longest = max(len(row["input_ids"]) for row in rows) if "input_ids" in rows[0] else 0
    made = {}
    for name in rows[0]:
        some = [row[name] for row in rows]
        if longest and name != "labels":
            some = [functional.pad(t, (0, longest - len(t))) for t in some]
        made[name] = torch.stack(some)
    if longest:
        used = int(made["attention_mask"].sum(1).max())
        made = {name: t if name == "labels" else t[:, :used] for name, t in made.items()}
    return made
