"""Conformance of a codec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import dosna as dn
from dosna.codecs import CodecError, Pipeline
from dosna.codecs.zarr import new_array
from dosna.core.metadata import new_metadata
from dosna.core.types import Array, Shape


class CodecTests:
    """Tests that every codec passes; subclass it with one fixture.

    ::

        class TestMyCodec(CodecTests):
            @pytest.fixture
            def compression(self):
                return {"name": "mycodec", "level": 3}
    """

    dtypes: ClassVar[Sequence[str]] = ("<f4", ">i8", "u1", "?", "<U3", "S5", "<M8[s]")
    """The types of elements that the codec takes."""

    shapes: ClassVar[Sequence[Shape]] = ((), (1,), (7, 9), (2, 3, 4, 5))
    """The shapes of chunks that the codec takes."""

    tolerance: ClassVar[float] = 0
    """The largest difference of a decoded element; 0 for a codec that loses nothing."""

    @pytest.fixture
    def compression(self) -> str | Mapping[str, Any] | Sequence[Any]:
        """Return the value of ``compression=`` that names the codec."""
        raise NotImplementedError("a subclass of CodecTests has a fixture compression")

    @pytest.fixture
    def chunks(self) -> list[Array]:
        """Return chunks to encode; by default random bits of small numbers, of all types."""
        rng = np.random.default_rng(0)
        return [
            np.asarray(rng.integers(0, 2, shape)).astype(dtype)
            for dtype in self.dtypes
            for shape in self.shapes
        ]

    def pipeline(self, compression: Any, chunk: Array) -> Pipeline:
        """Return the codecs of an array of chunks like `chunk`."""
        metadata = new_metadata(chunk.shape, chunk.dtype, None, chunk.shape)
        made = new_array(metadata, compression, checksum=False).storage["zarr"]
        return Pipeline(made["codecs"], chunk.dtype, chunk.shape, "zarr.json")

    def agree(self, found: Array, chunk: Array) -> bool:
        """Return True if a decoded chunk is as near to the given one as `tolerance` says."""
        if found.shape != chunk.shape or found.dtype != chunk.dtype:
            return False
        if self.tolerance:
            return bool(np.allclose(found, chunk, rtol=0, atol=self.tolerance))
        return found.tobytes() == chunk.tobytes()

    def test_chunks_are_decoded_as_they_were(self, compression: Any, chunks: list[Array]) -> None:
        for chunk in chunks:
            pipeline = self.pipeline(compression, chunk)
            before = chunk.copy()
            encoded = b"".join(pipeline.encode(chunk))
            assert pipeline.size in (None, len(encoded))
            memory = np.empty(pipeline.nbytes, np.uint8)
            assert self.agree(pipeline.decode(encoded, memory), before)
            assert chunk.tobytes() == before.tobytes()

    def test_several_threads_share_a_codec(self, compression: Any, chunks: list[Array]) -> None:
        chunk = max(chunks, key=lambda chunk: chunk.nbytes)
        pipeline = self.pipeline(compression, chunk)

        def there_and_back(_: int) -> bool:
            encoded = b"".join(pipeline.encode(chunk))
            return self.agree(pipeline.decode(encoded, np.empty(chunk.nbytes, np.uint8)), chunk)

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(there_and_back, range(40)))

    def test_bytes_that_are_cut_off_are_an_error(
        self, compression: Any, chunks: list[Array]
    ) -> None:
        for chunk in chunks:
            pipeline = self.pipeline(compression, chunk)
            encoded = b"".join(pipeline.encode(chunk))
            for length in {0, len(encoded) // 2, len(encoded) - 1}:
                with pytest.raises(CodecError):
                    pipeline.decode(encoded[:length], np.empty(pipeline.nbytes, np.uint8))

    def test_datasets_are_read_by_another_connection(
        self, compression: Any, chunks: list[Array], tmp_path: Path
    ) -> None:
        chunk = max(chunks, key=lambda chunk: chunk.nbytes)
        with dn.Connection(str(tmp_path), backend="file") as con:
            con.create_dataset("x", data=chunk, compression=compression)
        with dn.Connection(str(tmp_path), backend="file", mode="r") as con:
            assert self.agree(con["x"][...], chunk)

    def test_an_unknown_option_is_refused(self, compression: Any, tmp_path: Path) -> None:
        given = {"name": compression} if isinstance(compression, str) else compression
        with dn.Connection(str(tmp_path), backend="file") as con:
            if isinstance(given, Mapping):
                with pytest.raises(dn.errors.ConfigurationError, match="no_such_option"):
                    con.create_dataset("x", shape=4, compression={**given, "no_such_option": 1})
            assert "x" not in con
