"""Shelf: one file a kind of input; `sniff(cell)`, `encoder(spec, train)`, `NOUN`."""
