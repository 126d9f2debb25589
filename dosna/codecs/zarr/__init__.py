"""Documents of Zarr: ``zarr.json``, its dtypes and attributes, shards."""
