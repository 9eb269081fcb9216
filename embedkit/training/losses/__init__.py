"""Losses: one family a file, all behind the contract of `contract.py`."""
