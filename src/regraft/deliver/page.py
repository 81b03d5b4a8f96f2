"""Tell a run as one page: report.html holds its style and its pictures, asks for no network and runs no script."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from regraft.data.open import sentence
from regraft.deliver import chosen, figures, foreseen, grids, report, words
from regraft.deliver.figures import Bar, Point
from regraft.deliver.story import BUNDLE, Story
from regraft.deliver.svg import Figure, Shape
from regraft.deliver.words import brief, clean, clock, count, figure, span
from regraft.waist import Trial

PANELS = 12
BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
SHAPES: dict[str, Shape] = {
    "": "circle",
    "from scratch": "square",
    "random features": "wedge",
    "plain features": "triangle",
    "as it is": "diamond",
}
DECISIONS = {
    "ship": ("Ship", "✓", ""),
    "warn": ("Ship with care", "!", "warn"),
    "refuse": ("Refused", "✕", "fail"),
    "fall back": ("Fell back", "↩", "warn"),
}
SECTIONS = (
    ("baselines", "What it is worth"),
    ("plans", "What was tried"),
    ("curves", "How the plans learned"),
    ("models", "How the model was chosen"),
    ("foreseen", "What was foreseen"),
    ("mistakes", "Where it errs"),
    ("checks", "Checks"),
    ("findings", "Findings about the data"),
    ("data", "Data"),
    ("made", "Backbone and machine"),
    ("use", "Use it"),
    ("repeat", "Repeat it"),
)


def write_page(story: Story) -> str:
    """The report as one self-contained HTML page."""
    told = {**_answer(story), **_tried(story), **_mistakes(story), **_made(story)}
    told["grids"] = _grids(story)
    told["figures"] = {"baselines": _baselines(story), "scatter": _scatter(story), "mistakes": _confusion(story)}
    told["foreseen"] = foreseen.told(story)
    told["models"] = chosen.models(story.choice) if story.choice else None
    told["choosing"] = [words.sentence_case(line) for line in chosen.choosing(story.choice)] if story.choice else []
    return render("page.html.j2", told)


def render(template: str, told: Mapping[str, Any]) -> str:
    """A page of this folder. Every text is escaped where it is put in."""
    shelf = Environment(
        loader=PackageLoader("regraft.deliver", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return shelf.get_template(template).render(told)


# ---------------------------------------------------------------- the parts of the page


def _answer(story: Story) -> dict[str, Any]:
    """The first screen: what won, how good it is, why, and what speaks against it."""
    winner, word = story.winner, DECISIONS[story.verdict.decision]
    name = words.names(story.trials)[story.verdict.winner]
    test = words.score_of(winner, "test")
    lede = f"{name} won"
    lede += f": {span(test)} {test.metric} on {count(test.n, 'test row')} that chose nothing." if test else "."
    answer = [
        ("Why", words.sentence_case(story.verdict.rule, upper=False)),
        ("Against it", words.sentence_case(story.verdict.against)),
    ]
    if story.verdict.fallback:
        answer.append(("In its place", words.sentence_case(story.verdict.fallback)))
    data, model = brief(story.data.name), brief(story.backbone.name)
    absent = {name for name, held in (("foreseen", story.advice), ("models", story.choice)) if held is None}
    return {
        "title": f"{data} on {model}",
        "data_name": data,
        "model_name": model,
        "decision": dict(zip(("word", "glyph", "kind"), word, strict=True)),
        "lede": lede,
        "facts": _facts(story),
        "answer": answer,
        "sections": [one for one in SECTIONS if one[0] not in absent],
        "shipped": story.shipped,
    }


def _facts(story: Story) -> list[dict[str, str]]:
    test, winner = words.score_of(story.winner, "test"), story.winner
    made = []
    if test is not None:
        within = f"{figure(test.low)} to {figure(test.high)}, {test.better} is better"
        made.append({"term": f"{test.metric} on test", "told": figure(test.value), "more": within})
    guess = words.baselines(story)[0].test
    if guess is not None:
        made.append({"term": "a constant guess", "told": figure(guess.value), "more": "the least that counts"})
    part = grids.share(winner.cost.trainable, story.backbone.params)
    made.append({"term": "weights trained", "told": f"{winner.cost.trainable:,}", "more": f"{part} of the backbone's"})
    whole = story.account.seconds or sum(t.cost.seconds for t in story.trials)
    more = f"{clock(winner.cost.seconds)} for the winner, {count(len(story.trials), 'plan')} in all"
    return [*made, {"term": "time", "told": clock(whole), "more": more}]


def _tried(story: Story) -> dict[str, Any]:
    """The trials, the winner's plan and the learning curves."""
    known = words.names(story.trials)
    drawn = [i for i in words.ranked(story) if story.trials[i].curve]
    values = [e.metric for i in drawn for e in story.trials[i].curve if math.isfinite(e.metric)]
    scale = (min(values), max(values)) if values else (0.0, 1.0)
    metric = _metric(story)
    panels = [
        {
            "number": i + 1,
            "name": known[i],
            "winner": i == story.verdict.winner,
            "svg": Markup(figures.curve(story.trials[i].curve, scale, kept(story.trials[i]), metric, f"curve-{i + 1}")),
        }
        for i in drawn[:PANELS]
    ]
    return {
        "tried": words.tried(story),
        "notes": [f"{name}: {clean(n)}" for name, t in zip(known, story.trials, strict=True) for n in t.notes],
        "spent": words.spent(story),
        "plan": report.plan_terms(story.winner.plan),
        "panels": panels,
        "more_panels": len(drawn) > PANELS,
    }


def _mistakes(story: Story) -> dict[str, Any]:
    examined = story.examined
    if examined is None:
        return {"examined": False, "examples": [], "examples_title": ""}
    numbers = bool(examined.numbers)
    return {
        "examined": True,
        "examples_title": "The largest errors" if numbers else "Wrong answers, the surest first",
        "examples": [
            {
                "id": brief(e.id, 120),
                "text": "\n".join(brief(line, 300) for line in e.text.split("\n")[:2]) if e.text else "",
                "picture": e.picture if BASE64.fullmatch(e.picture) else "",
                "y": brief(e.y, 120),
                "said": brief(e.said, 120),
                "term": "off by" if numbers else "confidence",
                "value": grids.off(e.y, e.said) if numbers else grids.share(e.confidence, 1),
            }
            for e in examined.examples
        ],
    }


def _alike(story: Story) -> list[dict[str, str]]:
    """Rows that a finding about the data shows beside each other."""
    return [
        {
            "id": brief(e.id, 120),
            "text": "\n".join(brief(line, 300) for line in e.text.split("\n")[:2]) if e.text else "",
            "picture": e.picture if BASE64.fullmatch(e.picture) else "",
            "y": brief(e.y, 120),
            "split": brief(e.said, 20),
        }
        for e in (story.examined.alike if story.examined else ())
    ]


def _made(story: Story) -> dict[str, Any]:
    """What the run rests on, and how to use and to repeat it."""
    opening = story.opening
    lines = (
        report.opening_lines(f"{story.run}/{BUNDLE}", story.data.modality, story.data.columns, opening)
        if opening
        else ""
    )
    return {
        "left_out": words.sentence_case(words.left_out(story.bad)),
        "alike": _alike(story),
        "data_sentence": words.sentence_case(sentence(story.data), upper=False),
        "data_notes": [words.sentence_case(note) for note in story.data.notes],
        "made": report.made_terms(story),
        "made_notes": [words.sentence_case(note) for note in (*story.backbone.notes, *story.machine.notes)],
        "commands": "\n".join(report.commands(str(story.run), story.data)),
        "library": opening.library if opening else "",
        "lines": lines,
        "reproduce": words.reproduce(story.options),
        "repeat": report.repeat_terms(story),
    }


def _grids(story: Story) -> dict[str, Any]:
    made: dict[str, Any] = {
        "baselines": grids.baselines(story),
        "trials": grids.trials(story),
        "comparisons": grids.comparisons(story),
        "phases": grids.phases(story.winner.plan),
        "skipped": grids.skipped(story),
        "curves": grids.curves(story),
        "epochs": grids.epochs(story),
        "checks": grids.checks(story),
        "flags": grids.flags(story),
        "splits": grids.splits(story),
        "classes": grids.classes(story),
        "stages": grids.stages(story),
        "versions": grids.versions(story),
    }
    return made | {"mistakes": report.mistakes(story)}


# ---------------------------------------------------------------- the figures of the page


def _baselines(story: Story) -> Figure | None:
    test = words.score_of(story.winner, "test")
    if test is None:
        return None
    name = words.names(story.trials)[story.verdict.winner]
    rows = [Bar(f"adapted: {name}", test.value, test.low, test.high, True)]
    rows += [
        Bar(f"{b.what}: {b.name}", b.test.value, b.test.low, b.test.high)
        for b in words.baselines(story)
        if b.test is not None and b.why != words.ITSELF
    ]
    wide, narrow = (Markup(figures.bars(rows, test.metric, f"worth-{w}", w)) for w in (720, 340))
    return Figure(wide, "The filled dot is the winner; lines are 95 % intervals.", narrow)


def _scatter(story: Story) -> Figure | None:
    known, points = words.names(story.trials), []
    for i, trial in enumerate(story.trials):
        score = words.score_of(trial, "val")
        if score is not None:
            shape = SHAPES[words.role(trial.plan)]
            won = i == story.verdict.winner
            points.append(Point(i + 1, known[i], trial.cost.seconds, score.value, score.low, score.high, shape, won))
    if not points:
        return None
    better = next(s.better for t in story.trials for s in t.scores[:1])
    wide, narrow = (Markup(figures.scatter(points, _metric(story), better, f"cost-{w}", w)) for w in (720, 340))
    caption = (
        "Filled with a ring: the winner. ○ adapted, □ from scratch, ▽ random features, △ plain features, ◇ as it is. "
    )
    return Figure(wide, caption + "Lines are 95 % intervals, numbers those of the table.", narrow)


def _confusion(story: Story) -> Figure | None:
    examined = story.examined
    if examined is None:
        return None
    if examined.numbers:
        caption = (
            f"{len(examined.numbers):,} test rows. Above the dashed line the answer is too high, below it too low."
        )
        return Figure(Markup(figures.truth(examined.numbers, "truth")), caption)
    if not examined.confusion:
        return None
    sets = story.data.target.kind == "multi"
    chosen = grids.confused(examined, sets)
    labels = [examined.labels[c] for c in chosen]
    some = (
        f"the {len(chosen)} most often confused of {len(examined.labels)}" if len(chosen) < len(examined.labels) else ""
    )
    if sets:
        columns = ("rightly", "missed", "wrongly", "rightly not")
        counts = [[examined.confusion[c][k] for k in (3, 2, 1, 0)] for c in chosen]
        caption = "Test rows by label: given rightly, missed, given wrongly, rightly not given" + (
            f"; {some}." if some else "."
        )
        return Figure(
            Markup(figures.heat(labels, columns, counts, "mistakes", "Answers by label")), caption, fixed=True
        )
    counts = [[examined.confusion[r][c] for c in chosen] for r in chosen]
    caption = (
        "Test rows by truth (down) and answer (across), shaded by their share of the truth; framed cells are right"
    )
    made = Markup(figures.heat(labels, labels, counts, "mistakes", "Confusion matrix"))
    return Figure(made, caption + (f". Shown are {some} classes." if some else "."), fixed=True)


def kept(trial: Trial) -> int:
    """The epoch whose weights a trial ended with: the last where its last phase says so, otherwise the lowest loss."""
    if trial.plan.phases and trial.plan.phases[-1].stop:
        return len(trial.curve) - 1
    losses = [e.val_loss if math.isfinite(e.val_loss) else math.inf for e in trial.curve]
    return losses.index(min(losses))


def _metric(story: Story) -> str:
    return next((s.metric for s in story.winner.scores), "score")
