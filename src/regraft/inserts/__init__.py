"""Shelf: one file a kind of insert; `put`, `take_out`, `files`, `load`, and `merge` or `LINES`."""
