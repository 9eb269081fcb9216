"""Vectors in memory-mapped files on this machine, searched by FAISS."""
