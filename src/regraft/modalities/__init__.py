"""Shelf: one file a kind of input; `sniff`, `described`, `adjust`, `noise`, `encoder`, `carried`, and its names."""
