"""Read table files as columns of text: CSV, TSV, JSON, JSON lines, Parquet, Arrow; nothing is taken for a number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from regraft.data.arrow import arrow_file
from regraft.data.decode import WAYS_OUT, content, decoded, kind_of, note_of
from regraft.data.delimited import NOT_UTF8, Parsed, delimited
from regraft.data.values import DECODER, from_json, is_utf8
from regraft.errors import DataError
from regraft.kit import places
from regraft.waist import Bad, Look

TEXTS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
ENDINGS = (*TEXTS, ".parquet", ".arrow")
PACKED = (".gz", ".bz2", ".xz")
"""A table of text may be packed, whether its name says so or not."""
FIELD = 4 << 20
"""A longer text is no cell."""
NO_JSON, NO_OBJECT, TOO_LONG = "it is no JSON", "it is no JSON object", "it has a cell of more than 4 MiB"


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of equal length, and an id for every row; cells are text wherever text, numbers or truth values stood.

    A missing cell is None, in CSV an empty text. Paths in it are relative to `folder` and stay inside `root`; None
    stands for wherever the program runs. `keys` and `looks` are fingerprints of the rows' content and what was seen of
    it, where that is known already. `file` is the table's name, empty where each id is a file's; `bad` are rows and
    files that cannot be read, in a split that is not known here; `notes` say what was decided on the way.
    """

    ids: Sequence[str]
    columns: Mapping[str, Sequence[Any]]
    folder: Path | None = None
    root: Path | None = None
    keys: Sequence[str] = ()
    looks: Sequence[Look] = ()
    file: str = ""
    bad: Sequence[Bad] = ()
    notes: Sequence[str] = ()

    def only(self, keep: Sequence[int]) -> Table:
        """The table with these rows alone."""
        columns = {name: [values[i] for i in keep] for name, values in self.columns.items()}
        keys = [self.keys[i] for i in keep if self.keys]
        looks = [self.looks[i] for i in keep if self.looks]
        return replace(self, ids=[self.ids[i] for i in keep], columns=columns, keys=keys, looks=looks)


def bad_row(table: Table, split: str, at: int, why: str) -> Bad:
    """The row at position `at` as one that cannot be used: by the row that its id tells, or as a file."""
    name = table.ids[at]
    return Bad(split, table.file, int(name.rpartition(":")[2]), why) if table.file else Bad(split, name, 0, why)


def read_table(path: Path, root: Path | None = None, name: str = "") -> Table:
    """Read one table file; ids are `<name>:<row from 1>`, by default with the file's stem.

    Rows that cannot be read are left out and stand in `bad`; the others keep their numbers.

    Raises: DataError: no table, two columns of one name, or no row that can be read.
    """
    file = path.relative_to(root).as_posix() if root and path.is_relative_to(root) else path.name
    try:
        parsed = _parsed(path, file)
    except OSError as error:
        raise DataError(
            "a table may not be read",
            saw=f"{path}: {error.strerror or error}",
            allowed="a file that you may read",
            do="change its permissions, or copy it",
        ) from error
    _leave_out_long(parsed)
    if parsed.bad and not parsed.rows:
        raise DataError(
            "a table has no row that can be read",
            saw=f"{path}: {parsed.bad[0][1]}, in row {parsed.bad[0][0]} of {len(parsed.bad):,}",
            allowed="rows with a cell for each name in the header",
            do="check how it was written",
        )
    if not parsed.rows:
        some = f" with the columns {', '.join(list(parsed.columns)[:8])}" if parsed.columns else ""
        raise DataError(
            "a table has no rows", saw=f"{path}{some}", allowed="a header and rows", do="check how it was written"
        )
    bad = tuple(Bad("", file, row, why) for row, why in sorted(parsed.bad))
    ids = [f"{name or table_stem(path)}:{row}" for row in parsed.rows]
    return Table(ids, parsed.columns, path.parent, root or path.parent, file=file, bad=bad, notes=tuple(parsed.notes))


def make_table(columns: Mapping[str, Sequence[Any]], name: str, folder: Path | None, root: Path | None) -> Table:
    """A table of columns in memory, with ids `<name>:<row from 1>`."""
    rows = len(next(iter(columns.values()), ()))
    return Table([f"{name}:{i}" for i in range(1, rows + 1)], columns, folder, root)


def table_ending(path: Path) -> str:
    """The ending that says how a table is written, in small letters; "" for what is no table by its name.

    >>> table_ending(Path("a.CSV")), table_ending(Path("a.csv.gz")), table_ending(Path("a.gz"))
    ('.csv', '.csv', '')
    """
    ending = path.suffix.lower()
    if ending in PACKED:
        ending = Path(path.stem).suffix.lower()
        return ending if ending in TEXTS else ""
    return ending if ending in ENDINGS else ""


def table_stem(path: Path) -> str:
    """A table's name without its endings.

    >>> table_stem(Path("data/train.csv.gz"))
    'train'
    """
    return Path(path.stem).stem if path.suffix.lower() in PACKED and table_ending(path) else path.stem


def together(tables: Iterable[tuple[str, Table]]) -> tuple[list[Bad], list[str]]:
    """What cannot be read in tables of these splits, and their notes; tables that were cut from one share theirs."""
    bad: list[Bad] = []
    known: list[Sequence[Bad]] = []
    notes: dict[str, None] = {}
    for split, table in tables:
        notes |= dict.fromkeys(table.notes)
        if not any(table.bad is other for other in known):
            known.append(table.bad)
            bad += [replace(one, split=split) for one in table.bad]
    return bad, list(notes)


def _leave_out_long(parsed: Parsed) -> None:
    long = {
        i for cells in parsed.columns.values() for i, v in enumerate(cells) if isinstance(v, str) and len(v) > FIELD
    }
    if long:
        parsed.bad += [(parsed.rows[i], TOO_LONG) for i in long]
        keep = [i for i in range(len(parsed.rows)) if i not in long]
        parsed.rows = [parsed.rows[i] for i in keep]
        parsed.columns = {name: [cells[i] for i in keep] for name, cells in parsed.columns.items()}


def _parsed(path: Path, file: str) -> Parsed:
    ending = table_ending(path)
    if ending not in TEXTS:
        columns = arrow_file(path)
        return Parsed(columns, list(range(1, len(next(iter(columns.values()), ())) + 1)))
    raw = content(path)
    if kind := kind_of(raw):
        raise _another_kind(path, kind, WAYS_OUT.get(kind, "check what the file is"))
    text, encoding = decoded(raw, str(path))
    if ending in (".csv", ".tsv"):
        if _is_json(text):
            raise _another_kind(path, "JSON", "rename it to .jsonl, or to .json if it is a list")
        parsed = delimited(text, file, tab=ending == ".tsv")
    else:
        parsed = _json(path, text)
    parsed.notes[:0] = note_of(encoding, file)
    return parsed


def _another_kind(path: Path, kind: str, do: str) -> DataError:
    return DataError(f"behind the ending of a table is {kind}", saw=str(path), allowed=", ".join(ENDINGS), do=do)


# ---------------------------------------------------------------- JSON


def _is_json(text: str) -> bool:
    """Whether text that should be delimited begins with an object, or with a list of them."""
    begin = text[:4096].lstrip()
    if begin.startswith("["):
        return begin[1:].lstrip().startswith("{")
    if not begin.startswith("{"):
        return False
    try:
        return isinstance(DECODER.decode(text.lstrip().split("\n", 1)[0].strip()), dict)
    except (ValueError, RecursionError):
        return begin[1:].lstrip().startswith('"')


def _json(path: Path, text: str) -> Parsed:
    """Objects as a list or as lines; a column is every name that stands in any of them."""
    whole = text.lstrip().startswith("[")
    entries: list[Any] = []
    if whole:
        entries = _decode(text)
        if isinstance(entries, str):
            raise _no_objects(path, 1, entries)
    else:
        entries = [NOT_UTF8 if not is_utf8(line) else _decode(line) for line in text.split("\n") if line.strip()]
    made, found = Parsed(), []
    if len(entries) == 1 and isinstance(entries[0], dict) and (inner := _wrapped(entries[0])):
        whole, entries = True, entries[0][inner]
        made.notes.append(f"{path.name}: the rows are what stands under {inner!r}")
    for number, entry in enumerate(entries, 1):
        if isinstance(entry, dict) and (not whole or is_utf8(str(entry))):
            made.rows.append(number)
            found.append(entry)
        else:
            made.bad.append((number, entry if entry in (NO_JSON, NOT_UTF8) else NO_OBJECT))
    if entries and not any(isinstance(entry, dict) for entry in entries):
        raise _no_objects(path, 1, text.strip()[:40])
    names = list(dict.fromkeys(name for entry in found for name in entry))
    made.columns = {name: [from_json(entry.get(name)) for entry in found] for name in names}
    if "\\ud" in text.lower():  # half of a pair is no character: nothing later could encode it
        made.columns = {name: [_mended(value) for value in values] for name, values in made.columns.items()}
    return made


def _wrapped(entry: Mapping[str, Any]) -> str:
    """The one name of an object under which a list of objects stands; "" where there is none, or several."""
    lists = [name for name, held in entry.items() if isinstance(held, list) and held and isinstance(held[0], dict)]
    return lists[0] if len(lists) == 1 else ""


def _decode(text: str) -> Any:
    """What JSON says; the text NO_JSON where it is none."""
    try:
        return DECODER.decode(text.strip())
    except (ValueError, RecursionError):
        return NO_JSON


def _no_objects(path: Path, at: int, saw: str) -> DataError:
    return DataError(
        "a JSON file is no table",
        saw=f"{path}, row {at}: {saw}",
        allowed='an object per line, such as {"text": "…", "label": "…"}, or a list of them',
        do="write it as JSON lines",
    )


def _mended(value: Any) -> Any:
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if isinstance(value, str) else value


def table_files(folder: Path) -> list[Path]:
    """The table files right in a folder, by their endings, in sorted order."""
    return [p for p in places.listed(folder) if table_ending(p) and places.is_file(p) and p.name[0] != "."]
