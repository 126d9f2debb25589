"""Queries over columns: the entries that are true of a condition, and what is asked of them."""
