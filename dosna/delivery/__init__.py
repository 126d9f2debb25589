"""Delivery on demand: a service that runs selections on files and returns small columnar files.

It uses the protocol of ServiceX, so that its client, ``servicex``, works with it unchanged. The
parts are:

`dosna.delivery.front`
    HTTP: the calls of the protocol, the pages, users and their tokens.
`dosna.delivery.finders`
    from the identifier of a dataset to its files, if they are served.
`dosna.delivery.state`
    requests, with a row for each file, in a database.
`dosna.delivery.running`
    the work on requests, by workers on this machine or of a Dask cluster.
`dosna.delivery.transform`
    the transformation of one file to a file of columns by a selection, in a confined process.
`dosna.delivery.objects`
    the results, and the S3 façade through which clients read them.
"""

from __future__ import annotations

from dosna.registry import lazily

__all__ = ["Service", "Settings"]

_PLACES = {"Service": "service", "Settings": "settings"}
# fastapi and sqlalchemy are imported when they are needed.
__getattr__ = lazily(__name__, _PLACES, "a delivery service needs", "delivery")
