"""Train an encoder, pour a catalog through it into a vector collection, and search it."""
