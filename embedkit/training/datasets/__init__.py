"""Readers of published data sets, with the official splits and protocols."""
