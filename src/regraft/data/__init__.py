"""From a path to rows in three splits."""
