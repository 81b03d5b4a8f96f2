"""Shelf: one file a source of backbones; `find(query)`, `fingerprint(query)`, `load(query)`."""
