"""Datasets whose chunks stay in existing files of other programs."""
