"""The articles' rules of thumb: each fires from its threshold on, evidence overrules, a race settles the rest."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from regraft.planner import rules as thumb
from regraft.planner.rules import Fired, Measured, Needs, explain, rules, verdict

CASE = Measured(rows=1200, classes=4, params=11_700_000)
SAID = Needs()
CARRIED = replace(CASE, probe=0.8, untrained=0.5, chance=0.3)
"""A head on frozen features is well above an untrained network, and has much to gain."""
CEILING = replace(CARRIED, probe=0.93, noise=0.05)


def held(name: str, measured: Measured, needs: Needs = SAID) -> Fired:
    (found,) = [one for one in rules(measured, needs) if one.id == name]
    return found


def case(
    rows: int = CASE.rows,
    params: int = CASE.params,
    similarity: float | None = None,
    noise: float | None = None,
    asis: float | None = None,
    probe: float | None = None,
) -> Measured:
    return replace(CASE, rows=rows, params=params, similarity=similarity, noise=noise, asis=asis, probe=probe)


def timed(epoch_s: float | None, fits: bool | None = None) -> Measured:
    return replace(CASE, full_epoch_s=epoch_s, memory_fits=fits)


# The id, the way; a case at the threshold that fires, one beside it that does not.
THRESHOLDS = [
    ("E1", "extract", case(500), SAID, case(501), SAID),
    ("E1", "extract", case(12), SAID, CASE, SAID),
    ("E2", "tune", case(10_000), SAID, case(9_999), SAID),
    ("E3", "race", case(2_000), SAID, case(1_999), SAID),
    ("E3", "race", case(9_999, 30_000_000), SAID, case(10_000, 30_000_000), SAID),
    ("E3", "race", case(2_000, 30_000_000), SAID, case(2_000, 30_000_001), SAID),
    ("E4", "extract", case(19_999, 300_000_000), SAID, case(19_999, 299_999_999), SAID),
    ("E4", "tune", case(20_000, 300_000_000), SAID, case(20_000, 299_999_999), SAID),
    ("E5", "extract", case(100, 1_500_001), SAID, case(100, 1_500_000), SAID),
    ("E6", "extract", case(similarity=0.8), SAID, case(similarity=0.799), SAID),
    ("E7", "tune", case(similarity=0.599), SAID, case(similarity=0.6), SAID),
    ("E8", "scratch", case(10_000, similarity=0.599), SAID, case(9_999, similarity=0.599), SAID),
    ("E8", "scratch", case(10_000, similarity=0.599), SAID, case(10_000, similarity=0.6), SAID),
    ("E8", "scratch", case(100, similarity=0.399), SAID, case(100, similarity=0.4), SAID),
    ("E8", "scratch", replace(CARRIED, untrained=0.771), SAID, replace(CARRIED, untrained=0.77), SAID),
    ("E9", "tune", case(similarity=0.6), SAID, case(similarity=0.599), SAID),
    ("E9", "tune", case(similarity=0.799), SAID, case(similarity=0.8), SAID),
    ("E10", "extract", timed(10.1), Needs(seconds=30.0), timed(10.0), Needs(seconds=30.0)),
    ("E10", "extract", timed(10.1), Needs(kwh=30.0 * 100.0 / 3.6e6), timed(9.9), Needs(kwh=30.0 * 100.0 / 3.6e6)),
    ("E10", "extract", CASE, Needs(goal="cost"), CASE, SAID),
    ("E10", "extract", timed(None, False), SAID, timed(None, True), SAID),
    ("E10", "tune", timed(10.0), Needs(seconds=300.0), timed(10.1), Needs(seconds=300.0)),
    ("E10", "tune", timed(10.0), Needs(seconds=300.0), timed(10.0), SAID),
    ("E10", "tune", timed(10.0), Needs(seconds=300.0), timed(None), Needs(seconds=300.0)),
    ("E11", "tune", CASE, Needs(goal="accuracy"), CASE, Needs(goal="speed")),
    ("E12", "extract", CASE, Needs(goal="speed"), CASE, Needs(goal="stability")),
    ("E13", "extract", CASE, Needs(goal="stability"), CASE, Needs(goal="accuracy")),
    ("E14", "peft", case(params=1_000_000_000), SAID, case(params=999_999_999), SAID),
    ("E14", "peft", timed(None, False), SAID, timed(None, True), SAID),
    ("E15", "peft", CASE, Needs(many_tasks=True), CASE, SAID),
    ("E18", "extract", case(noise=0.10), SAID, case(noise=0.099), SAID),
    ("E18", "tune", case(10_000, noise=0.03), SAID, case(10_000, noise=0.031), SAID),
    ("E18", "tune", case(10_000, noise=0.03), SAID, case(9_999, noise=0.03), SAID),
    ("E19", "tune", replace(CASE, labels_kept=False), SAID, CASE, SAID),
    ("E19", "asis", replace(CASE, labels_kept=True), SAID, CASE, SAID),
    ("E20", "tune", case(asis=0.7, probe=0.8), SAID, case(asis=0.71, probe=0.8), SAID),
]


@pytest.mark.parametrize(("name", "way", "at", "said", "beside", "otherwise"), THRESHOLDS)
def test_a_rule_fires_at_its_threshold_and_not_beside_it(
    name: str, way: str, at: Measured, said: Needs, beside: Measured, otherwise: Needs
) -> None:
    one = held(name, at, said)
    assert (one.fires, one.verdict) == (True, way)
    assert not held(name, beside, otherwise).fires


def test_every_criterion_stands_in_the_table_once_and_has_its_threshold_tested() -> None:
    assert [rule.id for rule in thumb.RULES] == [f"E{number}" for number in range(1, 22)]
    tested = {(name, way) for name, way, *_ in THRESHOLDS}
    assert {(rule.id, way) for rule in thumb.RULES for way in rule.names} - tested == {("E21", "race")}


def test_what_is_not_asked_never_fires_and_trade_offs_are_always_shown() -> None:
    said = Needs("accuracy", 60.0, "cpu", True, 0.1)
    for name in ("E16", "E17"):
        assert (held(name, CEILING, said).fires, held(name, CEILING, said).value) == (False, "not asked")
    assert held("E21", CASE).fires and not held("E21", CASE).stands


def test_no_rule_is_without_a_source_and_every_source_is_one_of_the_articles() -> None:
    assert len(thumb.ARTICLES) == 5
    named = {}
    for rule in thumb.RULES:
        assert re.search("“[^”]{10,}”", rule.source), f"{rule.id} quotes nothing"
        named[rule.id] = {one for some in re.findall(r"” \(([^()]+)\)", rule.source) for one in some.split("; ")}
    assert [name for name, articles in named.items() if not articles] == []
    assert set().union(*named.values()) == {*thumb.ARTICLES}


def test_without_measurements_only_counts_speak() -> None:
    assert [one.id for one in rules(case(300), SAID) if one.fires] == ["E1", "E5", "E21"]
    assert held("E6", CASE).value == "similarity not measured"
    assert held("E20", CASE).value == "the network's own answers were not measured beside a new head"


def test_rules_that_agree_name_the_way() -> None:
    way, why = verdict(rules(case(300, similarity=0.9), Needs(goal="speed")))
    assert way == "extract"
    assert why.startswith("E1, E5, E6, E12 say “train a new head on frozen features” (300 rows; ")
    assert verdict(rules(case(50_000), Needs(goal="accuracy")))[0] == "tune"


@pytest.mark.parametrize("rows", [501, 1200, 9999])
def test_between_their_counts_the_articles_are_silent(rows: int) -> None:
    way, why = verdict(rules(case(rows, params=1_000_000), SAID))
    assert (way, why) == ("race", f"{rows:,} rows: between 500 and 10,000 the articles name no way")


def test_in_between_the_race_decides_even_where_other_rules_agree() -> None:
    way, why = verdict(rules(case(similarity=0.9), SAID))
    assert way == "race"
    assert why == (
        "1,200 rows: between 500 and 10,000 the articles name no way; of the other rules, E6 says "
        "“train a new head on frozen features” (similarity 0.90 of at most 1)"
    )


def test_few_rows_far_away_are_a_contradiction() -> None:
    way, why = verdict(rules(case(300, params=1_000_000, similarity=0.5), SAID))
    assert way == "race"
    assert why == (
        "the rules contradict each other: E1 says “train a new head on frozen features” (300 rows); "
        "E7 says “fine-tune the network” (similarity 0.50 of at most 1)"
    )


def test_far_away_with_many_rows_is_a_contradiction_until_measured() -> None:
    far = case(20_000, similarity=0.4)
    way, why = verdict(rules(far, SAID))
    assert way == "race" and "E2, E7 say “fine-tune the network”" in why and "E8 says “train from scratch”" in why
    assert verdict(rules(replace(far, probe=0.8, untrained=0.5, chance=0.3), SAID))[0] == "tune"


def test_few_rows_that_no_training_helped_are_a_contradiction() -> None:
    """That frozen features are no better than untrained ones speaks against E1, and does not overrule it."""
    alien = replace(case(300), probe=0.51, untrained=0.5, chance=0.3)
    assert held("E1", alien).stands and held("E8", alien).stands
    assert verdict(rules(alien, SAID))[0] == "race"
    assert "right on 51% of the rows, on those of an untrained network on 50%" in held("E8", alien).value


def test_silence_and_what_is_overruled_give_a_race() -> None:
    assert verdict([]) == ("race", "no rule names a way")
    done = replace(CEILING, rows=50_000)
    assert verdict(rules(done, SAID)) == ("race", "what was measured overrules every rule that fires")


FAR = replace(CEILING, rows=20_000, similarity=0.2)
OVERRULED = [
    ("E1", replace(CARRIED, rows=300, probe=0.9), replace(CARRIED, rows=300, probe=0.901)),
    ("E1", replace(CARRIED, rows=300, probe=0.85, noise=0.05), replace(CARRIED, rows=300, probe=0.86, noise=0.05)),
    ("E5", replace(CARRIED, rows=600), replace(CARRIED, rows=600, untrained=0.71)),
    ("E2", FAR, replace(FAR, probe=0.92)),  # 0.95 is what labels allow, 0.02 below it is near
    ("E2", FAR, replace(FAR, noise=None)),
    ("E2", FAR, replace(FAR, chance=0.84)),
    ("E2", FAR, replace(FAR, untrained=None)),
    ("E7", FAR, replace(FAR, probe=0.92)),
    ("E8", replace(FAR, probe=0.6), replace(FAR, probe=0.599)),
    ("E8", replace(FAR, chance=0.83), replace(FAR, chance=0.831)),
    ("E6", replace(CARRIED, similarity=0.9, untrained=0.771), replace(CARRIED, similarity=0.9, untrained=0.77)),
    ("E19", replace(CARRIED, labels_kept=True, asis=0.7), replace(CARRIED, labels_kept=True, asis=0.71)),
    ("E19", replace(CARRIED, labels_kept=False), replace(CARRIED, labels_kept=False, untrained=0.71)),
]


@pytest.mark.parametrize(("name", "by", "short"), OVERRULED)
def test_evidence_overrules_and_says_so(name: str, by: Measured, short: Measured) -> None:
    one = held(name, by)
    assert one.fires and not one.stands
    assert "right on" in one.overruled and f"{by.probe:.0%}" in one.overruled
    assert held(name, short).stands, "evidence short of its threshold overrules nothing"


def test_few_rows_say_a_head_unless_a_head_falls_short() -> None:
    """On few rows a head was 5 to 10 points behind tuned layers wherever it left 10 points or more to gain."""
    assert held("E1", replace(CEILING, rows=300)).stands
    assert held("E1", replace(CARRIED, rows=300, untrained=0.8)).stands
    short = rules(replace(CARRIED, rows=300, labels_kept=False), SAID)
    assert {one.id for one in short if one.overruled} == {"E1", "E5", "E19"}
    assert verdict(short) == ("race", "what was measured overrules every rule that fires")


def test_labels_that_look_wrong_say_a_head_unless_a_head_falls_short() -> None:
    """A head that leaves 10 points to gain, beside the labels that look wrong, is not where to begin."""
    noisy = replace(CARRIED, rows=600, labels_kept=False, noise=0.1)
    assert held("E18", replace(noisy, probe=0.81)).stands
    assert held("E18", replace(noisy, probe=0.8)).overruled
    assert held("E6", replace(CARRIED, similarity=0.9)).overruled, "near, and still a head falls short"


def test_the_text_names_both_senses_and_the_trade_offs() -> None:
    text = " ".join(explain(CASE, SAID, rules(CASE, SAID)).split())
    assert "In the broad sense it is any reuse of a pretrained network, fine-tuning included." in text
    assert "In the narrow sense" in text and "also called feature extraction" in text
    for aspect in ("scope", "data", "compute", "adaptability", "overfitting risk"):
        assert aspect in text
    assert "Where the rules are silent or contradict each other, none of them decides: a race does." in text
    assert "You said nothing of a goal, a budget or later use." in text


def test_the_text_says_what_fired_what_overruled_it_and_what_follows() -> None:
    said = Needs("accuracy", 600.0, "cpu", True, 0.05)
    fired = rules(FAR, said)
    text = " ".join(explain(FAR, said, fired).split())
    for one in fired:
        assert f"- {one.id}, {one.criterion}: " in text and one.value in text
        assert (f"Source: {one.source}." in text) == one.fires
        assert not one.overruled or f"Overruled by what was measured: {one.overruled}." in text
    assert (
        "You said: your goal is accuracy; training may take 10 min; training may draw 0.05 kWh, about 30 min at 100 W; "
        "one network shall serve many tasks; answers are computed on cpu, " in text
    )
    assert "The rules that stand point one way, to train small added parts (LoRA, adapters, prompts). E15 says" in text


def test_the_text_says_that_a_race_decides_and_why() -> None:
    text = explain(CASE, SAID, rules(CASE, SAID))
    assert "Here a race decides. 1,200 rows: between 500 and 10,000 the articles name no way" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 110
