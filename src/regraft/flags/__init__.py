"""Shelf: one file a question to the data; `NEEDS` ("data" or "backbone"), `look(seen)`."""
