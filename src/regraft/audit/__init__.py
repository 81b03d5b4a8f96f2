"""The winner questioned before it ships."""
