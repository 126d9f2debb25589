"""SkyhookDM's Python client on top of dosna: the same classes and methods with the same names.

A program for SkyhookDM only needs another import: ``from dosna.skyhook import SkyhookDM``. Files
become trees of columns (`dosna.columns`), and `runQuery` runs a query of `dosna.query`.
"""

from dosna.skyhook.client import SkyhookDM
from dosna.skyhook.model import Dataset, File, RootNode

__all__ = ["Dataset", "File", "RootNode", "SkyhookDM"]
