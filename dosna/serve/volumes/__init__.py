"""Volumes in three planes: Neuroglancer's own page, over levels of datasets.

Neuroglancer's client is taken from its Python package, if that is installed (extra ``volume``).
The routes are ``/volume/``, which opens it for a dataset; ``/levels/``, the levels of a dataset's
pyramid as it reads them; and ``/v/dosna/`` and ``/events/dosna``, where it expects its own.
"""
