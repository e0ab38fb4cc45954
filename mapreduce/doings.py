"""What everybody does all the time, counted by the second: the routine lines of a job's event log.

A loss or an election is worth a line of its own, and there are few of them. Claims, grants, pushes, commits
and repairs come by the thousand, and the log lies in the job's record, which is written with every commit.
So they are counted for each peer and second, and told when the second is over with whatever is written
next, or when the stage ends. A line says since when; nothing is written on their account alone. What a
leader had not written when it died is missing from the log, and from nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

from mapreduce.outcome import EventRecord
from membership.view import NodeId

__all__ = ["Doings"]

WINDOW_S = 1.0
MAX_OPEN = 256  # peers and kinds at a time; beyond that nothing is counted until the next writing


@dataclass(slots=True)
class _Doing:
    since: float
    count: int = 0
    size_bytes: int = 0


class Doings:
    """Counts, by kind and peer, that have not been told."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, NodeId], _Doing] = {}

    def note(self, kind: str, node: NodeId, count: int, now: float, *, size_bytes: int = 0) -> None:
        """Count something, unless there is nothing to count.

        Args:
            kind: one of `mapreduce.changes.ROUTINE_KINDS`.
            node: who did it, or to whom it was done.
            count: how many tasks.
            now: in seconds.
            size_bytes: what it moved.
        """
        if not count:
            return
        doing = self._open.get((kind, node))
        if doing is None:
            if len(self._open) >= MAX_OPEN:
                return
            doing = self._open[kind, node] = _Doing(now)
        doing.count += count
        doing.size_bytes += size_bytes

    def take(self, now: float, wall_offset_s: float, *, everything: bool) -> list[EventRecord]:
        """Return what is to be told, in the order in which it began, and count anew.

        Args:
            now: in seconds.
            wall_offset_s: what makes wall clock of it.
            everything: also what began less than a second ago.
        """
        due = [key for key, doing in self._open.items() if everything or now - doing.since >= WINDOW_S]
        events = []
        for kind, node in due:
            doing = self._open.pop((kind, node))
            text = f"{doing.count:,} task{'s' * (doing.count != 1)}"
            if doing.size_bytes:
                text += f", {doing.size_bytes:,} bytes"
            events.append(EventRecord(at_s=doing.since + wall_offset_s, kind=kind, node=node, text=text))
        return events
