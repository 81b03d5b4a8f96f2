"""What the user gets: a bundle that was tested, a report."""
