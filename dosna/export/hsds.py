"""Domains of HSDS: of datasets, and of whole HDF5 files."""

from __future__ import annotations

from dosna.hsds.transfer import DomainReport, link_domain, load_domain

__all__ = ["DomainReport", "link_domain", "load_domain"]
