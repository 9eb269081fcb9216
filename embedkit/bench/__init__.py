"""Indexes measured on the data sets of approximate nearest neighbours, through any backend."""
