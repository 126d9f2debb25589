"""Trees of events on a page: their branches, histograms of them, and tables of entries.

Histograms are filled by the server, range of entries after range, so that only counts travel. The
routes begin with ``/trees/``; docs/trees.md lists them.
"""
