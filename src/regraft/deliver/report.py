"""Tell a run in words: report.md for the reader, a model card for the bundle, one object for scripts."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Any

from regraft.data.open import sentence
from regraft.kit import shelf
from regraft.waist import BackboneCard, Data, DataCard, MachineCard, Opening, Score, Trial, Verdict, plain

SCHEMA = 1


def write_report(
    run: str,
    data: DataCard,
    body: BackboneCard,
    machine: MachineCard,
    trials: Sequence[Trial],
    verdict: Verdict,
    opening: Opening,
) -> str:
    """The report as Markdown: the answer first, then what it rests on, then how to use and repeat it."""
    winner = trials[verdict.winner]
    score = winner.score("test")
    lines = [
        f"# {_text(data.name)} on {_text(body.name)}",
        "",
        f"**{verdict.decision.capitalize()}: `{winner.label}`**, {told(score)} on the test split.",
        "",
        f"- Why: {_text(verdict.rule)}.",
        f"- Against it: {_text(verdict.against)}.",
        f"- Data: {_text(sentence(data))}.",
        *(f"- {_text(note)}." for note in data.notes),
        f"- Backbone: {_text(body.name)}, {body.params / 1e6:.2f} M parameters in {len(body.stages)} stages, "
        f"{sum(s.flops for s in body.stages) / 1e9:.2f} GFLOP per example, {body.dim} features.",
        f"- Machine: {_text(machine.processor)}, threads: {machine.threads}, {machine.dtype}; cached and uncached runs "
        f"agree {'bit for bit' if machine.promise == 'exact' else 'to rounding'}.",
        *(f"- {_text(note)}." for note in machine.notes),
        "",
        "## Trials",
        "",
        *table(trials, verdict.winner),
        "",
        "Validation chooses; test is read once, at the end. Intervals are 95 %.",
        *(f"- {trial.label}: {_text(note)}." for trial in trials for note in trial.notes),
        "",
        "## Checks",
        "",
        "| check | status | finding | advice |",
        "|---|---|---|---|",
        *(f"| {f.check} | {f.status} | {_text(f.evidence)} | {_text(f.advice)} |" for f in verdict.findings),
        "",
        "## Learning curves",
        "",
        *_curves(trials),
        "",
        *(
            _use(run, data, opening)
            if verdict.decision != "refuse"
            else ["Nothing is shipped: the checks above say why.", ""]
        ),
        "## Repeat it",
        "",
        f"`regraft adapt --resume {run}` reads this run; `--fresh` in the command that made it runs it anew. "
        "Seed, splits, plans and every choice that a clock made lie in options.json, splits.csv, plans.json and "
        "machine.json.",
        "",
    ]
    return "\n".join(lines)


def _use(run: str, data: DataCard, opening: Opening) -> list[str]:
    """How to use the bundle, with regraft and without it."""
    return [
        "## Use it",
        "",
        "```",
        *commands(run, data),
        "```",
        "",
        *_opens(run + "/bundle", data.modality, data.columns, opening),
        "",
    ]


def _opens(folder: str, modality: str, columns: Sequence[str], opening: Opening) -> list[str]:
    """The lines that open a bundle without regraft."""
    example = shelf.find("modalities", modality).EXAMPLE
    inputs = f'("{example}", "another")' if len(columns) == 2 else f'"{example}"'
    return [
        f"The bundle opens without regraft, with `{opening.library}` alone:",
        "",
        "```python",
        f"folder, inputs = {json.dumps(folder)}, [{inputs}]",
        opening.use,
        "```",
    ]


def table(trials: Sequence[Trial], winner: int) -> list[str]:
    """The trials as a Markdown table, a line each; the winner is marked."""
    head = ["| | plan | validation | test | trained | seconds | peak memory |", "|---|---|---|---|---|---|---|"]
    return head + ["| " + " | ".join(cells) + " |" for cells in cells_of(trials, winner)]


def cells_of(trials: Sequence[Trial], winner: int) -> list[list[str]]:
    """The same table as cells, for the terminal."""
    return [
        [
            "→" if i == winner else "",
            trial.label,
            told(trial.score("val")),
            told(trial.score("test")),
            f"{trial.cost.trainable:,}",
            f"{trial.cost.seconds:.1f}",
            f"{(trial.cost.peak_bytes or 0) / 1e6:,.0f} MB",
        ]
        for i, trial in enumerate(trials)
    ]


def told(score: Score) -> str:
    """A score with its interval and its metric."""
    return f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}] {score.metric}"


def commands(run: str, data: DataCard) -> list[str]:
    """What to do next, as commands."""
    run = shlex.quote(run)
    if shelf.find("modalities", data.modality).LITERAL:
        some = '--text "a text" --text "another"' if len(data.columns) == 2 else '--text "a text"'
        return [f"regraft predict {run} {some}", f"regraft predict {run} table.csv --out predictions.csv"]
    return [f"regraft predict {run} picture.jpg more_pictures/", f"regraft predict {run} pictures/ --out labels.csv"]


def model_card(trial: Trial, data: Data, base: str, opening: Opening) -> str:
    """The bundle's README.md: front matter that hubs read, then what was measured; nothing left to fill in."""
    scores = {(s.split, s.metric): s for s in trial.scores}
    test, target = trial.score("test"), data.target
    does = f"Tells {len(target.labels)} classes apart: {_text(', '.join(target.labels[:50]))}."
    if target.kind == "number":
        does = f"Predicts {_text(target.name)}, a number (mean {target.centre:.4g} in training)."
    elif target.kind == "multi":
        does = f"Gives any of {len(target.labels)} labels: {_text(', '.join(target.labels[:50]))}."
    lines = [
        "---",
        f"library_name: {opening.library.replace('_', '-')}",
        f"pipeline_tag: {shelf.find('modalities', data.modality).PIPELINE}",
        f"base_model: {json.dumps(base)}",
        "tags: [regraft, transfer-learning]",
        "---",
        "",
        f"# {_text(data.name)}: {trial.label} on {_text(base)}",
        "",
        does,
        f"{told(test)} on {test.n} test rows that chose nothing.",
        "",
        "| split | metric | value | 95 % interval | rows |",
        "|---|---|---|---|---|",
        *(f"| {k[0]} | {k[1]} | {s.value:.4f} | {s.low:.4f} – {s.high:.4f} | {s.n} |" for k, s in scores.items()),
        "",
        f"Trained on {len(data.train)} rows ({trial.cost.trainable:,} weights trained, the rest as in the base model).",
        "The licence of the base model applies. Scores hold for data like the test split; nothing else was measured.",
        "",
        *_opens(".", data.modality, data.columns, opening),
        "",
    ]
    return "\n".join(lines)


def as_object(
    run: str, data: DataCard, trials: Sequence[Trial], verdict: Verdict, report: str, command: str
) -> dict[str, Any]:
    """What `--json` prints on success."""
    return {
        "schema": SCHEMA,
        "command": command,
        "ok": True,
        "run": run,
        "data": plain(data),
        "trials": plain(list(trials)),
        "verdict": plain(verdict),
        "report": report,
        "next": [] if verdict.decision == "refuse" else commands(run, data),
    }


def _curves(trials: Sequence[Trial]) -> list[str]:
    lines = ["| trial | epochs | training loss | validation loss | best on validation |", "|---|---|---|---|---|"]
    for trial in trials:
        if trial.curve:
            first, last = trial.curve[0], trial.curve[-1]
            better = min if trial.score("val").better == "lower" else max
            best = better(epoch.metric for epoch in trial.curve)
            lines.append(
                f"| {trial.label} | {len(trial.curve)} | {first.train_loss:.3f} → {last.train_loss:.3f} | "
                f"{first.val_loss:.3f} → {last.val_loss:.3f} | {best:.3f} |"
            )
    return lines


def _text(text: str) -> str:
    """Text that came from data, harmless in Markdown: no markup, no new lines, no cell ends."""
    return "".join("\\" + c if c in "\\`*_{}[]<>|#" else " " if c in "\r\n" else c for c in text)
