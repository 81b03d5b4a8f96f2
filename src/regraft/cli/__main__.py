"""`python -m regraft.cli` is the command itself."""

from __future__ import annotations

from regraft.cli import main

if __name__ == "__main__":
    main()
