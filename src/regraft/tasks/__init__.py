"""Shelf: one file a kind of target; `fits(target)`, `make(target, metric)`."""
