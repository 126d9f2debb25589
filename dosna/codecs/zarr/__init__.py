"""Documents of Zarr: ``zarr.json``, its dtypes and attributes, and shards."""
