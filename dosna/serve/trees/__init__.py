"""Trees of events on a page: their branches, histograms of them, and tables of entries.

The server fills the histograms, one range of entries after the other, and sends only the counts.
The routes begin with ``/trees/``; docs/trees.md lists them.
"""
