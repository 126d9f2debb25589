"""Opening a file at a path or a URL."""

from __future__ import annotations

from dosna.errors import SourceError
from dosna.io.bytefile import ByteFile
from dosna.io.local import LocalFile
from dosna.io.s3.options import S3Options
from dosna.io.s3file import S3File

__all__ = ["foreign_format", "open_bytes"]


def open_bytes(location: str, options: S3Options) -> ByteFile:
    """Return the file at a path or an ``s3://`` URL. It is opened when it is first used.

    Raises
    ------
    SourceError
        The URL is of another kind.
    """
    if location.startswith("s3://"):
        return S3File(location, options)
    if "://" in location:
        raise SourceError(
            f"{location} cannot be read: files are read from paths and from s3:// URLs"
        )
    return LocalFile(location)


_FOREIGN = {
    **dict.fromkeys(
        (b"CDF\x01", b"CDF\x02", b"CDF\x05"),
        "netCDF-3 classic, which is not HDF5: convert it by nccopy -k nc4 OLD.nc NEW.nc",
    ),
    b"MATLAB 5.0": "a MATLAB file of a version before 7.3, which is not HDF5: save it with -v7.3",
    b"\x0e\x03\x13\x01": "HDF4, which is not HDF5: convert it by h4toh5",
}


def foreign_format(path: str) -> str:
    """Return the format of a local file that is easily taken for HDF5, and what to do with it.

    The text is empty if the format is unknown.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except OSError:
        return ""
    return next((text for start, text in _FOREIGN.items() if head.startswith(start)), "")
