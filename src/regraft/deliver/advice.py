"""Advice kept: its record, a page and the same in Markdown, written into a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from regraft.data.open import sentence
from regraft.deliver import chosen, foreseen, page, report, words
from regraft.deliver.words import brief, clock, count, figure
from regraft.errors import UsageError
from regraft.kit import durable, store
from regraft.waist import Facts, fingerprint

if TYPE_CHECKING:
    from regraft.planner.advise import Advice

NAME = "advice"
SECTIONS = (
    ("models", "How the model was chosen"),
    ("seen", "What a look at the rows showed"),
    ("prices", "What each way would take"),
    ("rules", "The rules of thumb"),
    ("data", "Data, backbone and machine"),
)


def keep(folder: Path, facts: Facts, found: Advice, command: str) -> Path:
    """Write advice.json, advice.html and advice.md; returns the page. `command` adapts to the same data.

    Raises: UsageError: the folder is a run's.
    """
    if (folder / "options.json").is_file():
        raise UsageError(
            "this folder holds a run, with what was foreseen of it",
            saw=str(folder),
            allowed="a folder of its own",
            do="choose another --out; regraft adapt --advice keeps advice in its run",
        )
    store.Folder(folder).write(NAME, found, fingerprint(facts))
    for kind, text in (("md", write_text(facts, found, command)), ("html", write_page(facts, found, command))):
        durable.write(folder / f"{NAME}.{kind}", text.encode("utf-8", "surrogatepass"))
    return folder / f"{NAME}.html"


def write_page(facts: Facts, found: Advice, command: str) -> str:
    """The advice as one self-contained HTML page."""
    data, model = brief(facts.data.name), brief(facts.backbone.name)
    told = {
        "title": f"{data} on {model}",
        "data_name": data,
        "model_name": model,
        "way": foreseen.WAYS[found.way],
        "lede": _lede(found),
        "facts": _facts(found),
        "answer": foreseen.answer(found),
        "commands": "\n".join(_commands(found, command)),
        "sections": SECTIONS[0 if found.choice else 1 :],
        "models": chosen.models(found.choice) if found.choice else None,
        "choosing": [words.sentence_case(line) for line in _choosing(found)],
        "seen": [words.sentence_case(line) for line in foreseen.sentences(found.survey)],
        "drawn_of": foreseen.looked(found.survey),
        "shifts": foreseen.shifts(found.survey),
        "prices": foreseen.prices(found),
        "notes": _notes(found),
        "fired": foreseen.fired(found, True),
        "silent": foreseen.fired(found, False),
        "explained": found.explained,
        "data_sentence": words.sentence_case(sentence(facts.data), upper=False),
        "made": report.rests_on(facts.backbone, facts.machine),
    }
    return page.render("advice.html.j2", told)


def write_text(facts: Facts, found: Advice, command: str) -> str:
    """The advice as Markdown."""
    seen = found.survey
    lines = [
        f"# {report.harmless(brief(facts.data.name))} on {report.harmless(brief(facts.backbone.name))}: advice",
        "",
        f"**{foreseen.WAYS[found.way]}.** {report.harmless(_lede(found))}",
        "",
        *report.bullets(foreseen.answer(found)),
        "",
        *report.fenced("\n".join(_commands(found, command))),
        "",
        *(report.section(SECTIONS[0][1], chosen.models(found.choice)) if found.choice else ()),
        *(f"- {report.harmless(words.sentence_case(line))}" for line in _choosing(found)),
        *([""] if found.choice else ()),
        "## What a look at the rows showed",
        "",
        *(f"- {report.harmless(words.sentence_case(line))}" for line in foreseen.sentences(seen)),
        "",
        *report.section("Features by depth", foreseen.depths(seen)),
        *report.section("More labels", foreseen.reached(seen)),
        *report.section("How far the rows are from the network's own data", foreseen.shifts(seen)),
        *report.section("What each way would take", foreseen.prices(found)),
        *(f"- {report.harmless(line)}" for line in _notes(found)),
        "",
        *report.section("The rules of thumb", foreseen.fired(found, True), foreseen.fired(found, False)),
        "## Data, backbone and machine",
        "",
        report.harmless(words.sentence_case(sentence(facts.data), upper=False)),
        "",
        *report.bullets(report.rests_on(facts.backbone, facts.machine)),
        "",
    ]
    return "\n".join(lines)


def _lede(found: Advice) -> str:
    """What to do, in a sentence."""
    first = found.first
    took = f"at most {clock(first.here.cost.seconds)} here"
    others = f", and race it against {count(len(found.others), 'other plan')}" if found.others else ""
    return f"Begin with {first.label}, which takes {took}{others}."


def _facts(found: Advice) -> list[dict[str, str]]:
    seen, made = found.survey, list[dict[str, str]]()
    if seen.head is not None:
        chance = f"the largest class is {figure(seen.chance)}" if seen.chance is not None else "R², leave-one-out"
        made.append({"term": "a head on the features", "told": figure(seen.head), "more": chance})
    if seen.similarity is not None:
        made.append({"term": "similarity", "told": figure(seen.similarity), "more": "1 is the network's own data"})
    if seen.noise is not None:
        made.append({"term": "wrong labels", "told": f"{100 * seen.noise:.1f} %", "more": "estimated"})
    if seen.labels is not None:
        gain = seen.labels.twice
        told = f"{gain.points:+.1f} ± {gain.spread:.1f}"
        made.append({"term": "twice the labels", "told": told, "more": f"points of {foreseen.metric(seen)}"})
    return [*made, {"term": "looked at", "told": count(seen.rows, "row"), "more": f"in {clock(seen.seconds)}"}]


def _choosing(found: Advice) -> list[str]:
    return chosen.choosing(found.choice) if found.choice else []


def _commands(found: Advice, command: str) -> list[str]:
    return [f"{command} --strategy {found.first.strategy}", f"{command}   # or race all ways"]


def _notes(found: Advice) -> list[str]:
    """What the prices rest on."""
    every = [note for one in found.priced for price in (one.here, one.there) if price for note in price.notes]
    return [words.sentence_case(note) for note in dict.fromkeys(every)]
