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
`p2p.job_registers`           performs what they want, and passes on what they tell
`p2p.job_records`             plans and records, unpacked
`p2p.job_hearing`             which machine a message is for
`p2p.job_hands`               performs what leaders and the worker want, and tells them what became of it
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

⚙ Performs effects: files, processes.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from mapreduce import effects as e
from mapreduce.config import JobsConfig
from mapreduce.leader import Leader
from mapreduce.placement import can_hold
from mapreduce.record import Failure, JobRecord
from mapreduce.spec import JobPlan
from mapreduce.worker import Worker
from membership import register_effects as reg
from membership.effects import Event, MemberDied, MemberLeft
from membership.errors import TooManyProposals, UnknownRegister
from membership.register import Group, Record
from membership.register_config import RegisterConfig
from membership.swim import Swim
from membership.view import NodeId
from p2p import bulk as b
from p2p import task_runner as t
from p2p.job_answers import JobAnswers
from p2p.job_arrivals import JobArrivals
from p2p.job_files import JobFiles
from p2p.job_hands import JobHands
from p2p.job_hearing import FROM_CLIENTS, HANDLES, Heard, JobHearing
from p2p.job_keys import JOB_KEY
from p2p.job_leading import JobLeading
from p2p.job_lives import JobLives
from p2p.job_locks import JobLocks
from p2p.job_records import JobRecords
from p2p.job_registers import JobRegisters
from p2p.job_vetting import JobVetting
from p2p.message_moments import before_sending
from p2p.name_files import NameFiles
from p2p.result_keeper import ResultKeeper
from p2p.ring_files import RingFiles
from p2p.ring_inputs import RingInputs
from p2p.segments import SPEC_STAGE, Source
from p2p.service import Effect, Origin, Reply, Say
from p2p.store import Store
from p2p.transport import BulkArrival, Connection
from p2p.votes import VoteStore

__all__ = ["JobService", "OwnLimits"]

HOUSEKEEPING_S = 1.0
WARM_AFTER_S = 0.3
# So many numbers lie between the first questions of two lives, whose sessions are milliseconds
# (`p2p.datadir`), and so many there are: with a clock that is wrong by millennia they can still be sent.
NUMBERS_A_LIFE, NUMBERS = 1 << 20, 1 << 62
# Of one turn; the rest is done in the next, after others have had theirs.
MAX_EFFECTS_PER_TURN = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnLimits:
    """What this peer gives to jobs.

    Attributes:
        slots: attempts at a time.
        memory_bytes: for each of them.
    """

    slots: int
    memory_bytes: int


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

    handles = HANDLES

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
        self._config = jobs
        self._log = log
        self.wall_offset_s = wall - now
        self.runner = t.TaskRunner(
            me=me.id, slots=limits.slots, memory_bytes=limits.memory_bytes, files=files, store=store
        )
        self.bulk = b.Bulk(
            me=me.id, session=me.session, store=store, send_chunk=send_chunk, refuse=self._refuse
        )
        self.records = JobRecords(store)
        self._keeping = JobRegisters(self, votes, registers, now)
        self.registers = self._keeping.registers
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
        self._hearing = JobHearing(self)
        self._hands = JobHands(self)
        self._queue: deque[Callable[[float], None]] = deque()
        self._out: list[Effect] = []
        self._perform_early: Callable[[Sequence[Effect], float], None] = self._perform_later
        self._view_version = -1
        self._next_housekeeping = now
        self._warm_at = now + WARM_AFTER_S
        self.warmth_is_wanted = True  # children that wait for work; otherwise they start with it
        self._ticked_at = now
        self._number = me.session * NUMBERS_A_LIFE % NUMBERS

    # ---- a service of the loop -----------------------------------------------------------------------------

    def start(self, now: float) -> Sequence[Effect]:
        """See `Service.start`."""
        self._keeping.start(now)
        self.lives.start(now)
        self._look_around(now)
        return self._performed(now)

    def receive(self, message: Any, origin: Origin, now: float) -> Sequence[Effect]:
        """See `Service.receive`."""
        kind = type(message)
        if kind in FROM_CLIENTS:
            if origin.connection is not None:
                self.answers.on_client(message, origin.node, origin.connection, now)
        elif kind in RingFiles.handles:
            self.ring_files.receive(message, origin, now)
        else:
            self._hearing.hear(message, origin.node, now)
        return self._performed(now)

    def hear(self, event: Event, now: float) -> Sequence[Effect]:
        """See `Service.hear`."""
        if isinstance(event, MemberDied | MemberLeft):
            node = event.member.id
            self.bulk_ended(self.bulk.peer_is_gone(node), now)
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
        self.bulk_ended(self.bulk.tick(now), now)
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
        # Of several chunks of a transfer, what is said of the last says it of those before it.
        answers: dict[tuple[NodeId, int, int], b.Received | b.Stored] = {}
        for arrival in arrivals:
            for node, answer in self.bulk.take_chunk(arrival.parts, now):
                answers[node, answer.session, answer.transfer] = answer
        for (node, _, _), answer in answers.items():
            self.say(node, answer)
            if isinstance(answer, b.Stored) and not answer.reason:
                self.arrivals.something_arrived(now)
        for event in self.runner.pump():
            self._hands.child_said(event, now)
        return self._performed(now)

    def _refuse(self, job: str, stage: int, sender: NodeId) -> str:
        """Say why an output is not taken from a peer, or "".

        Who slept while its job ended goes on bringing outputs, to peers that have dropped theirs.
        """
        if self.is_gone(job):
            return "the job's time to live is over"
        over = self.worker.fate_of(job)
        if over is None:
            if stage >= 0 and not self.lives.is_over(job):
                # Should nobody ever tell us of the job, somebody has to be asked what became of it.
                self.worker.on_stored(job, self._ticked_at, source=sender)
            return ""
        if stage in (SPEC_STAGE, over.keep_stage):
            return ""
        self.answers.tell_fate(job, sender, self._ticked_at)
        return "the job is over"

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
        before_sending(message)
        if to == self.me:
            self._queue.append(lambda now: self._hearing.hear(message, self.me, now))
            return
        member = self.swim.get(to)
        if member is not None:
            self._out.append(Say(to, member.address, message))

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
        self.bulk_ended(self.bulk.send(job, stage, sources, to, tag, now, is_repair=is_repair), now)

    def bulk_ended(self, events: Iterable[b.BulkEvent], now: float) -> None:
        """Tell whoever asked for these transfers that they have ended."""
        self._hands.bulk_ended(events, now)

    def send_early(self, now: float) -> None:
        """Send what waits at once: others can do what is asked of them while this peer waits for its disk."""
        out, self._out = self._out, []
        self._perform_early(out, now)

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
        """Return a number that was not used before, by no earlier life either: its answers may still come."""
        self._number += 1
        return self._number

    def plan(self, job: str) -> JobPlan | None:
        """Return a job's plan, if its spec is here."""
        return self.records.plan(job)

    def take_plan(self, job: str, plan: JobPlan) -> None:
        """A job's spec is here, and this is its plan."""
        self.records.take_plan(job, plan)

    def forget(self, job: str) -> None:
        """A job's time to live is over."""
        self.records.forget(job)
        self.heard.pop(job, None)
        self.stalled.pop(job, None)

    def leader(self, job: str) -> Leader | None:
        """Return the leader of a job, if this peer leads it."""
        return self.leading.get(job)

    def record_in(self, record: Record) -> JobRecord:
        """Return what a register's record holds."""
        return self.records.record_in(record)

    def packed(self, record: JobRecord) -> bytes:
        """Return a record as a register holds it; it will soon be asked about."""
        return self.records.packed(record)

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
            self._hands.tell_what_rotted(now)
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
            self._queue.append(lambda now, effect=effect: self._hands.perform(effect, now))  # type: ignore[misc]

    def _registers(self, effects: Iterable[reg.RegisterEffect]) -> None:
        for effect in effects:
            self._queue.append(lambda now, effect=effect: self._keeping.perform(effect, now))  # type: ignore[misc]

    def _look_around(self, now: float) -> None:
        """Membership has news."""
        self._view_version = self.swim.version
        view = self.swim.view
        here = {member.id for member in view.alive}
        suspected = [member.id for member in view if member.id not in here]
        self._registers(self.registers.observe(suspected, self.swim.health, now))
        self._jobs(self.worker.on_view(view, now))
        self.leading.on_view(view, now)

    # ---- house-keeping -------------------------------------------------------------------------------------

    def _keep_house(self, now: float) -> None:
        self.leading.heal(now)
        self.locks.heal(now)
        self.lives.tick(now)
