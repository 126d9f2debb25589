"""The backend `ceph`: Zarr v3 arrays in a pool of a Ceph cluster."""

from dosna.backends.ceph.connection import BACKEND, CephConnection

__all__ = ["BACKEND", "CephConnection"]
