"""Training: data sets with their official splits, and the metrics that encoders are judged by."""
