"""The bytes of the hdf5 backend's files, made and read in memory by HDF5 itself.

A chunk file without filters is a header, which is the same for all chunks of a dataset, followed
by the raw elements. This module makes and checks headers, and decodes files that differ.
"""

from __future__ import annotations

from itertools import count
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5f, h5p, h5s, h5t, h5z

from dosna.backends.hdf5 import text as h5text
from dosna.backends.hdf5.virtual import (
    Rows,
    is_virtual,
    map_all,
    mappings,
    rows_mappings,
    rows_shape,
)
from dosna.codecs.deflate import compress_zlib, decompress_zlib
from dosna.codecs.fletcher32 import fletcher32
from dosna.core.metadata import FORMAT_VERSION, DatasetMetadata, check_format_version
from dosna.core.text import is_text
from dosna.core.types import Array
from dosna.core.values import check_dtype, map_parts
from dosna.errors import DosnaError, FormatError
from dosna.io.h5chunks import write_stored_chunk

__all__ = [
    "MOST_AXES",
    "MOST_CHUNK_BYTES",
    "chunk_name",
    "creation_list",
    "dataspace",
    "decode",
    "describe",
    "encode",
    "filtered",
    "header",
    "image_of",
    "is_plain",
    "read_description",
    "redescribe",
    "rows_image",
    "type_id",
    "unfiltered",
]

MOST_AXES, MOST_CHUNK_BYTES = 32, (1 << 32) - 1

Buffer = Any

_READ_ONLY, _READ_WRITE = 0, 1  # flags of H5LTopen_file_image


def chunk_name(ndim: int) -> str:
    """Return the template (for ``%``) of the names of chunk files."""
    return "chunk_" + "_".join(["%d"] * ndim) + ".h5"


def stored_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype with kinds that HDF5 has no type for (U, M, m) as h5py's opaque types."""
    return map_parts(dtype, lambda part: h5py.opaque_dtype(part) if part.kind in "UMm" else part)


def type_id(dtype: np.dtype[Any]) -> Any:
    """Return the HDF5 type with the same bytes for each element as `dtype`, or that of text."""
    if is_text(dtype):
        return h5text.type_of_text()
    try:
        found = h5t.py_create(stored_dtype(dtype), logical=True)
        if found.get_size() == dtype.itemsize and found.dtype == dtype:
            return found
    except (TypeError, ValueError, RuntimeError):
        pass
    opaque = h5t.create(h5t.OPAQUE, dtype.itemsize)
    opaque.set_tag(f"NUMPY:|V{dtype.itemsize}".encode())
    return opaque


def _set_fill(creation: Any, metadata: DatasetMetadata, kind: Any) -> None:
    if is_text(metadata.dtype):
        creation.set_fill_value(h5text.fill(metadata.fillvalue))
        return
    if kind.get_class() == h5t.OPAQUE and metadata.dtype.names is not None:
        memory = np.dtype(f"V{metadata.dtype.itemsize}")
    else:
        memory = stored_dtype(metadata.dtype)
    if memory.kind == "S":
        # h5py takes the fill value of strings as a pointer, that is, as of variable length.
        variable = h5py.string_dtype("ascii")
        creation.set_fill_value(np.array(bytes(metadata.fillvalue), variable))
        return
    raw = metadata.fill.tobytes()
    creation.set_fill_value(np.frombuffer(raw, memory).reshape(()))


_numbers = count()


def _new_file() -> h5py.File:
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_fapl_core(1 << 16, False)
    access.set_libver_bounds(h5f.LIBVER_EARLIEST, h5f.LIBVER_V110)
    # HDF5 refuses to create a file under the name of an open one, even of another thread.
    name = b"dosna-%d" % next(_numbers)
    return h5py.File(h5f.create(name, h5f.ACC_TRUNC, fapl=access))


def _image(file: h5py.File) -> bytes:
    file.flush()
    image: bytes = file.id.get_file_image()
    return image


def dataspace(shape: tuple[int, ...]) -> Any:
    """Return the HDF5 dataspace of an array of that shape."""
    return h5s.create_simple(shape) if shape else h5s.create(h5s.SCALAR)


def creation_list(metadata: DatasetMetadata, kind: Any) -> Any:
    """Return the creation properties of an array of type `kind`, with its fill value."""
    creation = h5p.create(h5p.DATASET_CREATE)
    creation.set_obj_track_times(False)
    _set_fill(creation, metadata, kind)
    return creation


def header(metadata: DatasetMetadata) -> bytes:
    """Return the bytes before the raw elements in every chunk file without filters."""
    kind = type_id(metadata.dtype)
    creation = creation_list(metadata, kind)
    creation.set_layout(h5d.CONTIGUOUS)
    creation.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    creation.set_fill_time(h5d.FILL_TIME_NEVER)
    with _new_file() as file:
        data = h5d.create(file.id, b"data", kind, dataspace(metadata.chunk_size), dcpl=creation)
        offset: int = data.get_offset()
        del data
        image = _image(file)
    if len(image) != offset + metadata.chunk_nbytes:
        raise FormatError("this version of HDF5 does not put a chunk's data at the file's end")
    return image[:offset]


def encode(chunk: Array, metadata: DatasetMetadata) -> bytes:
    """Return the chunk file of a dataset with filters, or of text."""
    if not is_text(metadata.dtype):
        return image_of(filtered(chunk, metadata), metadata)
    kind = type_id(metadata.dtype)
    creation = creation_list(metadata, kind)
    with _new_file() as file:
        h5d.create(file.id, b"data", kind, dataspace(metadata.chunk_size), dcpl=creation)
        h5text.store(file["data"], chunk, bool(metadata.storage.get("checksum")))
        return _image(file)


def filtered(chunk: Array, metadata: DatasetMetadata) -> list[Buffer]:
    """Apply the filters of a dataset to a chunk in C order, outside of HDF5's global lock.

    The parts that are returned, one after the other, are the chunk as HDF5 stores it.
    """
    data: Buffer = chunk.reshape(-1).view(np.uint8)
    if metadata.storage.get("compression"):
        data = compress_zlib(data, metadata.storage["level"])
    return [data, fletcher32(data)] if metadata.storage.get("checksum") else [data]


def unfiltered(stored: Buffer, metadata: DatasetMetadata) -> Buffer:
    """Undo `filtered`; raise ValueError if the bytes are damaged."""
    found = memoryview(stored)
    if metadata.storage.get("checksum"):
        found, checksum = found[:-4], found[-4:]
        if checksum != fletcher32(found):
            raise ValueError("its checksum is wrong")
    size = metadata.chunk_nbytes
    data = decompress_zlib(found, size) if metadata.storage.get("compression") else found
    if len(data) != size:
        raise ValueError(f"its data is {len(data)} bytes or more, not {size}")
    return data


def image_of(stored: list[Buffer], metadata: DatasetMetadata) -> bytes:
    """Return the chunk file of a dataset with filters: one HDF5 chunk holds the whole chunk."""
    kind = type_id(metadata.dtype)
    creation = creation_list(metadata, kind)
    creation.set_chunk(metadata.chunk_size)
    if metadata.storage.get("compression"):
        creation.set_deflate(metadata.storage["level"])
    if metadata.storage.get("checksum"):
        creation.set_fletcher32()
    with _new_file() as file:
        space = dataspace(metadata.chunk_size)
        made = h5d.create(file.id, b"data", kind, space, dcpl=creation)
        write_stored_chunk(made, (0,) * metadata.ndim, b"".join(stored))
        del made
        return _image(file)


def decode(image: bytes, metadata: DatasetMetadata) -> Array:
    """Read a chunk file.

    Without filters, any program may have written it. In a dataset with filters it must be as
    `encode` makes it.

    Parameters
    ----------
    image : bytes
        The whole file.
    metadata : DatasetMetadata
        The metadata of the dataset.

    Returns
    -------
    numpy.ndarray
        The chunk, of shape `chunk_size` and in C order.

    Raises
    ------
    ValueError
        The file is damaged or is not a chunk of this dataset; the message says in what way.
    """
    end = _end_of_file(image)
    if len(image) != end:
        raise ValueError(f"it has {len(image)} bytes, and its header says {end}")
    try:
        with h5py.File(h5f.open_file_image(image, _READ_ONLY)) as file:
            return _decode(file["data"], image, metadata)
    except (OSError, RuntimeError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"HDF5 cannot read it: {error}") from error


def _end_of_file(image: bytes) -> int:
    # Superblocks of version 0/1 and 2/3: HDF5 File Format Specification, section II.A.
    if image[:8] != b"\x89HDF\r\n\x1a\n" or len(image) < 48:
        raise ValueError("it is empty" if not image else "it does not begin as an HDF5 file does")
    start = 40 if image[8] == 0 else 44 if image[8] == 1 else 28
    return int.from_bytes(image[start : start + 8], "little")


def _decode(data: Any, image: bytes, metadata: DatasetMetadata) -> Array:
    if not isinstance(data, h5py.Dataset):
        raise ValueError("it has no dataset /data")
    kind = type_id(metadata.dtype)
    if data.shape != metadata.chunk_size:
        raise ValueError(f"its /data has shape {data.shape}, not {metadata.chunk_size}")
    stored = data.id.get_type()
    if is_text(metadata.dtype):
        return h5text.load(data, image, metadata)
    if not stored.equal(kind) and data.dtype != metadata.dtype:
        raise ValueError(f"its /data has dtype {data.dtype}, not {metadata.dtype}")
    creation = data.id.get_create_plist()
    filtered = bool(filters_of(metadata))
    if filtered:
        _check_filtered(data, creation, metadata, len(image))
    elif creation.get_layout() == h5d.CONTIGUOUS:
        offset, size = data.id.get_offset(), metadata.chunk_nbytes
        # Without stored data the chunk is all fill, but then the file is small.
        if offset is None and len(image) > max(4096, size):
            raise ValueError("its /data has no place in the file")
        if offset is not None and offset + size != len(image):
            raise ValueError("its /data is not where a writer puts it")
    # libhdf5 leaves the buffer as it is if a file holds no data and its fill time is "never".
    chunk = metadata.empty_chunk()
    raw = chunk.reshape(-1).view(np.uint8)
    if filtered:
        raw[:] = np.frombuffer(unfiltered(_stored(data, image), metadata), np.uint8)
    else:
        data.id.read(h5s.ALL, h5s.ALL, raw, mtype=kind)
    return chunk


def _stored(data: Any, image: bytes) -> memoryview:
    # HDF5 would look the chunk up in an index, and return fill where the index is damaged.
    info = data.id.get_chunk_info(0)
    return memoryview(image)[info.byte_offset : info.byte_offset + info.size]


def _check_filtered(data: Any, creation: Any, metadata: DatasetMetadata, end: int) -> None:
    filters = [creation.get_filter(n)[0] for n in range(creation.get_nfilters())]
    if filters != filters_of(metadata):
        raise ValueError("its filters are not the dataset's")
    if data.chunks != metadata.chunk_size or data.id.get_num_chunks() != 1:
        raise ValueError("it holds no data")
    info = data.id.get_chunk_info(0)
    if info.byte_offset + info.size != end:
        raise ValueError("its data is not where a writer puts it")
    if info.filter_mask:
        raise ValueError("its data bypasses the filters")


def is_plain(metadata: DatasetMetadata) -> bool:
    """Return True if chunk files are a header and the raw elements."""
    return not filters_of(metadata) and not is_text(metadata.dtype)


def filters_of(metadata: DatasetMetadata) -> list[int]:
    """List the HDF5 filters of a dataset's chunk files, in the order of writing."""
    if is_text(metadata.dtype):
        return []
    storage = metadata.storage
    return [h5z.FILTER_DEFLATE] * bool(storage.get("compression")) + [
        h5z.FILTER_FLETCHER32
    ] * bool(storage.get("checksum"))


def describe(metadata: DatasetMetadata, start: bytes) -> bytes:
    """Return the bytes of ``dataset.h5``.

    It holds the attributes of DosNa, the metadata document, the header `start` of chunk files,
    and ``/data``: the whole array as a virtual dataset. That dataset maps to the chunk files
    beside it, or to the files of `rows_image`, which must have been written before.
    """
    with _new_file() as file:
        _set_attributes(file, metadata)
        _set_document(file, metadata)
        if is_virtual(metadata):
            _add_virtual(file, metadata)
        if start:
            file["chunk_header"] = np.frombuffer(start, np.uint8)
        return _image(file)


def redescribe(image: bytes, metadata: DatasetMetadata) -> bytes:
    """Return the bytes of a new ``dataset.h5``, made from the present one of the same shape."""
    with h5py.File(h5f.open_file_image(image, _READ_WRITE)) as file:
        if "metadata" in file:
            del file["metadata"]
        _set_document(file, metadata)
        return _image(file)


def _set_attributes(file: h5py.File, metadata: DatasetMetadata) -> None:
    attrs = file.attrs
    attrs["shape"] = np.array(metadata.shape, np.int64)
    attrs["dtype"] = _name_of(metadata.dtype)
    attrs["chunk_grid"] = np.array(metadata.chunk_grid, np.int64)
    attrs["chunk_size"] = np.array(metadata.chunk_size, np.int64)
    if is_text(metadata.dtype):
        attrs["fillvalue"] = metadata.fillvalue
        return
    kind = type_id(metadata.dtype)
    if metadata.dtype.itemsize < 1 << 15:
        raw = np.frombuffer(metadata.fill.tobytes(), np.uint8)
        h5py.h5a.create(file.id, b"fillvalue", kind, dataspace(())).write(raw, mtype=kind)


def _name_of(dtype: np.dtype[Any]) -> str:
    return "string" if is_text(dtype) else dtype.str


def _set_document(file: h5py.File, metadata: DatasetMetadata) -> None:
    file.attrs["format_version"] = FORMAT_VERSION
    text = metadata.to_json().encode()
    file.create_dataset("metadata", data=np.array(text, f"S{len(text)}"))


def _add_virtual(file: h5py.File, metadata: DatasetMetadata) -> None:
    template = chunk_name(metadata.ndim)
    if not metadata.shape:
        file["data"] = h5py.ExternalLink(template, "/data")
        return
    kind = type_id(metadata.dtype)
    creation = creation_list(metadata, kind)
    space = map_all(creation, metadata.shape, mappings(metadata, template))
    h5d.create(file.id, b"data", kind, space, dcpl=creation)


def rows_image(metadata: DatasetMetadata, rows: Rows) -> bytes:
    """Return a file whose ``/data`` is a virtual dataset over rows of the chunk grid."""
    kind = type_id(metadata.dtype)
    creation = creation_list(metadata, kind)
    found = rows_mappings(metadata, chunk_name(metadata.ndim), rows)
    space = map_all(creation, rows_shape(metadata, rows), found)
    with _new_file() as file:
        h5d.create(file.id, b"data", kind, space, dcpl=creation)
        return _image(file)


def read_description(image: bytes, where: str) -> tuple[DatasetMetadata, bytes]:
    """Read a ``dataset.h5`` that was written by dosna or by the original DosNa.

    Returns
    -------
    metadata : DatasetMetadata
        The metadata of the dataset.
    start : bytes
        The header of chunk files; empty if the file has none.

    Raises
    ------
    FormatError
        The file is of a newer format, or broken.
    """
    try:
        with h5py.File(h5f.open_file_image(image, _READ_ONLY)) as file:
            if "format_version" in file.attrs:
                check_format_version(int(file.attrs["format_version"]), where)
                metadata = DatasetMetadata.from_json(file["metadata"][()].decode(), where)
                _check_attributes(file.attrs, metadata)
                return metadata, file["chunk_header"][
                    ()
                ].tobytes() if "chunk_header" in file else b""
            return _read_attributes(file.attrs), b""
    except DosnaError:
        raise
    except Exception as error:
        raise FormatError(
            f"{where} does not describe a dataset ({error}): restore it from a copy"
        ) from error


def _check_attributes(attrs: Any, metadata: DatasetMetadata) -> None:
    """Check that the attributes agree with the document that was written with them."""
    for name, document in {
        "shape": metadata.shape,
        "chunk_size": metadata.chunk_size,
        "dtype": _name_of(metadata.dtype),
    }.items():
        found = attrs[name]
        if name == "dtype":
            found = found.decode() if isinstance(found, bytes) else str(found)
        else:
            found = tuple(int(n) for n in found)
        if found != document:
            raise ValueError(
                f"its attribute {name} is {found}, and its metadata document says {document}"
            )


def _read_attributes(attrs: Any) -> DatasetMetadata:
    """Return the metadata that the attributes of the original DosNa describe."""
    name = attrs["dtype"]
    dtype = check_dtype(np.dtype(name.decode() if isinstance(name, bytes) else str(name)))
    shape = tuple(int(n) for n in attrs["shape"])
    chunk_size = tuple(int(n) for n in attrs["chunk_size"])
    if (
        len(shape) != len(chunk_size)
        or min(chunk_size, default=1) < 1
        or min(shape, default=0) < 0
    ):
        raise ValueError(f"shape {shape} and chunk_size {chunk_size} do not fit")
    fillvalue = np.asarray(attrs["fillvalue"]).astype(dtype)[()]
    return DatasetMetadata(shape, dtype, fillvalue, chunk_size)
