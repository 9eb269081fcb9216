"""How a catalog gets in: sources, fetching, decoding, encoding, committing."""
