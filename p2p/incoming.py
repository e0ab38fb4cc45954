"""A segment on its way into the store: written aside, checked, and only then seen.

A segment is written under a name that ends in ``.tmp`` and renamed when its digest has been checked; only
then is it admitted to the store, and only then may it be acknowledged.  It is not synced: a process may be
killed at any moment without loss, and after a power failure what is torn is found by its digests and made
again from another copy.

⚙ This module writes files.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import BinaryIO

import xxhash

from mapreduce.failpoints import failpoint
from p2p import disk
from p2p.segments import Covers, DamagedSegment, Header, with_head

__all__ = ["Incoming"]


class Incoming:
    """One segment that is being written.

    Args:
        header: its header's bytes.
        parsed: what they say.
        path: where it will lie.
        onto: the disk, which is told what became of it.
        admit: takes note of a segment that is whole.

    Raises:
        OSError: the disk is full or broken.
    """

    def __init__(
        self,
        header: bytes,
        parsed: Header,
        path: str,
        onto: disk.Disk,
        admit: Callable[[Header, str], None],
    ) -> None:
        self._header = parsed
        self._path = path
        self._disk = onto
        self._admit = admit
        self._file: BinaryIO | None = open(f"{path}.tmp", "wb", buffering=0)  # noqa: SIM115 - see abort
        self._digest = xxhash.xxh3_128()
        self.received = 0
        try:
            disk.write_all(self._file, with_head(header))
        except OSError:
            self.abort()
            raise

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return self._header.size

    @property
    def place(self) -> tuple[str, int, Covers]:
        """The job, the stage and what is covered."""
        return self._header.job, self._header.stage, self._header.covers

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes of the body.

        Raises:
            OSError: the disk is full or broken.
            DamagedSegment: there are more bytes than announced.
        """
        assert self._file is not None
        if self.received + len(data) > self._header.size:
            raise DamagedSegment("more bytes than announced")
        self._digest.update(data)
        try:
            disk.write_body(self._file, data)
        except OSError as error:
            self._disk.note_refused(self.size, error)
            raise
        self.received += len(data)

    def finish(self) -> None:
        """Check the body, make the segment visible.

        Raises:
            DamagedSegment: the bytes are not those that were announced; nothing is left of them.
            OSError: the disk is full or broken; nothing is left either.
        """
        assert self._file is not None
        if self.received != self._header.size or self._digest.digest() != self._header.digest:
            self.abort()
            raise DamagedSegment("the body's digest is not the announced one")
        self._file.close()
        self._file = None
        try:
            failpoint("store.rename")
            os.rename(f"{self._path}.tmp", self._path)
        except OSError as error:
            self._disk.note_refused(self.size, error)
            with contextlib.suppress(OSError):
                os.unlink(f"{self._path}.tmp")
            raise
        self._disk.note_taken(self.size)
        failpoint("store.renamed")
        self._admit(self._header, self._path)

    def abort(self) -> None:
        """Remove what has come so far; harmless after `finish`."""
        if self._file is not None:
            self._file.close()
            self._file = None
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self._path}.tmp")
