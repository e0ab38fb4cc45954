"""What user code of jobs has printed on this peer: the end of it, in memory.

Each job's log has at most `MAX_LOG_BYTES` characters, the oldest lines go first; of `MAX_LOGS` jobs, that one
goes first whose user code has been silent for longest.  A log outlives its job, so that it can be read when
the job has failed.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field

from p2p.job_questions import MAX_LOG_BYTES

__all__ = ["JobLogs"]

MAX_LOGS = 64


@dataclass(slots=True)
class _Log:
    lines: deque[str] = field(default_factory=deque)
    size: int = 0


class JobLogs:
    """The logs of all jobs here."""

    def __init__(self) -> None:
        self._logs: OrderedDict[str, _Log] = OrderedDict()

    def add(self, job: str, text: str) -> None:
        """Append what was printed."""
        log = self._logs.setdefault(job, _Log())
        self._logs.move_to_end(job)
        if len(self._logs) > MAX_LOGS:
            self._logs.popitem(last=False)
        log.lines.append(text)
        log.size += len(text) + 1
        while log.size > MAX_LOG_BYTES and log.lines:
            log.size -= len(log.lines.popleft()) + 1

    def text(self, job: str) -> str:
        """Return what was printed for a job, the end of it."""
        log = self._logs.get(job)
        return "\n".join(log.lines) if log is not None else ""
