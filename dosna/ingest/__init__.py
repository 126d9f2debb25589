"""Datasets from sources, so that an interruption loses nothing."""
