"""The floor under every room: shelves, durable files, the machine, the run folder."""
