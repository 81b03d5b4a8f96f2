"""Shelf: one file a question of the audit; `NEEDS`, `check(evidence)`."""
