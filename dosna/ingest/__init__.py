"""Ingest: datasets made from sources, so that an interruption loses nothing."""
