"""The entries of the catalogue on disk: a file for each name, written whole and synced before it counts.

An entry that a peer has said to keep must survive a loss of power, since a majority's word is what a `put`
ends with.  So it is written beside the old one, synced, renamed over it, and the directory synced.  A file
whose bytes are not what was written is as good as lost: the next comparison with another peer brings the
entry again.

⚙ This module reads, writes and syncs files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from hashlib import blake2b

import msgpack

from p2p.catalogue import Entry
from p2p.errors import MalformedFrame
from p2p.file_questions import ENTRY_BOUNDS
from p2p.schema import Schema, compile_schema

__all__ = ["NameFiles"]

ENDING = ".name"
DIGEST_BYTES = 16


class NameFiles:
    """The entries in one directory.

    Args:
        directory: made if need be.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        os.makedirs(directory, mode=0o700, exist_ok=True)

    def load(self) -> Iterator[Entry]:
        """Yield the entries that lie here; what is damaged or was half written is removed.

        One that cannot be read just now stays for another time: a majority's word may rest on it.
        """
        for name in sorted(os.listdir(self._directory)):
            path = os.path.join(self._directory, name)
            try:
                entry = _read(path) if name.endswith(ENDING) else None
                if entry is None:
                    os.unlink(path)
            except OSError:
                continue
            if entry is not None:
                yield entry

    def save(self, entry: Entry) -> None:
        """Make an entry durable, in the place of an earlier one of its name.

        Raises:
            OSError: the disk is full or broken.
        """
        packed: bytes = msgpack.packb(_schema().pack(entry))
        path = self._path(entry.name)
        with open(f"{path}.tmp", "wb") as file:
            file.write(_digest(packed) + packed)
            file.flush()
            os.fsync(file.fileno())
        os.rename(f"{path}.tmp", path)
        directory = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def remove(self, name: str) -> None:
        """Forget a name; harmless if it is not known.

        Raises:
            OSError: the disk is broken, and the entry may be here again after a restart.
        """
        try:
            os.unlink(self._path(name))
        except FileNotFoundError:
            pass  # its entry could not be written

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, blake2b(name.encode(), digest_size=20).hexdigest() + ENDING)


def _read(path: str) -> Entry | None:
    with open(path, "rb") as file:
        data = file.read()
    try:
        packed = data[DIGEST_BYTES:]
        if data[:DIGEST_BYTES] != _digest(packed):
            return None
        entry: Entry = _schema().unpack(msgpack.unpackb(packed, use_list=False))
    except (ValueError, MalformedFrame):
        return None
    return entry


def _digest(packed: bytes) -> bytes:
    return blake2b(packed, digest_size=DIGEST_BYTES).digest()


@cache
def _schema() -> Schema:
    return compile_schema(Entry, ENTRY_BOUNDS)
