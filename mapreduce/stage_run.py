"""One stage while it runs: who may have which task, what is in whose hands, what is ready to be committed.

The part of a leader that begins anew with each stage.  It answers claims with grants, takes reports, and
gathers winners for the next proposal.  It knows nothing of the register: what it gathers counts when
`mapreduce.leader` says that it was committed.

Order of giving: the tasks that a claim names, then what has come back, then the worker's own, then others'
(`mapreduce.pool`).  Where the data lies at a task's home, others wait `local_wait_s` for the home to claim it
(Zaharia et al., *Delay Scheduling*, 2010).  Workers with a free slot come before those that would let a task
lie.

When nothing waits any more and a slot is free somewhere, `mapreduce.stragglers` says what to ask back from
others (`Revoke`), and what to give to a second worker; the first that finishes wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import ceil, inf

from mapreduce.changes import Commit
from mapreduce.config import JobsConfig
from mapreduce.counts import Numbers
from mapreduce.failures import INPUT_GONE, final_failure, is_innocent, may_retry
from mapreduce.keeper import Keeper
from mapreduce.messages import (
    Claim,
    Done,
    Failed,
    Finished,
    Grant,
    GrantItem,
    HeldAttempt,
    Phase,
    Piece,
    Revoke,
    Settled,
    ToWorker,
    Working,
)
from mapreduce.pool import GrantedAttempt, TaskPool, TaskState
from mapreduce.record import Failure, StageKind, StageRecord
from mapreduce.seats import Seat, Seats
from mapreduce.spec import JobPlan, PackedColumn
from mapreduce.stages import Stage, TaskInput, task_name
from mapreduce.stragglers import Stragglers
from membership.view import NodeId

__all__ = ["Letter", "Letters", "StageRun"]

# A grant stays well below what a frame holds, whatever the pieces in it are called.
MAX_GRANT_ITEMS = 1_024

Letter = tuple[NodeId, ToWorker]
Letters = list[Letter]


class StageRun:
    """Runs one stage of a job.

    Args:
        plan: the job's.
        stage: which.
        opened: its record.
        inputs: what its tasks read; empty for a reduce stage.
        homes: the node that should run each task.
        seats: the workers.
        keeper: knows who holds what.
        numbers: of this leadership.
        config: see there.
    """

    def __init__(
        self,
        *,
        plan: JobPlan,
        stage: Stage,
        opened: StageRecord,
        inputs: Sequence[TaskInput],
        homes: Sequence[NodeId],
        seats: Seats,
        keeper: Keeper,
        numbers: Numbers,
        config: JobsConfig,
        now: float,
    ) -> None:
        self.stage = stage
        self._plan = plan
        self.pool = TaskPool(homes, (t for t, winner in enumerate(opened.winners) if winner is not None))
        self.ready: dict[int, Commit] = {}
        self.samples: dict[int, PackedColumn] = {}
        self.status = ""
        self.workers: frozenset[NodeId] = frozenset()
        self._inputs = inputs
        self._seats = seats
        self._keeper = keeper
        self._numbers = numbers
        self._config = config
        self._proposed: dict[int, Commit] = {}
        self._stragglers = Stragglers(self.pool, seats, self._may_run, config)
        self._steal_at = -inf
        self.begin([], now)
        self._can: dict[tuple[NodeId, int], bool] = {}
        self._can_generation = -1

    @property
    def is_finished(self) -> bool:
        """Whether every task has finished, committed or not."""
        return self.pool.finished_count + self.pool.committed_count == self.pool.count

    def begin(self, local_homes: Sequence[NodeId], now: float) -> None:
        """From now on tasks are granted; where data lies at their homes, wait a moment for these to claim.

        Args:
            local_homes: where data is known to lie by now, by task; empty: nothing is new.
        """
        if local_homes:
            self.pool.rehome(local_homes)
        if any(isinstance(piece, Piece) for piece in self._inputs):
            self._steal_at = now + self._config.local_wait_s

    def waiting_for(self, nobody_holds: str) -> str:
        """Say what the stage waits for.

        Args:
            nobody_holds: what is to be said behind a task where nobody takes copies of its output.
        """
        if not self.workers:
            return "waiting for a peer that takes tasks"
        if self.pool.attempts:
            oldest = min(self.pool.attempts.values(), key=lambda a: (a.granted_at, a.number))
            return f"waiting for {task_name(self.stage.kind, oldest.task)} on {oldest.worker}{nobody_holds}"
        if self.pool.waiting_count:
            return f"waiting for a peer that can take one of {self.pool.waiting_count} tasks"
        return "waiting for the record to be written"

    # -- giving ------------------------------------------------------------------------------------------

    def claim(self, seat: Seat, claim: Claim, now: float) -> Letters:
        """Answer a claim: always, with an empty grant if need be, so that the worker need not wait for it."""
        seat.claimed(claim)
        if seat.wants_any:
            return self.feed(seat, now) or [self._grant(seat, (), now), *self._help(now)]
        most = self._most(seat)
        tasks = [t for t in dict.fromkeys(claim.tasks) if self.pool.waits(t) and self._may_run(seat.node, t)]
        return [self._grant(seat, tasks[:most], now)]

    def feed(self, seat: Seat, now: float) -> Letters:
        """Give a worker with room whatever waits."""
        most = self._most(seat)
        if most <= 0 or not self.pool.waiting_count:
            return []
        tasks = self.pool.take(
            seat.node, most, lambda task: self._may_run(seat.node, task), may_steal=now >= self._steal_at
        )
        return [self._grant(seat, tasks, now)] if tasks else []

    def feed_all(self, now: float) -> Letters:
        """Give what waits to all who have said that they would take anything."""
        if not self.pool.waiting_count:
            return []
        hungry = [seat for seat in self._seats if seat.wants_any and seat.room_left > 0]
        hungry.sort(key=lambda seat: (-seat.idle, -seat.room_left, seat.node))
        return [letter for seat in hungry for letter in self.feed(seat, now)]

    def _most(self, seat: Seat) -> int:
        """How many tasks to give at once: near the end of a stage nobody gets all that is left."""
        if seat.node not in self.workers:
            return 0
        fair = ceil(self.pool.waiting_count / max(1, len(self.workers)))
        return max(0, min(seat.room_left, max(1, fair), MAX_GRANT_ITEMS))

    def _may_run(self, node: NodeId, task: int) -> bool:
        """Whether a worker may have a task: it has what the task reads, and has not failed on it."""
        if self.stage.kind is StageKind.REDUCE and not self._can_reduce(node, task):
            return False
        avoided = self.pool.avoids(task)
        return node not in avoided or avoided.issuperset(self._candidates(task))

    def _can_reduce(self, node: NodeId, partition: int) -> bool:
        if self._can_generation != self._keeper.generation:
            self._can.clear()
            self._can_generation = self._keeper.generation
        key = node, partition
        if key not in self._can:
            self._can[key] = self._keeper.can_reduce(self.stage.index - 1, partition, node)
        return self._can[key]

    def _candidates(self, task: int) -> frozenset[NodeId]:
        if self.stage.kind is not StageKind.REDUCE:
            return self.workers
        return self.workers.intersection(self._keeper.reducers(self.stage.index - 1, task))

    def _grant(self, seat: Seat, tasks: Sequence[int], now: float) -> Letter:
        number = seat.granted(len(tasks))
        self._numbers.doings.note("granted", seat.node, len(tasks), now)
        items = []
        for task in tasks:
            attempt = self._numbers.next_attempt()
            tried = self.pool.grant(task, attempt, seat.node, number, now)
            seat.attempts[attempt] = None
            self._numbers.moves += tried == 1
            items.append(GrantItem(task=task, attempt=attempt, number=tried, piece=self._piece(task)))
        return seat.node, Grant(
            job=self._numbers.job,
            ballot=self._numbers.ballot,
            stage=self.stage.index,
            number=number,
            items=tuple(items),
            lease_s=self._config.lease_s,
        )

    def _piece(self, task: int) -> Piece | None:
        if not self._inputs or not isinstance(piece := self._inputs[task], Piece):
            return None
        return replace(piece, holders=self._keeper.holders(piece.stage, piece.part)[:8])

    # -- taking ------------------------------------------------------------------------------------------

    def working(self, seat: Seat, said: Working, now: float) -> Letters:
        """Renew leases, take over attempts of an earlier leader, notice what a worker does not have."""
        held = {one.attempt for one in said.held}
        unwanted = []
        for one in said.held:
            attempt = self.pool.attempts.get(one.attempt) or self._adopt(seat, one, now)
            if attempt is None:
                if one.phase is not Phase.FINISHED:  # the finished are settled when they are reported
                    unwanted.append(one.attempt)
                continue
            attempt.mentioned_at = now
            attempt.phase = one.phase
            if one.phase is not Phase.QUEUED and attempt.begun_at == inf:
                attempt.begun_at = now
        self.status = said.status or self.status
        seat.is_stuck = bool(said.held) and all(one.phase is Phase.QUEUED for one in said.held)
        for number in [number for number in seat.attempts if number not in held]:
            attempt = self.pool.attempts.get(number)
            # Of a grant that it has seen it would hold the attempt; of one it has not, it may come yet.
            if (
                attempt is None
                or attempt.grant <= said.seen
                or now - attempt.granted_at > self._config.retry_s
            ):
                self._lost(seat, number)
        letters = [self._revoke(seat.node, unwanted, force=True)] if unwanted else []
        return letters + self.feed_all(now) + self._help(now)

    def _adopt(self, seat: Seat, one: HeldAttempt, now: float) -> GrantedAttempt | None:
        """Take over an attempt that we did not grant, or had given up."""
        attempt = self.pool.adopt(one.task, one.attempt, seat.node, now)
        if attempt is not None:
            seat.attempts[one.attempt] = None
        return attempt

    def finished(self, worker: NodeId, said: Finished, now: float) -> Letters:
        """Take finished attempts; the first of each task is gathered for the next proposal."""
        settled = []
        for item in said.items:
            if not 0 <= item.task < self.pool.count or self.pool.states[item.task] is TaskState.COMMITTED:
                settled.append(item.attempt)
                self._end(worker, item.attempt)
            elif self.pool.states[item.task] is not TaskState.FINISHED:
                self._take_finished(worker, said.version, item, now)
        return [self.settled(worker, settled)] if settled else []

    def _take_finished(self, worker: NodeId, version: int, item: Done, now: float) -> None:
        places: tuple[NodeId, ...] = ()
        if not item.is_empty and self.stage.kind is not StageKind.SAMPLE:
            places = self._keeper.finished(self.stage.index, item.task, version, worker)
            if not places:
                return  # nobody who is here holds it: the worker will say so of a later version
        if item.attempt not in self.pool.attempts:
            self.pool.grant(item.task, item.attempt, worker, 0, now)
        self.pool.finished(item.attempt, item.took_ms / 1000)
        seat = self._seats.get(worker)
        if seat is not None:
            seat.attempts.pop(item.attempt, None)
            seat.successes += 1
        if item.sample is not None:
            self.samples[item.task] = item.sample
        self.ready[item.task] = Commit(
            task=item.task,
            attempt=item.attempt,
            worker=worker,
            digest=item.digest,
            size_bytes=item.size_bytes,
            records=item.records,
            is_empty=item.is_empty or self.stage.kind is StageKind.SAMPLE,
            cuts=item.cuts,
            places=places if self.stage.is_parts else (),
            counters=item.counters,
            replica_bytes=item.replica_bytes,
            spilled_bytes=item.spilled_bytes,
            bad_records=item.bad_records,
            cpu_ms=item.cpu_ms,
        )

    def failed(self, seat: Seat, said: Failed, now: float) -> Failure | None:
        """Take a failed attempt; gives the failure of the job, if this is its end."""
        if said.missing:
            self._keeper.missing(seat.node, self.stage.index - 1, said.missing)
        if said.attempt not in self.pool.attempts:
            return None
        failure = replace(said.failure, node=seat.node)
        counts = not is_innocent(failure)
        # What was not there a moment ago is not there now: without a pause the task would spin.
        resume_at = now + self._config.retry_s if failure.kind == INPUT_GONE else 0.0
        tried = self.pool.failed(said.attempt, seat.node, counts=counts, resume_at=resume_at)
        seat.attempts.pop(said.attempt, None)
        if counts:
            seat.failures += 1
            self._numbers.unsaved_failures += 1
        if may_retry(failure) and tried < self._plan.max_attempts:
            return None
        step = self._plan.steps[self.stage.step].name
        return final_failure(failure, step, self.stage.kind, said.task, tried, self._plan.max_attempts)

    def returned(self, seat: Seat, attempts: Sequence[int], now: float) -> Letters:
        """Take back what a worker has not begun."""
        for number in attempts:
            if number in self.pool.attempts:
                self._numbers.given_back(number)
            self._lost(seat, number)
        return self.feed_all(now)

    def leave(self, seat: Seat) -> None:
        """A worker is gone, or its process is another: what it had in hand is not done."""
        for number in list(seat.attempts):
            self._lost(seat, number)

    def places_gone(self) -> None:
        """Of what was not committed yet, take back what lies nowhere any more."""
        for task, commit in list(self.ready.items()):
            if not commit.is_empty and not self._keeper.is_held(self.stage.index, task):
                del self.ready[task]
                self.pool.unfinished(task)

    def _lost(self, seat: Seat, number: int) -> None:
        seat.attempts.pop(number, None)
        self.pool.lost(number)

    def _end(self, worker: NodeId, number: int) -> None:
        seat = self._seats.get(worker)
        if seat is not None:
            seat.attempts.pop(number, None)
        self.pool.finished(number, 0.0)

    # -- committing --------------------------------------------------------------------------------------

    def take_ready(self, most: int) -> tuple[Commit, ...]:
        """What is to be proposed now; it stays in our hands until `committed`."""
        tasks = list(self.ready)[:most]
        for task in tasks:
            self._proposed[task] = self.ready.pop(task)
        return tuple(self._proposed.values())

    def committed(self, opened: StageRecord) -> Letters:
        """The record has these winners now; tell the workers what is settled and what is not needed."""
        settled: dict[NodeId, list[int]] = {}
        unwanted: dict[NodeId, list[int]] = {}
        for task, commit in self._proposed.items():
            winner = None if opened.is_dropped else opened.winners[task]
            if winner is not None:
                self._keeper.committed(self.stage.index, task, winner.attempt, is_empty=winner.is_empty)
            self.pool.committed(task)
            settled.setdefault(commit.worker, []).append(commit.attempt)
            for other in self.pool.of_task(task):
                unwanted.setdefault(other.worker, []).append(other.number)
        self._proposed.clear()
        letters = []
        for worker, attempts in unwanted.items():
            for number in attempts:
                self._end(worker, number)
            letters.append(self._revoke(worker, attempts, force=True))
        return letters + [self.settled(worker, attempts) for worker, attempts in settled.items()]

    def settled(self, worker: NodeId, attempts: Sequence[int]) -> Letter:
        """What tells a worker to forget attempts."""
        return worker, Settled(
            job=self._numbers.job,
            ballot=self._numbers.ballot,
            stage=self.stage.index,
            attempts=tuple(attempts),
        )

    # -- now and then ------------------------------------------------------------------------------------

    @property
    def next_deadline(self) -> float:
        """When `go_on` has something to do."""
        steal_at = self._steal_at if self._steal_at > 0 else inf
        return min(self.pool.resumes_at, self._stragglers.due_at, steal_at)

    def go_on(self, now: float, *, more_held: bool) -> Letters:
        """Give what may be given by now: pauses are over, or (`more_held`) others hold what tasks read."""
        resumed = self.pool.resumes_at <= now and self.pool.resume(now)
        if now >= self._steal_at:
            resumed |= self._steal_at > 0
            self._steal_at = -inf
        letters = self.feed_all(now) if resumed or more_held else []
        return letters + (self._help(now) if now >= self._stragglers.due_at else [])

    def tick(self, now: float) -> Letters:
        """Take back what silent workers had, let pauses end, help slow tasks."""
        for seat in self._seats:
            for number in list(seat.attempts):
                attempt = self.pool.attempts.get(number)
                if attempt is None or now - attempt.mentioned_at > self._config.lease_s:
                    self._lost(seat, number)
        self.pool.resume(now)
        letters = self.feed_all(now) + self._help(now)
        return letters + (self._speculate(now) if not self.pool.waiting_count else [])

    def _help(self, now: float) -> Letters:
        """Ask back for idle workers what lies queued at others, if it lies there in vain."""
        back = self._stragglers.ask_back(self.workers, now)
        return [self._revoke(worker, attempts, force=False) for worker, attempts in back]

    def _speculate(self, now: float) -> Letters:
        """Give the slowest tasks to a second worker each."""
        letters = []
        for seat, task in self._stragglers.second_workers(self.workers, now):
            self._numbers.unsaved_speculated += 1
            letters.append(self._grant(seat, [task], now))
        return letters

    def _revoke(self, worker: NodeId, attempts: Sequence[int], *, force: bool) -> Letter:
        return worker, Revoke(
            job=self._numbers.job,
            ballot=self._numbers.ballot,
            stage=self.stage.index,
            attempts=tuple(attempts),
            force=force,
        )
