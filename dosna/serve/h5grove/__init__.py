"""The protocol of h5grove 4 for a connection, which H5Web and other clients of h5grove use.

`values` maps dtypes to HDF5 types and arrays to JSON; `attributes`, `entities` and `data` answer
requests for attributes, entities and data; `lines` reduces very long lines to fewer points, for
clients that request this; `routes` is the application.
"""
