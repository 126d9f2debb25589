"""N-dimensional arrays kept as chunks on object stores, used like NumPy.

>>> import dosna as dn
>>> with dn.Connection("scans") as con:
...     ds = con.create_dataset("tomo", shape=(100, 100, 100), chunk_size=(32, 32, 32))
...     ds[10:50, :, 3] = 1
...     float(ds[...].sum())
4000.0

`use` chooses the engine, which does the work (`cpu`, `joblib`), and the backend, which stores the
chunks (`ram`, `hdf5`). Importing this package loads NumPy and nothing else; the packages that an
engine or a backend needs are loaded when it is chosen.
"""

import logging

from dosna import _moved, backends, engines, errors
from dosna.array.chunk import EngineDataChunk as DataChunk
from dosna.array.connection import EngineConnection as Connection
from dosna.array.dataset import EngineDataset as Dataset
from dosna.array.opening import open_url
from dosna.settings import Status, compatible, status, use

__version__ = "0.2.0.dev0"

connection = Connection
"""The name in the documentation of the first DosNa."""

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
