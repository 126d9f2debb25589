"""Objects of S3 for zarr-python to read, which dosna's client gets: paced, and repeated."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn, TypeVar

from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)

from dosna.io.s3.client import IN_FLIGHT, S3Client
from dosna.io.s3.errors import Failure

__all__ = ["S3Objects"]

T = TypeVar("T")

_END = 1 << 62
"""A byte behind the end of any object."""


class S3Objects(Store):
    """The objects of a bucket below a prefix, to be read only.

    Requests that fail raise `Failure`.

    Parameters
    ----------
    client : S3Client
        The client that makes the requests.
    bucket : str
        The name of the bucket.
    prefix : str
        The prefix of all keys, without a '/' at its end.
    """

    supports_writes = False
    supports_deletes = False
    supports_listing = True

    def __init__(self, client: S3Client, bucket: str, prefix: str) -> None:
        super().__init__(read_only=True)
        self._client, self._bucket = client, bucket
        self._begin = f"{prefix}/" if prefix else ""
        self._threads = ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="dosna-zarr")

    def __eq__(self, other: object) -> bool:
        return self is other

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        found = await self._do(lambda: self._get(key, _range(byte_range)))
        return None if found is None else prototype.buffer.from_bytes(found)

    def _get(self, key: str, byte_range: tuple[int, int | None] | None) -> Any:
        try:
            return self._client.get(f"{self._bucket}/{self._begin}{key}", byte_range).data
        except Failure as failure:
            if failure.status != 404:
                raise
        return None

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return list(
            await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges))
        )

    async def exists(self, key: str) -> bool:
        return await self._do(lambda: self._get(key, (0, 1))) is not None

    async def list(self) -> AsyncIterator[str]:
        async for key in self.list_prefix(""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        async for page in self._pages(prefix, ""):
            for found in page.get("Contents", ()):
                yield found["Key"][len(self._begin) :]

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        above = f"{prefix.rstrip('/')}/" if prefix else ""
        start = len(self._begin) + len(above)
        async for page in self._pages(above, "/"):
            for found in page.get("CommonPrefixes", ()):
                yield found["Prefix"][start:].rstrip("/")
            for found in page.get("Contents", ()):
                yield found["Key"][start:]

    async def _pages(self, prefix: str, delimiter: str) -> AsyncIterator[Any]:
        pages = self._client.pages(self._bucket, self._begin + prefix, delimiter)
        while (page := await self._do(lambda: next(pages, None))) is not None:
            yield page

    async def _do(self, request: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, request)

    def _refuse(self, *_: Any) -> NoReturn:
        raise NotImplementedError("the objects of a source are only read")

    async def set(self, key: str, value: Buffer) -> None:
        self._refuse()

    async def delete(self, key: str) -> None:
        self._refuse()

    def close(self) -> None:
        self._threads.shutdown()
        self._client.close()
        super().close()


def _range(asked: ByteRequest | None) -> tuple[int, int | None] | None:
    """Return a range as `S3Client.get` takes it."""
    if isinstance(asked, RangeByteRequest):
        return asked.start, asked.end
    if isinstance(asked, OffsetByteRequest):
        return asked.offset, _END
    if isinstance(asked, SuffixByteRequest):
        return -asked.suffix, None
    return None
