"""Delivery on demand: a service that makes small columnar files of selections of large ones."""
