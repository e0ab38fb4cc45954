"""From a run's books to its figures: elections, and how long jobs stood still.  Pure.

An *election* is an event of a job's own log: this peer leads now, in place of that one.  When the former
leader was hurt before (killed, stopped, sent away), the job's *recovery time* is from that injury to the
first commit under the new leader: what a user feels of a lost leader, detection, election, inventory and one
task included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tools.chaos.journal import Incident, Journal

__all__ = ["INJURIES", "Election", "JobBar", "elections_of", "percentile", "recoveries_of"]

INJURIES = frozenset({"kill", "stop", "leave", "cut", "ended"})


@dataclass(frozen=True, slots=True, kw_only=True)
class JobBar:
    """A job in the books.

    Attributes:
        number, id, name: for people.
        began_s, ended_s: since the run began.
        problem: what was wrong with it, "" if nothing.
        events: its log, as reports have it: time (wall clock), kind, node, text.
    """

    number: int
    id: str
    name: str
    began_s: float
    ended_s: float
    problem: str
    events: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Election:
    """A peer began to lead a job; `before` is the number of the peer that led it until then, -1: nobody."""

    at_s: float
    peer: int
    before: int
    job: str


def elections_of(job: JobBar, journal: Journal) -> list[Election]:
    """Return who led a job, from its log."""
    peers = {life.text: life.peer for life in journal.incidents if life.kind == "life"}
    found: list[Election] = []
    for event in job.events:
        if event["kind"] == "leader":
            peer = peers.get(event["node"], -1)
            before = found[-1].peer if found else -1
            at_s = event["time"] - journal.began_wall_s
            found.append(Election(at_s=at_s, peer=peer, before=before, job=job.id))
    return found


def recoveries_of(job: JobBar, journal: Journal) -> list[float]:
    """Return how long a job stood still for each leader that was hurt, in seconds."""
    commits = [e["time"] - journal.began_wall_s for e in job.events if e["kind"] == "committed"]
    found: list[float] = []
    for election in elections_of(job, journal):
        if election.before in (-1, election.peer):
            continue
        injury = _last_injury(journal.incidents, election.before, job.began_s, election.at_s)
        resumed = min((at_s for at_s in commits if at_s >= election.at_s), default=None)
        if injury is not None and resumed is not None:
            found.append(resumed - injury.began_s)
    return found


def percentile(ascending: Sequence[float], percent: int) -> float:
    """Return the smallest value that so many percent do not exceed (nearest rank)."""
    assert ascending
    return ascending[max(0, -(-len(ascending) * percent // 100) - 1)]


def _last_injury(incidents: Sequence[Incident], peer: int, since_s: float, until_s: float) -> Incident | None:
    matching = [
        incident
        for incident in incidents
        if incident.peer == peer and incident.kind in INJURIES and since_s <= incident.began_s <= until_s
    ]
    return matching[-1] if matching else None
