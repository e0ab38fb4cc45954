"""What one attempt has of the machine: its files, its process's memory, and a named lock.

⚙ This module opens and removes files, locks them, and asks for the process's own memory use.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO

from xxhash import xxh3_128

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

PART_BUFFER_BYTES = 1 << 16
_TOKEN_DIGITS = 20
_PID = os.getpid()


class TaskFiles:
    """The files of one attempt: spills, and the runs it reads; all gone when it ends."""

    def __init__(self, directory: str, prefix: str) -> None:
        self._prefix = os.path.join(directory, f"{prefix}.spill")
        self._open: dict[str, BinaryIO] = {}
        self._created: list[str] = []

    def create(self) -> tuple[str, BinaryIO]:
        """Open a new temporary file for writing."""
        stay_one()
        path = f"{self._prefix}.{len(self._created)}"
        self._created.append(path)
        return path, open(path, "wb")

    def open(self, path: str) -> BinaryIO:
        """Open a file for reading, or give it again; the least recently opened are closed beyond a bound."""
        file = self._open.pop(path, None)
        if file is None:
            file = open(path, "rb")  # noqa: SIM115 - closed by close()
            if len(self._open) >= 200:
                self._open.pop(next(iter(self._open))).close()
        self._open[path] = file
        return file

    def close(self) -> None:
        """Close and remove everything."""
        for file in self._open.values():
            file.close()
        self._open.clear()
        for path in self._created:
            with suppress(FileNotFoundError):
                os.unlink(path)


class PartFile(io.BufferedWriter):
    """A part as it is written, and the digest of its bytes.

    By the digest a reader far away knows that it has got the part's own bytes.  It is made of what is
    written, and not of what is read back: what a disk makes of it meanwhile has another one.

    Args:
        path: the file.
        head_bytes: left free before the part, which begins behind them.
    """

    def __init__(self, path: str, head_bytes: int = 0) -> None:
        super().__init__(io.FileIO(path, "wb"), PART_BUFFER_BYTES)
        self._digest = xxh3_128()
        super().write(bytes(head_bytes))

    def write(self, data: ReadableBuffer, /) -> int:
        """Write bytes behind those before."""
        self._digest.update(data)
        return super().write(data)

    @property
    def digest(self) -> bytes:
        """Of all that was written."""
        return self._digest.digest()


class SharedRuns:
    """One file into which a process appends the small outputs of its map tasks of a step.

    Making a file costs more than a small task does.  Nobody reads a range before its task's report, so an
    attempt that fails half-way leaves bytes behind that nothing refers to.
    """

    def __init__(self, directory: str, step: str, number: int = 0) -> None:
        # A process that comes back to a step must not write over what it left there, nor over what a dead
        # one left that had its process id.
        while True:
            self.path = os.path.join(directory, f"{step}.{os.getpid()}.{number}.runs")
            try:
                self.file: BinaryIO = open(self.path, "xb", buffering=1 << 20)  # noqa: SIM115 - see close()
                return
            except FileExistsError:
                number += 1  # ends: a directory holds finitely many files

    def close(self) -> None:
        """Close the file; it stays."""
        self.file.close()


def stay_one() -> None:
    """End this process if it is a copy that user code has forked and let come back here.

    The copy has the attempt's files open and would go on as if it were the task: it would write everything
    a second time, into the same files.
    """
    if os.getpid() != _PID:
        os._exit(1)


def resident_bytes() -> int:
    """Return how much memory this process holds, 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    except (OSError, ValueError, IndexError):
        return 0


@contextmanager
def file_lock(directory: str, name: str) -> Iterator[int]:
    """Hold a job's named lock on this machine; gives a token that is higher at every holding."""
    import fcntl
    from hashlib import blake2b

    path = os.path.join(directory, "lock." + blake2b(name.encode(), digest_size=12).hexdigest())
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # released by close, also when the process dies
        token = int(os.pread(descriptor, _TOKEN_DIGITS, 0) or b"0") + 1
        # Written over the one before in one call: a holder that dies here leaves the old token or the new.
        os.pwrite(descriptor, b"%0*d" % (_TOKEN_DIGITS, token), 0)
        yield token
    finally:
        os.close(descriptor)
