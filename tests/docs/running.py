"""Running the blocks of a page: in this process, in a folder with what the page speaks of, races in a cheap form.

What is long is run shorter, by these rules alone:

- A race (`adapt` with a budget, or without a strategy) runs with `--max-rows 160 --budget 3trials` instead of its own.
- `adapt` with `--max-rows` runs with `--max-rows 160`; `demo` races 3 trials in place of 12.
- Of what these print, the lines of the race itself (which plans, how good, how long) are not compared, nor what is
  noted before the run begins, as it depends on the rows; all others must stand on the page, and those of the page be
  printed.
  Of the answers of a model that was trained so, the table's head alone is compared.
- A bundle is packed, but not opened in a fresh process; the demo's is.
- toml is `regraft.toml` for the commands after it; `make TARGET` runs as `make -n TARGET`, and `cat FILE | regraft …`
  gives the file as standard input.

In `make nightly` races run in full length. `pytest tests/docs --regold` writes what commands print now into the pages;
with `-m slow`, what races print, too.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from regraft import cli
from regraft.cli import adapt as verbs
from regraft.deliver import pack
from tests.conftest import SHARED
from tests.docs import pages, stages
from tests.docs.pages import ROOT, Block, Session

CHEAP = ("--max-rows", "160", "--budget", "3trials")
PLAN = r"(asis|probe|partial|full|layerwise|gradual|scratch)( [a-z#]+)*( \(\w+\))?( and validation)?"
RACE = re.compile(
    rf"#/# {PLAN}( goes on)?|{PLAN}: validation .*|cache at stage .*|# frozen tensors .*|left out: .*"
    rf"|(→ )?{PLAN} # \[.*|# normalisation layers had .*|\w+: # of # rows kept, --max-rows|texts are padded to .*"
)


@dataclass
class Desk:
    """Where a page's blocks are run one after another. `given` is what its python finds, `full` keeps every budget,
    `short` says that a model was trained shorter than the page says."""

    place: Path
    given: dict[str, Any] = field(default_factory=dict)
    full: bool = False
    short: bool = False
    runs: list[str] = field(default_factory=list)
    called: dict[str, str] = field(default_factory=dict)
    fresh: list[tuple[str, str]] = field(default_factory=list)

    def block(self, block: Block) -> list[str]:
        """Run a block; returns what of its sessions' output is wrong, or raises."""
        if block.kind == "python":
            script = self.place / "block.py"
            script.write_text(self.real(block.text), "utf-8")
            self.given |= {k: v for k, v in runpy.run_path(str(script), self.given).items() if not k.startswith("__")}
            self.look()
        if block.kind == "toml":
            (self.place / "regraft.toml").write_text(block.text, "utf-8")
        asked = pages.sessions(block) if block.kind == "commands" else []
        return [f"{block.page}:{block.line}: {s.command}\n{wrong}" for s in asked if (wrong := self.session(s, block))]

    def session(self, session: Session, block: Block) -> str:
        """Run a command; returns what is wrong with the output that the page shows."""
        short, printed = self.ran(session.command)
        if session.output is None:
            self.look()
            return ""
        self.learn(session.output, printed)
        self.look()
        answers = self.short and "regraft predict " in session.command
        if not short and not answers:
            fresh = "\n".join(pages.mended(session.output, printed))
            for name, run in self.called.items():
                fresh = fresh.replace(run, name)
            self.fresh.append(("\n".join(session.output), fresh))
        self.short |= short
        if block.note:
            return ""
        if short:
            return differing(session.output, printed)
        end = 1 if answers else None
        return pages.differs(session.output[:end], printed[:end])

    def ran(self, command: str) -> tuple[bool, list[str]]:
        """Run a command; returns whether it ran shorter than it says, and what it printed."""
        command, _, code = command.partition("  # exit code ")
        if command.startswith("make "):
            done = ["make", "-n", *shlex.split(command, comments=True)[1:]]
            return False, subprocess.run(done, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\n")
        *feeds, last = (shlex.split(part, comments=True) for part in self.real(command).split(" | "))
        told = b"".join(Path(name).read_bytes() for feed in (*feeds, last) if feed[0] == "cat" for name in feed[1:])
        if last[0] == "cat":
            return False, told.decode("utf-8").split("\n")
        verb, args = last[1], last[1:]
        short = [] if self.full or code else cheaper(args)
        with contextlib.nullcontext() if self.full else shortened(verb):
            ended, printed = said(short or args, told)
        assert ended == int(code or 0), f"{command} ended with {ended}:\n" + "\n".join(printed)
        return bool(short) or (verb == "demo" and not self.full), printed

    def real(self, text: str) -> str:
        """A text with the runs that it names as they are called here: RUN is the latest, OTHER the one before.

        One that no output of the page has shown yet stands for the latest run that no other name stands for.
        """
        for name in re.findall(rf"(?<=runs/){pages.RUN.pattern}", text):
            free = [run for run in self.runs if run not in self.called.values()]
            self.called.setdefault(name, [*self.runs, *free][-1] if self.runs else name)
        called = self.called | dict(zip(("RUN", "OTHER"), reversed(self.runs), strict=False))
        return re.sub(r"(?<=runs/)[\w.@-]+", lambda m: called.get(m[0], m[0]), text)

    def look(self) -> None:
        """Note new runs."""
        made = sorted(self.place.glob("runs/*/request.json"), key=lambda path: path.stat().st_mtime_ns)
        self.runs += [path.parent.name for path in made if path.parent.name not in self.runs]

    def learn(self, shown: Sequence[str], printed: Sequence[str]) -> None:
        """Which run here stands for one that the page names."""
        names = [[m[1] for line in lines if (m := re.fullmatch(r"run runs/(\S+)", line))] for lines in (shown, printed)]
        self.called.update(zip(*names, strict=False))


def cheaper(args: Sequence[str]) -> list[str]:
    """The arguments of a race in its cheap form; empty for everything else."""
    if args[0] != "adapt" or {"--dry-run", "--resume"} & set(args):
        return []
    if "--strategy" in args and "--budget" not in args:
        return [*args, *CHEAP[:2]] if "--max-rows" in args else []
    at = [i for i, arg in enumerate(args) if arg == "--budget"]
    kept = [arg for i, arg in enumerate(args) if i not in at and i - 1 not in at]
    return [*kept, *CHEAP]


def differing(shown: Sequence[str], printed: Sequence[str]) -> str:
    """What differs between a page and a cheap form, by the rules above; "" if nothing does."""
    (page, *asked), (real, *told) = (noted([kind(line) for line in pages.lasting(of)]) for of in (shown, printed))
    wrong = [] if page == real else [f"the page begins   {page}\nprinted was       {real}"]
    wrong += [f"is not printed: {k}" for k in asked if k not in told and pages.ANY not in k and not RACE.fullmatch(k)]
    if asked[-1:] != [pages.ANY]:
        more = [k for i, k in enumerate(told) if k not in asked and not elided(told[i + 1 :], asked)]
        wrong += [f"is not on the page: {k}" for k in more if not RACE.fullmatch(k)]
    return "\n".join(wrong)


def elided(later: Sequence[str], asked: Sequence[str]) -> bool:
    """Whether the page leaves something out before the first of these lines that it shows.

    >>> elided(["report", "bundle"], ["race", "…", "report"]), elided(["bundle"], ["race", "…", "report", "bundle"])
    (True, False)
    """
    shown = next((asked.index(k) for k in later if k in asked), 0)
    return shown > 0 and asked[shown - 1] == pages.ANY


def noted(kinds: list[str]) -> list[str]:
    """Lines without what is noted between the first one and the beginning of the run."""
    return kinds[:1] + kinds[next((i for i, k in enumerate(kinds) if k == "run runs/RUN"), 1) :]


def kind(line: str) -> str:
    """A line of a race for what it says, whichever plan won it and whatever the checks found.

    >>> kind("ship: probe lr 0.01 · 7 plans are equal"), kind("  pass  chance: accuracy 0.9")
    ('decided', 'check chance')
    """
    short = pages.shape(line)
    if re.match(r"(ship|warn|fall back|refuse): ", short):
        return "decided"
    if checked := re.match(r"(pass|warn|fail|skip) (\w+): ", short):
        return f"check {checked[2]}"
    return re.sub(r", # plans? left out$", "", short)


def said(args: Sequence[str], told: bytes = b"") -> tuple[int, list[str]]:
    """Run the command in this process: its exit code, and the lines it prints on both of its outputs."""
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(told), "utf-8"))
        with pytest.raises(SystemExit) as ended:
            cli.main(args)
    return int(ended.value.code or 0), out.getvalue().split("\n")


@contextlib.contextmanager
def shortened(verb: str) -> Iterator[None]:
    """Bundles are packed without a fresh process that opens them, but the demo's; the demo races few trials."""
    importlib.import_module("regraft.cli.app")  # it keeps what it finds in verbs, so it must not meet the patched one
    adapt = verbs.adapt

    @functools.wraps(adapt)
    def few(*given: Any, **named: Any) -> None:
        adapt(*given, **{**named, "budget": CHEAP[-1]})

    with pytest.MonkeyPatch.context() as patch:
        if verb == "demo":
            patch.setattr(verbs, "adapt", few)
        else:
            patch.setattr(pack, "_self_test", lambda *_: None)
        yield


def page(name: str, stage: stages.Stage, place: Path, request: pytest.FixtureRequest, full: bool = False) -> None:
    """Run all blocks of a page; with `--regold` its output is written into the page instead of being compared."""
    (place / "shared").symlink_to(SHARED)
    place = place / "here"
    place.mkdir()
    desk = Desk(place, stage(place), full)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        wrong = [line for block in pages.blocks(name) for line in desk.block(block)]
    if request.config.getoption("--regold") and desk.fresh:
        text = (ROOT / name).read_text("utf-8")
        for old, new in desk.fresh:
            text = text.replace(old, new, 1)
        (ROOT / name).write_text(text, "utf-8")
    assert not wrong, "\n\n".join(wrong)
