"""Counting what is turned away, and telling it without being flooded.

Anybody who reaches the port can cause refusals as fast as the network carries them.  So each kind has a
counter, which `members --format json` shows, and writes at most one line a second to the log; what fell
into that second is told by the next line's number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Refusals"]

LINE_INTERVAL_S = 1.0

_MEANING = {
    "bad_key": "a connection with an unknown key",
    "no_key": "a connection without a key",
    "other_ring": "a connection meant for another cluster",
    "garbage": "bytes that are no frame of ours",
    "unfinished": "a connection that hung up or fell silent in the handshake",
    "wrong_version": "a frame of another version",
    "wrong_cluster": "a frame of another cluster",
    "malformed": "a frame that does not fit the schema",
    "oversized": "a frame that is too large",
    "not_allowed": "a message that its sender's key does not allow",
}


@dataclass(slots=True)
class _Kind:
    total: int = 0
    told: int = 0  # of the total, how many the lines so far have accounted for
    quiet_until_s: float = float("-inf")
    last: str = ""


class Refusals:
    """Counters by kind, and the lines for the log.  The kinds are ours, so they are few."""

    def __init__(self) -> None:
        self._kinds: dict[str, _Kind] = {}

    def count(self, kind: str, detail: str, now: float) -> str | None:
        """Count one refusal.

        Args:
            kind: the counter.
            detail: who and why, for the log.
            now: seconds of the loop's clock.

        Returns:
            A line to log now, or None.
        """
        entry = self._kinds.setdefault(kind, _Kind())
        entry.total += 1
        entry.last = detail
        return self._line(kind, entry, now)

    def due(self, now: float) -> list[str]:
        """The lines that were held back and may go out now."""
        lines = [self._line(kind, entry, now) for kind, entry in self._kinds.items()]
        return [line for line in lines if line is not None]

    @property
    def counts(self) -> Mapping[str, int]:
        """All refusals since the start, by kind."""
        return {kind: entry.total for kind, entry in sorted(self._kinds.items())}

    def _line(self, kind: str, entry: _Kind, now: float) -> str | None:
        fresh = entry.total - entry.told
        if fresh == 0 or now < entry.quiet_until_s:
            return None
        entry.told = entry.total
        entry.quiet_until_s = now + LINE_INTERVAL_S
        times = f" ({fresh} times)" if fresh > 1 else ""
        detail = f": {entry.last}" if entry.last else ""
        return f"refused {_MEANING.get(kind, kind)}{times}{detail} [{kind} {entry.total} in all]"
