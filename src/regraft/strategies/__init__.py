"""Shelf: one file a way to adapt; `Knobs`, `propose(facts, knobs)`."""
