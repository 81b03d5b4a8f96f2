"""Tell a run in words: report.md for the reader, a model card for the bundle, one object for scripts."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from regraft.data.open import sentence
from regraft.deliver import chosen, foreseen, grids, words
from regraft.deliver.grids import Grid
from regraft.deliver.story import BUNDLE, Story, flags, quarantined
from regraft.kit import shelf
from regraft.waist import (
    Account,
    BackboneCard,
    Data,
    DataCard,
    MachineCard,
    Opening,
    Plan,
    Score,
    Trial,
    Verdict,
    plain,
)

SCHEMA = 1


def write_report(story: Story) -> str:
    """The report as Markdown: the answer first, then what it rests on, then how to use and repeat it."""
    winner, data, body, verdict = story.winner, story.data, story.backbone, story.verdict
    name, made = words.names(story.trials)[verdict.winner], dict(made_terms(story))
    again = _code(f"regraft adapt --resume {shlex.quote(str(story.run))}")
    score = words.score_of(winner, "test")
    measured = f", {told(score)} on the test split" if score else ""
    lines = [
        f"# {harmless(words.brief(data.name))} on {harmless(words.brief(body.name))}",
        "",
        f"**{verdict.decision.capitalize()}: {_code(name)}**{measured}.",
        "",
        f"- Why: {harmless(words.sentence_case(verdict.rule, upper=False))}",
        f"- Against it: {harmless(words.sentence_case(verdict.against, upper=False))}",
        *(
            [f"- In its place: {harmless(words.sentence_case(verdict.fallback, upper=False))}"]
            if verdict.fallback
            else []
        ),
        f"- Tried: {harmless(words.tried(story))}.",
        *(f"- Budget: {harmless(line)}" for line in words.spent(story)),
        f"- Data: {harmless(words.sentence_case(sentence(data), upper=False))}",
        *(f"- {harmless(words.sentence_case(note))}" for note in data.notes),
        f"- Backbone: {harmless(made['Backbone'])}.",
        f"- Machine: {harmless(made['Machine'])}.",
        *(f"- {harmless(words.sentence_case(note))}" for note in (*body.notes, *story.machine.notes)),
        "",
        *section("What it is worth", grids.baselines(story)),
        *section("Trials", grids.trials(story)),
        "Validation chooses; test is read once, at the end. Intervals are 95 %.",
        "",
        *_notes(story),
        *section("The winner against the others", grids.comparisons(story)),
        *section("The winner's plan", grids.phases(winner.plan), before=bullets(plan_terms(winner.plan))),
        *section("Left out", grids.skipped(story)),
        *section("Checks", grids.checks(story)),
        *section("Learning curves", grids.curves(story)),
        *_chosen(story),
        *_foreseen(story),
        *_where_it_errs(story),
        *_findings(story),
        *section("Rows", grids.splits(story), grids.classes(story)),
        *_use(story),
        "## Repeat it",
        "",
        *fenced(words.reproduce(story.options)),
        "",
        *bullets(repeat_terms(story)),
        "",
        f"{again} reads this run; `--fresh` in the command that "
        "made it runs it anew. Splits, plans and every choice that a clock made lie in options.json, splits.csv, "
        "plans.json and machine.json.",
        "",
    ]
    return "\n".join(lines)


def mistakes(story: Story) -> list[Grid]:
    """The tables of what the winner confuses; empty where that was not kept."""
    examined = story.examined
    if examined is None:
        return []
    if examined.numbers:
        return [grids.errors(examined.numbers)]
    sets = story.data.target.kind == "multi"
    return [*([] if sets else [grids.pairs(examined)]), grids.by_class(examined, sets)]


def plan_terms(plan: Plan) -> list[tuple[str, str]]:
    """A plan in words, as (term, text) pairs."""
    rule = plan.optimizer
    start = {
        "zero": "at zero",
        "centroids": "at the centroids of the classes",
        "labels": "at the checkpoint's own labels",
    }
    start |= {"names": "at the embedded names of the classes", "cosine": "at the cosine of a pair"}
    init = {"pretrained": "pretrained", "random": "random", "plain": "plain features in place of a network"}
    rate = f", rate {rule.lr:g}" if not rule.whole else ""
    learning = f"{rule.name}{rate}, weight decay {rule.weight_decay:g}, {plan.batch} rows a step"
    if rule.chosen:
        tried = f" of {math.prod(map(len, rule.grid))} settings, {plan.batch} rows a step" if rule.grid else ""
        learning = f"{rule.name}{tried}; the head is chosen by cross-validation on the training rows"
    told = [
        ("Starts from", f"{init[plan.init]} weights" if plan.init != "plain" else init[plan.init]),
        ("Head", start[plan.start]),
        ("Pooling", plan.pooling),
        ("Network", f"ends after the first {plan.blocks} of its blocks" if plan.blocks else ""),
        ("Learning", learning),
        ("Inserts", ", ".join(f"{i.kind} of size {i.size}, {len(i.stages or i.reads)} stages" for i in plan.inserts)),
        (
            "Loss",
            ", ".join(f"{f.name} {v:g}" for f in dataclasses.fields(plan.loss) if (v := getattr(plan.loss, f.name))),
        ),
        ("Sampling", f"rows of a class by its frequency to the power {1 - plan.sampling:g}" if plan.sampling else ""),
        ("Augmentation", ", ".join(f"{name} {value}" for name, value in plan.augment)),
        ("Regularised", ", ".join(f"{name} {value:g}" for name, value in plan.regularise)),
        ("Settings", ", ".join(f"{name} {value}" for name, value in plan.knobs)),
        ("Trained on", "training and validation rows" if plan.fold == "all" else ""),
    ]
    return [(term, words.clean(text)) for term, text in told if text]


def made_terms(story: Story) -> list[tuple[str, str]]:
    """Backbone and machine in a line each."""
    return rests_on(story.backbone, story.machine)


def rests_on(body: BackboneCard, machine: MachineCard) -> list[tuple[str, str]]:
    """As `made_terms`, of records."""
    return [
        (
            "Backbone",
            f"{words.brief(body.name)}, {body.params / 1e6:.2f} M parameters in {len(body.stages)} stages, "
            f"{sum(s.flops for s in body.stages) / 1e9:.2f} GFLOP per example, {body.dim:,} features",
        ),
        ("From", words.clean(body.provider)),
        ("Inputs", f"{body.inputs.modality}, {' × '.join(map(str, body.inputs.shape))}"),
        (
            "Machine",
            f"{words.clean(machine.processor)}, threads: {machine.threads}, {machine.memory_bytes / 1e9:.1f} GB, "
            f"{machine.device}, {machine.dtype}; cached and uncached runs agree "
            + ("bit for bit" if machine.promise == "exact" else "to rounding"),
        ),
    ]


def repeat_terms(story: Story) -> list[tuple[str, str]]:
    """What pins a run down."""
    versions = dict(story.machine.versions)
    some = ", ".join(f"{name} {versions[name]}" for name in ("regraft", "torch", "transformers") if name in versions)
    return [
        ("Run", words.clean(str(story.run))),
        ("Seed", str(story.options.seed)),
        ("Data", f"fingerprint {story.data.fingerprint[:16]}"),
        ("Model", f"fingerprint {story.backbone.fingerprint[:16]}"),
        *([("Versions", words.clean(some))] if some else []),
    ]


# ---------------------------------------------------------------- Markdown


def section(title: str, *shown: Grid, before: Sequence[str] = ()) -> list[str]:
    """A heading with tables below it; nothing where all of them are empty."""
    if not any(grid.rows for grid in shown):
        return []
    made = ["## " + title, "", *before, *([""] if before else [])]
    for grid in shown:
        made += [*_grid(grid), ""] if grid.rows else []
    return made


def _grid(grid: Grid) -> list[str]:
    rule = "|".join("---:" if i in grid.right else "---" for i in range(len(grid.head)))
    return [
        harmless(grid.caption),
        "",
        f"| {' | '.join(map(harmless, grid.head))} |",
        f"|{rule}|",
        *(f"| {' | '.join(map(harmless, row))} |" for row in grid.rows),
    ]


def _chosen(story: Story) -> list[str]:
    """How the model was chosen, where there were several."""
    if story.choice is None:
        return []
    told = [f"- {harmless(words.sentence_case(line))}" for line in chosen.choosing(story.choice)]
    return section("How the model was chosen", chosen.models(story.choice), before=told)


def _foreseen(story: Story) -> list[str]:
    """What advice had said before the race, beside what came; empty where none was asked for."""
    if story.advice is None:
        return []
    before = [
        *bullets(foreseen.terms(story)),
        *(f"- {harmless(words.sentence_case(line))}" for line in foreseen.sentences(story.advice.survey)),
    ]
    return section("What was foreseen", *foreseen.tables(story.advice.survey), *foreseen.came(story), before=before)


def bullets(terms: Sequence[tuple[str, str]]) -> list[str]:
    """Terms as a list."""
    return [f"- {term}: {harmless(text)}" for term, text in terms]


def _notes(story: Story) -> list[str]:
    known = words.names(story.trials)
    made = [
        f"- {harmless(f'{n}: {note}')}." for n, trial in zip(known, story.trials, strict=True) for note in trial.notes
    ]
    return [*made, ""] if made else []


def _where_it_errs(story: Story) -> list[str]:
    if story.examined is None:
        return []
    return section("Where it errs", *mistakes(story), grids.examples(story.examined))


def _findings(story: Story) -> list[str]:
    """What was found about the data, and what was left out of it."""
    left = words.left_out(story.bad)
    before = [harmless(words.sentence_case(left)), ""] if left else []
    if not story.flags:
        return ["## Findings about the data", "", *before] if left else []
    return ["## Findings about the data", "", *before, *_grid(grids.flags(story)), ""]


def _use(story: Story) -> list[str]:
    """How to use the bundle, with regraft and without it."""
    if not story.shipped:
        return ["## Use it", "", "Nothing is shipped: the checks above say why.", ""]
    run, data = str(story.run), story.data
    made = ["## Use it", "", *fenced("\n".join(commands(run, data))), ""]
    if story.opening is not None:
        made += [*_opens(f"{run}/{BUNDLE}", data.modality, data.columns, story.opening), ""]
    return made


def _opens(folder: str, modality: str, columns: Sequence[str], opening: Opening) -> list[str]:
    """The lines that open a bundle without regraft, in Markdown."""
    return [
        f"The bundle opens without regraft, with `{opening.library}` alone:",
        "",
        *fenced(opening_lines(folder, modality, columns, opening), "python"),
    ]


def opening_lines(folder: str, modality: str, columns: Sequence[str], opening: Opening) -> str:
    """The lines that open a bundle without regraft."""
    example = shelf.find("modalities", modality).EXAMPLE
    inputs = f'("{example}", "another")' if len(columns) == 2 else f'"{example}"'
    return f"folder, inputs = {json.dumps(folder)}, [{inputs}]\n{opening.use}"


def fenced(text: str, language: str = "") -> list[str]:
    """A block of code, between fences that are longer than any in it."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return [fence + language, text, fence]


def _code(text: str) -> str:
    """Code within a line."""
    line = words.clean(text)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    return f"{fence}{line}{fence}" if len(fence) == 1 else f"{fence} {line} {fence}"


def head_of(trials: Sequence[Trial]) -> list[str]:
    """What stands above the columns of `cells_of`."""
    metric = next((score.metric for trial in trials for score in trial.scores), "")
    return ["", "plan", f"validation {metric}".strip(), f"test {metric}".strip(), "trained", "seconds", "peak memory"]


def cells_of(trials: Sequence[Trial], winner: int) -> list[list[str]]:
    """The trials as cells, for the terminal; the winner is marked, a trial without a score has a dash."""
    made = []
    for i, (name, trial) in enumerate(zip(words.names(trials), trials, strict=True)):
        val, test = words.score_of(trial, "val"), words.score_of(trial, "test")
        made.append(
            [
                "→" if i == winner else "",
                name,
                words.span(val) if val else "–",
                words.span(test) if test else "– stopped" if trial.stopped else "–",
                f"{trial.cost.trainable:,}",
                f"{trial.cost.seconds:.1f}",
                f"{trial.cost.peak_bytes / 1e6:,.0f} MB" if trial.cost.peak_bytes else "–",
            ]
        )
    return made


def told(score: Score) -> str:
    """A score with its interval and its metric."""
    return f"{words.span(score)} {score.metric}"


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
    network, rows = trial.plan.init != "plain", len(data.train) + (len(data.val) if trial.plan.fold == "all" else 0)
    does = f"Tells {len(target.labels)} classes apart: {harmless(', '.join(target.labels[:50]))}."
    if target.kind == "number":
        does = f"Predicts {harmless(target.name)}, a number (mean {target.centre:.4g} in training)."
    elif target.kind == "multi":
        does = f"Gives any of {len(target.labels)} labels: {harmless(', '.join(target.labels[:50]))}."
    lines = [
        "---",
        f"library_name: {opening.library.replace('_', '-')}",
        f"pipeline_tag: {shelf.find('modalities', data.modality).PIPELINE}",
        *([f"base_model: {json.dumps(base)}"] if network else []),
        "tags: [regraft, transfer-learning]",
        "---",
        "",
        f"# {harmless(data.name)}: {trial.label}{f' on {harmless(base)}' if network else ''}",
        "",
        does,
        f"{told(test)} on {test.n} test rows that chose nothing.",
        "",
        "| split | metric | value | 95 % interval | rows |",
        "|---|---|---|---|---|",
        *(f"| {k[0]} | {k[1]} | {s.value:.4f} | {s.low:.4f} – {s.high:.4f} | {s.n} |" for k, s in scores.items()),
        "",
        f"Trained on {rows} rows ({trial.cost.trainable:,} weights trained"
        + (", the rest as in the base model). The licence of the base model applies." if network else "; no network)."),
        "Scores hold for data like the test split; nothing else was measured.",
        "",
        *_opens(".", data.modality, data.columns, opening),
        "",
        *((care, "") if (care := shelf.find("modalities", data.modality).CARE) else ()),
    ]
    return "\n".join(lines)


def as_object(
    run: str,
    data: DataCard,
    trials: Sequence[Trial],
    verdict: Verdict,
    report: str,
    command: str,
    account: Account | None = None,
) -> dict[str, Any]:
    """What `--json` prints on success; a number that is none is null. Findings about the data are read from the run."""
    made = {
        "schema": SCHEMA,
        "command": command,
        "ok": True,
        "run": run,
        "data": plain(data),
        "flags": plain(flags(Path(run))),
        "bad": dict(Counter(one.why for one in quarantined(Path(run)))),
        "trials": plain(list(trials)),
        "verdict": plain(verdict),
        "comparisons": plain(verdict.comparisons),
        "account": plain(account),
        "report": report,
        "next": [] if verdict.decision == "refuse" else commands(run, data),
    }
    found: dict[str, Any] = _finite(made)
    return found


def _finite(value: Any) -> Any:
    """JSON values without the numbers that JSON lacks."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def harmless(text: str) -> str:
    """Text that came from data, harmless in Markdown: no markup, no new lines, no cell ends, no links, no list."""
    line = "".join("\\" + c if c in "\\`*_{}[]<>|#&~" else c for c in words.clean(text))
    line = re.sub(r"^(\s*)([-+])(?=[-+\s]|$)", r"\1\\\2", line)
    line = re.sub(r"^(\s*\d+)([.)])(?=\s|$)", r"\1\\\2", line)
    return re.sub(r"://", r"\://", re.sub(r"(?i)\b(www)\.", r"\1\.", line))
