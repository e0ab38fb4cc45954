"""What happened in a run, in order, with the time: for the report, and for whoever looks for a cause.

An *incident* has a beginning, and an end once it is over.  Times are seconds since the run began.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

__all__ = ["Incident", "Journal"]

MAX_INCIDENTS = 200_000


@dataclass(slots=True, eq=False)
class Incident:
    """One thing that happened.

    Attributes:
        kind: `kill`, `stop`, `restart`, `cut` …: the name of a fault, or what a job did.
        peer: the number of the peer it happened to, -1 for all of them or none.
        text: for people.
        job: the id of the job it belongs to, "" for none.
        began_s, ended_s: since the run began; equal for an instant, `ended_s` is None while it lasts.
    """

    kind: str
    peer: int
    text: str
    began_s: float
    ended_s: float | None
    job: str = ""


@dataclass(slots=True, eq=False)
class Journal:
    """All incidents of a run; the oldest are kept when there are too many."""

    began_at: float = field(default_factory=time.monotonic)
    began_wall_s: float = field(default_factory=time.time)
    incidents: list[Incident] = field(default_factory=list)
    dropped: int = 0

    def now_s(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.began_at

    def instant(self, kind: str, peer: int = -1, text: str = "", *, job: str = "") -> Incident:
        """Enter something that is over at once."""
        now = self.now_s()
        return self._enter(Incident(kind, peer, text, now, now, job))

    def begin(self, kind: str, peer: int = -1, text: str = "", *, job: str = "") -> Incident:
        """Enter something that lasts; `end` it later."""
        return self._enter(Incident(kind, peer, text, self.now_s(), None, job))

    def end(self, incident: Incident) -> None:
        """Close what lasted; harmless the second time."""
        if incident.ended_s is None:
            incident.ended_s = self.now_s()

    def lines(self) -> list[str]:
        """Return what happened, a line an incident, with the time of day as peers' logs have it."""
        found: list[str] = []
        for one in self.incidents:
            at = time.strftime("%H:%M:%S", time.localtime(self.began_wall_s + one.began_s))
            who = f"peer {one.peer}" if one.peer >= 0 else ""
            found.append(f"{at} {one.began_s:8.2f} s  {one.kind:<14} {who:<8} {one.text}")
        return found

    def _enter(self, incident: Incident) -> Incident:
        if len(self.incidents) < MAX_INCIDENTS:
            self.incidents.append(incident)
        else:
            self.dropped += 1
        return incident
