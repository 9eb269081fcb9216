"""What exists: collections, products, vectors, runs and failures, in SQL."""
