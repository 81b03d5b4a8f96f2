"""Texts and pairs: token ids compared by hand, lengths that a text alone decides, lines that do the same elsewhere."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from regraft.errors import DataError, ModelError, UsageError
from regraft.modalities import text
from regraft.waist import InputSpec, Options
from tests import checkpoints, places

PAD, CLS, SEP = 0, 2, 3
NUMBERED = {word: i + len(places.SPECIAL) for i, word in enumerate(checkpoints.WORDS)}
Ids = list[int]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints with their tokenizers: BERT's is the one whose ids are known by hand."""
    root = tmp_path_factory.mktemp("texts")
    for name in ("bert", "distilbert", "roberta", "gpt2", "llama", "minilm"):
        checkpoints.ALL[name](root / name)
    return root


@pytest.fixture(scope="module")
def bert(home: Path) -> str:
    return str(home / "bert")


def spec(longest: int = 16, long: str = "cut", kinds: bool = True, pad: int = PAD) -> InputSpec:
    told: dict[str, Any] = {"limit": 64, "max_tokens": longest, "long": long, "vocabulary": 60, "pad": pad}
    return InputSpec("text", (32,), settings=tuple(sorted({**told, "kinds": kinds}.items())))


def words(count: int, start: int = 0) -> str:
    """So many words of the tiny vocabulary, one after another, from the beginning again at its end."""
    return " ".join(checkpoints.WORDS[(start + i) % len(checkpoints.WORDS)] for i in range(count))


def ids_of(said: str) -> Ids:
    return [NUMBERED[word] for word in said.split()]


def parts(cell: Any, source: str, **given: Any) -> list[tuple[Ids, Ids, int]]:
    """The parts of a cell: ids, kinds and padded size."""
    (found,) = text.encoder(spec(**given), False, source).parts([cell])
    assert all(size == part.size for part, size in found)
    return [(part.ids.tolist(), part.kinds.tolist(), size) for part, size in found]


# ---------------------------------------------------------------- one text


def test_a_text_is_its_tokens_between_the_special_ones(bert: str) -> None:
    assert parts("a the rose", bert) == [([CLS, 5, 6, NUMBERED["rose"], SEP], [0] * 5, 16)]
    assert parts("", bert) == [([CLS, SEP], [0, 0], 16)]
    assert parts("Rose ROSE", bert) == parts("rose rose", bert), "the tokenizer's own settings hold"
    assert parts("été", bert)[0][0] == [CLS, 1, SEP] or 1 not in parts("été", bert)[0][0]


@pytest.mark.parametrize(
    ("count", "longest", "padded"),
    [(1, 64, 16), (14, 64, 16), (15, 64, 32), (30, 64, 32), (31, 64, 64), (62, 64, 64), (9, 10, 10), (31, 40, 40)],
)
def test_the_padded_size_is_the_next_power_of_two_and_depends_on_the_text_alone(
    bert: str, count: int, longest: int, padded: int
) -> None:
    encode = text.encoder(spec(longest), False, bert)
    alone = encode.parts([words(count)])
    beside = text.encoder(spec(longest), True, bert).parts([words(60), words(count), words(2)])
    assert [size for _, size in alone[0]] == [padded] == [size for _, size in beside[1]]
    assert alone[0][0][0].ids.tolist() == beside[1][0][0].ids.tolist()


def test_a_text_that_fits_exactly_is_left_whole(bert: str) -> None:
    whole = [CLS, *ids_of(words(14)), SEP]
    for long in ("cut", "ends", "windows"):
        assert parts(words(14), bert, long=long) == [(whole, [0] * 16, 16)]


def test_cut_leaves_out_the_end_and_keeps_the_special_tokens(bert: str) -> None:
    assert parts(words(15), bert) == [([CLS, *ids_of(words(14)), SEP], [0] * 16, 16)]
    assert parts(words(40), bert, longest=9) == [([CLS, *ids_of(words(7)), SEP], [0] * 9, 9)]


@pytest.mark.parametrize(("longest", "head", "tail"), [(16, 7, 7), (15, 7, 6), (8, 3, 3), (9, 4, 3)])
def test_ends_leaves_out_the_middle(bert: str, longest: int, head: int, tail: int) -> None:
    body = ids_of(words(20))
    assert parts(words(20), bert, longest=longest, long="ends") == [
        ([CLS, *body[:head], *body[-tail:], SEP], [0] * longest, longest)
    ]


def test_windows_overlap_by_a_quarter_and_are_all_of_one_size(bert: str) -> None:
    body = ids_of(words(20))
    assert parts(words(20), bert, long="windows") == [
        ([CLS, *body[0:14], SEP], [0] * 16, 16),
        ([CLS, *body[11:20], SEP], [0] * 11, 16),
    ]
    assert [len(ids) - 2 for ids, _, _ in parts(words(25), bert, long="windows")] == [14, 14]
    assert [len(ids) - 2 for ids, _, _ in parts(words(26), bert, long="windows")] == [14, 14, 4]


def test_windows_are_sixteen_at_most(bert: str) -> None:
    found = parts(words(500), bert, long="windows")
    body = ids_of(words(500))
    assert len(found) == text.WINDOWS == 16
    assert [ids[1:-1] for ids, _, _ in found] == [body[11 * i : 11 * i + 14] for i in range(16)]
    assert {size for _, _, size in found} == {16}


@pytest.mark.parametrize("name", ["roberta", "gpt2", "llama"])
@pytest.mark.parametrize("long", ["cut", "ends", "windows"])
def test_every_tokenizer_keeps_its_special_tokens(home: Path, name: str, long: str) -> None:
    tokenizer = text.tokens_of(str(home / name))
    whole = tokenizer(words(30))["input_ids"]
    begin, end = ([0], [2]) if name == "roberta" else ([], [])
    body = whole[len(begin) : len(whole) - len(end)]
    assert whole == [*begin, *body, *end] and len(whole) > 20
    found = parts(words(30), str(home / name), longest=12, long=long)
    room = 12 - len(begin) - len(end)
    assert all(ids[: len(begin)] == begin and (not end or ids[-1:] == end) and len(ids) <= 12 for ids, _, _ in found)
    inner = [ids[len(begin) : len(ids) - len(end)] for ids, _, _ in found]
    if long == "windows":
        assert inner == [body[s : s + room] for s in range(0, len(body) - room // 4, room - room // 4)]
    else:
        cut = body[:room] if long == "cut" else [*body[: room - room // 2], *body[-(room // 2) :]]
        assert inner == [cut]


# ---------------------------------------------------------------- pairs


def test_a_pair_is_one_sequence_whose_sides_are_told_apart(bert: str) -> None:
    assert parts(("a the", "rose"), bert) == [([CLS, 5, 6, SEP, NUMBERED["rose"], SEP], [0, 0, 0, 0, 1, 1], 16)]


def test_a_pair_is_cut_where_it_is_longest(bert: str) -> None:
    first, other = words(10), words(4, 10)
    ((ids, kinds, size),) = parts((first, other), bert, longest=12)
    assert ids == [CLS, *ids_of(first)[:5], SEP, *ids_of(other), SEP] and size == 12
    assert kinds == [0] * 7 + [1] * 5
    ((ids, _, _),) = parts((words(3), words(20, 3)), bert, longest=12)
    assert ids == [CLS, *ids_of(words(3)), SEP, *ids_of(words(6, 3)), SEP]


@pytest.mark.parametrize("long", ["ends", "windows"])
def test_a_pair_is_cut_whatever_is_asked_for_long_texts(bert: str, long: str) -> None:
    cell = (words(20), words(9, 3))
    assert parts(cell, bert, long=long) == parts(cell, bert)


def test_roberta_pairs_have_two_marks_between_them(home: Path) -> None:
    ((ids, kinds, _),) = parts(("rose", "sea"), str(home / "roberta"), longest=64)
    middle = ids.index(2)
    assert ids[0] == 0 and ids[middle : middle + 2] == [2, 2] and ids[-1] == 2 and set(kinds) == {0}


def test_texts_and_pairs_may_come_together(bert: str) -> None:
    encode = text.encoder(spec(), False, bert)
    cells = ["rose", ("rose", "sea"), "rose"]
    assert [[p.ids.tolist() for p, _ in row] for row in encode.parts(cells)] == [
        [ids for ids, _, _ in parts(cell, bert)] for cell in cells
    ]


# ---------------------------------------------------------------- batches


def test_a_batch_is_filled_with_the_padding_id_and_masked(bert: str) -> None:
    encode = text.encoder(spec(pad=59), False, bert)
    found = [part for row in encode.parts(["a", ("the", "and of")]) for part, _ in row]
    batch = encode.tensors(found)
    assert {name: (t.dtype, tuple(t.shape)) for name, t in batch.items()} == dict.fromkeys(
        ("input_ids", "attention_mask", "token_type_ids"), (torch.int64, (2, 16))
    )
    assert batch["input_ids"].tolist() == [[CLS, 5, SEP] + [59] * 13, [CLS, 6, SEP, 7, 8, SEP] + [59] * 10]
    assert batch["attention_mask"].tolist() == [[1] * 3 + [0] * 13, [1] * 6 + [0] * 10]
    assert batch["token_type_ids"].tolist() == [[0] * 16, [0, 0, 0, 1, 1, 1] + [0] * 10]


def test_a_network_that_knows_no_sides_is_not_told_them(home: Path) -> None:
    source = str(home / "distilbert")
    encode = text.encoder(text.described(Path(source)), False, source)
    ((part, _),) = encode.parts([("rose", "sea")])[0:1][0]
    assert set(encode.tensors([part])) == {"input_ids", "attention_mask"}


def test_parts_of_two_sizes_are_no_batch(bert: str) -> None:
    encode = text.encoder(spec(64), False, bert)
    short, long = (row[0][0] for row in encode.parts(["a", words(20)]))
    with pytest.raises(ValueError, match="unpack"):
        encode.tensors([short, long])


def test_a_file_is_its_content(bert: str, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("\ufeffa the rose", "utf-8")
    assert parts(tmp_path / "x.txt", bert) == parts("a the rose", bert)


def test_what_is_told_counts_sizes_and_what_does_not_fit(bert: str) -> None:
    cells = ["a", "a", words(20), words(40), words(31)]
    assert text.encoder(spec(64), True, bert).told(cells) == (
        "texts are padded to 16 tokens (2), 32 tokens (1), 64 tokens (2)",
    )
    for long, done in (
        ("cut", "their end is cut off (--long ends or windows, --max-tokens)"),
        ("ends", "their middle is left out"),
        ("windows", "windows of them are averaged"),
    ):
        assert text.encoder(spec(32, long), True, bert).told(cells) == (
            "texts are padded to 16 tokens (2), 32 tokens (3)",
            f"2 of 5 are longer than 32 tokens: {done}",
        )
    pairs = [("a", "the"), (words(30), words(30))]
    assert text.encoder(spec(32, "ends"), True, bert).told(pairs)[1] == (
        "1 of 2 are longer than 32 tokens: their end is cut off (--long ends or windows, --max-tokens)"
    )


# ---------------------------------------------------------------- recognising and reading


@pytest.mark.parametrize("cell", ["a text", "", "path/that/is/not.txt", ("a", "b"), "x" * 10_000, "a\0b"])
def test_strings_and_pairs_of_strings_are_texts(cell: Any) -> None:
    assert text.sniff(cell)


@pytest.mark.parametrize("cell", [None, 3, 2.5, b"a", ["a", "b"], ("a",), ("a", "b", "c"), ("a", 3), {"a": "b"}])
def test_nothing_else_is(cell: Any) -> None:
    assert not text.sniff(cell)


FILES = {
    "a.txt": ("größe", True),
    "a.md": ("# title", True),
    "a.TXT": ("x", True),
    "empty.txt": ("", True),
    "a.csv": ("a,b", False),
    "a": ("text without an ending", False),
}


@pytest.mark.parametrize(("name", "content", "known"), [(n, *v) for n, v in FILES.items()], ids=list(FILES))
def test_a_file_is_a_text_by_its_ending(tmp_path: Path, name: str, content: str, known: bool) -> None:
    (tmp_path / name).write_text(content, "utf-8")
    assert text.sniff(tmp_path / name) is known


def test_a_file_is_a_text_by_its_bytes_too(tmp_path: Path) -> None:
    for content, known in (
        (b"\xff\xfea\0", True),
        ("größe".encode("latin-1"), False),
        (b"a\0b", False),
        (b"x" * (text.SNIFFED - 1) + "ß".encode() + b"x", True),
        (b"x" * (text.SNIFFED - 2) + "🐜".encode(), True),
        (b"x" * 100 + b"\xc3(" + b"x" * 9000, False),
    ):
        (tmp_path / "a.txt").write_bytes(content)
        assert text.sniff(tmp_path / "a.txt") is known, content[:20]


@pytest.mark.timeout(10)
def test_what_is_no_file_is_no_text_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "folder.txt").mkdir()
    for name in ("pipe.txt", "folder.txt", "none.txt", "x" * 300 + ".txt"):
        assert not text.sniff(tmp_path / name)


def test_a_file_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("größe\r\n🐜".encode())
    assert text.read(tmp_path / "a.txt") == "größe\r\n🐜"
    (tmp_path / "a.txt").write_bytes("größe\r\n🐜".encode("utf-16"))
    assert text.read(tmp_path / "a.txt") == "größe\r\n🐜"


def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("größe".encode("latin-1"))
    with pytest.raises(
        DataError, match=r"a text cannot be read · saw: .*latin\.txt: it is not UTF-8 · allowed: a file in UTF"
    ):
        text.read(tmp_path / "latin.txt")
    with pytest.raises(DataError, match=r"none\.txt: .*No such file"):
        text.read(tmp_path / "none.txt")


# ---------------------------------------------------------------- what a folder says


def settings(folder: Path) -> dict[str, Any]:
    return dict(text.described(folder).settings)


def test_a_folder_says_how_it_wants_its_texts(home: Path) -> None:
    assert settings(home / "bert") == {
        "limit": 64,
        "max_tokens": 64,
        "long": "cut",
        "vocabulary": 60,
        "pad": 0,
        "kinds": True,
    }
    assert settings(home / "minilm")["max_tokens"] == 24, "what sentence_bert_config.json says"
    assert settings(home / "minilm")["limit"] == 64
    assert settings(home / "roberta")["limit"] == 64, "two of its positions are no tokens"
    assert settings(home / "roberta")["pad"] == 1 and not settings(home / "roberta")["kinds"]
    assert settings(home / "gpt2")["pad"] == 0 and settings(home / "llama")["pad"] == 2, "the end, where nothing fills"


def edited(folder: Path, name: str, changes: dict[str, Any]) -> None:
    path = folder / name
    kept = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    path.write_text(json.dumps(kept | changes), "utf-8")


@pytest.mark.parametrize(
    ("name", "changes", "limit", "used"),
    [
        ("tokenizer_config.json", {"model_max_length": 40}, 40, 40),
        ("tokenizer_config.json", {"model_max_length": 10**30}, 64, 64),
        ("config.json", {"max_position_embeddings": 5000}, 64, 64),
        ("sentence_bert_config.json", {"max_seq_length": 20}, 64, 20),
        ("sentence_bert_config.json", {"max_seq_length": 200}, 64, 64),
        ("sentence_bert_config.json", {"max_seq_length": None}, 64, 64),
    ],
)
def test_the_shortest_of_what_is_said_counts(
    tmp_path: Path, name: str, changes: dict[str, Any], limit: int, used: int
) -> None:
    checkpoints.ALL["bert"](tmp_path)
    edited(tmp_path, name, changes)
    found = settings(tmp_path)
    assert (found["limit"], found["max_tokens"]) == (limit, used)


def test_long_texts_are_cut_at_256_by_default(tmp_path: Path) -> None:
    checkpoints.ALL["bert"](tmp_path)
    edited(tmp_path, "config.json", {"max_position_embeddings": 512})
    edited(tmp_path, "tokenizer_config.json", {"model_max_length": 512})
    assert (settings(tmp_path)["limit"], settings(tmp_path)["max_tokens"]) == (512, 256)


def test_the_vocabulary_is_part_of_the_specification(home: Path, tmp_path: Path) -> None:
    checkpoints.ALL["bert"](tmp_path)
    assert text.described(tmp_path) == text.described(home / "bert")
    edited(tmp_path, "tokenizer_config.json", {"padding_side": "left"})
    assert text.described(tmp_path).vocab != text.described(home / "bert").vocab


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    checkpoints.ALL["bert"](tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"not known how this model wants its texts · saw: no tokenizer in "):
        text.described(tmp_path)


def test_a_broken_tokenizer_is_refused(tmp_path: Path) -> None:
    checkpoints.ALL["bert"](tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(
        ModelError, match=r"the tokenizer of this model cannot be opened · saw: .*check the folder with"
    ):
        text.described(tmp_path)


@pytest.mark.parametrize(
    "given", [{"max_tokens": 65}, {"max_tokens": 7}, {"max_tokens": 1}, {"max_tokens": -3}], ids=str
)
def test_lengths_that_cannot_be_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        text.adjust(spec(64), Options("d", "m", **given))
    assert caught.value.what == "this model cannot take texts of that length"
    assert caught.value.saw == f"--max-tokens {given['max_tokens']}" and caught.value.allowed == "8 to 64"


@pytest.mark.parametrize("length", [0, 8, 64])
@pytest.mark.parametrize("long", ["cut", "ends", "windows"])
def test_what_is_asked_for_stands_in_the_specification(length: int, long: Any) -> None:
    found = text.adjust(spec(32), Options("d", "m", long=long, max_tokens=length))
    assert found.setting("long", "") == long and found.setting("max_tokens", 0) == (length or 32)
    kept = {k: v for k, v in spec(32).settings if k not in ("long", "max_tokens")}
    assert {k: v for k, v in found.settings if k not in ("long", "max_tokens")} == kept
    assert list(found.settings) == sorted(found.settings)


# ---------------------------------------------------------------- noise


@pytest.mark.parametrize("pad", [0, 17, 59])
def test_noise_holds_no_padding_inside_its_mask(pad: int) -> None:
    batch = text.noise(spec(64, pad=pad), 200, 3)
    ids, mask = batch["input_ids"], batch["attention_mask"].bool()
    assert ids.shape == (200, 32) and (ids[mask] != pad).all() and (ids[~mask] == pad).all()
    assert int(ids.min()) >= 0 and int(ids.max()) < 60
    assert mask.sum(1).tolist() == [28 if i % 3 == 2 else 32 for i in range(200)]
    assert batch["token_type_ids"].eq(0).all()


def test_noise_follows_its_seed_and_what_the_network_takes() -> None:
    one, same, other = (text.noise(spec(20, kinds=False), 4, seed) for seed in (1, 1, 2))
    assert set(one) == {"input_ids", "attention_mask"} and one["input_ids"].shape == (4, 20)
    assert torch.equal(one["input_ids"], same["input_ids"]) and not torch.equal(one["input_ids"], other["input_ids"])


# ---------------------------------------------------------------- what a bundle carries


def test_a_bundle_carries_the_tokenizer_and_the_length_that_was_used(home: Path) -> None:
    found = text.carried(home / "bert", spec(24))
    assert set(found) == {"tokenizer.json", "tokenizer_config.json"}
    assert found["tokenizer.json"] == (home / "bert" / "tokenizer.json").read_bytes()
    told, before = (
        json.loads(x) for x in (found["tokenizer_config.json"], (home / "bert" / "tokenizer_config.json").read_bytes())
    )
    assert told == before | {"model_max_length": 24, "padding_side": "right", "truncation_side": "right"}


@pytest.mark.parametrize(("name", "filler"), [("gpt2", "<|endoftext|>"), ("llama", "</s>")])
def test_a_tokenizer_without_a_padding_token_gets_the_end(home: Path, tmp_path: Path, name: str, filler: str) -> None:
    from transformers import AutoTokenizer

    for file, data in text.carried(home / name, spec(24)).items():
        (tmp_path / file).write_bytes(data)
    opened = AutoTokenizer.from_pretrained(str(tmp_path), local_files_only=True)
    assert opened.pad_token == filler and opened.model_max_length == 24
    assert opened.pad_token_id == dict(text.described(home / name).settings)["pad"]
    assert text.tokens_of(str(home / name)).pad_token is None, "the model's own tokenizer is as it was"
    mask = opened([words(3), words(9)], padding=True)["attention_mask"]
    assert sum(mask[0]) < len(mask[0]) == sum(mask[1])


def test_a_padding_token_that_is_there_is_kept(home: Path) -> None:
    told = json.loads(text.carried(home / "roberta", spec(24))["tokenizer_config.json"])
    assert told["pad_token"] == "<pad>"


# ---------------------------------------------------------------- lines


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2", "llama"])
@pytest.mark.parametrize("long", ["ends", "windows"])
@pytest.mark.parametrize("count", [3, 14, 15, 30, 200])
def test_the_lines_of_a_readme_make_the_same_ids(home: Path, tmp_path: Path, name: str, long: str, count: int) -> None:
    from transformers import AutoTokenizer

    source = home / name
    wanted = text.adjust(text.described(source), Options("d", "m", long=long, max_tokens=13))  # type: ignore[arg-type]
    for file, data in text.carried(source, wanted).items():
        (tmp_path / file).write_bytes(data)
    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path), local_files_only=True)
    space: dict[str, Any] = {"torch": torch, "tokenizer": tokenizer, "text": words(count)}
    exec("\n".join(text.lines(wanted, str(source))), space)
    batch = {k: np.asarray(v) for k, v in space["batch"].items()}
    assert set(batch) <= {"input_ids", "attention_mask", "token_type_ids"}
    theirs = [row[mask == 1].tolist() for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]
    (found,) = text.encoder(wanted, False, str(source)).parts([words(count)])
    assert theirs == [part.ids.tolist() for part, _ in found]


@pytest.mark.parametrize("long", ["ends", "windows"])
@pytest.mark.parametrize("cell", [("a the", "rose"), (words(20), words(9, 3))], ids=["short", "long"])
def test_the_lines_of_a_readme_cut_a_pair_as_we_do(home: Path, long: str, cell: tuple[str, str]) -> None:
    """Native pooling reads a pair as one sequence, which is cut whatever is asked for."""
    source = home / "bert"
    wanted = text.adjust(text.described(source), Options("d", "m", long=long, max_tokens=13))  # type: ignore[arg-type]
    space: dict[str, Any] = {"torch": torch, "tokenizer": text.tokens_of(str(source)), "text": cell}
    exec("\n".join(text.lines(wanted, str(source))), space)
    ((part, _),) = text.encoder(wanted, False, str(source)).parts([cell])[0]
    assert space["batch"]["input_ids"].tolist() == [part.ids.tolist()]
    assert space["batch"]["token_type_ids"].tolist() == [part.kinds.tolist()]


def test_a_bundle_fills_up_on_the_right_as_we_do(tmp_path: Path) -> None:
    """GPT-2 counts positions from the left whatever is masked, and many of its checkpoints fill up there."""
    checkpoints.ALL["gpt2"](tmp_path)
    edited(tmp_path, "tokenizer_config.json", {"padding_side": "left"})
    told = json.loads(text.carried(tmp_path, spec(24))["tokenizer_config.json"])
    assert told["padding_side"] == "right"


def test_a_text_without_a_token_gives_finite_numbers(tmp_path: Path) -> None:
    """Nothing but padding: GPT-2 marks neither beginning nor end."""
    from regraft.providers import transformers as provider

    checkpoints.ALL["gpt2"](tmp_path)
    view = provider.load(str(tmp_path), "text")
    encode = text.encoder(view.inputs, False, view.source)
    batch = encode.tensors([part for row in encode.parts(["", "a rose"]) for part, _ in row])
    with torch.no_grad():
        for pooling in ("native", "mean"):
            assert view.pooled(pooling).run(batch).isfinite().all(), pooling
