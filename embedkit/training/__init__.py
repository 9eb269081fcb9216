"""Learning an embedding space: data sets, samplers, losses, miners, evaluation."""
