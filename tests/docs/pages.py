"""The pages: their blocks, what is said of each, their links; and how a page's output is compared with a real one.

A block is a command or several (`regraft …`, or `make …`), a session (`$ ` before the command, its output below),
python, json or toml. A comment in the line before it says what else holds:

    <!-- not run: why -->            the block is no command, or nothing here can run it
    <!-- output not compared: why --> it is run, and only its exit code counts

Output is compared by shape: numbers, names of runs, paths from the root and blanks between cells are patterns, words
must match. `…` in a line of its own stands for any lines, in a line for any text. Lines that a clock prints
(`epoch 3: loss …`) are left out.
A line that begins with `{` is JSON: what the page shows must be among its keys.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^ *```(\w*)\s*$")
NOTE = re.compile(r"^<!-- (not run|output not compared): (\S.*) -->$")
COMMANDS = ("regraft", "make", "cat", "python", "$")
ANY = "…"

PATH = re.compile(r"(?<!\S)[~/]/?[\w.@-]+/\S*|(?<!\S)/[\w.@-]+(?!\S)")
RUN = re.compile(r"[\w.@-]+-[\w.@-]+-[0-9a-f]{6}\b")
NUMBER = re.compile(r"[-+]?\d+(,\d{3})*(\.\d+)?(e[-+]?\d+)?")
PASSING = re.compile(r"  (epoch \d+: loss|step \d+/\d+: loss|trunk: \d+/\d+|\d+/\d+ examples)")


@dataclass(frozen=True)
class Block:
    """A fenced block: its page relative to the root, the line of its fence, its info string, its text, its note."""

    page: str
    line: int
    info: str
    text: str
    note: str = ""
    why: str = ""

    @property
    def kind(self) -> str:
        """What is to be done with it; "" where nobody knows."""
        if self.note == "not run":
            return self.note
        if self.info in ("python", "json", "toml"):
            return self.info
        first = self.text.split(maxsplit=1)[:1]
        return "commands" if not self.info and first and first[0] in COMMANDS else ""


@dataclass
class Session:
    """A command, and the lines that stand below it; None where the page shows none."""

    command: str
    output: list[str] | None = None


def names() -> list[str]:
    """README.md and every page of docs/, relative to the root."""
    return ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))]


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return list(parsed(page, (ROOT / page).read_text("utf-8")))


def parsed(page: str, text: str) -> Iterator[Block]:
    """The fenced blocks of a text."""
    inside: list[str] | None = None
    lines, start, info = text.split("\n"), 0, ""
    for number, line in enumerate(lines, 1):
        fence = FENCE.match(line)
        if fence and inside is None:
            inside, start, info = [], number, fence[1]
        elif inside is not None and line.strip() == "```":
            said = NOTE.match(lines[start - 2]) if start > 1 else None
            yield Block(page, start, info, "\n".join(inside), *(said.groups() if said else ("", "")))
            inside = None
        elif inside is not None:
            inside.append(line)
    assert inside is None, f"{page}:{start}: this block never ends"


def sessions(block: Block) -> list[Session]:
    """The commands of a block: after `$ ` with their output, without it each line is one; `\\` at an end goes on."""
    lines = re.sub(r"\\\n\s*", "", block.text).split("\n")
    if not block.text.startswith("$ "):
        return [Session(line.strip()) for line in lines if line.strip()]
    found = []
    for said in re.split(r"^\$ ", "\n".join(lines), flags=re.MULTILINE)[1:]:
        command, *output = said.rstrip("\n").split("\n")
        found.append(Session(command, output or None))
    return found


# ---------------------------------------------------------------- comparing


def shape(line: str) -> str:
    """What of a line must match.

    >>> shape("→  probe lr 0.01   0.966 [0.946, 0.979]  1,290") == shape("→  probe lr 0.1  1 [-2, 3e-5]  7")
    True
    """
    return " ".join(NUMBER.sub("#", RUN.sub("RUN", PATH.sub("PATH", line))).split())


def matches(wanted: str, line: str) -> bool:
    """Whether a line of a page fits one that was printed."""
    if wanted.startswith("{") and line.startswith("{"):
        return holds(json.loads(wanted.replace(ANY, "null")), json.loads(line))
    parts = (re.escape(part.strip()) for part in shape(wanted).split(ANY))
    return re.fullmatch(r"\s*.*\s*".join(parts) if ANY in wanted else re.escape(shape(wanted)), shape(line)) is not None


def holds(wanted: object, found: object) -> bool:
    """Whether every key that a page shows is there, in the page's order; null stands for anything."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        order = [key for key in found if key in wanted]
        return order == list(wanted) and all(holds(value, found[key]) for key, value in wanted.items())
    if isinstance(wanted, list) and isinstance(found, list):
        return all(holds(one, found[0]) for one in wanted[:1]) if found else not [w for w in wanted if w is not None]
    return wanted is None or type(wanted) is type(found)


def lasting(lines: Sequence[str]) -> list[str]:
    """Lines without those that only a clock prints, and without empty ones at the end."""
    kept = [line.rstrip() for line in lines if not PASSING.match(line)]
    while kept and not kept[-1]:
        kept.pop()
    return kept


def differs(page: Sequence[str], printed: Sequence[str]) -> str:
    """Where a page's lines first differ from those that were printed; "" if nowhere."""
    wanted, found, at = lasting(page), lasting(printed), 0
    for i, line in enumerate(wanted):
        if line.strip() == ANY:
            after = wanted[i + 1 : i + 2]
            while at < len(found) and not (after and matches(after[0], found[at])):
                at += 1
        elif at < len(found) and matches(line, found[at]):
            at += 1
        else:
            return f"the page says   {line}\nprinted was     {found[at] if at < len(found) else '(nothing more)'}"
    return f"the page ends here, and more is printed: {found[at]}" if at < len(found) else ""


def mended(page: Sequence[str], printed: Sequence[str]) -> list[str]:
    """A page's lines with what is printed now; what `…` leaves out stays left out."""
    found, at, fresh, elided = lasting(printed), 0, list[str](), False
    for line in lasting(page):
        if line.strip() == ANY:
            fresh, elided = [*fresh, line], True
            continue
        there = next((i for i in range(at, len(found)) if matches(line, found[i])), None)
        if there is not None:
            same = line.startswith("{") or PATH.search(line) or (ANY in line and ANY not in found[there])
            kept = line if same else found[there]
            fresh += [*([] if elided else found[at:there]), kept]
            at, elided = there + 1, False
    return fresh if elided else fresh + found[at:]


# ---------------------------------------------------------------- links

LINK = re.compile(r"(?<!!)\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)\)")


def links(text: str) -> list[str]:
    """Where the links of a text lead, those in blocks and in `code` left out.

    >>> links("see [a](b.md#c), `[x](y)`")
    ['b.md#c']
    """
    plain = re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    return LINK.findall(re.sub(r"\[`?([^\]`]*)`?\]\(", r"[\1](", plain))


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as forges make them."""
    plain = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    heads = re.findall(r"^#+ (.+)$", plain, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}
