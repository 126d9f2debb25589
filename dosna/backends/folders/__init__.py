"""Datasets in folders of a file system, which are created and deleted by renaming."""
