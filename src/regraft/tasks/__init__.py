"""Shelf: one file a kind of target; `KIND`, `fits(target)`, `make(target, metric)`."""
