"""Shelf: one file a kind of insert; `put`, `take_out`, `merge`, `files`, `load`."""
