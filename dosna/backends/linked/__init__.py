"""Datasets whose chunks stay in files of others."""
