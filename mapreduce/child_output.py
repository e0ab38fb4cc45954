"""What a child process prints: passed on by whole lines, its end kept for an error, both within bounds.

⚙ Reads a pipe.

Three bounds for each task.  The last `KEPT_OUTPUT_BYTES` are kept, to be shown if the child dies.  The first
`SHOWN_OUTPUT_BYTES` are passed on for people to see.  A task that prints more than `MAX_TASK_OUTPUT_BYTES` is
stuck or mistaken, and whoever reads its output should end it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["MAX_TASK_OUTPUT_BYTES", "SHOWN_OUTPUT_BYTES", "ChildOutput", "Printed"]

READ_BYTES = 1 << 18
# A task that prints more than this is stuck or mistaken; its output would fill somebody's disk.
MAX_TASK_OUTPUT_BYTES = 64 << 20
KEPT_OUTPUT_BYTES = 16 << 10
# Of one task, so much is passed on for people to see.
SHOWN_OUTPUT_BYTES = 256 << 10
# Of what is kept, so much is told when the child has died.
TOLD_OUTPUT_BYTES = 4096
TOLD_LINES = 20
MAX_LINE_CHARS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Printed:
    """Something user code printed, for people to see."""

    text: str


class ChildOutput:
    """The reading end of the pipe that a child prints to.

    Args:
        fd: the pipe's, which must not block; closed by `close`.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.is_ended = False
        self._kept = bytearray()
        self._task_bytes = 0
        # What was printed since the last whole line.
        self._unfinished = b""

    @property
    def excess(self) -> str:
        """What is to be said of a task that has printed more than any task should; "" of others."""
        if self._task_bytes <= MAX_TASK_OUTPUT_BYTES:
            return ""
        most = f"{MAX_TASK_OUTPUT_BYTES >> 20} MiB"
        return f"it printed more than {most} in one task (results are yielded, not printed)"

    def begin_task(self) -> None:
        """What comes from now on was printed by another task."""
        self._task_bytes = 0

    def read(self) -> Iterator[Printed]:
        """Give what was printed by now, a whole number of lines at a time; stops at an `excess`."""
        while True:
            try:
                data = os.read(self.fd, READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                self.is_ended = True
                return
            self._task_bytes += len(data)
            self._kept += data
            del self._kept[:-KEPT_OUTPUT_BYTES]
            if self.excess:
                return
            yield from self._whole_lines(data)

    def _whole_lines(self, data: bytes) -> Iterator[Printed]:
        shown_before = self._task_bytes - len(data)
        if shown_before > SHOWN_OUTPUT_BYTES:
            return
        lines, newline, self._unfinished = (self._unfinished + data).rpartition(b"\n")
        if self._task_bytes > SHOWN_OUTPUT_BYTES:
            lines += b"\n(this task prints more than is shown)"
            self._unfinished = b""
        if newline:
            yield Printed(text=lines.decode(errors="replace"))

    def last_line(self) -> Iterator[Printed]:
        """Give what was printed since the last whole line, if anything: its task is over."""
        if self._unfinished:
            yield Printed(text=self._unfinished.decode(errors="replace"))
            self._unfinished = b""

    def last_lines(self) -> list[str]:
        """Return the last that was printed, shown or not, as an error tells it."""
        output = bytes(self._kept[-TOLD_OUTPUT_BYTES:]).decode(errors="replace").strip()
        return [line[:MAX_LINE_CHARS] for line in output.splitlines()[-TOLD_LINES:]]

    def close(self) -> None:
        """Close the pipe; once more does nothing."""
        fd, self.fd = self.fd, -1  # first: it must not be closed twice
        if fd >= 0:
            os.close(fd)
