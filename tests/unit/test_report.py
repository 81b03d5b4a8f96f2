"""Reports: complete, marked, and harmless whatever the data's names are."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import shlex
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import stories
import yaml
from hypothesis import given
from hypothesis import strategies as some
from markdown_it import MarkdownIt

from regraft.deliver import report, words
from regraft.deliver.story import Story
from regraft.kit import store
from regraft.waist import (
    Account,
    BackboneCard,
    Bad,
    Budget,
    Cost,
    Data,
    DataCard,
    Epoch,
    Finding,
    Flag,
    InputSpec,
    MachineCard,
    Opening,
    Options,
    Phase,
    Plan,
    Pooled,
    Score,
    Stage,
    Target,
    Trial,
    Verdict,
)

EVIL = "<script>|[x](y)\n\n# head `code` *bold* \x1b[31m"
SCORES = (Score("accuracy", "val", 0.75, 0.5, 0.875, 40), Score("accuracy", "test", 0.8, 0.7, 0.9, 50))
CURVE = (Epoch(0, 0, 1.0, 0.9, 0.5), Epoch(0, 1, 0.5, 0.6, 0.75))
STAGES = (Stage("s", "s", 2_500_000, 10**9, 4),)
BODY = BackboneCard("net", "transformers", "f", InputSpec("image", (3, 8, 8)), 0, (Pooled("native", STAGES, 16, 0),))
OPENING = Opening("sentence_transformers", "first_line = 1\noutputs = [second_line]", "made = None")
NUMBER = Target("score_x", "number", centre=1234.5678, spread=2.0)
TAGS = Target("tags", "multi", ("ant", "b|e"), (3, 1))
MACHINE = MachineCard("cpu", 2, 10**9, "cpu", "float32", "exact", 8)


def trial(strategy: str = "probe", **changes: object) -> Trial:
    plan = Plan(strategy, (Phase(2, 1, (("head/*", 1.0),)),))
    made = Trial(plan, 0, SCORES, CURVE, Cost(1.25, 12345, peak_bytes=3_000_000), "p", "w")
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def card(*labels: str, name: str = "dots") -> DataCard:
    target = Target("label", "class", labels or ("blue", "red"), (5,) * len(labels or "ab"))
    return DataCard(name, "image", "f", target, (("train", 10), ("val", 4), ("test", 5)), ())


def verdict(**changes: object) -> Verdict:
    finding = Finding("chance", "pass", 0.8, (0.7, 0.9), 0.5, "far above a guess", "")
    return dataclasses.replace(Verdict("ship", 0, "the only plan", "nothing", (), (finding,)), **changes)  # type: ignore[arg-type]


def story(data: DataCard, *trials: Trial, **changes: object) -> Story:
    """A run of two plans, or of these."""
    return Story(
        run=Path("runs/r"),
        options=Options("dots", "net"),
        data=data,
        backbone=BODY,
        machine=MACHINE,
        trials=trials or (trial(), trial("partial")),
        verdict=verdict(**changes),
        account=Account(Budget(), 0.0, 0, 0, ()),
        opening=OPENING,
    )


def written(data: DataCard, *trials: Trial, **changes: object) -> str:
    return report.write_report(story(data, *trials, **changes))


def columns(line: str) -> int:
    """Cells of a Markdown table's line: bars that no backslash takes away."""
    return len(re.findall(r"(?<!\\)\|", line)) - 1


# ---------------------------------------------------------------- the report


def test_the_answer_comes_first() -> None:
    lines = written(card()).splitlines()
    assert lines[0] == "# dots on net"
    assert lines[2] == "**Ship: `probe`**, 0.800 [0.700, 0.900] accuracy on the test split."


def test_what_it_rests_on_is_told() -> None:
    text = written(card(), rule="because", against="a doubt")
    for part in (
        "- Why: because.",
        "- Against it: a doubt.",
        "dots: 19 pictures in 2 classes",
        "2.50 M parameters",
        "bit for bit",
    ):
        assert part in text, part
    assert "| chance | pass | far above a guess |\n" in text
    assert "| probe | 2 | 1.000 → 0.500 | 0.900 → 0.600 | 0.750 |" in text


@pytest.mark.parametrize("make", [stories.ants_bees, stories.hostile, stories.numbers, stories.sets, stories.bare])
def test_every_table_has_whole_lines(make: Callable[[], Story]) -> None:
    text = report.write_report(make())
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables) >= 5
    for table in tables:
        assert len({columns(line) for line in table.splitlines()}) == 1, table


@pytest.mark.parametrize("make", [stories.ants_bees, stories.hostile])
def test_a_reader_of_markdown_finds_no_element_of_the_data(make: Callable[[], Story]) -> None:
    text = report.write_report(make())
    text.encode("utf-8")
    assert not {*text} & words.BIDI and "\x1b" not in text
    kinds: Counter[str] = Counter()
    for block in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text):
        for token in (block, *(block.children or ())):
            kinds[token.type] += 1
            assert token.type not in ("html_block", "html_inline", "link_open", "image", "s_open", "em_open", "hr")
            assert token.type != "heading_open" or token.tag in ("h1", "h2")
    assert kinds["strong_open"] == 1
    assert kinds["table_open"] == len(re.findall(r"^\|[-:|]+\|$", text, re.MULTILINE))
    assert kinds["fence"] == 3, "how to use it, without regraft, and how to repeat it"


def test_what_was_left_out_and_compared_is_told() -> None:
    text = report.write_report(stories.ants_bees())
    for part in (
        "- Budget: 12 trials took 20 min 42 s over all sittings, with 118 epochs through the backbone.",
        "| lora lr 0.001 | no insert fits this network |",
        "| scratch | +0.361 \\[+0.331, +0.401\\] |",
        "| bees | ants | 5 | 6.0 % |",
        "| test/bees/0000.jpg | bees | ants | 97.0 % |",
        "regraft adapt 'photos/ants bees' --model models/mobilenet --budget 20m --seed 7",
    ):
        assert part in text, part


def test_names_from_data_are_harmless() -> None:
    data = dataclasses.replace(card(EVIL, "red", name=EVIL), notes=(EVIL,))
    text = written(data, rule=EVIL, against=EVIL)
    assert "\n# head" not in text and "\n## head" not in text
    assert not re.search(r"(?<!\\)<", text) and not re.search(r"(?<!\\)\[x", text)
    assert text.splitlines()[0].startswith("# \\<script\\>")


@given(some.text(some.sampled_from("ab<>|[]()`*_#\\\r\n{}! &"), max_size=20))
def test_every_text_keeps_its_line_and_its_cell(text: str) -> None:
    made = report.harmless(text)
    assert "\n" not in made and "\r" not in made
    assert re.sub(r"\\(.)", r"\1", made) == text.replace("\n", " ").replace("\r", " ")
    assert not re.search(r"(?<!\\)(?:\\\\)*[|<>`*_\[\]#{}&]", made)


# ---------------------------------------------------------------- trials as cells


def test_the_winner_is_marked() -> None:
    cells = report.cells_of([trial(), trial("partial")], 1)
    assert [row[0] for row in cells] == ["", "→"]
    assert cells[0][1:] == [
        "probe",
        "0.750 [0.500, 0.875]",
        "0.800 [0.700, 0.900]",
        "12,345",
        "1.2",
        "3 MB",
    ]
    assert report.head_of([trial()])[2:4] == ["validation accuracy", "test accuracy"]


def test_a_depth_is_part_of_the_name() -> None:
    plan = dataclasses.replace(trial("partial").plan, knobs=(("depth", 2), ("lr", 0.1)))
    assert report.cells_of([trial(plan=plan), trial()], 0)[0][1] == "partial depth 2 lr 0.1"


def test_a_network_that_ends_early_is_told() -> None:
    plan = Plan("probe", (), pooling="mean", blocks=4)
    assert ("Network", "ends after the first 4 of its blocks") in report.plan_terms(plan)
    assert "Network" not in dict(report.plan_terms(dataclasses.replace(plan, blocks=0)))


def test_poolings_are_told_apart() -> None:
    mean = trial(plan=dataclasses.replace(trial().plan, pooling="mean"))
    assert [row[1] for row in report.cells_of([mean, trial()], 0)] == ["probe (mean)", "probe"]
    text = written(card(), mean, trial())
    assert "| probe (mean) | 2 |" in text and "| probe | 2 |" in text


def test_a_trial_without_a_curve_has_no_line_in_it() -> None:
    assert "## Learning curves" not in written(card(), trial(curve=()))


def test_a_trial_that_was_stopped_has_a_dash() -> None:
    stopped = trial("full", scores=SCORES[:1], predictions="", snapshot="", stopped="behind full lr 0.1")
    row = report.cells_of([trial(), stopped], 0)[1]
    assert row[2:4] == ["0.750 [0.500, 0.875]", "– stopped"]
    assert report.cells_of([dataclasses.replace(stopped, scores=())], -1)[0][2] == "–"
    assert "| 0.750 \\[0.500, 0.875\\] | – |" in written(card(), trial(), stopped)


def test_the_object_carries_the_account_and_no_number_that_json_lacks() -> None:
    told = stories.ants_bees()
    lost = dataclasses.replace(told.trials[0], scores=(dataclasses.replace(SCORES[0], value=float("nan")),))
    made = report.as_object("r", told.data, [lost], told.verdict, "p", "adapt", told.account)
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    assert made["account"]["epochs"] == 118 and len(made["comparisons"]) == 8
    assert made["trials"][0]["scores"][0]["value"] is None


def test_the_object_for_scripts_is_json() -> None:
    made = report.as_object("runs/r", card(), [trial()], verdict(), "runs/r/report.md", "adapt")
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    assert (made["ok"], made["run"], made["verdict"]["decision"]) == (True, "runs/r", "ship")


def test_the_object_for_scripts_has_findings_and_what_was_left_out(tmp_path: Path) -> None:
    flag = Flag("near", "warn", 1, 9, "a pair", (), "remove one", ("b",))
    store.Folder(tmp_path).write("flags", [flag])
    (tmp_path / "quarantine.jsonl").write_text('{"split": "train", "file": "a.jpg", "row": 0, "why": "empty"}\n' * 2)
    made = report.as_object(str(tmp_path), card(), [trial()], verdict(), "p", "adapt")
    assert made["flags"][0]["leaks"] == ["b"] and made["bad"] == {"empty": 2}
    old = report.as_object("r", card(), [trial()], verdict(), "p", "adapt")
    assert (old["flags"], old["bad"]) == ([], {})


def test_findings_about_the_data_have_a_section() -> None:
    flag = Flag("near", "note", 2, 900, "2 pairs of a kind", ("a|b ~ <i>",), "remove one of each")
    told = dataclasses.replace(story(card()), flags=(flag,), bad=(Bad("train", "x", 0, "the file is empty"),))
    text = report.write_report(told)
    assert "## Findings about the data" in text and "1 file or row cannot be used" in text
    line = next(line for line in text.splitlines() if "2 pairs of a kind" in line)
    assert columns(line) == 5 and "2 of 900" in line and "a\\|b" in line and "\\<i\\>" in line
    assert "Findings" not in written(card())


@pytest.mark.parametrize("run", ["runs/r", "my runs/r", "it's/r", "$HOME/r"])
def test_commands_can_be_pasted(run: str) -> None:
    for data in (card(), dataclasses.replace(card(), modality="text", columns=("one", "other"))):
        for command in report.commands(run, data):
            assert shlex.split(command)[:3] == ["regraft", "predict", run]


# ---------------------------------------------------------------- the model card


def data(*labels: str, name: str = "dots") -> Data:
    return Data(name, "image", Target("label", "class", labels, (1,) * len(labels)), (), (), (), "f")


def front(text: str) -> dict[str, object]:
    """The YAML between the first two rules of a model card."""
    assert text.startswith("---\n")
    found: dict[str, object] = yaml.safe_load(text.split("---\n")[1])
    return found


def test_the_card_has_front_matter_and_every_score() -> None:
    text = report.model_card(trial(), data("blue", "red"), "net", OPENING)
    assert front(text)["base_model"] == "net" and front(text)["pipeline_tag"] == "image-classification"
    assert "Tells 2 classes apart: blue, red." in text
    assert "| val | accuracy | 0.7500 | 0.5000 – 0.8750 | 40 |" in text
    assert "| test | accuracy | 0.8000 | 0.7000 – 0.9000 | 50 |" in text


@pytest.mark.parametrize("base", ["a: b", "no", "1.0", "x # y", "- x", "a\nlicense: mit", "[x", "'", "---"])
def test_any_name_of_a_base_is_one_value_of_the_front_matter(base: str) -> None:
    found = front(report.model_card(trial(), data("a", "b"), base, OPENING))
    assert set(found) == {"library_name", "pipeline_tag", "base_model", "tags"} and found["base_model"] == base


def test_evil_labels_stay_text_in_the_card() -> None:
    text = report.model_card(trial(), data(EVIL, "b", name=EVIL), "net", OPENING)
    assert not re.search(r"(?<!\\)<", text) and "\n# head" not in text
    assert front(text)["base_model"] == "net"


# ---------------------------------------------------------------- texts, pairs, numbers, several labels


def of_texts(target: Target, *columns: str) -> Data:
    return Data("notes", "text", target, (), (), (), "f", columns=columns)


def code(text: str) -> str:
    """The Python lines in a text."""
    (found,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    ast.parse(found)
    return str(found)


@pytest.mark.parametrize(
    ("target", "told"),
    [
        (NUMBER, "Predicts score\\_x, a number (mean 1235 in training)."),
        (TAGS, "Gives any of 2 labels: ant, b\\|e."),
        (Target("l", "class", ("a", "b")), "Tells 2 classes apart: a, b."),
    ],
)
def test_the_card_says_what_it_predicts(target: Target, told: str) -> None:
    text = report.model_card(trial(), of_texts(target, "text"), "net", OPENING)
    assert told in text and front(text)["pipeline_tag"] == "text-classification"
    assert front(text)["library_name"] == "sentence-transformers"


@pytest.mark.parametrize(
    ("columns", "example"), [(("text",), 'inputs = ".", ["a text"]'), (("a", "b"), '".", [("a text", "another")]')]
)
def test_the_card_holds_the_lines_that_open_it(columns: tuple[str, ...], example: str) -> None:
    lines = code(report.model_card(trial(), of_texts(NUMBER, *columns), "net", OPENING)).splitlines()
    assert lines[0].startswith("folder, inputs = ") and lines[0].endswith(example)
    assert "\n".join(lines[1:]) == OPENING.use


def test_the_report_holds_the_same_lines_for_its_bundle() -> None:
    pair = dataclasses.replace(card(), modality="text", columns=("a", "b"))
    text = written(pair, trial())
    assert "with `sentence_transformers` alone" in text
    assert code(text).startswith('folder, inputs = "runs/r/bundle", [("a text", "another")]\nfirst_line = 1\n')
    assert 'regraft predict runs/r --text "a text" --text "another"' in text


@pytest.mark.parametrize(("columns", "count"), [(("a",), 1), (("a", "b"), 2)])
def test_commands_for_texts_give_as_many_as_a_row_has(columns: tuple[str, ...], count: int) -> None:
    data = dataclasses.replace(card(), modality="text", columns=columns)
    first, second = (shlex.split(command) for command in report.commands("r", data))
    assert first.count("--text") == count and second[3:] == ["table.csv", "--out", "predictions.csv"]


def test_numbers_are_told_without_classes() -> None:
    data = dataclasses.replace(card(), target=NUMBER, modality="text", columns=("text",))
    scores = tuple(dataclasses.replace(s, metric="rmse", better="lower") for s in SCORES)
    text = written(data, trial(scores=scores))
    assert "with a number, score\\_x" in text and "0.800 [0.700, 0.900] rmse" in text
    assert "| probe | 2 | 1.000 → 0.500 | 0.900 → 0.600 | 0.500 |" in text, "the best error is the smallest"
    assert json.loads(json.dumps(report.as_object("r", data, [trial()], verdict(), "p", "adapt")))["ok"]


def test_several_labels_are_told_as_such() -> None:
    text = written(dataclasses.replace(card(), target=TAGS))
    assert "that carry any of 2 labels" in text and "b\\|e: 1" in text


def test_a_refused_run_offers_nothing_to_use() -> None:
    text = written(card(), decision="refuse")
    assert "regraft predict" not in text and "```python" not in text and "Nothing is shipped" in text
    assert report.as_object("r", card(), [trial()], verdict(decision="refuse"), "p", "adapt")["next"] == []
