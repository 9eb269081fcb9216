"""Exact search in NumPy, obviously right: what the other backends are held against."""
