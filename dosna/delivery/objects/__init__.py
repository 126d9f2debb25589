"""The results: kept in a folder or in S3, and handed out by a read-only façade of S3."""

from __future__ import annotations

from dosna.delivery.objects.places import FolderPlace, ObjectPlace, S3Place, open_place

__all__ = ["FolderPlace", "ObjectPlace", "S3Place", "open_place"]
