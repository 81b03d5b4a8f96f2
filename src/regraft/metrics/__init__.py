"""Shelf: one file a family of metrics; `METRICS`, a tuple of records."""
