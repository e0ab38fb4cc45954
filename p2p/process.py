"""What a peer's process arranges with the operating system."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from types import FrameType

__all__ = [
    "LogStream",
    "Wakeup",
    "keep_freed_memory",
    "kill_with_parent",
    "raise_descriptor_limit",
    "stop_signals",
]

MAX_DESCRIPTORS = 65_536
MAX_LINE_BYTES = 4_000  # below PIPE_BUF: a pipe that is ready takes it whole
PR_SET_PDEATHSIG = 1
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
# Blocks up to the first come from a heap, which keeps as much as the second when they are freed: several
# messages of bulk, of a megabyte each.
HEAP_BLOCK_BYTES = 4 << 20
KEPT_FREE_BYTES = 16 << 20


def raise_descriptor_limit() -> None:
    """Raise the limit of open files as far as we may: a flood of connections must not be our end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        # macOS refuses values above its own maximum; then the limit stays what it was.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def kill_with_parent() -> None:
    """On Linux, have the kernel kill us when the thread that started us ends; the lifeline does elsewhere."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def keep_freed_memory() -> bool:
    """Have malloc keep the memory of one large message for the next, up to `KEPT_FREE_BYTES` a heap.

    Else glibc gives every megabyte back to the system and takes another: to map, fault and unmap it costs
    whoever receives a transfer more than all else that it does to a chunk.

    Returns:
        False where malloc is another one; then nothing is changed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, HEAP_BLOCK_BYTES) and mallopt(M_TRIM_THRESHOLD, KEPT_FREE_BYTES))


class LogStream:
    """Lines to stderr that never stop the loop: a line that nobody takes now is counted and dropped."""

    def __init__(self, name: str = "", descriptor: int = 2) -> None:
        self._prefix = f"{name} " if name else ""
        self._descriptor = descriptor
        self._dropped = 0

    def __call__(self, text: str) -> None:
        """Write one line; control characters are shown, not obeyed."""
        clean = "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
        lost = f" ({self._dropped} lines before this one were lost)" if self._dropped else ""
        stamp = time.strftime("%H:%M:%S", time.localtime())
        line = f"{stamp} {self._prefix}{clean}{lost}".encode("utf-8", "replace")[:MAX_LINE_BYTES] + b"\n"
        try:
            _, ready, _ = select.select([], [self._descriptor], [], 0)
            if ready:
                os.write(self._descriptor, line)
                self._dropped = 0
                return
        except (OSError, ValueError):  # nobody listens any more, or more descriptors than select can name
            pass
        self._dropped += 1


class Wakeup:
    """A descriptor that becomes readable when a signal has arrived, so that a wait ends at once."""

    def __init__(self) -> None:
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)

    def fileno(self) -> int:
        """What to watch."""
        return self._read.fileno()

    def drain(self) -> None:
        """Forget the signals so far."""
        with contextlib.suppress(BlockingIOError):
            self._read.recv(4_096)

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """Within the block, every signal that Python handles writes to the descriptor."""
        before = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)

    def close(self) -> None:
        """Close both ends."""
        self._read.close()
        self._write.close()


@contextlib.contextmanager
def stop_signals(received: list[int]) -> Iterator[None]:
    """Within the block, SIGTERM, SIGINT and SIGHUP are noted in `received`; the third one ends us at once."""

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        if len(received) >= 3:
            os._exit(128 + number)

    chosen = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    # What was ignored when we were started (nohup, a background job) stays ignored.
    obeyed = [number for number in chosen if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in obeyed}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
