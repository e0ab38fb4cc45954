"""What happened in a world: always as a hash, as lines only for who wants to read them.

The hash is the test of determinism (two runs of one seed must agree to the bit) and costs about a
microsecond an event. Lines cost ten times that, so they are kept for a replay only.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b

__all__ = ["Trace"]

MAX_LINES = 2_000_000  # a replay that is longer drops its later lines and says so; the hash goes on


class Trace:
    """Collects events; ``lines`` fills only where ``keep_lines`` is set."""

    def __init__(self, *, keep_lines: bool = False) -> None:
        self.keep_lines = keep_lines
        self.lines: list[str] = []
        self.events = 0
        self._hash = blake2b(digest_size=16)

    def record(self, now: float, what: str, detail: bytes, describe: Callable[[], str] | None = None) -> None:
        """Add one event: ``what`` and ``detail`` go into the hash, ``describe`` is called for a line only."""
        self.events += 1
        self._hash.update(b"%.9f %s %s\n" % (now, what.encode(), detail))
        if self.keep_lines:
            self._keep(f"{now:12.6f}  {what}" + (f"  {describe()}" if describe else f"  {detail.decode()}"))

    def note(self, now: float, what: str, detail: str = "") -> None:
        """Add one event that is text already."""
        self.record(now, what, detail.encode())

    @property
    def digest(self) -> str:
        """The hash of everything recorded so far, as 32 hexadecimal digits."""
        return self._hash.hexdigest()

    def _keep(self, line: str) -> None:
        if len(self.lines) < MAX_LINES:
            self.lines.append(line)
        elif len(self.lines) == MAX_LINES:
            self.lines.append(f"… no more than {MAX_LINES} lines are kept")
