"""The protocol of h5grove 4 over a connection, which H5Web and other clients of h5grove speak.

`values` says which type of HDF5 a dtype is shown as, and what of an array becomes JSON;
`attributes`, `entities` and `data` answer requests for what they are named after; `lines` shows
very long lines by fewer points, for clients that ask for it; `routes` is the application.
"""
