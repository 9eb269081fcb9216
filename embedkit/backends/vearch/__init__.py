"""Vearch: a cluster, by its router."""
