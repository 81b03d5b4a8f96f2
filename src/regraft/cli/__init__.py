"""The command line: a file for each verb, with progress, tables, JSON and exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType


class Stopped(BaseException):
    """A signal came; no library takes it for a KeyboardInterrupt and makes something else of it."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command and exit with its code.

    Everything else is imported here, so that a signal in the meantime ends it with a sentence and no traceback.
    """
    stopped: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        stopped.append(number)
        if len(stopped) > 1:
            os._exit(128 + number)
        raise Stopped

    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, stop) for number in numbers}
    args = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    code = 1
    try:
        from regraft.cli import app

        code = app.run(args)
    except BrokenPipeError:  # whoever read has left: what is still to be written is dropped
        code = 128 + signal.SIGPIPE
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(BrokenPipeError):
                stream.close()
    except (Stopped, KeyboardInterrupt):
        code = 128 + (stopped[0] if stopped else signal.SIGINT)
        if "--json" in args:
            error = {"code": code, "what": "stopped", "saw": "", "allowed": "", "do": "run the same command again"}
            print(json.dumps({"schema": 1, "command": args[0].lstrip("-"), "ok": False, "error": error}))
        else:
            print("regraft: stopped", file=sys.stderr)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    sys.exit(code)
