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
`p2p.job_leading`             the leaders here, and the register on their behalf
`p2p.job_vetting`             jobs on their way in: submitted, looked at, born
`p2p.job_arrivals`            what is wanted from other peers: specs, parts
`p2p.job_lives`               how long what is known of a job is kept
`p2p.result_keeper`           copies of the parts of jobs that are over
`p2p.ring_files`              the ring's own files: names, blocks, their copies
`p2p.ring_inputs`             tasks that read such files: their blocks are brought here first
`p2p.job_locks`               jobs' named locks, each job's in a register "locks/ID"
`p2p.job_answers`             what clients, and peers on their behalf, are told
============================  =========================================================================

*The life of a job here.*  Its spec arrives when it is vetted; its register when this peer is a member of its
group; a beat when somebody leads it.  It ends with `DropJob`, after which the result and the terminal record
stay for their time to live.  What is never heard of again goes too, see `p2p.job_lives`.

*A disk that fails.*  A vote that cannot be made durable ends this life of the acceptor
(`membership.register_effects`): the peer says so and stops.  Everything else that fails on disk fails an
attempt, a push or a fetch, which go elsewhere.

⚙ Performs effects: files, processes.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, assert_never, get_args

from mapreduce import effects as e
from mapreduce import messages as m
from mapreduce.config import JobsConfig
from mapreduce.failpoints import failpoint
from mapreduce.leader import Leader
from mapreduce.locking import HasLocks, WantLocks
from mapreduce.messages import HeldGroup
from mapreduce.placement import can_hold
from mapreduce.record import Failure, JobRecord
from mapreduce.spec import JobPlan
from mapreduce.worker import Worker
from membership import register_effects as reg
from membership.effects import Event, MemberDied, MemberLeft
from membership.errors import DamagedVote, TooManyProposals, UnknownRegister
from membership.register import AcceptorId, Group, Record
from membership.register_config import RegisterConfig
from membership.register_messages import Accept, Birth, RegisterMessage
from membership.registers import Registers
from membership.swim import Swim
from membership.view import NodeId
from p2p import bulk as b
from p2p import job_inquiries as iq
from p2p import job_questions as q
from p2p import task_runner as t
from p2p.errors import DataDirectoryUnusable, MalformedFrame
from p2p.job_answers import JobAnswers
from p2p.job_arrivals import JobArrivals
from p2p.job_files import JobFiles
from p2p.job_keys import JOB_KEY, SPEC_ATTEMPT
from p2p.job_leading import JobLeading
from p2p.job_lives import JobLives
from p2p.job_locks import LOCK_KEY, JobLocks
from p2p.job_protocol import pack_record, unpack_record
from p2p.job_vetting import JobVetting
from p2p.name_files import NameFiles
from p2p.result_keeper import ResultKeeper
from p2p.ring_files import RingFiles
from p2p.ring_inputs import RingInputs
from p2p.segments import SPEC_STAGE, Covers, Source
from p2p.service import Effect, Origin, Reply, Say
from p2p.spec_packing import unpack_spec
from p2p.store import Store
from p2p.transport import BulkArrival, Connection
from p2p.votes import VoteStore

__all__ = ["JOB_KEY", "JobService", "OwnLimits"]

HOUSEKEEPING_S = 1.0
WARM_AFTER_S = 0.3
# Of one turn; the rest is done in the next, after others have had theirs.
MAX_EFFECTS_PER_TURN = 100_000

_REGISTER_MESSAGES = frozenset(get_args(RegisterMessage))
_TO_WORKER = frozenset(get_args(m.ToWorker))
_TO_LEADER = frozenset(get_args(m.ToLeader))
_FROM_CLIENTS = frozenset(
    (q.Upload, q.Submit, q.AskJobs, q.Follow, q.AskParts, q.ReadPart, q.CancelJob, q.AskLogs)
)
_AMONG_PEERS = frozenset(
    (iq.FindJobs, iq.JobsFound, iq.ReadJob, iq.JobRead, iq.ReadParts, iq.PartsRead, iq.EndJob)
)
_LOCKS = frozenset((WantLocks, HasLocks))
_OWN = frozenset((iq.Vet, iq.Vetted, iq.FetchSegment, iq.NotHeld, b.Received, b.Stored)) | RingFiles.handles
_OWN |= ResultKeeper.handles

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
        self.wall_offset_s = wall - now
        self.runner = t.TaskRunner(
            me=me.id, slots=limits.slots, memory_bytes=limits.memory_bytes, files=files, store=store
        )
        self.bulk = b.Bulk(me=me.id, session=me.session, store=store, send_chunk=send_chunk)
        self.registers = self._open_registers(registers, now)
        self.worker = Worker(me=me.id, session=me.session, slots=limits.slots, view=swim.view, config=jobs)
        self.leading = JobLeading(self, jobs)
        self.vetting = JobVetting(self)
        self.arrivals = JobArrivals(self)
        self.lives = JobLives(self)
        self.answers = JobAnswers(self)
        self.results = ResultKeeper(self)
        self.ring_files = RingFiles(
            self, names, random.Random(me.session), now=now, wall_offset_s=self.wall_offset_s
        )
        self.ring_inputs = RingInputs(self)
        self.locks = JobLocks(self, session=me.session, config=jobs)
        self.heard: dict[str, Heard] = {}
        self.stalled: dict[str, str] = {}
        self._plans: dict[str, JobPlan] = {}
        self._packed: dict[str, tuple[bytes, JobRecord]] = {}
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
        self.lives.start(now)
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
            self.arrivals.peer_is_gone(node, now)
            self.vetting.peer_is_gone(node)
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
        self.leading.tick(now)
        self._bulk_events(self.bulk.tick(now), now)
        self.arrivals.tick(now)
        self.vetting.tick(now)
        self.answers.tick(now)
        self.results.tick(now)
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
        return min(
            self._next_housekeeping,
            self._warm_at if self.warmth_is_wanted else inf,
            self.registers.next_deadline(),
            self.worker.next_deadline(),
            self.bulk.next_deadline(self._ticked_at),
            self.leading.next_deadline(),
            self.arrivals.next_deadline(),
            self.vetting.next_deadline(),
            self.answers.next_deadline(),
            self.results.next_deadline(),
            self.ring_files.next_deadline(self._ticked_at),
            self.ring_inputs.next_deadline(),
            self.locks.next_deadline(),
            self._ticked_at + self.runner.until_deadline(HOUSEKEEPING_S),
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
                    self.arrivals.something_arrived(now)
        for event in self.runner.pump():
            self._runner_event(event, now)
        return self._performed(now)

    def counters(self) -> Mapping[str, int]:
        """See `Engine.counters`."""
        return {
            "bytes_held": self.store.bytes_held,
            "damaged_segments": self.store.damaged,
            "block_copies_made": self.ring_files.blocks.copies_made,
            "result_copies_made": self.results.copies_made,
        }

    def drain(self, now: float) -> Sequence[Effect]:
        """See `Engine.drain`."""
        self._jobs(self.worker.drain(now))
        self.ring_files.drain(now)
        self.results.drain(now)
        return self._performed(now)

    def is_drained(self, now: float) -> bool:
        """See `Engine.is_drained`."""
        others = [member.id for member in self.swim.view.ring_members if can_hold(member)]
        if not others:
            return True  # nobody is left to take it, as where all peers leave at once
        has_blocks_elsewhere = self.ring_files.blocks.has_handed_over(now)
        return self.worker.may_leave and has_blocks_elsewhere and self.results.has_handed_over()

    def leave(self, now: float) -> Sequence[Effect]:
        """See `Engine.leave`."""
        self.leading.resign(now)
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
        """Send outputs that lie in the store to a peer, checked first (`Store.offering`), a little at a time.

        The end of it is told by the tag.
        """
        self._bulk_events(self.bulk.send(job, stage, sources, to, tag, now, is_repair=is_repair), now)

    def fetch(
        self, job: str, stage: int, attempt: int, holders: Sequence[NodeId], tag: object, now: float
    ) -> None:
        """Begin to fetch an output; the end of it is told by the tag."""
        self.arrivals.want(job, stage, attempt, holders, tag, now)

    def task_failed(self, job: str, attempt: int, failure: Failure, now: float) -> None:
        """An attempt has failed before it was begun."""
        self._jobs(self.worker.on_task_failed(job, attempt, failure, now))

    def perform(self, effects: Iterable[e.Effect]) -> None:
        """Perform what a leader or the worker wants, after all that waits."""
        self._jobs(effects)

    def here(self) -> set[NodeId]:
        """Return who is on the ring, as membership sees it."""
        return {member.id for member in self.swim.view.ring_members}

    def is_gone(self, job: str) -> bool:
        """Whether a job was here, and its time to live is over."""
        return self.lives.is_gone(job)

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

    def take_plan(self, job: str, plan: JobPlan) -> None:
        """A job's spec is here, and this is its plan."""
        self._plans[job] = plan

    def forget(self, job: str) -> None:
        """A job's time to live is over."""
        self._plans.pop(job, None)
        self.heard.pop(job, None)
        self.stalled.pop(job, None)

    def leader(self, job: str) -> Leader | None:
        """Return the leader of a job, if this peer leads it."""
        return self.leading.get(job)

    def record_in(self, record: Record) -> JobRecord:
        """Return what a register's record holds."""
        return self._unpacked(record.payload)

    def packed(self, record: JobRecord) -> bytes:
        """Return a record as a register holds it; it will soon be asked about."""
        payload = pack_record(record)
        self._packed["last"] = (payload, record)
        return payload

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

    # ---- the queue -----------------------------------------------------------------------------------------

    def _performed(self, now: float) -> Sequence[Effect]:
        """Do what waits, and return what the loop has to send."""
        if self.store.rotted:
            self._tell_what_rotted(now)
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
                self.leading.propose(job, proposal, now)
            case e.StepDown(job=job):
                self.leading.step_down(job, now)
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
                self.arrivals.fetch_piece(job, attempt, piece, now)
            case e.FetchPlan(job=job, sources=sources):
                self.arrivals.fetch_plan(job, sources, now)
            case e.ReadInventory(job=job):
                self._jobs(self.worker.on_inventory(job, self._inventory(job), now))
            case e.Drop(job=job, stages=stages):
                self.runner.drop(job, stages)
                self.store.drop(job, stages)
            case e.DropJob():
                self.lives.drop(effect, now)
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
            if not self.is_gone(message.key.removeprefix(JOB_KEY).removeprefix(LOCK_KEY)):
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
        elif kind in ResultKeeper.handles:
            self.results.hear(message, sender, now)
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
            self.lives.goes_on(job)
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
            case iq.FetchSegment():
                self.arrivals.serve(message, sender, now)
            case iq.NotHeld():
                self.arrivals.on_not_held(message, sender, now)
            case iq.Vet():
                self.vetting.vet(message, sender, now)
            case iq.Vetted():
                self.vetting.on_vetted(message, sender, now)

    def _look_around(self, now: float) -> None:
        """Membership has news."""
        self._view_version = self.swim.version
        view = self.swim.view
        here = {member.id for member in view.alive}
        suspected = [member.id for member in view if member.id not in here]
        self._registers(self.registers.observe(suspected, self.swim.health, now))
        self._jobs(self.worker.on_view(view, now))
        self.leading.on_view(view, now)

    # ---- leading -------------------------------------------------------------------------------------------

    def _register_event(self, event: reg.RegisterEvent, now: float) -> None:
        if _key_of(event).startswith(LOCK_KEY):
            self.locks.on_register(event, now)
            return
        match event:
            case reg.Founded(group=group):
                self.vetting.founded(group)
            case reg.Committed():
                self._committed(event, now)
            case reg.Abandoned(key=key, proposals=numbers):
                self.answers.on_abandoned(key.removeprefix(JOB_KEY), numbers)
                self.locks.naming_failed(key.removeprefix(JOB_KEY), numbers)
            case reg.Refused(key=key, proposal=number):
                self.leading.on_register(event, now)
                self.locks.naming_failed(key.removeprefix(JOB_KEY), (number,))
            case reg.Leads() | reg.Outbid() | reg.GroupChanged() | reg.QuorumLost() | reg.QuorumRegained():
                self.leading.on_register(event, now)
            case reg.LeaderHeard():
                pass  # its beats tell the worker
            case _:
                assert_never(event)

    def _committed(self, event: reg.Committed, now: float) -> None:
        if self.leading.on_committed(event, now):
            return
        job = event.key.removeprefix(JOB_KEY)
        if not self.locks.on_read(job, event.proposal, self.record_in(event.record), now):
            self.answers.on_read(job, event.proposal, self.record_in(event.record))

    # ---- outputs -------------------------------------------------------------------------------------------

    def _tell_what_rotted(self, now: float) -> None:
        """Let the leaders know which outputs are not here any more, because their bytes were not right."""
        gone: dict[tuple[str, int], list[tuple[int, int]]] = {}
        for job, stage, task, attempt in self.store.rotted:
            gone.setdefault((job, stage), []).append((task, attempt))
        self.store.rotted.clear()
        for (job, stage), outputs in gone.items():
            tasks, attempts = [task for task, _ in outputs], [attempt for _, attempt in outputs]
            if stage >= 0:
                self._jobs(self.worker.on_missing(job, stage, tasks, attempts, now))
        for job in sorted({job for job, stage in gone if stage >= 0}):
            self.results.hurt(job)

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
                case ("kept", str(job), int(attempt), str(node)):
                    self.results.on_sent(job, attempt, NodeId(node), event)
                case _:
                    pass  # who asked for it will ask again

    def _inventory(self, job: str) -> list[HeldGroup]:
        return [
            HeldGroup(stage=stage, partitions=covers.partitions, tasks=covers.tasks, attempts=covers.attempts)
            for stage, covers in self.store.held(job)
            if stage >= 0
        ]

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
            case t.Checked(job=job, error=error):
                self.vetting.checked(job, error)
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
        self.leading.heal(now)
        self.locks.heal(now)
        self.lives.tick(now)

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
