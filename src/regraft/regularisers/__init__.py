"""Shelf: one file a way to stay close to the pretrained network while it is trained; `ACTS_ON`, `act`."""
