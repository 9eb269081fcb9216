"""Image and text encoders, their runtimes, and the folder that a trained model is."""
