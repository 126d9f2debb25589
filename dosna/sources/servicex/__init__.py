"""Results of ServiceX as sources.

The kind of source is in `dosna.sources.servicex.source`. Nothing is imported here, because files
of events (`eventfiles`, `growing`) are read without the package servicex too.
"""
