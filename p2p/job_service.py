"""Everything about jobs on one peer: leaders, the worker, registers, children, store and transfers, composed.

Theory
------
The machines are pure and know nothing of each other; this is where the effects of one become the inputs of
another.  Effects are performed strictly in order, from one queue: what an effect gives rise to is performed
behind all that was there before it.  So within the list that a machine returned a `Save` is on disk before
the `SendTo` behind it leaves.  Messages to this very peer take the same way, without the wire.

============================  =========================================================================
machine                       what it is for
============================  =========================================================================
`membership.registers`        this peer's acceptor, its proposers and elections; a job's key is "job/ID"
`mapreduce.leader`            one for each job whose election this peer has won
`mapreduce.worker`            one: claims and runs tasks of all jobs
`p2p.task_runner`             children
`p2p.store`, `p2p.bulk`       outputs on disk, and on their way from disk to disk
`p2p.fetches`                 what is wanted from other peers: specs, parts
`p2p.submissions`             jobs on their way in
`p2p.ring_files`              the ring's own files: names, blocks, their copies
`p2p.ring_inputs`             tasks that read such files: their blocks are brought here first
`p2p.job_locks`               jobs' named locks, each job's in a register "locks/ID"
`p2p.job_answers`             what clients, and peers on their behalf, are told
============================  =========================================================================

*The life of a job here.*  Its spec arrives when it is vetted; its register when this peer is a member of its
group; a beat when somebody leads it.  It ends with `DropJob`, after which the result and the terminal record
stay for their time to live.  What is never heard of again goes too: a job that was vetted and not born after
`UNBORN_S`, what an earlier life left on disk and nobody claims after `ORPHAN_S`.

*A disk that fails.*  A vote that cannot be made durable ends this life of the acceptor
(`membership.register_effects`): the peer says so and stops.  Everything else that fails on disk fails an
attempt, a push or a fetch, which go elsewhere.

⚙ Performs effects: files, processes.
"""

from __future__ import annotations

import random
import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import inf
from typing import Any, assert_never, get_args

from mapreduce import effects as e
from mapreduce import messages as m
from mapreduce.changes import Proposal, apply
from mapreduce.config import JobsConfig
from mapreduce.errors import JobError
from mapreduce.failpoints import failpoint
from mapreduce.leader import Leader
from mapreduce.locking import HasLocks, WantLocks
from mapreduce.messages import HeldGroup
from mapreduce.placement import can_hold
from mapreduce.record import Failure, JobRecord, born
from mapreduce.spec import JobPlan, job_id_of
from mapreduce.streams import is_url
from mapreduce.worker import Worker
from membership import register_effects as reg
from membership.effects import Event, MemberDied, MemberLeft
from membership.errors import DamagedVote, TooManyProposals, UnknownRegister
from membership.register import AcceptorId, Fence, Group, Record, next_group
from membership.register_config import RegisterConfig
from membership.register_messages import Accept, Birth, RegisterMessage
from membership.registers import Registers
from membership.swim import Swim
from membership.view import NodeId
from p2p import bulk as b
from p2p import job_questions as q
from p2p import task_runner as t
from p2p.blocks import RING, is_file_id
from p2p.errors import DataDirectoryUnusable, MalformedFrame
from p2p.fetches import FetchEnded, Fetches
from p2p.job_answers import JobAnswers
from p2p.job_files import JobFiles
from p2p.job_locks import LOCK_KEY, JobLocks
from p2p.job_protocol import pack_record, unpack_record
from p2p.name_files import NameFiles
from p2p.ring_files import RingFiles
from p2p.ring_inputs import RingInputs
from p2p.service import Effect, Origin, Reply, Say
from p2p.spec_packing import spec_digest, unpack_spec
from p2p.store import SPEC_STAGE, Covers, Source, Store
from p2p.submissions import Begun, Submissions, acceptors
from p2p.transport import BulkArrival, Connection
from p2p.votes import VoteStore

__all__ = ["JOB_KEY", "JobService", "OwnLimits"]

JOB_KEY = "job/"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
SPEC_ATTEMPT = 1
HOUSEKEEPING_S = 1.0
WARM_AFTER_S = 0.3
UNBORN_S = 60.0
ORPHAN_S = 3600.0
HEAL_PAUSE_S = 2.0
MAX_PEERS_TOLD = 32
MAX_GONE = 4_096
# Of one turn; the rest is done in the next, after others have had theirs.
MAX_EFFECTS_PER_TURN = 100_000

_REGISTER_MESSAGES = frozenset(get_args(RegisterMessage))
_TO_WORKER = frozenset(get_args(m.ToWorker))
_TO_LEADER = frozenset(get_args(m.ToLeader))
_FROM_CLIENTS = frozenset(
    (q.Upload, q.Submit, q.AskJobs, q.Follow, q.AskParts, q.ReadPart, q.CancelJob, q.AskLogs)
)
_AMONG_PEERS = frozenset((q.FindJobs, q.JobsFound, q.ReadJob, q.JobRead, q.ReadParts, q.PartsRead, q.EndJob))
_LOCKS = frozenset((WantLocks, HasLocks))
_OWN = frozenset((q.Vet, q.Vetted, q.FetchSegment, q.NotHeld, b.Received, b.Stored)) | RingFiles.handles

# Where a test may hurt this process: before a message is sent, and when one was heard.
_BEFORE_SENDING: Mapping[type, str] = {
    Birth: "birth.send",
    Accept: "commit.accept",
    m.AskInventory: "takeover.ask",
    m.Inventory: "takeover.tell",
    m.Offer: "offer.send",
    m.Claim: "claim.send",
    m.Grant: "grant.send",
    m.Finished: "finished.send",
    m.Settled: "settled.send",
    m.CopyOrder: "copy.order",
    m.Copied: "copy.done",
    m.Dissolve: "dissolve.send",
}
_ON_HEARING: Mapping[type, str] = {
    m.Grant: "grant.heard",
    m.Finished: "finished.heard",
    m.Dissolve: "dissolve.heard",
    b.Stored: "push.acked",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnLimits:
    """What this peer gives to jobs.

    Attributes:
        slots: attempts at a time.
        memory_bytes: for each of them.
    """

    slots: int
    memory_bytes: int


@dataclass(slots=True)
class _Leading:
    """A job that this peer leads; `leader` is None until its plan is here, `token` names the leadership."""

    key: str
    token: str
    record: JobRecord
    leader: Leader | None = None
    proposal: int = -1  # its number at the register


@dataclass(slots=True)
class Heard:
    """What was last said of a job by somebody who leads it."""

    leader: NodeId
    members: tuple[NodeId, ...]
    spec_digest: str


class JobService:
    """The engine of a peer (`p2p.service.Engine`).

    Args:
        swim: our membership, which is only read.
        store: outputs on disk.
        votes: the acceptor's, on disk.
        files: the jobs' own files.
        limits: what we give to jobs.
        jobs: settings of leaders and workers.
        registers: settings of registers and elections.
        send_chunk: sends parts to a peer's bulk inbox; False if the link takes no more now.
        log: takes one line of text; must not block.
        now: monotonic seconds.
        wall: the wall clock at that moment, in seconds.
        names: of the ring's files, on disk; None: they are kept in memory only.

    Raises:
        OSError: the votes cannot be read.
    """

    handles = _REGISTER_MESSAGES | _TO_WORKER | _TO_LEADER | _FROM_CLIENTS | _AMONG_PEERS | _LOCKS | _OWN

    def __init__(
        self,
        *,
        swim: Swim,
        store: Store,
        votes: VoteStore,
        files: JobFiles,
        limits: OwnLimits,
        jobs: JobsConfig,
        registers: RegisterConfig,
        send_chunk: Callable[[NodeId, Sequence[bytes]], bool],
        log: Callable[[str], None],
        now: float,
        wall: float,
        names: NameFiles | None = None,
    ) -> None:
        me = swim.me
        self.me = me.id
        self.swim = swim
        self.store = store
        self.files = files
        self._votes = votes
        self._config = jobs
        self._log = log
        self._wall_offset_s = wall - now
        self.runner = t.TaskRunner(
            me=me.id, slots=limits.slots, memory_bytes=limits.memory_bytes, files=files, store=store
        )
        self.bulk = b.Bulk(me=me.id, session=me.session, store=store, send_chunk=send_chunk)
        self.registers = self._open_registers(registers, now)
        self.worker = Worker(me=me.id, session=me.session, slots=limits.slots, view=swim.view, config=jobs)
        self.fetches = Fetches()
        self.submissions = Submissions()
        self.answers = JobAnswers(self)
        self.ring_files = RingFiles(
            self, names, random.Random(me.session), now=now, wall_offset_s=self._wall_offset_s
        )
        self.ring_inputs = RingInputs(self)
        self.locks = JobLocks(self, session=me.session, config=jobs)
        self.heard: dict[str, Heard] = {}
        self.stalled: dict[str, str] = {}
        self._leading: dict[str, _Leading] = {}
        self._plans: dict[str, JobPlan] = {}
        self._packed: dict[str, tuple[bytes, JobRecord]] = {}
        self._expiry: dict[str, float] = {}
        # Jobs whose time to live is over: what others still say of their registers begins nothing anew.
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._healed_at: dict[str, float] = {}
        self._vets: dict[str, list[tuple[NodeId, int]]] = {}
        self._queue: deque[Callable[[float], None]] = deque()
        self._out: list[Effect] = []
        self._perform_early: Callable[[Sequence[Effect], float], None] = self._perform_later
        self._view_version = -1
        self._next_housekeeping = now
        self._warm_at = now + WARM_AFTER_S
        self.warmth_is_wanted = True  # children that wait for work; otherwise they start with it
        self._ticked_at = now
        self._number = 0

    # ---- a service of the loop -----------------------------------------------------------------------------

    def start(self, now: float) -> Sequence[Effect]:
        """See `Service.start`."""
        for job in self.store.jobs:
            if not is_file_id(job):
                self._expiry[job] = now + ORPHAN_S
        for key in list(self.registers.acceptor):
            vote = self.registers.acceptor.get(key)
            if vote is not None and vote.record.terminal and key.startswith(JOB_KEY):
                record = self.record_in(vote.record)
                left_s = record.ended_at_s + self._ttl_s(record.job) - (now + self._wall_offset_s)
                self._expiry[record.job] = now + max(0.0, left_s)
            elif key.startswith(LOCK_KEY):
                self._expiry.setdefault(key.removeprefix(LOCK_KEY), now + ORPHAN_S)
        self._look_around(now)
        return self._performed(now)

    def receive(self, message: Any, origin: Origin, now: float) -> Sequence[Effect]:
        """See `Service.receive`."""
        kind = type(message)
        if kind in _FROM_CLIENTS:
            if origin.connection is not None:
                self.answers.on_client(message, origin.node, origin.connection, now)
        elif kind in RingFiles.handles:
            self.ring_files.receive(message, origin, now)
        else:
            self._hear(message, origin.node, now)
        return self._performed(now)

    def hear(self, event: Event, now: float) -> Sequence[Effect]:
        """See `Service.hear`."""
        if isinstance(event, MemberDied | MemberLeft):
            node = event.member.id
            self._bulk_events(self.bulk.peer_is_gone(node), now)
            self.fetches.peer_is_gone(node, now)
            self.submissions.peer_is_gone(node)
            self.answers.peer_is_gone(node, now)
            self.ring_files.peer_is_gone(node, now)
            self.locks.peer_is_gone(node, now)
        self._look_around(now)
        return self._performed(now)

    def tick(self, now: float) -> Sequence[Effect]:
        """See `Service.tick`."""
        self._ticked_at = now
        if self._view_version != self.swim.version:
            self._look_around(now)
        self._registers(self.registers.tick(now))
        if self.worker.next_deadline() <= now:
            self._jobs(self.worker.tick(now))
        for leading in list(self._leading.values()):
            if leading.leader is not None and leading.leader.next_deadline() <= now:
                self._jobs(leading.leader.tick(now))
        self._bulk_events(self.bulk.tick(now), now)
        self._go_on_fetching(now)
        self._go_on_submitting(now)
        self.answers.tick(now)
        self.ring_files.tick(now)
        self.ring_inputs.tick(now)
        self.locks.tick(now)
        if now >= self._next_housekeeping:
            self._next_housekeeping = now + HOUSEKEEPING_S
            self._keep_house(now)
        if self.warmth_is_wanted and now >= self._warm_at:
            self._warm_at = now + WARM_AFTER_S if self.runner.warm() else inf
        return self._performed(now)

    def next_deadline(self) -> float:
        """See `Service.next_deadline`."""
        leaders = (one.leader.next_deadline() for one in self._leading.values() if one.leader is not None)
        return min(
            self._next_housekeeping,
            self._warm_at if self.warmth_is_wanted else inf,
            self.registers.next_deadline(),
            self.worker.next_deadline(),
            self.bulk.next_deadline(self._ticked_at),
            self.fetches.next_deadline(),
            self.submissions.next_deadline(),
            self.answers.next_deadline(),
            self.ring_files.next_deadline(self._ticked_at),
            self.ring_inputs.next_deadline(),
            self.locks.next_deadline(),
            self._ticked_at + self.runner.until_deadline(HOUSEKEEPING_S),
            *leaders,
        )

    def set_early(self, perform: Callable[[Sequence[Effect], float], None]) -> None:
        """See `Engine.set_early`."""
        self._perform_early = perform

    def pump(self, arrivals: Sequence[BulkArrival], now: float) -> Sequence[Effect]:
        """See `Engine.pump`."""
        for arrival in arrivals:
            for node, answer in self.bulk.take_chunk(arrival.parts, now):
                self.say(node, answer)
                if isinstance(answer, b.Stored) and not answer.reason:
                    self._something_arrived(now)
        for event in self.runner.pump():
            self._runner_event(event, now)
        return self._performed(now)

    def counters(self) -> Mapping[str, int]:
        """See `Engine.counters`."""
        return {
            "bytes_held": self.store.bytes_held,
            "damaged_segments": self.store.damaged,
            "block_copies_made": self.ring_files.blocks.copies_made,
        }

    def drain(self, now: float) -> Sequence[Effect]:
        """See `Engine.drain`."""
        self._jobs(self.worker.drain(now))
        self.ring_files.drain(now)
        return self._performed(now)

    def is_drained(self, now: float) -> bool:
        """See `Engine.is_drained`."""
        others = [member.id for member in self.swim.view.ring_members if can_hold(member)]
        if not others:
            return True  # nobody is left to take it, as where all peers leave at once
        return self.worker.may_leave and self.ring_files.blocks.has_handed_over(now)

    def leave(self, now: float) -> Sequence[Effect]:
        """See `Engine.leave`."""
        for key in [leading.key for leading in self._leading.values()]:
            self._registers(self.registers.resign(key, now))
        return self._performed(now)

    def close(self) -> None:
        """End all children, remove all that can be made again."""
        self.runner.close()
        self.ring_files.blocks.close()
        self.bulk.close()
        self.files.close()

    def fileno(self) -> int:
        """Return a descriptor that is readable when `pump` has something to do."""
        return self.runner.fileno()

    # ---- what the parts of this service use ----------------------------------------------------------------

    def say(self, to: NodeId, message: Any) -> None:
        """Send a message to a peer, to this one too."""
        failpoint(_BEFORE_SENDING.get(type(message), ""))
        if to == self.me:
            self._queue.append(lambda now: self._hear(message, self.me, now))
            return
        member = self.swim.get(to)
        if member is not None:
            self._out.append(Say(member.address, message))

    def answer(self, connection: Connection, message: Any) -> None:
        """Answer a client."""
        self._out.append(Reply(connection, message))

    def log(self, text: str) -> None:
        """Write a line for whoever looks after this peer."""
        self._log(text)

    def say_of_ourselves(self, meta: tuple[tuple[str, str], ...], now: float) -> None:
        """Change our meta, which membership tells everybody."""
        self._out += self.swim.update_self(now, meta=meta)

    def send_copy(
        self,
        job: str,
        stage: int,
        sources: Sequence[Source],
        to: NodeId,
        tag: object,
        now: float,
        is_repair: bool,
    ) -> None:
        """Send outputs that lie in the store to a peer, checked first; the end of it is told by the tag."""
        damaged = [path for path in {source.path: None for source in sources} if not self.store.verify(path)]
        if damaged:
            self._bulk_events([b.SendFailed(tag=tag, reason="it is damaged here")], now)
            return
        self._bulk_events(self.bulk.send(job, stage, sources, to, tag, now, is_repair=is_repair), now)

    def fetch(
        self, job: str, stage: int, attempt: int, holders: Sequence[NodeId], tag: object, now: float
    ) -> None:
        """Begin to fetch an output; the end of it is told by the tag."""
        self.fetches.want(job, stage, attempt, holders, tag, now)
        self._go_on_fetching(now)

    def task_failed(self, job: str, attempt: int, failure: Failure, now: float) -> None:
        """An attempt has failed before it was begun."""
        self._jobs(self.worker.on_task_failed(job, attempt, failure, now))

    def perform(self, effects: Iterable[e.Effect]) -> None:
        """Perform what a leader wants, after all that waits."""
        self._jobs(effects)

    def is_gone(self, job: str) -> bool:
        """Whether a job was here, and its time to live is over."""
        return job in self._gone

    def fresh_number(self) -> int:
        """Return a number that was not used before."""
        self._number += 1
        return self._number

    def plan(self, job: str) -> JobPlan | None:
        """Return a job's plan, if its spec is here."""
        plan = self._plans.get(job)
        if plan is None:
            located = self.store.find(job, SPEC_STAGE, SPEC_ATTEMPT)
            if located is None:
                return None
            try:
                plan = unpack_spec(self.store.read(located)).plan
            except (OSError, MalformedFrame):
                self.store.remove_segment(located.path)
                return None
            self._plans[job] = plan
        return plan

    def leader(self, job: str) -> Leader | None:
        """Return the leader of a job, if this peer leads it."""
        leading = self._leading.get(job)
        return None if leading is None else leading.leader

    def record_in(self, record: Record) -> JobRecord:
        """Return what a register's record holds."""
        return self._unpacked(record.payload)

    def _unpacked(self, payload: bytes) -> JobRecord:
        """What a payload says; the last one is remembered, since each is asked about several times."""
        last = self._packed.get("last")
        if last is not None and last[0] is payload:
            return last[1]
        unpacked = unpack_record(payload)
        self._packed["last"] = (payload, unpacked)
        return unpacked

    def _is_final(self, key: str, payload: bytes) -> bool:
        return key.startswith(JOB_KEY) and self._unpacked(payload).status.is_final

    def propose(self, job: str, change: Callable[[Record], bytes], now: float) -> int | None:
        """Change, or read, a job's register; None if this peer cannot."""
        try:
            number, effects = self.registers.propose(JOB_KEY + job, change, now)
        except (UnknownRegister, TooManyProposals):
            return None
        self._queue.append(lambda _now: self._registers(effects))
        return number

    def job_group(self, job: str) -> Group | None:
        """Return who keeps a job's record, as far as is known here."""
        return self.registers.group(JOB_KEY + job)

    def perform_register(self, effects: Iterable[reg.RegisterEffect]) -> None:
        """Perform what a register wants, after all that waits."""
        self._registers(effects)

    def submit(
        self,
        packed: bytes,
        nonce: str,
        chosen: tuple[AcceptorId, ...],
        client: tuple[Connection, int],
        now: float,
    ) -> None:
        """Take a job from a client; it is answered with the job's group, or why it is refused.

        With `chosen`, the group that its client has fixed, it is answered when the job is born.
        """

        def refuse(job: str, reason: str, text: str) -> None:
            self._tell_client(client, q.Submitted(number=0, job=job, reason=reason, text=text))

        try:
            spec = unpack_spec(packed)
        except (MalformedFrame, ValueError) as error:
            refuse("", "spec", f"the submission is malformed: {error}")
            return
        if len({acceptor.node for acceptor in chosen}) != len(chosen):
            refuse("", "spec", "the submission is malformed: its group names a peer twice")
            return
        digest = spec_digest(packed)
        job = job_id_of(digest, nonce)
        under_way = self.submissions.get(job)
        if under_way is not None and (under_way.is_being_born or not chosen):
            self.submissions.join(job, client)
            self._tell_client(client, q.Submitted(number=0, job=job, reason="pending"))
            return
        if self.is_gone(job):
            refuse(job, "gone", f"job {job[:12]} has ended and its time to live is over: submit it anew")
            return
        group = self.registers.group(JOB_KEY + job)
        if group is not None or job in self.heard:
            members = [one.node for one in group.members] if group else self.heard[job].members
            self._tell_client(client, q.Submitted(number=0, job=job, members=tuple(members)))
            return
        try:
            self._take_spec(job, packed, spec.plan, now)
        except OSError as error:
            refuse(job, "disk", f"this peer cannot store the job: {error.strerror or error}")
            return
        failpoint("submit.stored")
        if chosen:
            step = self.submissions.begin_birth(job, digest, spec.plan, client, chosen, now)
            if isinstance(step, Begun):
                self._give_birth(step, now)
            else:
                self._tell_client(client, step)
            return
        here = [member.id for member in self.swim.view.ring_members]
        refused = self.submissions.begin(job, digest, spec.plan, client, here, now)
        if refused is not None:
            self._tell_client(client, refused)
            return
        inline = packed if len(packed) <= q.INLINE_SPEC_BYTES else b""
        for node in here:
            vet = q.Vet(number=0, job=job, spec_digest=digest, spec=inline if node != self.me else b"")
            self.say(node, vet)
        failpoint("submit.asked")

    # ---- the queue -----------------------------------------------------------------------------------------

    def _performed(self, now: float) -> Sequence[Effect]:
        """Do what waits, and return what the loop has to send."""
        for _ in range(MAX_EFFECTS_PER_TURN):
            if not self._queue:
                break
            self._queue.popleft()(now)
        out, self._out = self._out, []
        return out

    def _perform_later(self, effects: Sequence[Effect], _now: float) -> None:
        self._out += effects

    def _jobs(self, effects: Iterable[e.Effect]) -> None:
        for effect in effects:
            self._queue.append(lambda now, effect=effect: self._perform_job(effect, now))  # type: ignore[misc]

    def _registers(self, effects: Iterable[reg.RegisterEffect]) -> None:
        for effect in effects:
            self._queue.append(lambda now, effect=effect: self._perform_register(effect, now))  # type: ignore[misc]

    def _perform_job(self, effect: e.Effect, now: float) -> None:
        match effect:
            case e.Send(to=to, message=message):
                self.say(to, message)
            case e.Propose(job=job, proposal=proposal):
                self._propose(job, proposal, now)
            case e.StepDown(job=job):
                self._step_down(job, now)
            case e.RunTask():
                self.ring_inputs.run(effect, now)
            case e.CancelTask(job=job, attempt=attempt):
                self.ring_inputs.cancel(job, attempt)
                self.runner.cancel(job, attempt)
                self.locks.attempt_ended(job, attempt, now)
            case e.Forget(job=job, attempts=attempts):
                self.runner.release(job, attempts)
            case e.Push():
                self._push(effect, now)
            case e.CancelPush(job=job, number=number):
                self.bulk.cancel(("push", job, number))
            case e.Fetch(job=job, attempt=attempt, piece=piece):
                self._fetch_piece(job, attempt, piece, now)
            case e.FetchPlan(job=job, sources=sources):
                self._fetch_plan(job, sources, now)
            case e.ReadInventory(job=job):
                self._jobs(self.worker.on_inventory(job, self._inventory(job), now))
            case e.Drop(job=job, stages=stages):
                self.runner.drop(job, stages)
                self.store.drop(job, stages)
            case e.DropJob():
                self._drop_job(effect, now)
            case e.Announce(event=event):
                self._announce(event, now)
            case _:
                assert_never(effect)

    def _perform_register(self, effect: reg.RegisterEffect, now: float) -> None:
        match effect:
            case reg.SendTo(to=to, message=message):
                self.say(to, message)
            case reg.Save(key=key, state=state):
                # The others may write what they were asked for while we write.
                out, self._out = self._out, []
                self._perform_early(out, now)
                try:
                    failpoint("vote.save")
                    self._votes.save(key, state)
                    failpoint("vote.saved")
                except OSError as error:
                    raise DataDirectoryUnusable(
                        f"a vote cannot be made durable: {error.strerror or error}; this peer stops, since "
                        "it must not promise what its disk may forget"
                    ) from error
            case reg.Report(event=event):
                self._register_event(event, now)
            case _:
                assert_never(effect)

    # ---- what peers say ------------------------------------------------------------------------------------

    def _hear(self, message: Any, sender: NodeId, now: float) -> None:
        kind = type(message)
        failpoint(_ON_HEARING.get(kind, ""))
        if kind in _REGISTER_MESSAGES:
            if not self.is_gone(message.key.removeprefix(JOB_KEY)):
                self._registers(self.registers.receive(message, sender, now))
        elif kind in _TO_WORKER:
            self._hear_leader(message, sender, now)
        elif kind in _TO_LEADER:
            self._hear_worker(message, sender, now)
        elif kind in _AMONG_PEERS:
            self.answers.on_peer(message, sender, now)
        elif kind in _LOCKS:
            self.locks.hear(message, sender, now)
        elif kind in RingFiles.handles:
            self.ring_files.on_peer(message, sender, now)
        else:
            self._hear_own(message, sender, now)

    def _hear_leader(self, message: m.ToWorker, sender: NodeId, now: float) -> None:
        job = message.job
        if self.is_gone(job):
            return
        if isinstance(message, m.Beat | m.Offer):
            known = self.heard.get(job)
            members = message.members if isinstance(message, m.Offer) else known.members if known else ()
            self.heard[job] = Heard(sender, members, message.spec_digest)
            self._expiry.pop(job, None)
        self._jobs(self.worker.receive(message, sender, now))

    def _hear_worker(self, message: m.ToLeader, sender: NodeId, now: float) -> None:
        leader = self.leader(message.job)
        if leader is not None:
            self._jobs(leader.receive(message, sender, now))
        elif isinstance(message, m.AskFate):
            self.answers.tell_fate(message.job, sender, now)

    def _hear_own(self, message: Any, sender: NodeId, now: float) -> None:
        match message:
            case b.Received() | b.Stored():
                self._bulk_events(self.bulk.receive(message, sender, now), now)
            case q.FetchSegment():
                self._serve_fetch(message, sender, now)
            case q.NotHeld():
                self.fetches.on_not_held(message, sender, now)
            case q.Vet():
                self._vet(message, sender, now)
            case q.Vetted():
                self.submissions.on_vetted(message, sender)
                self._go_on_submitting(now)

    def _look_around(self, now: float) -> None:
        """Membership has news."""
        self._view_version = self.swim.version
        view = self.swim.view
        here = {member.id for member in view.alive}
        suspected = [member.id for member in view if member.id not in here]
        self._registers(self.registers.observe(suspected, self.swim.health, now))
        self._jobs(self.worker.on_view(view, now))
        for leading in self._leading.values():
            if leading.leader is not None:
                self._jobs(leading.leader.on_view(view, now))

    # ---- leading -------------------------------------------------------------------------------------------

    def _register_event(self, event: reg.RegisterEvent, now: float) -> None:
        if _key_of(event).startswith(LOCK_KEY):
            self.locks.on_register(event, now)
            return
        match event:
            case reg.Founded(group=group):
                self._founded(group)
            case reg.Committed():
                self._committed(event, now)
            case reg.Refused(key=key, proposal=number, payload_bytes=size):
                leading = self._leading.get(key.removeprefix(JOB_KEY))
                if leading is not None and leading.leader is not None and leading.proposal == number:
                    self._jobs(leading.leader.on_refused(f"{size:,} bytes", now))
            case reg.Leads(key=key, record=record, fence=fence):
                self._begin_leading(key, record, fence, now)
            case reg.Outbid(key=key):
                self._leading.pop(key.removeprefix(JOB_KEY), None)
            case reg.Abandoned(key=key, proposals=numbers):
                self.answers.on_abandoned(key.removeprefix(JOB_KEY), numbers)
            case reg.GroupChanged(group=group):
                failpoint("seal.done")
                leading = self._leading.get(group.key.removeprefix(JOB_KEY))
                if leading is not None and leading.leader is not None:
                    self._jobs(leading.leader.on_members(_nodes(group.members), now))
            case reg.QuorumLost(key=key, missing=missing):
                self._quorum(key, _nodes(missing), now)
            case reg.QuorumRegained(key=key):
                self._quorum(key, (), now)
            case reg.LeaderHeard():
                pass  # its beats tell the worker
            case _:
                assert_never(event)

    def _begin_leading(self, key: str, record: Record, fence: Fence, now: float) -> None:
        failpoint("lead.elected")
        job = key.removeprefix(JOB_KEY)
        led = self._leading.get(job)
        job_record = self.record_in(record)
        if led is not None and led.leader is not None and led.token == job_record.token:
            return  # we have led it all along, and now do so in another epoch of its group
        self._leading[job] = _Leading(key, _token(self.me, fence), job_record)
        plan = self.plan(job)
        if plan is not None:
            self._lead(job, plan, now)
            return
        group = self.registers.group(key)
        others = [node for node in _nodes(group.members if group else ()) if node != self.me]
        others += [member.id for member in self.swim.view.alive if member.id not in (*others, self.me)]
        self.fetches.want(job, SPEC_STAGE, SPEC_ATTEMPT, others, ("lead", job), now)
        self._go_on_fetching(now)

    def _lead(self, job: str, plan: JobPlan, now: float) -> None:
        leading = self._leading[job]
        group = self.registers.group(leading.key)
        assert group is not None, "who leads a register knows its group"
        leading.leader = Leader(
            me=self.me,
            plan=plan,
            record=leading.record,
            token=leading.token,
            members=_nodes(group.members),
            view=self.swim.view,
            config=self._config,
            wall_offset_s=self._wall_offset_s,
        )
        self._log(f"leads job {job[:12]} ({plan.name})")
        failpoint("lead.begin")
        self._jobs(leading.leader.start(now))
        self.locks.lead(job, leading.record, now)

    def _propose(self, job: str, proposal: Proposal, now: float) -> None:
        leading = self._leading.get(job)
        if leading is None:
            return

        def change(record: Record) -> bytes:
            before = self.record_in(record)
            after = apply(before, proposal)
            if after is before:
                return record.payload
            packed = pack_record(after)
            self._packed["last"] = (packed, after)
            return packed

        failpoint("commit.propose")
        number = self.propose(job, change, now)
        if number is None:
            self._leading.pop(job, None)
        else:
            leading.proposal = number

    def _committed(self, event: reg.Committed, now: float) -> None:
        job = event.key.removeprefix(JOB_KEY)
        leading = self._leading.get(job)
        if leading is not None and leading.leader is not None and leading.proposal == event.proposal:
            failpoint("commit.chosen")
            self._jobs(leading.leader.on_committed(self.record_in(event.record), now))
            self.answers.job_moved(job, now)
        elif not self.locks.on_read(job, event.proposal, self.record_in(event.record), now):
            self.answers.on_read(job, event.proposal, self.record_in(event.record))

    def _step_down(self, job: str, now: float) -> None:
        leading = self._leading.pop(job, None)
        if leading is not None:
            self._registers(self.registers.resign(leading.key, now))

    def _quorum(self, key: str, missing: tuple[NodeId, ...], now: float) -> None:
        leading = self._leading.get(key.removeprefix(JOB_KEY))
        if leading is not None and leading.leader is not None:
            self._jobs(leading.leader.on_quorum(missing, now))
            self.answers.job_moved(leading.record.job, now)

    def _heal(self, now: float) -> None:
        """Give the jobs that we lead a group of the living again."""
        view = self.swim.view
        for job, leading in self._leading.items():
            leader, group = leading.leader, self.registers.group(leading.key)
            if leader is None or group is None or leader.has_ended:
                continue
            if now - self._healed_at.get(job, -inf) < HEAL_PAUSE_S:
                continue
            size = 2 * self._plans[job].replicas - 1
            members = next_group(group.members, acceptors(job, view), size)
            if members is not None and set(members) != set(group.members):
                failpoint("seal.begin")
                self._healed_at[job] = now
                self._registers(self.registers.seal(leading.key, members, now))

    # ---- submissions ---------------------------------------------------------------------------------------

    def _take_spec(self, job: str, packed: bytes, plan: JobPlan, now: float) -> None:
        if not self.store.holds(job, SPEC_STAGE, SPEC_ATTEMPT):
            self.store.put(job, SPEC_STAGE, 0, SPEC_ATTEMPT, packed)
        self._plans[job] = plan
        if job not in self.heard and self.registers.group(JOB_KEY + job) is None:
            self._expiry[job] = now + UNBORN_S

    def _vet(self, message: q.Vet, sender: NodeId, now: float) -> None:
        job = message.job
        group = self.registers.group(JOB_KEY + job)
        if group is not None:
            text = " ".join(_nodes(group.members))
            self.say(sender, q.Vetted(number=message.number, job=job, reason="known", text=text))
            return
        self._vets.setdefault(job, []).append((sender, message.number))
        del self._vets[job][:-16]
        if message.spec:
            try:
                if spec_digest(message.spec) != message.spec_digest:
                    raise MalformedFrame("its digest does not fit")
                self._take_spec(job, message.spec, unpack_spec(message.spec).plan, now)
            except (MalformedFrame, ValueError, OSError) as error:
                self._vetted(job, "spec", f"the spec cannot be read or stored: {error}")
                return
        if self.plan(job) is None:
            self.fetches.want(job, SPEC_STAGE, SPEC_ATTEMPT, [sender], ("vet", job), now)
            self._go_on_fetching(now)
            return
        self._look_at(job)

    def _look_at(self, job: str) -> None:
        """Have a child look whether a job can run here."""
        plan = self.plan(job)
        if plan is None:
            self._vetted(job, "spec", "the spec cannot be read")
            return
        if plan.python != PYTHON:
            text = f"the job was packed by Python {plan.python}, and this peer runs {PYTHON}"
            self._vetted(job, "python", text)
            return
        failure = self._open_files(job)
        if failure is not None:
            self._vetted(job, "code", failure.message)
            return
        opened = self.files.get(job)
        assert opened is not None
        failpoint("vet.begin")
        self.runner.check(opened, job, _local_inputs(plan))

    def _vetted(self, job: str, reason: str = "", text: str = "", paths: tuple[str, ...] = ()) -> None:
        failpoint("vet.answer")
        for sender, number in self._vets.pop(job, ()):
            self.say(sender, q.Vetted(number=number, job=job, reason=reason, text=text, paths=paths))

    def _go_on_submitting(self, now: float) -> None:
        for step in self.submissions.due(self.swim.view, now):
            for client in step.clients:
                self._tell_client(client, step.answer)

    def _give_birth(self, step: Begun, now: float) -> None:
        failpoint("birth.begin")
        record = born(step.job, step.digest, now + self._wall_offset_s)
        first = Record(generation=0, epoch=0, members=step.members, payload=pack_record(record))
        self._registers(self.registers.found(JOB_KEY + step.job, first, now))

    def _tell_client(self, client: tuple[Connection, int], answer: q.Submitted) -> None:
        here = (member.address for member in self.swim.view.alive if member.id != self.me)
        peers = tuple(islice(here, MAX_PEERS_TOLD))
        self.answer(client[0], replace(answer, number=client[1], peers=peers))

    def _founded(self, group: Group) -> None:
        failpoint("birth.done")
        job = group.key.removeprefix(JOB_KEY)
        self._expiry.pop(job, None)
        for step in self.submissions.founded(job, group.members):
            for client in step.clients:
                self._tell_client(client, step.answer)
        self.answers.learn(job, _nodes(group.members))

    # ---- outputs -------------------------------------------------------------------------------------------

    def _push(self, push: e.Push, now: float) -> None:
        sources = self.runner.sources(push.job, push.group)
        if sources is None:
            reason = "the output is not here any more"
            self._jobs(self.worker.on_push_failed(push.job, push.number, reason, now))
            return
        group = push.group
        events = self.bulk.send(
            push.job,
            group.stage,
            sources,
            push.to,
            ("push", push.job, push.number),
            now,
            covers=Covers(partitions=group.partitions, tasks=group.tasks, attempts=group.attempts),
            is_repair=push.is_repair,
        )
        self._bulk_events(events, now)

    def _bulk_events(self, events: Iterable[b.BulkEvent], now: float) -> None:
        for event in events:
            match event.tag:
                case ("push", str(job), int(number)):
                    if isinstance(event, b.Sent):
                        size = event.size_bytes
                        self._jobs(self.worker.on_pushed(job, number, now, sent_bytes=size))
                    else:
                        self._jobs(self.worker.on_push_failed(job, number, event.reason, now))
                case ("block", str(file), int(block), str(node)):
                    self.ring_files.blocks.on_sent(file, block, NodeId(node), event, now)
                case _:
                    pass  # who asked for it will ask again

    def _inventory(self, job: str) -> list[HeldGroup]:
        return [
            HeldGroup(stage=stage, partitions=covers.partitions, tasks=covers.tasks, attempts=covers.attempts)
            for stage, covers in self.store.held(job)
            if stage >= 0
        ]

    def _drop_job(self, effect: e.DropJob, now: float) -> None:
        job = effect.job
        failpoint("drop.begin")
        self.ring_inputs.drop_job(job)
        self.runner.drop_job(job)
        self.locks.drop_job(job)
        self.fetches.drop_job(job)
        keep = {SPEC_STAGE, effect.keep_stage} if effect.keep_stage >= 0 else {SPEC_STAGE}
        self.store.drop_job(job, keep)
        self._expiry[job] = now + effect.keep_s
        failpoint("drop.done")

    def _forget(self, job: str) -> None:
        """A job's time to live is over."""
        self.runner.drop_job(job)
        self.locks.drop_job(job)
        self.store.drop_job(job)
        self._plans.pop(job, None)
        self.heard.pop(job, None)
        self._healed_at.pop(job, None)
        self.stalled.pop(job, None)
        vote = self.registers.acceptor.get(JOB_KEY + job)
        # A minority of the group may never have been asked to accept the end, but everybody was told of it.
        if self.worker.fate_of(job) is not None or (vote is not None and vote.record.terminal):
            self._leading.pop(job, None)
            self._gone[job] = None
            if len(self._gone) > MAX_GONE:
                self._gone.popitem(last=False)
            self._registers(self.registers.forget(JOB_KEY + job))
        self.answers.forget(job)

    # ---- fetching ------------------------------------------------------------------------------------------

    def _fetch_plan(self, job: str, sources: tuple[NodeId, ...], now: float) -> None:
        if self.plan(job) is not None:
            self._plan_is_here(job, now)
            return
        others = [node for node in sources if node != self.me]
        self.fetches.want(job, SPEC_STAGE, SPEC_ATTEMPT, others, ("plan", job), now)
        self._go_on_fetching(now)

    def _plan_is_here(self, job: str, now: float) -> None:
        failure = self._open_files(job)
        plan = self.plan(job)
        if failure is None and plan is not None:
            self._jobs(self.worker.on_plan(job, plan, now))
        else:
            self._log(f"job {job[:12]} cannot be opened: {failure.message if failure else 'no spec'}")
            self._jobs(self.worker.on_plan_failed(job, now))

    def _open_files(self, job: str) -> Failure | None:
        """Unpack a job's cargo; None, or why that fails."""
        if self.files.get(job) is not None:
            return None
        located = self.store.find(job, SPEC_STAGE, SPEC_ATTEMPT)
        if located is None:
            return Failure(kind="EnvironmentFailed", message="the spec is not here", node=self.me)
        try:
            self.files.open(job, unpack_spec(self.store.read(located)))
        except JobError as error:
            return Failure(kind=type(error).__name__, message=str(error), node=self.me)
        except (OSError, MalformedFrame, ValueError) as error:
            return Failure(kind="EnvironmentFailed", message=str(error), node=self.me)
        return None

    def _fetch_piece(self, job: str, attempt: int, piece: m.Piece, now: float) -> None:
        if self.store.find(job, piece.stage, piece.attempt) is not None:
            self._jobs(self.worker.on_fetched(job, attempt, now))
            return
        holders = [node for node in piece.holders if node != self.me]
        self.fetches.want(job, piece.stage, piece.attempt, holders, ("piece", job, attempt), now)
        self._go_on_fetching(now)

    def _go_on_fetching(self, now: float) -> None:
        if self.fetches.next_deadline() > now:
            return
        asked, ended = self.fetches.tick(now)
        for node, question in asked:
            self.say(node, question)
        self._fetches_ended(ended, now)

    def _something_arrived(self, now: float) -> None:
        for job, stage, attempt in self.fetches.wanted():
            if self.store.holds(job, stage, attempt):
                self._fetches_ended(self.fetches.arrived(job, stage, attempt), now)

    def _fetches_ended(self, ended: Iterable[FetchEnded], now: float) -> None:
        for one in ended:
            match one.tag:
                case ("plan", str(job)) if not one.reason:
                    self._plan_is_here(job, now)
                case ("plan", str(job)):
                    self._jobs(self.worker.on_plan_failed(job, now))
                case ("piece", str(job), int(attempt)) if not one.reason:
                    self._jobs(self.worker.on_fetched(job, attempt, now))
                case ("input", str(job), int(attempt), int(block)):
                    self.ring_inputs.fetched(job, attempt, block, one.reason, now)
                case ("piece", str(job), int(attempt)):
                    self._jobs(self.worker.on_fetch_failed(job, attempt, one.reason, now))
                case ("vet", str(job)) if not one.reason:
                    self._look_at(job)
                case ("vet", str(job)):
                    self._vetted(job, "spec", f"the job's spec: {one.reason}")
                case ("lead", str(job)):
                    self._lead_or_leave(job, now)
                case _:
                    raise AssertionError(f"a fetch with the tag {one.tag!r}")

    def _lead_or_leave(self, job: str, now: float) -> None:
        leading = self._leading.get(job)
        if leading is None or leading.leader is not None:
            return
        plan = self.plan(job)
        if plan is not None:
            self._lead(job, plan, now)
        else:  # somebody else may have the spec
            self._log(f"cannot lead job {job[:12]}: nobody here has its spec")
            self._step_down(job, now)

    def _serve_fetch(self, message: q.FetchSegment, sender: NodeId, now: float) -> None:
        sources = self.store.sources(message.job, message.stage, (message.attempt,), ())
        if not sources:
            answer = q.NotHeld(
                number=message.number, job=message.job, stage=message.stage, attempt=message.attempt
            )
            self.say(sender, answer)
            return
        tag = ("serve", sender, message.number)
        self.send_copy(message.job, message.stage, sources, sender, tag, now, is_repair=False)

    # ---- children ------------------------------------------------------------------------------------------

    def _runner_event(self, event: t.RunnerEvent, now: float) -> None:
        match event:
            case t.TaskFinished(job=job, attempt=attempt, output=output):
                self.locks.attempt_ended(job, attempt, now)
                self._jobs(self.worker.on_task_done(job, attempt, output, now))
            case t.TaskFailed(job=job, attempt=attempt, failure=failure, missing=missing):
                self.locks.attempt_ended(job, attempt, now)
                self._jobs(self.worker.on_task_failed(job, attempt, failure, now, missing=missing))
            case t.LockAsked():
                self.locks.asked(event, now)
            case t.InputLacks(task=task, offset=offset):
                self.ring_inputs.lacks(task, offset, now)
            case t.Status(job=job, text=text):
                self.worker.on_task_status(job, text[:1024])
            case t.Checked(job=job, error=None):
                self._vetted(job)
            case t.Checked(job=job, error=error):
                assert error is not None
                if error.kind == "InputNotHere":
                    self._vetted(job, "inputs", error.message, tuple(error.traceback.split("\n")))
                else:
                    self._vetted(job, "code", error.message)
            case _:
                assert_never(event)

    # ---- telling, and house-keeping ------------------------------------------------------------------------

    def _announce(self, event: e.Happened | e.Stalled | e.JobEnded, now: float) -> None:
        match event:
            case e.Happened(job=job, event=record):
                if record.kind in ("leader", "lost", "again", "failed", "quorum", "healed"):
                    self._log(f"job {job[:12]}: {record.node} {record.text}")
            case e.Stalled(job=job, text=text):
                self._log(f"job {job[:12]}: {text or 'it moves again'}")
                self.stalled[job] = text
                self.answers.job_moved(job, now)
            case e.JobEnded(job=job, status=status):
                self._log(f"job {job[:12]} has ended: {status}")
                self.answers.job_moved(job, now)
            case _:
                assert_never(event)

    def _keep_house(self, now: float) -> None:
        self._heal(now)
        self.locks.heal(now)
        for job in [job for job, due in self._expiry.items() if due <= now]:
            del self._expiry[job]
            self._forget(job)

    def _ttl_s(self, job: str) -> float:
        plan = self.plan(job)
        return plan.ttl_s if plan is not None else ORPHAN_S

    def _open_registers(self, config: RegisterConfig, now: float) -> Registers:
        def registers(saved: dict[str, bytes]) -> Registers:
            return Registers(
                me=AcceptorId(self.me, self._votes.disk),
                life=self.swim.me.session,
                config=config,
                rng=random.Random(self.swim.me.session),
                absorbs=self._is_final,
                is_led=lambda key: key.startswith(JOB_KEY),
                now=now,
                saved=saved,
            )

        try:
            return registers(self._votes.load())
        except DamagedVote as error:
            self._log(f"{error}; this peer takes part as another acceptor from here on")
            self._votes.begin_anew()
            return registers({})


def _key_of(event: reg.RegisterEvent) -> str:
    return event.group.key if isinstance(event, reg.Founded | reg.GroupChanged) else event.key


def _local_inputs(plan: JobPlan) -> tuple[tuple[str, int], ...]:
    """The files that a job reads in place, and how long each must be; of URLs, one for each place.

    To ask a server for each of thousands of names would take longer than the vetting may.
    """
    sizes: dict[str, int] = {}
    places: set[str] = set()
    for step in plan.steps:
        for split in step.splits:
            if split.path.startswith(RING):
                continue
            if is_url(split.path):
                place = "/".join(split.path.split("/")[:3])
                if place not in places:
                    sizes[split.path] = 0
                    places.add(place)
            else:
                end = split.end if split.end >= 0 else split.size_bytes
                sizes[split.path] = max(end, sizes.get(split.path, 0))
    return tuple(sizes.items())


def _token(me: NodeId, fence: Fence) -> str:
    """A name for a leadership that no other one has."""
    place, ballot = fence.place, fence.ballot
    return f"{place.generation}.{place.epoch}.{ballot.round}.{me}.{ballot.life}"


def _nodes(members: Iterable[AcceptorId]) -> tuple[NodeId, ...]:
    return tuple(member.node for member in members)
