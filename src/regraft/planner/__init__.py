"""Facts gathered, plans proposed, plans raced."""
