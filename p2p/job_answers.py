"""What clients are told about jobs, by any peer.

Theory
------
The peer that a client talks to need not know the job.  What it knows itself is `p2p.job_knowledge`'s; what it
does not know it asks of those who do, for as long as somebody follows the job (`p2p.job_watches`), or once,
of several, for a list (`p2p.job_gatherings`).

Peers ask each other the same.  A question about a job that is over is answered when its record is known to be
chosen (`p2p.job_finals`), a question about any other at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from mapreduce.failpoints import failpoint
from mapreduce.messages import Dissolve
from mapreduce.record import NOBODY, JobRecord, JobStatus
from mapreduce.stages import StageGraph
from membership.view import NodeId
from p2p import job_inquiries as iq
from p2p import job_questions as q
from p2p.job_finals import JobFinals
from p2p.job_gatherings import JobGatherings
from p2p.job_keys import JOB_KEY
from p2p.job_knowledge import JobKnowledge
from p2p.job_watches import JobWatches
from p2p.result_questions import TimeIsOver
from p2p.transport import Connection
from p2p.uploads import Uploads

if TYPE_CHECKING:
    from p2p.job_service import JobService

__all__ = ["JobAnswers"]


class JobAnswers:
    """Answers for one peer; `desk` is the service that it is a part of."""

    def __init__(self, desk: JobService) -> None:
        self._desk = desk
        self._finals = JobFinals(desk)
        self._knowledge = JobKnowledge(desk, self._finals)
        self._watches = JobWatches(desk, self._knowledge)
        self._gatherings = JobGatherings(desk, self._watches.keepers)
        self._uploads = Uploads()

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
                self._watches.follow(question, client, connection, now)
            case q.AskParts():
                self._gatherings.ask_parts(question, connection, now)
            case q.ReadPart():
                self._desk.answer(connection, self._read_part(question))
            case q.CancelJob():
                self._watches.cancel(question, client, connection, now)
            case q.AskLogs():
                text = self._desk.runner.log(question.job)[-q.MAX_LOG_BYTES // 4 :]
                self._desk.answer(connection, q.LogsAre(number=number, node=self._desk.me, text=text))

    def learn(self, job: str, members: tuple[NodeId, ...]) -> None:
        """These keep the job."""
        self._watches.learn(job, members)

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

    # ---- lists, parts --------------------------------------------------------------------------------------

    def _read_part(self, read: q.ReadPart) -> q.PartChunk:
        """Give some of a part; its bytes are the reader's to check, but too few of them are seen here."""
        failpoint("result.read")
        store = self._desk.store
        find = store.find_own if read.offset == 0 else store.find
        try:
            located = find(read.job, read.stage, read.attempt)
            if located is None or read.offset > located.length:
                return q.PartChunk(number=read.number, offset=read.offset, data=b"", is_here=False)
            descriptor = os.open(located.path, os.O_RDONLY)
            try:
                size = min(q.CHUNK_BYTES, located.length - read.offset)
                data = os.pread(descriptor, size, located.offset + read.offset)
            finally:
                os.close(descriptor)
        except OSError:
            return q.PartChunk(number=read.number, offset=read.offset, data=b"", is_here=False)
        if len(data) < size:
            store.remove_segment(located.path)
            return q.PartChunk(number=read.number, offset=read.offset, data=b"", is_here=False)
        return q.PartChunk(number=read.number, offset=read.offset, data=data)

    # ---- peers ---------------------------------------------------------------------------------------------

    def on_peer(self, message: Any, sender: NodeId, now: float) -> None:
        """Take what a peer asks or answers."""
        match message:
            case iq.FindJobs():
                rows = tuple(self._knowledge.rows(message.prefix))
                self._desk.say(sender, iq.JobsFound(number=message.number, jobs=rows))
            case iq.JobsFound() | iq.PartsRead():
                self._gatherings.on_peer(message, sender)
            case iq.ReadJob() | iq.ReadParts():
                self._answer_when_known(message.job, sender, message, now)
            case iq.JobRead():
                self._watches.on_read(message, sender, now)
            case iq.EndJob():
                leader = self._desk.leader(message.job)
                if leader is not None:
                    self._desk.perform(leader.cancel(message.by, now))

    def peer_is_gone(self, node: NodeId, now: float) -> None:
        """Do not wait for its answers, and do not take it for a leader."""
        self._gatherings.peer_is_gone(node)
        self._watches.peer_is_gone(node, now)

    def tell_fate(self, job: str, sender: NodeId, now: float) -> None:
        """A worker has heard nobody lead this job for a while."""
        vote = self._desk.registers.acceptor.get(JOB_KEY + job)
        fate = self._desk.worker.fate_of(job)
        if fate is not None:  # who was told of the end need not have voted for it
            self._desk.say(sender, replace(fate, keep_s=self._left_s(job, fate.keep_s, now)))
        elif vote is not None and vote.record.terminal:
            self._answer_when_known(job, sender, "fate", now)
        elif self._desk.is_gone(job):
            self._desk.say(sender, TimeIsOver(job=job))

    def _left_s(self, job: str, most_s: float, now: float) -> float:
        """How long others should keep what they have of a job that is over: no longer than this peer."""
        left_s = 0.0 if self._desk.is_gone(job) else self._desk.lives.until(job) - now
        return min(most_s, max(0.0, left_s))

    def job_moved(self, job: str, now: float) -> None:
        """The record of a job that we lead has changed, or a job has ended somewhere."""
        self._watches.job_moved(job, now)

    def forget(self, job: str) -> None:
        """A job's time to live is over: whoever waits for an answer hears that nothing is known of it."""
        self._finals.forget(job)
        self._watches.forget(job)

    # ---- records -------------------------------------------------------------------------------------------

    def final(self, job: str, now: float) -> JobRecord | None:
        """See `JobFinals.seek`."""
        return self._finals.seek(job, now)

    def on_read(self, job: str, number: int, record: JobRecord) -> None:
        """See `JobFinals.on_read`."""
        self._finals.on_read(job, number, record)

    def on_abandoned(self, job: str, numbers: Iterable[int]) -> None:
        """See `JobFinals.on_abandoned`."""
        self._finals.on_abandoned(job, numbers)

    def _answer_when_known(self, job: str, sender: NodeId, question: object, now: float) -> None:
        self._finals.when_known(job, partial(self._answer_peer, job, sender, question, now), now)

    def _answer_peer(self, job: str, sender: NodeId, question: object, asked_at: float) -> None:
        match question:
            case iq.ReadJob(number=number):
                view = self._knowledge.view(job)
                hears = self._desk.registers.leader(JOB_KEY + job) or NOBODY
                read = iq.JobRead(number=number, job=job, leader=hears, view=view)
                self._desk.say(sender, read)
            case iq.ReadParts(number=number, first=first):
                total, rows = self._knowledge.parts(job, first)
                self._desk.say(sender, iq.PartsRead(number=number, job=job, total=total, rows=rows))
            case "fate":
                record, plan = self._finals.get(job), self._desk.plan(job)
                if record is not None and plan is not None:
                    committed = record.status is JobStatus.COMMITTED
                    keep = StageGraph(plan).result_stage if committed else -1
                    over = Dissolve(
                        job=job,
                        ballot=record.ballot,
                        status=record.status,
                        keep_stage=keep,
                        keep_s=self._left_s(job, plan.ttl_s, asked_at),
                    )
                    self._desk.say(sender, over)

    # ---- time ----------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Do what is due."""
        self._watches.tick(now)
        self._gatherings.tick(now)
        self._uploads.tick(now)

    def next_deadline(self) -> float:
        """When to be ticked again."""
        return min(self._watches.next_deadline(), self._gatherings.next_deadline())
