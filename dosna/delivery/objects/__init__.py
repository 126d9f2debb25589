"""The results, which are kept in a folder or in S3 and read through a read-only S3 façade."""

from __future__ import annotations

from dosna.delivery.objects.places import (
    OWNER,
    FolderPlace,
    ObjectPlace,
    S3Place,
    kept_text,
    open_place,
)

__all__ = ["OWNER", "FolderPlace", "ObjectPlace", "S3Place", "kept_text", "open_place"]
