"""N-dimensional arrays kept as chunks on object stores, used like NumPy.

>>> import dosna as dn
>>> with dn.Connection("scans") as con:
...     ds = con.create_dataset("tomo", shape=(100, 100, 100), chunk_size=(32, 32, 32))
...     ds[10:50, :, 3] = 1
...     float(ds[...].sum())
4000.0

`use` chooses who works (`cpu`, `joblib`) and where chunks live (`ram`, `hdf5`). Importing
this package loads NumPy and nothing else; what an engine or a backend needs is loaded when it
is chosen.
"""

import logging

from dosna import _moved, backends, engines, errors
from dosna.array.chunk import EngineDataChunk as DataChunk
from dosna.array.connection import EngineConnection as Connection
from dosna.array.dataset import EngineDataset as Dataset
from dosna.array.opening import open_url
from dosna.settings import Status, compatible, status, use

__version__ = "0.1.0"

connection = Connection
"""The spelling of the first DosNa's documentation."""

__all__ = [
    "Connection",
    "DataChunk",
    "Dataset",
    "Status",
    "__version__",
    "backends",
    "compatible",
    "connection",
    "engines",
    "errors",
    "open_url",
    "status",
    "use",
]

logging.getLogger("dosna").addHandler(logging.NullHandler())

_moved.install()
