"""The disk under a peer's store: whether there is room on it, and whether it takes anything at all.

Theory
------
Space has two marks.  Below the *low* mark of free space the store takes nothing more from others, until free
space is above the *high* mark; the peer says so in its meta and leaves the candidates for copies.

A disk that refuses `REFUSALS` segments, and meanwhile takes none as large as the smallest of them, is
*failing*: the peer leaves the candidates likewise, for whoever pushes to it would try for ever.  The store
goes on trying, since whoever has nobody else to turn to still comes here; when it succeeds it is sound again.

⚙ This module writes files.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from typing import Any, BinaryIO, Final

from mapreduce.failpoints import failpoint

__all__ = [
    "HIGH_FREE_BYTES",
    "LOW_FREE_BYTES",
    "REFUSALS",
    "Disk",
    "is_want_of_ours",
    "write_all",
    "write_body",
]

LOW_FREE_BYTES: Final = 256 << 20
HIGH_FREE_BYTES: Final = 512 << 20
REFUSALS: Final = 3
PROBE_BYTES: Final = 1 << 20

_PROBE: Final = "probe.tmp"


class Disk:
    """What is known of the disk that a directory lies on.

    Args:
        directory: where the store's files lie.
        low_free_bytes: with less free space than this nothing is taken from others.
        high_free_bytes: with more than this it is taken again.

    Attributes:
        failing: what a disk that takes nothing answers; "" of a sound one.
    """

    def __init__(self, directory: str, *, low_free_bytes: int, high_free_bytes: int) -> None:
        assert low_free_bytes <= high_free_bytes
        self._directory = directory
        self._low, self._high = low_free_bytes, high_free_bytes
        self._is_full = False
        self._refusals = 0
        self._refused_bytes = 0
        self.failing = ""

    def is_full(self, more_bytes: int = 0) -> bool:
        """Tell whether other peers' outputs are refused for lack of space, if so much more is written."""
        try:
            free = shutil.disk_usage(self._directory).free - more_bytes
        except OSError:
            return True
        self._is_full = free < (self._high if self._is_full else self._low)
        return self._is_full

    def note_refused(self, size_bytes: int, error: OSError) -> None:
        """A segment of this size could not be written."""
        self._refused_bytes = min(size_bytes, self._refused_bytes) if self._refusals else size_bytes
        self._refusals += 1
        if self._refusals >= REFUSALS and not self.failing:
            self.failing = (error.strerror or type(error).__name__)[:64]

    def note_taken(self, size_bytes: int) -> None:
        """A segment of this size was written."""
        # Of a disk that takes no large files, a small one that it took proves nothing.
        if size_bytes >= self._refused_bytes:
            self._refusals, self._refused_bytes, self.failing = 0, 0, ""

    def probe(self) -> None:
        """See whether a failing disk takes again what it refused: writes that much, `PROBE_BYTES` at most."""
        path = os.path.join(self._directory, _PROBE)
        try:
            with open(path, "wb", buffering=0) as file:
                write_body(file, bytes(max(1, min(self._refused_bytes, PROBE_BYTES))))
            self.note_taken(self._refused_bytes)
        except OSError as error:
            self.note_refused(self._refused_bytes, error)
        finally:
            self.remove_probe()

    def remove_probe(self) -> None:
        """Remove what a probe wrote that did not come to its end."""
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self._directory, _PROBE))


def is_want_of_ours(error: BaseException) -> bool:
    """Whether this process lacks descriptors or memory: then an error tells nothing of the disk."""
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def write_body(file: BinaryIO, data: bytes | memoryview) -> None:
    """Write bytes of a body, all of them.

    Raises:
        OSError: the disk is full or broken.
    """
    failpoint("store.write")
    write_all(file, data)


def write_all(file: BinaryIO, data: bytes | memoryview) -> None:
    """Write bytes to an unbuffered file, all of them.

    Raises:
        OSError: the disk is full or broken.
    """
    view: Any = memoryview(data)
    while view:
        view = view[file.write(view) :]
