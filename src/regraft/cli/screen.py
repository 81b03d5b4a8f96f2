"""What the command line shows: progress, tables, one object for scripts; text from data cannot steer a terminal."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import sys
import textwrap
import time
from collections.abc import Generator, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from regraft.errors import Interrupted, RegraftError

if TYPE_CHECKING:
    from regraft.cli.board import Board
    from regraft.waist import Standing

SCHEMA = 1
EVERY_S, BLINK_S = 10.0, 0.1
GRACE_S = 3.0
"""How long work that was told to stop may go on without an event."""
FIRST = 24
"""A table's first column is folded to so many characters at most."""
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, nothing else.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Show tracebacks of errors.")]


class Screen:
    """Progress on standard error: one calm line on a terminal, plain lines at most every ten seconds in a log.

    While a race runs, a terminal has a table of it.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.live = sys.stderr.isatty() and not quiet
        self._last = time.monotonic()
        self._shown = 0
        self._board: Board | None = None

    def say(self, text: str) -> None:
        """A line that stays."""
        if self._board is not None:
            if not self._board.heads(text):
                self._board.say(clean(text))
        elif not self.quiet:
            self._wipe()
            print(folded(clean(text), sys.stderr), file=sys.stderr, flush=True)

    def event(self, event: Any) -> None:
        """Show one event of a run."""
        from regraft.waist import Epoch, Filled, Finished, PhaseDone, Raced, Said, Scored, Standing, Step

        if isinstance(event, Said):
            self.say(event.text)
        elif isinstance(event, Scored):
            line: Epoch = event.epoch
            self._passing(f"epoch {line.epoch + 1}: loss {line.train_loss:.4f}, validation {line.metric:.3f}")
        elif isinstance(event, Step):
            self._passing(f"step {event.step}/{event.steps}: loss {event.loss:.4f}")
        elif isinstance(event, PhaseDone) and event.verified:
            self.say(f"  {event.verified} frozen tensors hashed before and after: unchanged")
        elif isinstance(event, Standing):
            self._stands(event)
        elif isinstance(event, Raced):
            self._over()
        elif isinstance(event, Finished) and self._board is None:
            t = event.trial
            said = [f"validation {score.value:.3f}" for score in t.scores if score.split == "val"][:1]
            said += [f"{t.cost.seconds:.1f} s"] + ([f"stopped: {t.stopped}"] if t.stopped else [])
            self.say(f"  {t.label}: {', '.join(said)}")
        elif isinstance(event, Filled):
            self._passing(f"{'trunk: ' if event.frontier else ''}{event.done}/{event.rows} examples")

    def watch(self, work: Generator[Any, None, Any], kept: bool = True) -> Any:
        """Pull work to its end, showing its events; a first Ctrl-C or SIGTERM stops it, a second ends the process.

        Work is stopped at its next event, where a fit writes its snapshot; where none comes within seconds, right
        there: whatever is on disk is whole at any time.

        Raises: Interrupted: it was stopped; what was done is on disk, where `kept` says so.
        """
        stopped: list[int] = []

        def stop(number: int, _frame: FrameType | None) -> None:
            stopped.append(number)
            if len(stopped) > 1:
                os._exit(128 + number)
            signal.setitimer(signal.ITIMER_REAL, GRACE_S)

        def late(_number: int, _frame: FrameType | None) -> None:
            raise KeyboardInterrupt

        wanted = {signal.SIGINT: stop, signal.SIGTERM: stop, signal.SIGALRM: late}
        handlers = {number: signal.signal(number, handler) for number, handler in wanted.items()}
        try:
            while True:
                try:
                    self.event(next(work))
                except StopIteration as end:
                    return end.value
                except (Exception, KeyboardInterrupt):  # a child process, or a library, that the signal ended too
                    if not stopped:
                        raise
                if stopped:
                    signal.setitimer(signal.ITIMER_REAL, 0)
                    work.close()
                    raise Interrupted(
                        "stopped; what was done is kept" if kept else "stopped; nothing was written",
                        do=f"run the same command again{' to go on' if kept else ''}",
                        code=128 + stopped[0],
                    )
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self._wipe()
            self._over()
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def table(self, head: list[str], rows: list[list[str]], kept: int = 0) -> None:
        """A table on standard output: on a terminal it is folded to its width; elsewhere only the first column is.

        A terminal with too little room gets the first `kept` columns, and of the others as many as fit; 0 keeps all.
        """
        from rich.cells import cell_len
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        wide = not sys.stdout.isatty()
        widest = [max(cell_len(clean(cell)) for cell in column) for column in zip(head, *rows, strict=True)]
        columns = shutil.get_terminal_size().columns
        if kept and not wide:
            fits = [n for n in range(kept + 1, len(head) + 1) if sum(widest[:n]) + 2 * (n - 1) <= columns]
            shown = max(fits, default=kept)
            head, rows, widest = head[:shown], [row[:shown] for row in rows], widest[:shown]
        table = Table(box=None, pad_edge=False, header_style="bold")
        for i, title in enumerate(head):
            table.add_column(Text(clean(title)), overflow="fold", no_wrap=wide and i > 0)
        for row in rows:
            table.add_row(*(Text(clean(cell)) for cell in row))
        least = sum(widest[1:]) + 2 * len(head) + min(widest[0], FIRST)
        room = max(200, least) if wide else columns
        Console(width=room, highlight=False).print(table)

    def _stands(self, row: Standing) -> None:
        """How a plan stands, in a table where a terminal can redraw one."""
        if self.live and self._board is None:
            from rich.console import Console

            from regraft.cli.board import Board

            console = Console(stderr=True, highlight=False)
            if console.is_terminal and not console.is_dumb_terminal:
                self._wipe()
                self._board = Board(console)
        if self._board is not None:
            self._board.put(row)

    def _over(self) -> None:
        """A race is over: its table stays as it is."""
        board, self._board = self._board, None
        if board is not None:
            board.close()

    def _passing(self, text: str) -> None:
        if self._board is not None:
            self._board.passing(clean(text))
        elif self.live:
            if time.monotonic() - self._last >= BLINK_S:
                self._last = time.monotonic()
                self._wipe()
                line = clean(text)[: shutil.get_terminal_size().columns - 1]
                sys.stderr.write(line)
                sys.stderr.flush()
                self._shown = len(line)
        elif not self.quiet and time.monotonic() - self._last >= EVERY_S:
            self._last = time.monotonic()
            print("  " + clean(text), file=sys.stderr, flush=True)

    def _wipe(self) -> None:
        if self._shown:
            sys.stderr.write("\r" + " " * self._shown + "\r")
            self._shown = 0


def clean(text: str) -> str:
    """Text without control characters, so that names in data cannot steer a terminal."""
    return "".join(c if c.isprintable() else "�" for c in text)


def folded(line: str, stream: TextIO) -> str:
    """A sentence between its words where a terminal ends; a log keeps one line. For nothing that is to be copied."""
    if not stream.isatty():
        return line
    indent = line[: len(line) - len(line.lstrip())] + "  "
    room = max(40, shutil.get_terminal_size().columns)
    return textwrap.fill(line, room, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def put_sentence(text: str) -> None:
    """A sentence on standard output, folded where it is a terminal."""
    print(folded(clean(text), sys.stdout), flush=True)


def put(text: str) -> None:
    """Text on standard output, cleaned line by line."""
    print("\n".join(clean(line) for line in text.split("\n")), flush=True)


def put_line(text: str) -> None:
    """One line on standard output, however many the names in it would make."""
    print(clean(text), flush=True)


def put_object(command: str, told: Mapping[str, Any]) -> None:
    """The one object of a command that went well; what is no finite number is null."""
    put(json.dumps({"schema": SCHEMA, "command": command, "ok": True, **_finite(told)}))


def put_error(command: str, error: RegraftError, more: Mapping[str, Any] | None = None) -> None:
    """The one object of a command that failed, with `more` of what it found out."""
    told = {"code": error.code, "what": error.what, "saw": error.saw, "allowed": error.allowed, "do": error.do}
    put(json.dumps({"schema": SCHEMA, "command": command, "ok": False, "error": told, **_finite(more or {})}))


def shown(value: Any) -> str:
    """A part of an answer in a table."""
    if isinstance(value, float):
        return f"{value:.3f}"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def size(count: float) -> str:
    """Bytes in words.

    >>> size(0), size(1_500_000), size(2.5e9)
    ('0.0 MB', '1.5 MB', '2.5 GB')
    """
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _finite(value: Any) -> Any:
    """A JSON value whose infinities and gaps, which JSON has no word for, are null."""
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
