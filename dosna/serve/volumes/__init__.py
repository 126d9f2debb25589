"""Volumes in three planes: the page of Neuroglancer, with the levels of datasets.

Neuroglancer's client is taken from its Python package, if it is installed (extra ``volume``). The
routes are ``/volume/``, which opens the client for a dataset; ``/levels/``, which serves the
levels of a dataset's pyramid; and ``/v/dosna/`` and ``/events/dosna``, which the client expects.
"""
