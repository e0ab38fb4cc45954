"""What a peer hears about jobs, and which of its machines each message is for.

Theory
------
Messages go to their machine by their type alone.  What is said of a job that was here, and whose time is
over, goes nowhere: it would bring back to life what everybody has forgotten.  Of the leaders' messages it is
noted who leads (`Heard`), so that questions about a job find their way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from mapreduce import messages as m
from mapreduce.locking import HasLocks, WantLocks
from membership.register_messages import AskHearing, Prepare, RegisterMessage
from membership.view import NodeId
from p2p import bulk as b
from p2p import job_inquiries as iq
from p2p import job_questions as q
from p2p.job_keys import JOB_KEY
from p2p.job_locks import LOCK_KEY
from p2p.message_moments import on_hearing
from p2p.result_keeper import ResultKeeper
from p2p.result_questions import TimeIsOver
from p2p.ring_files import RingFiles

if TYPE_CHECKING:
    from p2p.job_service import JobService

__all__ = ["FROM_CLIENTS", "HANDLES", "Heard", "JobHearing"]

_REGISTER_MESSAGES = frozenset(get_args(RegisterMessage))
_TO_WORKER = frozenset(get_args(m.ToWorker))
_TO_LEADER = frozenset(get_args(m.ToLeader))
FROM_CLIENTS = frozenset(
    (q.Upload, q.Submit, q.AskJobs, q.Follow, q.AskParts, q.ReadPart, q.CancelJob, q.AskLogs)
)
_AMONG_PEERS = frozenset(
    (iq.FindJobs, iq.JobsFound, iq.ReadJob, iq.JobRead, iq.ReadParts, iq.PartsRead, iq.EndJob)
)
_OF_CANDIDATES = frozenset((AskHearing, Prepare))
_LOCKS = frozenset((WantLocks, HasLocks))
_OWN = frozenset((iq.Vet, iq.Vetted, iq.FetchSegment, iq.NotHeld, b.Received, b.Stored)) | RingFiles.handles
_OWN |= ResultKeeper.handles

HANDLES = _REGISTER_MESSAGES | _TO_WORKER | _TO_LEADER | FROM_CLIENTS | _AMONG_PEERS | _LOCKS | _OWN
"""All that `JobService` takes."""


@dataclass(slots=True)
class Heard:
    """What was last said of a job by somebody who leads it."""

    leader: NodeId
    members: tuple[NodeId, ...]
    spec_digest: str


class JobHearing:
    """The way of messages to the machines of one peer; `desk` is the service that they are parts of."""

    def __init__(self, desk: JobService) -> None:
        self._desk = desk

    def hear(self, message: Any, sender: NodeId, now: float) -> None:
        """Take a message of a peer, this one or another, to the machine that it is for."""
        desk = self._desk
        kind = type(message)
        on_hearing(message)
        if kind in _REGISTER_MESSAGES:
            job = message.key.removeprefix(JOB_KEY).removeprefix(LOCK_KEY)
            if not desk.is_gone(job):
                desk.perform_register(desk.registers.receive(message, sender, now))
            elif kind in _OF_CANDIDATES and sender != desk.me:
                desk.say(sender, TimeIsOver(job=job))
        elif kind in _TO_WORKER:
            self._hear_leader(message, sender, now)
        elif kind in _TO_LEADER:
            self._hear_worker(message, sender, now)
        elif kind in _AMONG_PEERS:
            desk.answers.on_peer(message, sender, now)
        elif kind in _LOCKS:
            desk.locks.hear(message, sender, now)
        elif kind in RingFiles.handles:
            desk.ring_files.on_peer(message, sender, now)
        elif kind in ResultKeeper.handles:
            desk.results.hear(message, sender, now)
        else:
            self._hear_own(message, sender, now)

    def _hear_leader(self, message: m.ToWorker, sender: NodeId, now: float) -> None:
        desk = self._desk
        job = message.job
        if desk.is_gone(job):
            return
        if isinstance(message, m.Beat | m.Offer):
            known = desk.heard.get(job)
            members = message.members if isinstance(message, m.Offer) else known.members if known else ()
            desk.heard[job] = Heard(sender, members, message.spec_digest)
            desk.lives.goes_on(job)
        desk.perform(desk.worker.receive(message, sender, now))

    def _hear_worker(self, message: m.ToLeader, sender: NodeId, now: float) -> None:
        desk = self._desk
        leader = desk.leader(message.job)
        if leader is not None:
            desk.perform(leader.receive(message, sender, now))
        elif isinstance(message, m.AskFate):
            desk.answers.tell_fate(message.job, sender, now)

    def _hear_own(self, message: Any, sender: NodeId, now: float) -> None:
        desk = self._desk
        match message:
            case b.Received() | b.Stored():
                desk.bulk_ended(desk.bulk.receive(message, sender, now), now)
            case iq.FetchSegment():
                desk.arrivals.serve(message, sender, now)
            case iq.NotHeld():
                desk.arrivals.on_not_held(message, sender, now)
            case iq.Vet():
                desk.vetting.vet(message, sender, now)
            case iq.Vetted():
                desk.vetting.on_vetted(message, sender, now)
