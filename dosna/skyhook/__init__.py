"""SkyhookDM's Python client over dosna: the same classes and methods, by the same names.

A program for SkyhookDM needs another import only: ``from dosna.skyhook import SkyhookDM``. Files
become trees of columns (`dosna.columns`), and `runQuery` makes a query of `dosna.query`.
"""

from dosna.skyhook.client import SkyhookDM
from dosna.skyhook.model import Dataset, File, RootNode

__all__ = ["Dataset", "File", "RootNode", "SkyhookDM"]
