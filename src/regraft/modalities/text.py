"""Texts and pairs of texts: tokenized as the backbone expects, padded to a length that the text alone decides."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from regraft.errors import DataError, ModelError, UsageError
from regraft.kit import durable, places
from regraft.waist import Encoder, Flag, InputSpec, Look, Options, Row, Scalar, Seen

if TYPE_CHECKING:
    import numpy
    from torch import Tensor

NOUN = "texts"
EXAMPLE = "a text"
LITERAL = True
"""A string is a text; a picture's string is a path."""
TOKENS = True
AUGMENTS: dict[str, int] = {}
"""A cell becomes a row of tokens with a mask, so a mean over them can be the features."""
ENDINGS = (".txt", ".md", ".text")
POLICY = 1
"""The version of what is made of a text: part of the trunk cache's address."""
CARE = ""
PLAIN = "tfidf"
"""The provider of features that need no network."""
AUTO = "AutoModelForSequenceClassification"
PIPELINE = "text-classification"
FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt"),
    *("vocab.json", "merges.txt", "spm.model", "tokenizer.model", "sentencepiece.bpe.model"),
)
SHORTEST, NOMINAL, LONGEST = 16, 32, 256
WINDOWS = 16
SNIFFED = 4096
UTF16 = (b"\xff\xfe", b"\xfe\xff")
"""The marks that a file in UTF-16 begins with."""
SHOWN = 280
FEW, SHARED = 12, 0.7
"""Of fewer words only equal ones make texts alike; of more, this share of all runs of three words."""
SPLIT, UNKNOWN, SAMPLE = 1.45, 0.05, 2000
"""Tokens a word, or a share of unknown ones, from which a tokenizer was made for other texts; texts looked at."""


class Tokens(NamedTuple):
    """A part of a text as the network takes it: token ids [t], and which text of a pair each belongs to [t]."""

    ids: numpy.ndarray
    kinds: numpy.ndarray
    size: int


def sniff(cell: Any) -> bool:
    """Whether a cell is a text: a file with a text's ending in UTF-8 or with the mark of UTF-16, any string, or two."""
    if isinstance(cell, Path):
        try:
            if cell.suffix.lower() not in ENDINGS or not places.is_file(cell):
                return False
            head = places.head(cell, SNIFFED)
        except OSError:
            return False
        if head.startswith(UTF16):
            return True
        try:
            head.decode("utf-8")
        except UnicodeDecodeError as error:
            return error.start >= SNIFFED - 4  # a character cut in two by the end of what was read
        return b"\0" not in head
    if isinstance(cell, tuple):
        return len(cell) == 2 and all(isinstance(side, str) for side in cell)
    return isinstance(cell, str)


def look(cell: Any) -> Look:
    """Whether a text can be read and says anything, its length in characters, and a sketch of its words.

    >>> one, other = look("Good."), look("  good !")
    >>> one.size, one.sketch == other.sketch, look("  ").problem
    ((5,), True, 'it has no text')
    """
    try:
        text = " ".join(_plain(side) for side in (cell if isinstance(cell, tuple) else (cell,)))
    except DataError as error:
        return Look(error.saw.partition(": ")[2] or error.what)
    return Look("", (len(text),), _sketch(text)) if text.strip() else Look("it has no text", (len(text),))


def _words(text: str) -> list[str]:
    """A text's words without case and punctuation; one that has none is its own only word."""
    plain = (text if text.isascii() else unicodedata.normalize("NFKC", text)).casefold()
    return re.findall(r"\w+", plain) or ["".join(plain.split())]


def _sketch(text: str) -> int:
    """64 bits of a text's words: eight bytes of min-hashes over runs of three words; of few words a hash of them all.

    A share s of equal runs leaves s of the bytes equal (Broder 1997; b-bit: Li & König 2010).
    """
    import numpy

    words = _words(text)
    if len(words) < FEW:
        return int.from_bytes(hashlib.blake2b(" ".join(words).encode("utf-8", "surrogatepass"), digest_size=8).digest())
    found = [zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in words]
    at, odd = numpy.array(found, numpy.uint64), numpy.uint64(0x9E3779B97F4A7C15)
    runs = (at[:-2] * odd ^ at[1:-1]) * odd ^ at[2:]
    runs = (runs ^ runs >> numpy.uint64(29)) * numpy.uint64(0xBF58476D1CE4E5B9)
    least = (((runs ^ runs >> numpy.uint64(32))[:, None] ^ _salts()) * odd).min(0) * odd
    return int.from_bytes((least >> numpy.uint64(56)).astype(numpy.uint8).tobytes(), "big")


@cache
def _salts() -> numpy.ndarray:
    """Eight fixed numbers, one for each min-hash."""
    import numpy

    return numpy.random.default_rng(20).integers(1, 1 << 63, 8).astype(numpy.uint64)


def alike(cells: Sequence[Any], pairs: Sequence[tuple[int, int]]) -> list[bool]:
    """Which pairs of these cells are one text twice, up to case, blanks and punctuation, or edited in a few places.

    Long texts may differ in words as long as `SHARED` of their runs of three words are equal; both texts of a pair must
    be alike. Seen on nine sets: from 0.7 on, texts of `FEW` words and more are news with another byline, questions with
    a word added, reviews with a typing error; shorter ones are often told apart by one word ("top up my limit", "… my
    card"), at any share.

    >>> alike(["It's fine.", "its fine", "It s  fine"], [(0, 1), (0, 2)])
    [False, True]
    """
    known: dict[int, list[tuple[list[str], set[tuple[str, ...]]]]] = {}

    def sides(at: int) -> list[tuple[list[str], set[tuple[str, ...]]]]:
        if at not in known:
            cell = cells[at]
            worded = [_words(_plain(side)) for side in (cell if isinstance(cell, tuple) else (cell,))]
            known[at] = [(words, set(zip(words, words[1:], words[2:], strict=False))) for words in worded]
        return known[at]

    def same(one: tuple[list[str], set[tuple[str, ...]]], other: tuple[list[str], set[tuple[str, ...]]]) -> bool:
        if one[0] == other[0] or min(len(one[0]), len(other[0])) < FEW:
            return one[0] == other[0]
        return len(one[1] & other[1]) >= SHARED * len(one[1] | other[1])

    return [all(map(same, sides(i), sides(j))) for i, j in pairs]


def unsuited(seen: Seen) -> list[Flag]:
    """A note where the backbone's tokenizer was made for other texts: many tokens a word, or many it does not know.

    Of a word or sign of English MiniLM's tokenizer makes 1.0 to 1.1 tokens, of medical abstracts 1.3, of French 1.5, of
    German 1.9, of Russian 3.5. Words without blanks between them, as in Chinese, are judged by unknown tokens alone.
    """
    if seen.encoder is None or seen.inputs is None or not seen.inputs.setting("vocabulary", 0):
        return []
    train = seen.data.train
    rows = train[:: max(1, len(train) // SAMPLE)][:SAMPLE]
    words = tokens = unknown = letters = 0
    worst: list[tuple[float, str]] = []
    longest = int(seen.inputs.setting("max_tokens", LONGEST))
    for row, found in zip(rows, seen.encoder.parts([row.cell for row in rows]), strict=True):
        ids = found[0][0].ids
        if len(found) > 1 or len(ids) >= longest:
            continue  # cut: its tokens say nothing of its words
        said = [word for side in (row.cell if isinstance(row.cell, tuple) else (row.cell,)) for word in _said(side)]
        missed = int((ids == seen.encoder.unknown).sum())
        words, tokens, unknown = words + len(said), tokens + len(ids) - 2, unknown + missed
        letters += sum(map(len, said))
        worst.append((-(missed + (len(ids) - 2) / max(len(said), 1)), row.id))
    split, missing, spaced = tokens / max(words, 1), unknown / max(tokens, 1), letters < 12 * words
    if not words or not (missing > UNKNOWN or (split > SPLIT and spaced)):
        return []
    text = f"the tokenizer makes {split:.1f} tokens of a word or sign, where plain English has 1.1"
    if missing > UNKNOWN:
        text = f"the tokenizer does not know {missing:.0%} of the tokens of these texts"
    advice = "a backbone made for this language or subject may do better; longer texts are cut sooner, see --max-tokens"
    some = tuple(name for _, name in sorted(worst)[:3])
    return [Flag("tokens", "note", unknown if missing > UNKNOWN else tokens, tokens, text, some, advice)]


def _said(text: Any) -> list[str]:
    """The words and signs of a text."""
    return re.findall(r"\w+|[^\w\s]", _plain(text))


def read(path: Path) -> str:
    """A text file's content.

    Raises: DataError: it cannot be read, or is neither UTF-8 nor UTF-16 with its mark.
    """
    try:
        raw = places.read_bytes(path)
        return raw.decode("utf-16" if raw.startswith(UTF16) else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror or str(error)
        raise DataError(
            "a text cannot be read", saw=f"{path}: {why}", allowed="a file in UTF-8", do="convert or remove it"
        ) from error


def loosened(spec: InputSpec, rows: Sequence[Row]) -> tuple[InputSpec, str]:
    """The specification itself: texts are read whole at any precision."""
    return spec, ""


def grain(spec: InputSpec) -> float:
    """Nothing: all libraries make the same numbers of a text."""
    return 0.0


def portable(cell: Path) -> bytes:
    """A text file's content in UTF-8.

    Raises: DataError: as `read`.
    """
    return read(cell).encode()


def shown(cell: Any) -> tuple[str, bytes]:
    """A cell as a reader of a report sees it: the beginning of its text, a line for each text of a pair; no picture.

    Raises: DataError: a file cannot be read.

    >>> shown(("a  long\\nline", "another"))
    ('a long line\\nanother', b'')
    """
    sides = _plain(cell) if isinstance(cell, tuple) else (_plain(cell),)
    return "\n".join(_excerpt(side) for side in sides), b""


def described(folder: Path) -> InputSpec:
    """The tokenizer of a folder in Hugging Face layout as an input specification.

    `shape` is one example of nominal length; settings: `limit` (most tokens the network takes), `max_tokens` (most that
    are used), `long` (what becomes of the rest), `vocabulary` (how many ids), `pad` (the id that fills up), `kinds`
    (whether the network is told which text of a pair a token belongs to).

    Raises: ModelError: there is no tokenizer.
    """
    if not any((folder / name).is_file() for name in FILES if name != "tokenizer_config.json"):
        raise ModelError(
            "it is not known how this model wants its texts",
            saw=f"no tokenizer in {folder}",
            allowed="a text model with its tokenizer.json",
            do="put the files of the original model beside the weights; if it is no text model, choose one",
        )
    tokenizer = tokens_of(str(folder))
    from transformers import AutoConfig

    config: Any = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    config = config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None) or 1 << 20
    if config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet"):
        positions -= 2  # these count positions from the padding id on
    limit = min(int(positions), int(tokenizer.model_max_length))
    usual = _usual_length(folder) or LONGEST
    pad = tokenizer.pad_token_id
    settings: dict[str, Scalar] = {
        "limit": min(limit, 1 << 20),
        "max_tokens": min(limit, usual),
        "long": "cut",
        "vocabulary": int(config.vocab_size),
        "pad": int(pad if pad is not None else tokenizer.eos_token_id or 0),
        "kinds": "token_type_ids" in tokenizer.model_input_names and getattr(config, "type_vocab_size", 0) > 1,
    }
    return InputSpec("text", (NOMINAL,), vocab=_vocabulary(str(folder)), settings=tuple(sorted(settings.items())))


def adjust(spec: InputSpec, options: Options) -> InputSpec:
    """The specification with what the user asked for: how long texts may be, and what becomes of longer ones.

    Raises: UsageError: more tokens than the network takes, or too few to hold anything.
    """
    limit = int(spec.setting("limit", LONGEST))
    if options.max_tokens and not 8 <= options.max_tokens <= limit:
        raise UsageError(
            "this model cannot take texts of that length",
            saw=f"--max-tokens {options.max_tokens}",
            allowed=f"8 to {limit}",
            do="--long ends or --long windows keeps more of long texts",
        )
    wanted = dict(spec.settings) | {"long": options.long}
    if options.max_tokens:
        wanted["max_tokens"] = options.max_tokens
    return replace(spec, settings=tuple(sorted(wanted.items())))


def noise(spec: InputSpec, rows: int, seed: int) -> dict[str, Tensor]:
    """A batch of random token ids [rows, 32], none of them padding but at the end of every third row."""
    import numpy
    import torch

    draw = numpy.random.default_rng(seed)
    pad, length = int(spec.setting("pad", 0)), min(NOMINAL, int(spec.setting("max_tokens", NOMINAL)))
    ids = draw.integers(0, int(spec.setting("vocabulary", 2)), (rows, length))
    ids[ids == pad] = (pad + 1) % int(spec.setting("vocabulary", 2))
    mask = numpy.arange(length) < (length - 4 * (numpy.arange(rows) % 3 == 2))[:, None]
    batch = {
        "input_ids": torch.from_numpy(numpy.where(mask, ids, pad)),
        "attention_mask": torch.from_numpy(mask).long(),
    }
    if spec.setting("kinds", False):
        batch["token_type_ids"] = torch.zeros_like(batch["input_ids"])
    return batch


def encoder(spec: InputSpec, train: bool, source: str) -> Encoder:
    """Cells to token ids, with the tokenizer of the folder `source`; a cell is a text, a pair of texts or a text file.

    A part's size is the next of 16, 32, 64, 128 … above its own length, so it depends on the text alone. What is
    longer than the setting `max_tokens` is cut at its end, or in its middle (`long` "ends"), or read in windows that
    overlap by a quarter ("windows", 16 at most, all padded to the full length). A pair is cut where it is longest.
    """
    import numpy
    import torch

    tokenizer = tokens_of(source)
    longest, long, pad = (
        int(spec.setting("max_tokens", LONGEST)),
        spec.setting("long", "cut"),
        int(spec.setting("pad", 0)),
    )
    known: dict[Any, list[Tokens]] = {}
    lengths: dict[Any, int] = {}

    def learn(cells: Sequence[Any]) -> None:
        """Tokenize the cells that were not seen before."""
        fresh = list({cell: None for cell in map(_plain, cells) if cell not in known})
        for pair in (False, True):
            some = [cell for cell in fresh if isinstance(cell, tuple) is pair]
            if not some:
                continue
            asked: list[Any] = [list(side) for side in zip(*some, strict=True)] if pair else [some]
            whole = tokenizer(*asked, return_special_tokens_mask=True, return_attention_mask=False, verbose=False)
            kinds = whole.get("token_type_ids") or [[0] * len(ids) for ids in whole["input_ids"]]
            for i, cell in enumerate(some):
                ids, kind = whole["input_ids"][i], kinds[i]
                lengths[cell] = len(ids)
                if len(ids) > longest and pair:
                    cut = tokenizer(*cell, truncation="longest_first", max_length=longest)
                    ids, kind = cut["input_ids"], cut.get("token_type_ids") or [0] * longest
                    pieces = [(ids, kind)]
                elif len(ids) > longest:
                    pieces = _pieces(ids, kind, whole["special_tokens_mask"][i], longest, str(long))
                else:
                    pieces = [(ids, kind)]
                full = longest if len(pieces) > 1 else 0
                known[cell] = [
                    Tokens(numpy.array(a, numpy.int32), numpy.array(b, numpy.int32), full or size(len(a), longest))
                    for a, b in pieces
                ]

    def parts(cells: Sequence[Any]) -> list[list[tuple[Any, int]]]:
        learn(cells)
        return [[(part, part.size) for part in known[_plain(cell)]] for cell in cells]

    def tensors(found: Sequence[Any]) -> dict[str, Tensor]:
        (length,) = {part.size for part in found}  # parts of two sizes in a batch would be a bug
        ids = numpy.full((len(found), length), pad, numpy.int64)
        kinds, mask = numpy.zeros_like(ids), numpy.zeros_like(ids)
        for i, part in enumerate(found):
            ids[i, : len(part.ids)], kinds[i, : len(part.ids)], mask[i, : len(part.ids)] = part.ids, part.kinds, 1
        batch = {"input_ids": ids, "attention_mask": mask}
        if spec.setting("kinds", False):
            batch["token_type_ids"] = kinds
        return {name: torch.from_numpy(array) for name, array in batch.items()}

    def told(cells: Sequence[Any]) -> tuple[str, ...]:
        learn(cells)
        plain = [_plain(cell) for cell in cells]
        sizes = Counter(known[cell][0].size for cell in plain)
        notes = ["texts are padded to " + ", ".join(f"{n} tokens ({sizes[n]:,})" for n in sorted(sizes))]
        if over := sum(lengths[cell] > longest for cell in plain):
            pair = any(isinstance(cell, tuple) for cell in plain)
            done = {"ends": "their middle is left out", "windows": "windows of them are averaged"}.get(str(long), "")
            notes.append(
                f"{over:,} of {len(cells):,} are longer than {longest} tokens: "
                + (done if done and not pair else "their end is cut off (--long ends or windows, --max-tokens)")
            )
        return tuple(notes)

    unknown = tokenizer.unk_token_id
    return Encoder(parts, tensors, told, -1 if unknown is None else int(unknown))


def size(length: int, longest: int) -> int:
    """The padded length of a part: the next power of two from 16 on, and never above `longest`.

    >>> [size(n, 200) for n in (3, 16, 17, 120, 150)]
    [16, 16, 32, 128, 200]
    """
    padded = SHORTEST
    while padded < length:
        padded *= 2
    return min(padded, longest)


def tokens_of(folder: str) -> Any:
    """The tokenizer of a folder in Hugging Face layout, as it is now; it says nothing of texts that are too long.

    Raises: ModelError: transformers cannot open it.
    """
    return _opened(folder, _vocabulary(folder))


def _vocabulary(folder: str) -> str:
    """SHA-256 over the files of a tokenizer."""
    told = [durable.file_digest(Path(folder) / name) for name in FILES if (Path(folder) / name).is_file()]
    return durable.digest("".join(told).encode())


@cache
def _opened(folder: str, _vocabulary: str) -> Any:
    """The tokenizer that these files make: opened once, and again when one of them has changed."""
    from regraft.kit import hardware

    hardware.quiet_libraries()
    try:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        tokenizer.padding_side = tokenizer.truncation_side = "right"
    except Exception as error:  # whatever a broken folder leads the library to
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            "the tokenizer of this model cannot be opened",
            saw=f"{folder}: {first[:200]}",
            allowed="a tokenizer that transformers opens",
            do="check the folder with transformers alone",
        ) from error
    return tokenizer


def carried(folder: Path, spec: InputSpec) -> dict[str, bytes]:
    """The tokenizer's files for a bundle: as they are, but for the length at which texts are cut."""
    found = {name: (folder / name).read_bytes() for name in FILES if (folder / name).is_file()}
    told = json.loads(found.get("tokenizer_config.json", b"{}"))
    told |= {"model_max_length": int(spec.setting("max_tokens", LONGEST)), "padding_side": "right"}
    told["truncation_side"] = "right"
    if not told.get("pad_token") and tokens_of(str(folder)).pad_token is None:
        told["pad_token"] = tokens_of(str(folder)).eos_token
    found["tokenizer_config.json"] = json.dumps(told, indent=2, ensure_ascii=False).encode()
    return found


def lines(spec: InputSpec, source: str, alone: str = "") -> list[str]:
    """Python lines that make `batch` of one `text` with `tokenizer`, where long texts are not simply cut.

    `alone` is how a text is called that is never a pair; without it a tuple is read as a pair, which is cut.
    """
    longest = int(spec.setting("max_tokens", LONGEST))
    special = tokens_of(source)("a", return_special_tokens_mask=True)["special_tokens_mask"]
    first, last = special.index(0), special[::-1].index(0)
    room, name = longest - first - last, alone or "text"
    if spec.setting("long", "cut") == "windows":
        how = f"truncation=True, max_length={longest}, stride={room // 4}, return_overflowing_tokens=True, padding=True"
        made = [
            f'batch = tokenizer({name}, {how}, return_tensors="pt")',
            f'batch = {{k: v[:{WINDOWS}] for k, v in batch.items() if k != "overflow_to_sample_mapping"}}',
        ]
    else:
        head, tail = first + room - room // 2, room // 2 + last
        made = [
            f'batch = tokenizer({name}, return_tensors="pt")',
            f"if batch['input_ids'].shape[1] > {longest}:",
            f"    batch = {{k: torch.cat([v[:, :{head}], v[:, -{tail}:]], 1) for k, v in batch.items()}}",
        ]
    if alone:
        return made
    pair = f'    batch = tokenizer(*text, truncation=True, max_length={longest}, return_tensors="pt")'
    return ["if type(text) is tuple:", pair, "else:", *("    " + line for line in made)]


def _plain(cell: Any) -> Any:
    return read(cell) if isinstance(cell, Path) else cell


def _pieces(
    ids: list[int], kinds: list[int], special: list[int], longest: int, long: str
) -> list[tuple[list[int], list[int]]]:
    """A text that is too long, as parts of at most `longest` tokens, each with the special tokens of the whole."""
    first = next((i for i, s in enumerate(special) if not s), 0)
    last = len(special) - next((i for i, s in enumerate(reversed(special)) if not s), 0)
    body, room = last - first, longest - first - (len(ids) - last)
    if long == "windows":
        step = room - room // 4
        starts = range(0, min(body - room // 4, step * WINDOWS), step)
        spans = [[(s, min(s + room, body))] for s in starts]
    elif long == "ends":
        spans = [[(0, room - room // 2), (body - room // 2, body)]]
    else:
        spans = [[(0, room)]]
    made = []
    for pieces in spans:
        at = [*range(first), *(first + i for a, b in pieces for i in range(a, b)), *range(last, len(ids))]
        made.append(([ids[i] for i in at], [kinds[i] for i in at]))
    return made


def _usual_length(folder: Path) -> int:
    """How many tokens a sentence encoder was made for, where its folder says so."""
    try:
        return int(json.loads((folder / "sentence_bert_config.json").read_bytes()).get("max_seq_length") or 0)
    except (OSError, ValueError, TypeError):
        return 0


def _excerpt(text: str) -> str:
    """The first words of a text in one line, `SHOWN` characters at most."""
    line = " ".join(text[: 8 * SHOWN].split())
    return line if len(line) <= SHOWN else line[: SHOWN - 1].rstrip() + "…"
