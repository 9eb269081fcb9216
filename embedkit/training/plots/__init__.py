"""What a finished run leaves beside its model, to be looked at: curves, distances, mistakes and a map."""
