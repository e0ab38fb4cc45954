"""Jobs that clients follow, through a peer that need not know them.

Theory
------
Clients that follow a job share one *watch*: while there is a follower the peer keeps asking those who know
the job, and tells all followers what has changed.  It asks the leader if it has heard of one, else those who
keep the job's record, and now and then everybody, as what it believes to know may be old.

What is learnt only ever gets better: a final view stays, and a vote that is no newer than what a leader said
adds nothing but whom the job waits for.  A job of which nobody tells anything within `ASK_LIMIT_S` is told to
be unknown.

Watches and followers are bounded; the oldest go first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING, Any

from mapreduce.record import NOBODY
from membership.view import NodeId
from p2p import job_inquiries as iq
from p2p import job_questions as q
from p2p.job_keys import JOB_KEY
from p2p.job_knowledge import JobKnowledge
from p2p.transport import Connection

if TYPE_CHECKING:
    from p2p.job_service import JobService

__all__ = ["JobWatches"]

ASK_EVERY_S = 0.2
TELL_EVERY_S = 0.1
ASK_LIMIT_S = 1.0
CANCEL_LIMIT_S = 8.0
MAX_LEASE_S = 30.0
LEAST_LEASE_S = 1.5  # whoever asks once gets what others say, too
MAX_WATCHES = 1_024
MAX_FOLLOWERS = 64


@dataclass(frozen=True, slots=True)
class _Client:
    """Who asked, by which question, and until when an answer is of use."""

    connection: Connection
    number: int
    until: float


@dataclass(slots=True)
class _Watch:
    """A job that clients of this peer follow.

    Attributes:
        followers: by client and number of its question.
        cancels: who waits to hear that the job has ended.
        unknown_at: when followers are told that nobody knows the job.
        rounds: questions since the leader has answered.
    """

    job: str
    members: tuple[NodeId, ...] = ()
    leader: NodeId = NOBODY
    view: q.JobView | None = None
    followers: dict[tuple[NodeId, int], _Client] = field(default_factory=dict)
    cancels: dict[tuple[NodeId, int], _Client] = field(default_factory=dict)
    ask_at: float = 0.0
    tell_at: float = inf
    unknown_at: float = inf
    rounds: int = 0


class JobWatches:
    """The watches of one peer.

    Args:
        desk: the service that they are a part of.
        knowledge: what is known of jobs here.
    """

    def __init__(self, desk: JobService, knowledge: JobKnowledge) -> None:
        self._desk = desk
        self._knowledge = knowledge
        self._watches: OrderedDict[str, _Watch] = OrderedDict()
        self._members: OrderedDict[str, tuple[NodeId, ...]] = OrderedDict()

    def follow(self, follow: q.Follow, client: NodeId, connection: Connection, now: float) -> None:
        """A client wants to hear how a job is, for a while or once."""
        if self._desk.is_gone(follow.job):
            self._desk.answer(connection, q.JobIs(number=follow.number, view=None))
            return
        watch = self._watch(follow.job)
        watch.followers.pop((client, follow.number), None)  # it follows on, and nobody has to go for that
        if len(watch.followers) >= MAX_FOLLOWERS:
            watch.followers.pop(next(iter(watch.followers)))
        lease_s = min(MAX_LEASE_S, max(follow.lease_s, LEAST_LEASE_S))
        follower = _Client(connection, follow.number, now + lease_s)
        watch.followers[client, follow.number] = follower
        view = self._knowledge.view(follow.job) or watch.view
        if view is not None and (view.is_fresh or follow.lease_s > 0):
            watch.view = view
            self._tell(watch, [follower])
            if not view.state.is_final:
                watch.ask_at = min(watch.ask_at, now)
        else:
            watch.ask_at, watch.unknown_at = now, now + ASK_LIMIT_S
        self._go_on(watch, now)

    def cancel(self, cancel: q.CancelJob, client: NodeId, connection: Connection, now: float) -> None:
        """A client wants a job to end, and to hear when it has."""
        watch = self._watch(cancel.job)
        watch.cancels[client, cancel.number] = _Client(connection, cancel.number, now + CANCEL_LIMIT_S)
        while len(watch.cancels) > MAX_FOLLOWERS:
            del watch.cancels[next(iter(watch.cancels))]
        leader = self._desk.leader(cancel.job)
        if leader is None:
            self._ask_about(watch, iq.EndJob(number=0, job=cancel.job, by="its user"))
        else:
            self._desk.perform(leader.cancel("its user", now))
            self.job_moved(cancel.job, now)
        watch.ask_at = min(watch.ask_at, now)
        self._go_on(watch, now)

    def learn(self, job: str, members: tuple[NodeId, ...]) -> None:
        """These keep the job."""
        self._members[job] = members
        if len(self._members) > MAX_WATCHES:
            self._members.popitem(last=False)

    def job_moved(self, job: str, now: float) -> None:
        """The record of a job that we lead has changed, or a job has ended somewhere."""
        watch = self._watches.get(job)
        if watch is None:
            return
        view = self._knowledge.view(job)
        if view is None or not view.is_fresh:
            watch.ask_at, watch.rounds = now, 0  # the leader, if there is one, was just heard
        elif view.state.is_final:
            watch.view = view
            watch.tell_at = now
        else:
            watch.view = view
            watch.tell_at = min(watch.tell_at, now + TELL_EVERY_S)
        self._go_on(watch, now)

    def peer_is_gone(self, node: NodeId, now: float) -> None:
        """Do not take it for a leader."""
        for watch in self._watches.values():
            if watch.leader == node:
                watch.leader = NOBODY
                watch.ask_at = now

    def forget(self, job: str) -> None:
        """A job's time to live is over: whoever waits for an answer hears that nothing is known of it."""
        self._members.pop(job, None)
        watch = self._watches.pop(job, None)
        if watch is not None:
            watch.view = None
            self._tell(watch, watch.followers.values())
            for client in watch.cancels.values():
                self._desk.answer(client.connection, q.Cancelled(number=client.number, view=None))

    # ---- whom to ask --------------------------------------------------------------------------------------

    def _watch(self, job: str) -> _Watch:
        watch = self._watches.get(job)
        if watch is None:
            watch = self._watches[job] = _Watch(job)
            if len(self._watches) > MAX_WATCHES:
                self._watches.popitem(last=False)
        self._watches.move_to_end(job)
        return watch

    def _whom(self, watch: _Watch) -> list[NodeId]:
        """Whom to ask about a job: the one who leads it, or those who keep it, or everybody."""
        here = self._desk.here()
        heard = self._desk.heard.get(watch.job)
        if watch.rounds % 4 < 2:
            for leader in (watch.leader, heard.leader if heard is not None else NOBODY):
                if leader in here:
                    return [leader]
        keepers = self.keepers(watch.job)
        # One that asks for long in vain should not rely on what it believes to know.
        return keepers if keepers and watch.rounds % 4 < 3 else sorted(here)

    def keepers(self, job: str) -> list[NodeId]:
        """Who should know a job, as far as this peer can tell: its group, and who led it last."""
        here = self._desk.here()
        heard = self._desk.heard.get(job)
        group = self._desk.registers.group(JOB_KEY + job)
        watch = self._watches.get(job)
        found = [member.node for member in group.members] if group is not None else []
        found += (heard.leader, *heard.members) if heard is not None else ()
        found += self._members.get(job, ())
        if watch is not None:
            found += (watch.leader, *(watch.view.members if watch.view is not None else ()))
        return [node for node in dict.fromkeys(found) if node in here]

    def _ask_about(self, watch: _Watch, question: Any) -> None:
        for node in self._whom(watch):
            self._desk.say(node, question)

    def on_read(self, message: iq.JobRead, sender: NodeId, now: float) -> None:
        """A peer says how a job is, as far as it knows."""
        watch = self._watches.get(message.job)
        if watch is None:
            return
        if message.leader and message.leader != sender:
            watch.leader = message.leader
        view = message.view
        if view is None:
            return
        known = watch.view
        if known is not None and known.state.is_final:
            return
        if known is not None and not view.is_fresh and known.is_fresh and known.ballot >= view.ballot:
            if not view.waiting_for and not known.waiting_for:
                return
            view = replace(known, waiting_for=view.waiting_for)
        if view.is_fresh:
            watch.leader, watch.rounds = sender, 0
        watch.unknown_at = inf
        if view != known:
            watch.view = view
            watch.tell_at = now if view.state.is_final else min(watch.tell_at, now + TELL_EVERY_S)
        elif watch.followers:
            watch.tell_at = min(watch.tell_at, now + 1.0)  # a sign of life
        self._go_on(watch, now)

    # ---- time ----------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Do what is due."""
        for watch in list(self._watches.values()):
            self._go_on(watch, now)

    def next_deadline(self) -> float:
        """When to be ticked again."""
        due = [inf]
        for watch in self._watches.values():
            due += [watch.ask_at, watch.tell_at, watch.unknown_at]
            due += [client.until for client in (*watch.followers.values(), *watch.cancels.values())]
        return min(due)

    def _go_on(self, watch: _Watch, now: float) -> None:
        if watch.tell_at <= now:
            watch.tell_at = inf
            self._tell(watch, watch.followers.values())
        view = watch.view
        final = view is not None and view.state.is_final
        if final:
            watch.ask_at = inf  # nothing is to be asked any more, and nothing to be woken for
        for key, client in list(watch.cancels.items()):
            if final or client.until <= now:
                del watch.cancels[key]
                self._desk.answer(client.connection, q.Cancelled(number=client.number, view=view))
        if watch.unknown_at <= now:
            watch.unknown_at = inf
            watch.view = view = view or self._knowledge.hearsay(watch.job)
            self._tell(watch, watch.followers.values())
        for key in [key for key, client in watch.followers.items() if client.until <= now]:
            if watch.unknown_at == inf:
                del watch.followers[key]
        if not watch.followers and not watch.cancels:
            self._watches.pop(watch.job, None)
        elif watch.ask_at <= now:
            watch.ask_at = now + ASK_EVERY_S
            leader = self._desk.leader(watch.job)
            if leader is None:
                watch.rounds += 1
                self._ask_about(watch, iq.ReadJob(number=0, job=watch.job))
            else:
                watch.view = self._knowledge.view(watch.job)
                watch.tell_at = min(watch.tell_at, now + TELL_EVERY_S)

    def _tell(self, watch: _Watch, clients: Iterable[_Client]) -> None:
        for client in clients:
            self._desk.answer(client.connection, q.JobIs(number=client.number, view=watch.view))
