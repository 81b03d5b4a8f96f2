"""The table of a race on a terminal: a row for each plan and rung, updated in place; other lines stay above it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from regraft.waist import Standing

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

BLINK_S = 0.2
AROUND = 5
"""Lines of the terminal that the table leaves free: its head, what passes below it, and some of what is above."""
STYLES = {"runs": "bold", "finished": "green", "lost": "dim", "left out": "dim", "paused": ""}


class Board:
    """Standings by plan and rung. Where there are more than the terminal has lines, the latest are shown until `close`.

    Args:
        console: A terminal that lines can be drawn anew on.
    """

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self.console = console
        self.rows: dict[tuple[int, int], Standing] = {}
        self.below = ""
        self._told = self._drawn = time.monotonic()
        self._live = Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self._live.start()

    def put(self, row: Standing) -> None:
        """How a plan stands now; that it was left out goes to the rung that it had begun."""
        key = (row.number, row.rung)
        self.rows[key] = row
        self._told, self.below = time.monotonic(), self.below if row.state == "runs" else ""
        self._draw()

    def heads(self, text: str) -> bool:
        """Whether a line only says which plan runs now: the table says so."""
        return any(r.state == "runs" and text.startswith(f"{r.number + 1}/") for r in self.rows.values())

    def say(self, text: str) -> None:
        """A line that stays, above the table."""
        from rich.text import Text

        self.console.print(Text(text))

    def passing(self, text: str) -> None:
        """What is done right now, below the table."""
        self.below = text
        if time.monotonic() - self._drawn >= BLINK_S:
            self._draw()

    def close(self) -> None:
        """Leave the whole table behind, what never began at its end."""
        self.below = ""
        self.rows = dict(sorted(self.rows.items(), key=lambda item: item[1].state == "left out"))
        self._live.update(self.table(len(self.rows)), refresh=True)
        self._live.stop()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        self._live.update(self.table(max(1, self.console.height - AROUND)), refresh=True)

    def table(self, most: int) -> Table:
        """The latest rows, at most so many."""
        from rich.table import Table
        from rich.text import Text

        metric = next((row.score.metric for row in self.rows.values() if row.score), "score")
        table = Table(box=None, pad_edge=False, header_style="bold", caption_justify="left")
        table.caption = Text(self.below[: self.console.width - 1], "dim") if self.below else None
        for title, justify in (("plan", "left"), ("to", "left"), (f"validation {metric}", "left"), ("time", "right")):
            table.add_column(title, justify=justify, no_wrap=True)  # type: ignore[arg-type]
        table.add_column("state", no_wrap=True)
        for row in list(self.rows.values())[-most:]:
            cells = (
                row.label,
                f"epoch {row.rung}" if row.rung else "its end",
                _score(row),
                self._price(row),
                row.state,
            )
            table.add_row(
                *(Text("".join(c if c.isprintable() else "�" for c in cell)) for cell in cells), style=STYLES[row.state]
            )
        return table

    def _price(self, row: Standing) -> str:
        """Seconds so far, of those that were forecast; nothing where nothing was spent."""
        if row.state == "left out" and not row.seconds:
            return "–"
        passed = time.monotonic() - self._told if row.state == "runs" else 0.0
        spent = f"{row.seconds + passed:,.0f} s"
        return f"{spent} of ~{row.forecast_s:,.0f} s" if row.forecast_s and row.state in ("runs", "paused") else spent


def _score(row: Standing) -> str:
    """A score with its interval, where it has one."""
    score = row.score
    if score is None:
        return "–"
    return f"{score.value:.3f}" + (f" [{score.low:.3f}, {score.high:.3f}]" if score.low < score.high else "")
