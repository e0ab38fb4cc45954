"""What clients are told about jobs, by any peer.

Theory
------
The peer that a client talks to need not know the job.  It asks those who do: the leader if it has heard of
one, else the members of the job's group, else everybody.  Clients that follow a job share one *watch*: while
there is a follower the peer keeps asking, and tells all followers what has changed.

=====================  ==================================================================================
who is asked           answers
=====================  ==================================================================================
the leader             with its record: the truth
a member, job running  with its own vote, which may be old or never chosen (`is_fresh` is False), and the
                       leader that it hears
a member, job over     after it has *read* the register: a vote alone may be a minority's
anybody else           that it knows nothing
=====================  ==================================================================================

A member reads the register only when its own vote is final: a read outbids whoever leads, and a job that
runs must not be disturbed by questions.  A final record absorbs, so this read can change nothing.

Watches, followers and questions under way are bounded; the oldest go first.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

from mapreduce.failpoints import failpoint
from mapreduce.messages import Dissolve
from mapreduce.record import NOBODY, JobRecord, JobStatus
from mapreduce.stages import StageGraph
from membership.register import Record, majority
from membership.view import NodeId
from p2p import job_inquiries as iq
from p2p import job_questions as q
from p2p.job_gatherings import JobGatherings
from p2p.job_views import parts_of, row_of, view_of
from p2p.transport import Connection
from p2p.uploads import Uploads

if TYPE_CHECKING:
    from p2p.job_service import JobService

__all__ = ["JobAnswers"]

JOB_KEY = "job/"
ASK_EVERY_S = 0.2
TELL_EVERY_S = 0.1
ASK_LIMIT_S = 1.0
CANCEL_LIMIT_S = 8.0
MAX_LEASE_S = 30.0
LEAST_LEASE_S = 1.5  # whoever asks once gets what others say, too
MAX_WATCHES = 1_024
MAX_FOLLOWERS = 64
MAX_FINAL = 1_024
MAX_ROWS = 1_000


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


class JobAnswers:
    """Answers for one peer; `desk` is the service that it is a part of."""

    def __init__(self, desk: JobService) -> None:
        self._desk = desk
        self._watches: OrderedDict[str, _Watch] = OrderedDict()
        self._gatherings = JobGatherings(desk, self._keepers)
        self._uploads = Uploads()
        self._members: OrderedDict[str, tuple[NodeId, ...]] = OrderedDict()
        # Records that are known to be chosen and final, and who waits for a read that makes sure of one.
        self._final: OrderedDict[str, JobRecord] = OrderedDict()
        self._reads: dict[str, tuple[int, list[tuple[NodeId, object]]]] = {}

    # ---- clients -------------------------------------------------------------------------------------------

    def on_client(self, question: Any, client: NodeId, connection: Connection, now: float) -> None:
        """Take a client's question.

        Args:
            question: what it asks.
            client: what it calls itself.
            connection: where the answer goes.
            now: in seconds.
        """
        number = question.number
        match question:
            case q.Upload():
                self._desk.answer(connection, self._uploads.take(question, now))
            case q.Submit():
                self._submit(question, connection, now)
            case q.AskJobs():
                self._gatherings.ask_jobs(question, connection, now)
            case q.Follow():
                self._follow(question, client, connection, now)
            case q.AskParts():
                self._gatherings.ask_parts(question, connection, now)
            case q.ReadPart():
                self._desk.answer(connection, self._read_part(question))
            case q.CancelJob():
                self._cancel(question, client, connection, now)
            case q.AskLogs():
                text = self._desk.runner.log(question.job)[-q.MAX_LOG_BYTES // 4 :]
                self._desk.answer(connection, q.LogsAre(number=number, node=self._desk.me, text=text))

    def learn(self, job: str, members: tuple[NodeId, ...]) -> None:
        """These keep the job."""
        self._members[job] = members
        if len(self._members) > MAX_WATCHES:
            self._members.popitem(last=False)

    def _submit(self, submit: q.Submit, connection: Connection, now: float) -> None:
        packed = submit.spec
        if submit.upload:
            whole = self._uploads.whole(submit.upload)
            if whole is None:
                text = "the upload is not here: submit it again"
                refusal = q.Submitted(number=submit.number, job="", reason="upload", text=text)
                self._desk.answer(connection, refusal)
                return
            packed = whole
        self._desk.vetting.submit(packed, submit.nonce, submit.group, (connection, submit.number), now)

    def _follow(self, follow: q.Follow, client: NodeId, connection: Connection, now: float) -> None:
        if self._desk.is_gone(follow.job):
            self._desk.answer(connection, q.JobIs(number=follow.number, view=None))
            return
        watch = self._watch(follow.job)
        if len(watch.followers) >= MAX_FOLLOWERS:
            watch.followers.pop(next(iter(watch.followers)))
        lease_s = min(MAX_LEASE_S, max(follow.lease_s, LEAST_LEASE_S))
        follower = _Client(connection, follow.number, now + lease_s)
        watch.followers[client, follow.number] = follower
        view = self._local_view(follow.job) or watch.view
        if view is not None and (view.is_fresh or follow.lease_s > 0):
            watch.view = view
            self._tell(watch, [follower])
            if not view.state.is_final:
                watch.ask_at = min(watch.ask_at, now)
        else:
            watch.ask_at, watch.unknown_at = now, now + ASK_LIMIT_S
        self._go_on(watch, now)

    def _cancel(self, cancel: q.CancelJob, client: NodeId, connection: Connection, now: float) -> None:
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

    # ---- lists, parts --------------------------------------------------------------------------------------

    def _read_part(self, read: q.ReadPart) -> q.PartChunk:
        failpoint("result.read")
        located = self._desk.store.find(read.job, read.stage, read.attempt)
        if located is None or read.offset > located.length:
            return q.PartChunk(number=read.number, offset=read.offset, data=b"", is_here=False)
        try:
            descriptor = os.open(located.path, os.O_RDONLY)
            try:
                size = min(q.CHUNK_BYTES, located.length - read.offset)
                data = os.pread(descriptor, size, located.offset + read.offset)
            finally:
                os.close(descriptor)
        except OSError:
            return q.PartChunk(number=read.number, offset=read.offset, data=b"", is_here=False)
        return q.PartChunk(number=read.number, offset=read.offset, data=data)

    # ---- peers ---------------------------------------------------------------------------------------------

    def on_peer(self, message: Any, sender: NodeId, now: float) -> None:
        """Take what a peer asks or answers."""
        match message:
            case iq.FindJobs():
                rows = tuple(self._rows(message.prefix))
                self._desk.say(sender, iq.JobsFound(number=message.number, jobs=rows))
            case iq.JobsFound() | iq.PartsRead():
                self._gatherings.on_peer(message, sender)
            case iq.ReadJob():
                self._when_known(message.job, sender, message, now)
            case iq.ReadParts():
                self._when_known(message.job, sender, message, now)
            case iq.JobRead():
                self._job_read(message, sender, now)
            case iq.EndJob():
                leader = self._desk.leader(message.job)
                if leader is not None:
                    self._desk.perform(leader.cancel(message.by, now))

    def peer_is_gone(self, node: NodeId, now: float) -> None:
        """Do not wait for its answers, and do not take it for a leader."""
        self._gatherings.peer_is_gone(node)
        for watch in self._watches.values():
            if watch.leader == node:
                watch.leader = NOBODY
                watch.ask_at = now

    def tell_fate(self, job: str, sender: NodeId, now: float) -> None:
        """A worker has heard nobody lead this job for a while."""
        vote = self._desk.registers.acceptor.get(JOB_KEY + job)
        if vote is not None and vote.record.terminal:
            self._when_known(job, sender, "fate", now)

    def job_moved(self, job: str, now: float) -> None:
        """The record of a job that we lead has changed, or a job has ended somewhere."""
        watch = self._watches.get(job)
        if watch is None:
            return
        view = self._local_view(job)
        if view is None or not view.is_fresh:
            watch.ask_at, watch.rounds = now, 0  # the leader, if there is one, was just heard
        elif view.state.is_final:
            watch.view = view
            watch.tell_at = now
        else:
            watch.view = view
            watch.tell_at = min(watch.tell_at, now + TELL_EVERY_S)
        self._go_on(watch, now)

    def forget(self, job: str) -> None:
        """A job's time to live is over: whoever waits for an answer hears that nothing is known of it."""
        self._members.pop(job, None)
        self._final.pop(job, None)
        _, askers = self._reads.pop(job, (0, []))
        for sender, question in askers:
            self._answer_peer(job, sender, question)
        watch = self._watches.pop(job, None)
        if watch is not None:
            watch.view = None
            self._tell(watch, watch.followers.values())
            for client in watch.cancels.values():
                self._desk.answer(client.connection, q.Cancelled(number=client.number, view=None))

    # ---- records -------------------------------------------------------------------------------------------

    def _when_known(self, job: str, sender: NodeId, question: object, now: float) -> None:
        """Answer, if need be after the register was read."""
        vote = self._desk.registers.acceptor.get(JOB_KEY + job)
        if (
            self._desk.leader(job) is not None
            or job in self._final
            or vote is None
            or not vote.record.terminal
        ):
            self._answer_peer(job, sender, question)
            return
        if job in self._reads:
            self._reads[job][1].append((sender, question))
            del self._reads[job][1][:-MAX_FOLLOWERS]
            return
        number = self._desk.propose(job, _unchanged, now)
        if number is None:
            self._answer_peer(job, sender, question)
        else:
            self._reads[job] = (number, [(sender, question)])

    def final(self, job: str, now: float) -> JobRecord | None:
        """Return the record of a job that is known to be over; None: it is being read, ask again."""
        leader = self._desk.leader(job)
        if leader is not None and leader.has_ended:
            return leader.record  # it need not ask the others
        if job not in self._final and job not in self._reads:
            number = self._desk.propose(job, _unchanged, now)
            if number is not None:
                self._reads[job] = (number, [])
        return self._final.get(job)

    def on_read(self, job: str, number: int, record: JobRecord) -> None:
        """A read of a register is done."""
        if record.status.is_final:
            self._final[job] = record
            if len(self._final) > MAX_FINAL:
                self._final.popitem(last=False)
        self._read_ended(job, number)

    def on_abandoned(self, job: str, numbers: Iterable[int]) -> None:
        """Reads that came to nothing."""
        for number in numbers:
            self._read_ended(job, number)

    def _read_ended(self, job: str, number: int) -> None:
        known = self._reads.get(job)
        if known is not None and known[0] == number:
            del self._reads[job]
            for sender, question in known[1]:
                self._answer_peer(job, sender, question)

    def _answer_peer(self, job: str, sender: NodeId, question: object) -> None:
        match question:
            case iq.ReadJob(number=number):
                view = self._local_view(job)
                hears = self._desk.registers.leader(JOB_KEY + job) or NOBODY
                read = iq.JobRead(number=number, job=job, leader=hears, view=view)
                self._desk.say(sender, read)
            case iq.ReadParts(number=number, first=first):
                total, rows = self._parts(job, first)
                self._desk.say(sender, iq.PartsRead(number=number, job=job, total=total, rows=rows))
            case "fate":
                record, plan = self._final.get(job), self._desk.plan(job)
                if record is not None and plan is not None:
                    committed = record.status is JobStatus.COMMITTED
                    keep = StageGraph(plan).result_stage if committed else -1
                    over = Dissolve(
                        job=job,
                        ballot=record.ballot,
                        status=record.status,
                        keep_stage=keep,
                        keep_s=plan.ttl_s,
                    )
                    self._desk.say(sender, over)

    def _parts(self, job: str, first: int) -> tuple[int, tuple[q.PartRow, ...]]:
        leader, plan = self._desk.leader(job), self._desk.plan(job)
        record = leader.record if leader is not None else self._final.get(job)
        if record is None or plan is None:
            return -1, ()
        addresses = {member.id: member.address for member in self._desk.swim.view.ring_members}
        return parts_of(record, plan, first, addresses, partial(self._desk.results.holders, job))

    def _local_view(self, job: str) -> q.JobView | None:
        """A job as this peer knows it."""
        desk = self._desk
        group = desk.registers.group(JOB_KEY + job)
        members = tuple(member.node for member in group.members) if group is not None else ()
        epoch = group.place.epoch if group is not None else 0
        leader = desk.leader(job)
        if leader is not None:
            # A job that cannot be written is one that waits, however long it has not been a stall.
            waiting = leader.waiting_for if leader.lacks_quorum else ""
            waiting = waiting or self._quorum_unheard(job) or desk.stalled.get(job, "")
            return view_of(leader.record, desk.plan(job), members=members, epoch=epoch, waiting_for=waiting)
        final = self._final.get(job)
        if final is not None:
            return view_of(final, desk.plan(job), members=members, epoch=epoch)
        vote = desk.registers.acceptor.get(JOB_KEY + job)
        if vote is None or not any(member.node == desk.me for member in vote.record.members):
            return None
        record, waiting = desk.record_in(vote.record), self._quorum_unheard(job)
        return view_of(
            record, desk.plan(job), members=members, epoch=epoch, waiting_for=waiting, is_fresh=False
        )

    def _quorum_unheard(self, job: str) -> str:
        """Say who of a job's group is not heard, when those who are heard are too few to write its record.

        Who is alone takes long to be sure that the others are dead, and a leader with nothing to write does
        not notice that it could not; that nobody is heard is news enough for those who follow the job.
        """
        group = self._desk.registers.group(JOB_KEY + job)
        if group is None:
            return ""
        heard = {member.id for member in self._desk.swim.view.alive}
        missing = sorted(member.node for member in group.members if member.node not in heard)
        if len(group.members) - len(missing) >= majority(group.members):
            return ""
        return f"waiting for a quorum: {{{', '.join(missing)}}} do not answer"

    def _hearsay(self, job: str) -> q.JobView | None:
        """A job of which this peer has the spec alone: whoever keeps its record is not here now.

        That may be a single peer, where few were here when the job was born.
        """
        desk = self._desk
        if desk.is_gone(job) or desk.plan(job) is None:
            return None
        waiting = "waiting for the peers that keep its record: none of them answers"
        unread = JobRecord(job=job, spec_digest="", born_at_s=0.0)
        return view_of(unread, desk.plan(job), members=(), epoch=0, waiting_for=waiting, is_fresh=False)

    def _rows(self, prefix: str) -> list[q.JobRow]:
        desk = self._desk
        rows: list[q.JobRow] = []
        for key in desk.registers.acceptor:
            job = key.removeprefix(JOB_KEY)
            if key == job or not job.startswith(prefix) or len(rows) >= MAX_ROWS:
                continue
            leader = desk.leader(job)
            record = leader.record if leader is not None else self._final.get(job)
            is_fresh = record is not None
            if record is None:
                vote = desk.registers.acceptor.get(key)
                if vote is None or not vote.record.payload:
                    continue
                record = desk.record_in(vote.record)
            group = desk.registers.group(key)
            members = [member.node for member in group.members] if group is not None else []
            rows.append(row_of(record, desk.plan(job), members, is_fresh=is_fresh))
        return rows

    # ---- watches -------------------------------------------------------------------------------------------

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
        keepers = self._keepers(watch.job)
        # One that asks for long in vain should not rely on what it believes to know.
        return keepers if keepers and watch.rounds % 4 < 3 else sorted(here)

    def _keepers(self, job: str) -> list[NodeId]:
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

    def _job_read(self, message: iq.JobRead, sender: NodeId, now: float) -> None:
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

    def tick(self, now: float) -> None:
        """Do what is due."""
        for watch in list(self._watches.values()):
            self._go_on(watch, now)
        self._gatherings.tick(now)
        self._uploads.tick(now)

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
            watch.view = view = view or self._hearsay(watch.job)
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
                watch.view = self._local_view(watch.job)
                watch.tell_at = min(watch.tell_at, now + TELL_EVERY_S)

    def _tell(self, watch: _Watch, clients: Iterable[_Client]) -> None:
        for client in clients:
            self._desk.answer(client.connection, q.JobIs(number=client.number, view=watch.view))

    def next_deadline(self) -> float:
        """When to be ticked again."""
        due = [self._gatherings.next_deadline()]
        for watch in self._watches.values():
            due += [watch.ask_at, watch.tell_at, watch.unknown_at]
            due += [client.until for client in (*watch.followers.values(), *watch.cancels.values())]
        return min(due, default=inf)


def _unchanged(record: Record) -> bytes:
    """A change that only reads."""
    return record.payload
