"""The metrics that encoders are judged by, and their evaluation on a data set."""
