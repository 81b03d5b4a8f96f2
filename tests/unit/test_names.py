"""Labels matched by name, with the real ones of ImageNet, iNaturalist and data sets; labels as texts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from regraft.backbone.names import matched, named, phrase

NATIVE = ("background", "bee eater", "bee", "ant, emmet, pismire", "African elephant, Loxodonta africana")


@pytest.mark.parametrize(
    ("wanted", "places"),
    [
        (("ants", "bees"), ((3,), (2,))),
        (("Bee", "the ant"), ((2,), (3,))),
        (("an_emmet",), ((3,),)),
        (("african-elephants",), ((4,),)),
        (("n02206856-bee",), ((2,),)),
        (("pismires, emmets",), ((3,),)),
    ],
)
def test_names_that_mean_the_same_are_found(wanted: tuple[str, ...], places: tuple[tuple[int, ...], ...]) -> None:
    assert matched(NATIVE, wanted) == dict(zip(wanted, places, strict=True))


@pytest.mark.parametrize("wanted", ["eater", "eleph", "elephant", "be", "beehive", "ground", "", " ", "_", "a"])
def test_a_part_of_a_name_is_another_name(wanted: str) -> None:
    assert matched(NATIVE, (wanted,)) is None


@pytest.mark.parametrize("wanted", [("bee", "wasp"), ("bee", "bees"), ("ant", "emmet"), ("The bee", "bee")])
def test_one_label_without_a_place_of_its_own_spoils_all(wanted: tuple[str, ...]) -> None:
    assert matched(NATIVE, wanted) is None


@pytest.mark.parametrize(
    ("one", "many"),
    [
        *[("box", "boxes"), ("berry", "berries"), ("cookie", "cookies"), ("wolf", "wolves"), ("knife", "knives")],
        *[("mouse", "mice"), ("honey bee", "honey_bees"), ("hero", "heroes"), ("bus", "buses"), ("glove", "gloves")],
    ],
)
def test_one_in_the_plural_is_found_either_way(one: str, many: str) -> None:
    assert matched((one, "x"), (many,)) == {many: (0,)} and matched(("x", many), (one,)) == {one: (1,)}


@pytest.mark.parametrize(("one", "other"), [("new", "news"), ("glas", "glass"), ("thi", "this"), ("ga", "gas")])
def test_an_s_at_the_end_is_not_always_a_plural(one: str, other: str) -> None:
    assert matched((one,), (other,)) is None and matched((other,), (one,)) is None


@pytest.mark.parametrize(
    ("native", "wanted", "places"),
    [
        (("Cardigan, Cardigan Welsh corgi", "cardigan"), "cardigan", (1,)),
        (("missile", "projectile, missile"), "missile", (0,)),
        (("harmonica, harp", "harp, lyre"), "harp", (1,)),
        (("sunglass", "sunglasses, dark glasses, shades"), "sunglasses", (1,)),
        (("crane", "crane"), "crane", (0, 1)),
        (("lesser panda, panda", "giant panda, panda"), "pandas", (0, 1)),
        (("Whimper", "Whimper (dog)"), "whimper", (0,)),
        (("Whimper (dog)", "Siren"), "whimper", (0,)),
    ],
)
def test_the_strictest_way_that_finds_something_counts(
    native: tuple[str, ...], wanted: str, places: tuple[int, ...]
) -> None:
    assert matched(native, (wanted,)) == {wanted: places}


def test_brackets_hold_a_name_only_behind_a_species() -> None:
    native = ("Cyanocitta cristata (Blue Jay)", "Police car (siren)", "Rattle (instrument)")
    assert matched(native, ("blue_jays",)) == {"blue_jays": (0,)}
    assert matched(native, ("cyanocitta cristata",)) and matched(native, ("rattle",))
    assert matched(native, ("siren",)) is None and matched(native, ("instrument",)) is None


@pytest.mark.parametrize(("native", "wanted"), [((), ("a", "b")), ((">50K", "<=50K"), ("50K",)), (("1",), ("-1",))])
def test_signs_are_no_decoration(native: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    assert matched(native, wanted) is None


# ---------------------------------------------------------------- real labels


def labels(shared: Path, model: str) -> tuple[str, ...]:
    told = json.loads((shared / "models" / model / "config.json").read_text())["id2label"]
    return tuple(told[str(i)] for i in range(len(told)))


def classes(shared: Path, data: str) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in (shared / "data" / data).iterdir()))


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        ("ants_bees/train", ["ant, emmet, pismire", "bee"]),
        (
            "dog_breeds4/train",
            [
                "German shepherd, German shepherd dog, German police dog, alsatian",
                "golden retriever",
                "Maltese dog, Maltese terrier, Maltese",
                "Saint Bernard, St Bernard",
            ],
        ),
        ("flowers5/train", None),
        ("flowers_sharp/train", None),
        ("office_caltech/amazon", None),
        ("cifar10_small/train", None),
        ("steel_defects/train", None),
    ],
)
def test_what_imagenet_knows_of_real_classes(shared: Path, data: str, wanted: list[str] | None) -> None:
    native, own = labels(shared, "mobilenet_v2_1.0_224"), classes(shared, data)
    found = matched(native, own)
    told = found and [native[i] for label in own for i in found[label]]
    assert told == wanted


def test_single_classes_that_imagenet_knows(shared: Path) -> None:
    native = labels(shared, "mobilenet_v2_1.0_224")
    known = {c for c in classes(shared, "office_caltech/amazon") if matched(native, (c,))}
    assert known == {"backpack", "laptop", "monitor", "mouse", "projector"}, "no bike among mountain bikes"


@pytest.mark.parametrize("model", ["yamnet", "mobilenet_v2_1.0_224_inat_bird", "mobilenet_v2_1.0_224_inat_insect"])
def test_real_labels_find_themselves(shared: Path, model: str) -> None:
    native = labels(shared, model)
    assert matched(native, native) == {label: (i,) for i, label in enumerate(native)}


def test_a_checkpoint_without_labels_matches_nothing(shared: Path) -> None:
    told = json.loads((shared / "models" / "resnet20_cifar10" / "config.json").read_text())
    assert "id2label" not in told and matched((), classes(shared, "cifar10_small/train")) is None


# ---------------------------------------------------------------- texts, labels of a head


@pytest.mark.parametrize(
    ("label", "wanted"),
    [
        ("rolled_in_scale", "rolled in scale"),
        ("very_negative", "very negative"),
        ("very negative", "very negative"),
        ("Refund_not_showing_up", "Refund not showing up"),
        ("PlayMusic", "Play Music"),
        ("n02085936-Maltese_dog", "Maltese dog"),
        ("HUM", "HUM"),
        ("Sci/Tech", "Sci/Tech"),
        ("  two   spaces ", "two spaces"),
        ("__", "__"),
        ("grün", "grün"),
        ("1", "1"),
    ],
)
def test_a_label_is_read_as_a_text(label: str, wanted: str) -> None:
    assert phrase(label) == wanted


@pytest.mark.parametrize(
    ("given", "outputs", "kept"),
    [
        (("ant", "bee"), 2, True),
        (("0", "1"), 2, True),
        (("crane", "crane"), 2, True),
        (("ant", "bee"), 3, False),
        (("LABEL_0", "LABEL_1"), 2, False),
        (("label-0", "Label 1"), 2, False),
        (("bee", "LABEL_1"), 2, False),
        (("price",), 1, False),
        ((), 0, False),
    ],
)
def test_labels_of_a_head_are_names_for_all_its_outputs(given: tuple[str, ...], outputs: int, kept: bool) -> None:
    assert named(list(given), outputs) == (given if kept else ())
