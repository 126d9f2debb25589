"""Folders on this machine, or on a shared file system."""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import suppress

import crc32c

from dosna.errors import SourceNotFoundError
from dosna.io.files import disk, remove_folder
from dosna.pilot.data.checksums import checksum_text
from dosna.pilot.data.files import Tell, blocks
from dosna.pilot.data.places import Place, PlaceUrl, Prepared

__all__ = ["LocalPlace"]


class LocalPlace(Place):
    """A folder, which is created when it is first written to.

    Parameters
    ----------
    url : PlaceUrl
        Its ``file://`` URL.
    """

    def __init__(self, url: PlaceUrl) -> None:
        super().__init__(str(url))
        self._root = url.path

    def local_path(self, path: str) -> str:
        return os.path.join(self._root, path) if path else self._root

    def check(self) -> None:
        with disk(f"use {self._root}"):
            os.makedirs(self._root, exist_ok=True)

    def size(self, path: str) -> int:
        try:
            return os.path.getsize(self.local_path(path))
        except (FileNotFoundError, NotADirectoryError):
            raise SourceNotFoundError(f"{self.local_path(path)} does not exist") from None

    def download(self, path: str, target: str, tell: Tell | None = None) -> str:
        self.size(path)
        with disk(f"copy {self.local_path(path)} to {target}"):
            return copy(self.local_path(path), target, tell)

    def prepare(self, source: str, path: str, tell: Tell | None = None) -> Prepared:
        target = self.local_path(path)
        folder, name = os.path.split(target)
        part = os.path.join(folder, f".{name}.{secrets.token_hex(4)}.part")

        def commit() -> None:
            with disk(f"store {target}"):
                os.replace(part, target)

        def abandon() -> None:
            with suppress(OSError):
                os.unlink(part)

        with disk(f"store {target}"):
            os.makedirs(folder, exist_ok=True)
            try:
                checksum = copy(source, part, tell, durable=True)
            except BaseException:
                abandon()
                raise
        return Prepared(commit, abandon, checksum=checksum)

    def remove(self, path: str) -> None:
        target = self.local_path(path)
        with disk(f"remove {target}"):
            if os.path.lexists(target):
                remove_folder(target)


def copy(source: str, target: str, tell: Tell | None = None, durable: bool = False) -> str:
    """Copy a file into a new one, with its permissions; return its checksum."""
    value = 0
    with open(target, "xb", buffering=0) as file:
        for block in blocks(source, tell):
            value = crc32c.crc32c(block, value)
            while block:
                block = block[file.write(block) :]
        if durable:
            os.fsync(file.fileno())
    shutil.copymode(source, target)
    return checksum_text(value)
