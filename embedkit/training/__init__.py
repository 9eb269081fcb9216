"""Learning an embedding space: data sets, losses, miners, samplers, and how encoders are judged."""
