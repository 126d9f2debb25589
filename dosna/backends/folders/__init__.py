"""Datasets in folders of a file system, which come and go by renaming."""
