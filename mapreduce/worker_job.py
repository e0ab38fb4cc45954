"""One job on one worker: what it is offered, what it claims, what it has in hand, what it reports.

Theory of operation
-------------------
A worker follows the leader with the highest ballot it has heard of.  From a `Beat` it learns that there is a
stage or a version that it does not know, and asks for the `Offer`.  From the offer it computes which tasks
are its own (`mapreduce.claims`, or the homes that the leader names where data lies), and claims as many as
it has room for: free slots, and a little more where tasks are so short that asking would cost more time than
running.  When its own are gone it claims without naming any, and gets what others have not begun.

A claim is about *now*: it says the whole room there is, how much of that could begin at once, and which
grant was the last to be counted in it.  It is said again when the room has changed, and now and then in case
it was lost.  What was granted and finds all slots taken by other jobs is said at once (`Working`), so that
the leader can ask it back for somebody idle.  A stage that is left takes everything with it that its attempts
had under way: the stage would not have been left if they were needed.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from math import ceil, inf

from mapreduce.claims import homes
from mapreduce.config import JobsConfig
from mapreduce.effects import (
    CancelPush,
    CancelTask,
    Fetch,
    FetchPlan,
    Forget,
    Push,
    RunTask,
    Send,
    StageSetup,
    TaskOutput,
    WorkerEffect,
)
from mapreduce.failures import INPUT_GONE
from mapreduce.held import Held, Partitions, StageOffer
from mapreduce.messages import (
    AskOffer,
    Beat,
    Claim,
    Copied,
    CopyOrder,
    Done,
    Failed,
    Finished,
    Grant,
    HeldAttempt,
    HeldGroup,
    Inventory,
    Missing,
    Offer,
    Phase,
    Returned,
    Revoke,
    ToLeader,
    Working,
)
from mapreduce.outgoing import LARGE_BYTES, Outgoing
from mapreduce.placement import can_work
from mapreduce.record import Failure, StageKind
from mapreduce.spec import InputSplit, JobPlan
from mapreduce.stages import StageGraph
from membership.ring import Ring
from membership.view import NodeId, View

__all__ = ["WorkerJob"]

# A Finished message stays well below the frame limit.
MAX_DONE_IN_MESSAGE = 512
MAX_INVENTORY_TASKS = 8_192
MAX_COPY_ORDERS = 1_024
NOTHING_CLAIMED = (-1, False)
SMOOTHING = 0.3


class WorkerJob:
    """What a worker knows and does of one job.

    Args:
        me: this worker.
        session: of its process.
        job: the job's id.
        slots: of the worker.
        config: see there.
        push_numbers: never used twice by this worker.
    """

    def __init__(
        self,
        *,
        me: NodeId,
        session: int,
        job: str,
        slots: int,
        config: JobsConfig,
        push_numbers: Iterator[int],
        now: float,
    ) -> None:
        self.job = job
        self.plan: JobPlan | None = None
        self.spec_digest = ""
        self.ballot = 0
        self.leader = NodeId("")
        self.members: tuple[NodeId, ...] = ()
        self.heard_at = now
        self.is_needed = True
        self.running = 0
        self.queue: deque[int] = deque()
        self.may_claim = True
        self.share = slots
        self._me = me
        self._session = session
        self._slots = slots
        self._config = config
        self._graph: StageGraph | None = None
        self._offer: Offer | None = None
        self._stage: StageOffer | None = None
        self._held: dict[int, Held] = {}
        self._queued = 0
        self._pushing = 0
        self._failed: dict[int, tuple[Failed, float]] = {}
        self._outgoing = Outgoing(config, push_numbers)
        self._copied: OrderedDict[int, bool] = OrderedDict()  # copy orders: whether they are done
        self._own: deque[int] = deque()
        self._seen = 0
        self._idle = slots
        self._claimed = NOTHING_CLAIMED
        self._claimed_at = -inf
        self._asks_until = -inf
        self._claim_at = inf
        self._task_s = inf
        self._unreported: list[int] = []
        self._report_at = inf
        self._say_at = inf
        self._said_at = -inf
        self._granted = False
        self._fetch_plan_at = inf
        self._status = ""
        self.out: list[WorkerEffect] = []

    # -- following the leader ------------------------------------------------------------------------------

    def obeys(self, ballot: int, sender: NodeId, now: float) -> bool:
        """Whether an order under this ballot counts; one of a higher ballot names a new leader."""
        if ballot < self.ballot:
            return False
        self.heard_at = now
        if ballot > self.ballot:
            self.ballot, self.leader = ballot, sender
            self._seen = 0
            self._offer = None
            self._copied.clear()
        return True

    def take_beat(self, beat: Beat, now: float) -> None:
        """The leader says what there is; ask for what we do not have."""
        self._know_spec(beat.spec_digest, now)
        self.is_needed = beat.needs_you
        known = self._offer
        if beat.stage < 0:
            return
        if known is None or known.stage != beat.stage or known.version < beat.version:
            self._say(AskOffer(job=self.job, ballot=self.ballot))

    def take_offer(self, offer: Offer, view: View, now: float) -> None:
        """The leader says what the stage is."""
        self._know_spec(offer.spec_digest, now)
        self.members = offer.members
        old = self._offer
        if old is not None and offer.version <= old.version:
            return
        self._offer = offer
        if self._graph is not None:
            self._enter(view, now)

    def _know_spec(self, spec_digest: str, now: float) -> None:
        if not self.spec_digest:
            self.spec_digest = spec_digest
            self._fetch_plan_at = now

    def take_plan(self, plan: JobPlan, view: View, now: float) -> None:
        """The job's plan is here."""
        self.plan = plan
        self._graph = StageGraph(plan)
        self._fetch_plan_at = inf
        if self._offer is not None:
            self._enter(view, now)

    def plan_failed(self, now: float) -> None:
        """The plan could not be fetched: try again, perhaps the leader has changed."""
        self._fetch_plan_at = now + 2 * self._config.retry_s

    def _enter(self, view: View, now: float) -> None:
        """Follow an offer: a new stage, a new leader, or places that have moved."""
        offer, graph, old = self._offer, self._graph, self._stage
        assert offer is not None
        assert graph is not None
        assert self.plan is not None
        if offer.stage >= len(graph):
            return
        stage = graph[offer.stage]
        step = self.plan.steps[stage.step]
        setup = StageSetup(
            job=self.job,
            stage=offer.stage,
            step=stage.step,
            step_name=step.name,
            kind=stage.kind,
            partitions=offer.partitions,
            borders=offer.borders,
            out_format=self.plan.out_format if stage.index == graph.result_stage else "",
            map_only=step.map_only,
        )
        # A reduce attempt belongs to the winners it reads; with others it would be another task.
        same = old is not None and old.index == offer.stage and old.reads == offer.reads
        if same and old is not None:
            setup = old.setup
        else:
            self._leave_stage()
            self._task_s = inf
        self._stage = StageOffer(offer, setup, self._me, self.plan.replicas)
        for held in list(self._held.values()):
            if held.phase in (Phase.PUSHING, Phase.FINISHED):
                self._owe(held, now)
        self._find_own(view)
        self._claimed = NOTHING_CLAIMED
        self._claim_at = now
        self._say_at = now

    def _leave_stage(self) -> None:
        """What is in hand belongs to a stage that is over."""
        for held in self._held.values():
            self.out.append(CancelTask(job=self.job, attempt=held.attempt))
        self.out += [CancelPush(job=self.job, number=number) for number in self._outgoing.drop()]
        self._held.clear()
        self._failed.clear()
        self.queue.clear()
        self._unreported.clear()
        self._report_at = inf
        self.running = self._queued = self._pushing = 0

    def _find_own(self, view: View) -> None:
        """Which tasks of the stage are ours, by their data or by the ring."""
        assert self._offer is not None
        assert self._graph is not None
        assert self.plan is not None
        offer = self._offer
        if offer.homes:
            named = [offer.nodes[index] for index in offer.homes]
        else:
            step = self.plan.steps[self._graph[offer.stage].step]
            splits = step.samples if offer.kind is StageKind.SAMPLE else step.splits
            ring = Ring.of(member for member in view if can_work(member))
            named = homes([split.key for split in splits[: offer.tasks]], ring)
        busy = {held.task for held in self._held.values()}
        self._own = deque(t for t, node in enumerate(named) if node == self._me and t not in busy)

    def follow_view(self, view: View, restarted: frozenset[NodeId], now: float) -> None:
        """Other peers came or went; what those acknowledged that began anew is not certain any more."""
        if self._stage is None:
            return
        for held in self._held.values():
            doubtful = [node for node in held.acked if node in restarted]
            for node in doubtful:
                del held.acked[node]
            if doubtful and held.phase is Phase.PUSHING:
                self._owe(held, now)
        if self._offer is not None and not self._offer.homes:
            self._find_own(view)
            self._claim_at = now

    # -- claiming ------------------------------------------------------------------------------------------

    @property
    def held_count(self) -> int:
        """How many attempts are in hand, in any phase."""
        return len(self._held)

    @property
    def room(self) -> int:
        """How many more attempts the job could use here."""
        if not self.may_claim or self._pushing >= self._config.push_pending:
            return 0
        used = ceil(self.running / self.depth)
        slots = max(self.share - used, self._idle)
        return max(0, slots + used + self._queue_goal - self._queued - self.running)

    def asks(self, now: float) -> bool:
        """Whether it has asked for tasks a moment ago, or is about to."""
        if now < self._asks_until:
            return True
        return self._offer is not None and self.room not in (0, self._claimed[0])

    def ask_at_once(self, now: float) -> float:
        """A slot is kept for it: claim now; gives how long to keep the slot."""
        if now >= self._asks_until:
            self._claim_at, self._asks_until = now, now + self._config.asking_s
        return self._asks_until

    @property
    def _queue_goal(self) -> int:
        """How many attempts should lie ready behind those that run."""
        if self._task_s == inf:
            return 1
        by_time = int(self._config.queue_s / max(self._task_s, 1e-6) * self.share)
        return max(1, min(self._config.queue_most * self.share, by_time))

    @property
    def depth(self) -> int:
        """How many attempts a slot should be given at a time, so that it never waits for the next."""
        if self._task_s == inf:
            return 1
        return max(1, min(self._config.queue_most, int(self._config.queue_s / 2 / max(self._task_s, 1e-6))))

    def _claim(self, now: float) -> None:
        room, idle = self.room, self._idle_slots
        self._claim_at = now + self._config.retry_s
        if room <= 0:
            return
        tasks = tuple([self._own.popleft() for _ in range(min(room, len(self._own)))])
        self._claimed = (room, idle > 0)
        self._claimed_at = now
        self._asks_until = now + self._config.asking_s
        assert self._stage is not None
        claim = Claim(
            job=self.job,
            ballot=self.ballot,
            stage=self._stage.index,
            session=self._session,
            seen=self._seen,
            room=room,
            idle=min(idle, room),
            tasks=tasks,
        )
        self._say(claim)

    @property
    def _idle_slots(self) -> int:
        """How many slots wait for more than what is on its way here."""
        return max(0, self._idle - max(0, self._queued - len(self.queue)))

    def may_use(self, idle: int, now: float) -> None:
        """So many slots are left to whoever has tasks: claim at once if that is news."""
        self._idle = idle
        room, idle = self.room, self._idle_slots > 0
        if room > 0 and (room, idle) != self._claimed:
            window_s = self._config.report_window_s
            # Short tasks end in quick succession: claim for all of them together.
            at_once = idle and now - self._claimed_at >= window_s
            self._claim_at = min(self._claim_at, now if at_once else now + window_s)

    def take_grant(self, grant: Grant) -> None:
        """The leader gives us attempts."""
        if self._stage is None or grant.stage != self._stage.index:
            return
        self._seen = max(self._seen, grant.number)
        self._asks_until = -inf
        if grant.items or self._own:
            self._claimed = NOTHING_CLAIMED  # where that came from there may be more
        for item in grant.items:
            if item.attempt in self._held or item.attempt in self._failed:
                continue
            held = Held(item.task, item.attempt, item.number, item.piece)
            self._held[item.attempt] = held
            self._queued += 1
            if item.piece is not None and self._me not in item.piece.holders:
                held.is_here = False
                self.out.append(Fetch(job=self.job, attempt=item.attempt, piece=item.piece))
            else:
                self.queue.append(item.attempt)
        self._granted = bool(grant.items)

    def take_revoke(self, revoke: Revoke) -> None:
        """The leader wants attempts back, or wants them gone."""
        returned = []
        for attempt in revoke.attempts:
            held = self._held.get(attempt)
            if held is None:
                returned.append(attempt)
            elif held.phase is Phase.QUEUED and held.is_here:
                self._drop(held)
                returned.append(attempt)
            elif revoke.force:
                self._drop(held)
            # What is being fetched will not be had any sooner by somebody else.
        if returned and not revoke.force:
            self._say(
                Returned(job=self.job, ballot=self.ballot, stage=revoke.stage, attempts=tuple(returned))
            )

    def return_queued(self) -> None:
        """Give back everything that has not begun."""
        queued = [held for held in self._held.values() if held.phase is Phase.QUEUED]
        for held in queued:
            self._drop(held)
        if queued and self._stage is not None:
            attempts = tuple([held.attempt for held in queued])
            self._say(Returned(job=self.job, ballot=self.ballot, stage=self._stage.index, attempts=attempts))

    # -- running -------------------------------------------------------------------------------------------

    def run_next(self) -> bool:
        """Begin the attempt that has waited longest; False when none is ready."""
        while self.queue:
            held = self._held.get(self.queue.popleft())
            if held is None or held.phase is not Phase.QUEUED or not held.is_here:
                continue
            held.phase = Phase.RUNNING
            self._queued -= 1
            self.running += 1
            self.out.append(self._order(held))
            return True
        return False

    def _order(self, held: Held) -> RunTask:
        assert self._stage is not None
        assert self._graph is not None
        assert self.plan is not None
        stage = self._graph[self._stage.index]
        step = self.plan.steps[stage.step]
        split: InputSplit | None = None
        if held.piece is None and stage.kind is not StageKind.REDUCE:
            split = (step.samples if stage.kind is StageKind.SAMPLE else step.splits)[held.task]
        is_sample, is_reduce = stage.kind is StageKind.SAMPLE, stage.kind is StageKind.REDUCE
        return RunTask(
            setup=self._stage.setup,
            task=held.task,
            attempt=held.attempt,
            number=held.number,
            split=split,
            piece=held.piece,
            sample_keys=self._graph.sample_keys(stage, self._stage.offer.tasks) if is_sample else 0,
            read_stage=stage.index - 1 if is_reduce else -1,
            reads=self._stage.reads,
        )

    def fetched(self, attempt: int) -> None:
        """What an attempt reads lies here now."""
        held = self._held.get(attempt)
        if held is not None and not held.is_here:
            held.is_here = True
            self.queue.append(attempt)

    def task_done(self, attempt: int, output: TaskOutput, now: float) -> None:
        """An attempt succeeded: its output is to be pushed, and then reported."""
        held = self._held.get(attempt)
        if held is None or held.phase is not Phase.RUNNING:
            return
        self.running -= 1
        self._pushing += 1
        took_s = output.took_s
        self._task_s = took_s if self._task_s == inf else (1 - SMOOTHING) * self._task_s + SMOOTHING * took_s
        held.phase, held.output = Phase.PUSHING, output
        self._owe(held, now)

    def task_failed(self, attempt: int, failure: Failure, missing: Sequence[int], now: float) -> None:
        """An attempt failed; it is reported until that is settled."""
        held = self._held.get(attempt)
        if held is None or self._stage is None:
            return
        self._drop(held, cancel=False)
        piece = held.piece
        if failure.kind == INPUT_GONE and piece is not None and self._me in piece.holders:
            # It was to be read from our own store: the leader should not count on our copy any more.
            parts = {"tasks": (piece.part,), "attempts": (piece.attempt,)}
            self._say(Missing(job=self.job, ballot=self.ballot, stage=piece.stage, **parts))
        failed = Failed(
            job=self.job,
            ballot=self.ballot,
            stage=self._stage.index,
            task=held.task,
            attempt=attempt,
            failure=failure,
            missing=tuple(missing),
        )
        self._failed[attempt] = (failed, now)
        self._say(failed)

    def not_begun(self, attempt: int) -> None:
        """An attempt was not begun after all: it waits again, before all others."""
        held = self._held.get(attempt)
        if held is not None and held.phase is Phase.RUNNING:
            held.phase = Phase.QUEUED
            self.running -= 1
            self._queued += 1
            self.queue.appendleft(attempt)

    def note_status(self, text: str) -> None:
        """What user code says it does."""
        self._status = text

    # -- pushing -------------------------------------------------------------------------------------------

    def _owe(self, held: Held, now: float) -> None:
        """Push what the stage's places lack of an output; report it when that is nothing."""
        assert self._stage is not None
        assert held.output is not None
        places = self._stage.places_of(held)
        if places is None:
            held.owed = {}
            return  # there will be places when somebody joins who takes copies
        before, held.owed = held.owed, {}
        at_once = held.output.size_bytes >= LARGE_BYTES or not (self.running or self._queued)
        for node, wanted in places.items():
            left = held.lacks(node, wanted)
            if left is None:
                continue
            held.owed[node] = left
            if before.get(node) != left:
                self._outgoing.add(node, left, held.task, held.attempt, now, at_once=at_once)
        if held.owed:
            if held.phase is Phase.FINISHED:
                held.phase = Phase.PUSHING
                self._pushing += 1
        elif held.phase is Phase.PUSHING or held.version != self._stage.version:
            self._finish(held, now)

    def _finish(self, held: Held, now: float) -> None:
        assert self._stage is not None
        if held.phase is Phase.PUSHING:
            self._pushing -= 1
        held.phase = Phase.FINISHED
        held.version = self._stage.version
        self._unreported.append(held.attempt)
        idle = not (self.running or self._queued or self._pushing)
        full = len(self._unreported) >= MAX_DONE_IN_MESSAGE
        due = now if idle or full else now + self._config.report_window_s
        self._report_at = min(self._report_at, due)

    def pushed(self, number: int, sent_bytes: int, now: float) -> None:
        """A place has acknowledged a push."""
        push = self._outgoing.answered(number)
        if push is None:
            return
        if push.copy_order:
            self._copied[push.copy_order] = True
            self._say(Copied(job=self.job, ballot=self.ballot, number=push.copy_order))
            return
        for attempt in push.group.attempts:
            held = self._held.get(attempt)
            if held is None:
                continue
            held.acknowledge(push.to, push.group.partitions)
            held.sent_bytes += sent_bytes
            sent_bytes = 0  # the first stands for all
            if held.phase is Phase.PUSHING and not held.owed and self._has_places(held):
                self._finish(held, now)

    def _has_places(self, held: Held) -> bool:
        assert self._stage is not None
        return self._stage.places_of(held) is not None

    def push_failed(self, number: int, reason: str, now: float) -> None:
        """A place did not take a push: try again, if it is a place still."""
        push = self._outgoing.answered(number)
        if push is None:
            return
        if push.copy_order:
            self._copied.pop(push.copy_order, None)
            text = reason or "it failed"
            self._say(Copied(job=self.job, ballot=self.ballot, number=push.copy_order, reason=text[:1024]))
            return
        # What is owed may have become less since, by an older push of other partitions.
        again: dict[Partitions, list[tuple[int, int]]] = {}
        for task, attempt in zip(push.group.tasks, push.group.attempts, strict=True):
            held = self._held.get(attempt)
            if held is not None and push.to in held.owed:
                again.setdefault(held.owed[push.to], []).append((task, attempt))
        for partitions, outputs in again.items():
            self._outgoing.again(push.to, partitions, outputs, now)

    def take_copy_order(self, order: CopyOrder) -> None:
        """The leader wants outputs that lie here to lie elsewhere as well."""
        done = self._copied.get(order.number)
        if done is not None:
            if done:  # the answer was lost
                self._say(Copied(job=self.job, ballot=self.ballot, number=order.number))
            return
        self._copied[order.number] = False
        if len(self._copied) > MAX_COPY_ORDERS:
            self._copied.popitem(last=False)
        group = HeldGroup(
            stage=order.stage, partitions=order.partitions, tasks=order.tasks, attempts=order.attempts
        )
        push = self._outgoing.begin(order.to, group, order.number)
        self.out.append(Push(job=self.job, number=push.number, to=order.to, group=group, is_repair=True))

    # -- reporting -----------------------------------------------------------------------------------------

    def take_settled(self, attempts: Iterable[int]) -> None:
        """What was reported of these attempts is in the record, or will never matter."""
        settled = []
        for attempt in attempts:
            self._failed.pop(attempt, None)
            held = self._held.get(attempt)
            if held is not None and held.phase in (Phase.PUSHING, Phase.FINISHED):
                self._drop(held, cancel=False)
                settled.append(attempt)
        if settled:
            self.out.append(Forget(job=self.job, attempts=tuple(settled)))

    def _report(self, now: float) -> None:
        """Say what has finished."""
        assert self._stage is not None
        self._report_at = inf
        by_version: dict[int, list[Done]] = {}
        for attempt in dict.fromkeys(self._unreported):
            held = self._held.get(attempt)
            if held is not None and held.phase is Phase.FINISHED:
                held.reported_at = now
                by_version.setdefault(held.version, []).append(_done(held))
        self._unreported.clear()
        for version, items in sorted(by_version.items()):
            for start in range(0, len(items), MAX_DONE_IN_MESSAGE):
                self._say(
                    Finished(
                        job=self.job,
                        ballot=self.ballot,
                        stage=self._stage.index,
                        version=version,
                        items=tuple(items[start : start + MAX_DONE_IN_MESSAGE]),
                    )
                )

    def _say_working(self, now: float) -> None:
        """Say everything that is in hand; what was reported and not settled is said again."""
        self._said_at, self._say_at = now, now + self._config.beat_s
        assert self._stage is not None
        held = [
            HeldAttempt(task=held.task, attempt=held.attempt, phase=held.phase)
            for held in self._held.values()
        ]
        self._say(
            Working(
                job=self.job,
                ballot=self.ballot,
                stage=self._stage.index,
                session=self._session,
                seen=self._seen,
                held=tuple(held),
                status=self._status[:1024],
            )
        )
        overdue = now - self._config.retry_s
        for one in self._held.values():
            if one.phase is Phase.FINISHED and one.reported_at <= overdue:
                self._unreported.append(one.attempt)
                self._report_at = now
        for attempt, (failed, said_at) in list(self._failed.items()):
            if said_at <= overdue:
                self._failed[attempt] = (failed, now)
                self._say(replace(failed, ballot=self.ballot))

    def say_inventory(self, groups: Sequence[HeldGroup]) -> None:
        """Say what lies here, in as many messages as it takes."""
        batch: list[HeldGroup] = []
        size = 0
        for group in groups:
            for start in range(0, max(1, len(group.tasks)), MAX_INVENTORY_TASKS):
                stop = start + MAX_INVENTORY_TASKS
                part = HeldGroup(
                    stage=group.stage,
                    partitions=group.partitions,
                    tasks=group.tasks[start:stop],
                    attempts=group.attempts[start:stop],
                )
                weight = len(part.tasks) + len(part.partitions)
                if batch and size + weight > MAX_INVENTORY_TASKS:
                    self._say(self._inventory(batch, is_last=False))
                    batch, size = [], 0
                batch.append(part)
                size += weight
        self._say(self._inventory(batch, is_last=True))

    def _inventory(self, groups: Sequence[HeldGroup], *, is_last: bool) -> Inventory:
        return Inventory(
            job=self.job, ballot=self.ballot, session=self._session, groups=tuple(groups), is_last=is_last
        )

    # -- time ----------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Do what is due."""
        if now >= self._fetch_plan_at:
            self._fetch_plan_at = inf
            sources = tuple(dict.fromkeys((self.leader, *self.members)))
            self.out.append(FetchPlan(job=self.job, spec_digest=self.spec_digest, sources=sources))
        stage = self._stage
        if stage is None:
            return
        for push in self._outgoing.flush(stage.index, now, self._held):
            self.out.append(Push(job=self.job, number=push.number, to=push.to, group=push.group))
        if self._offer is None:
            return  # a new leader has yet to say what the stage is; our news are for that one
        if self._granted:
            self._granted = False
            if self.queue and not self.running:  # the slots are other jobs': somebody else may be idle
                self._say_at = min(self._say_at, max(now, self._said_at + self._config.queue_s))
        if now >= self._say_at:
            self._say_working(now)
        if now >= self._report_at:
            self._report(now)
        if now >= self._claim_at:
            self._claim(now)

    @property
    def next_deadline(self) -> float:
        """When something is due."""
        if self._stage is None:
            return self._fetch_plan_at
        due = min(self._fetch_plan_at, self._outgoing.next_deadline)
        if self._offer is None:
            return due
        return min(due, self._say_at, self._report_at, self._claim_at)

    def end(self) -> None:
        """The job is over, or not ours any more: let go of everything."""
        self._leave_stage()
        self.out += [CancelPush(job=self.job, number=number) for number in self._outgoing.drop_all()]

    # -- inside --------------------------------------------------------------------------------------------

    def _drop(self, held: Held, *, cancel: bool = True) -> None:
        """Let go of an attempt."""
        del self._held[held.attempt]
        match held.phase:
            case Phase.QUEUED:
                self._queued -= 1
            case Phase.RUNNING:
                self.running -= 1
            case Phase.PUSHING:
                self._pushing -= 1
            case Phase.FINISHED:
                pass
        if cancel:
            self.out.append(CancelTask(job=self.job, attempt=held.attempt))

    def _say(self, message: ToLeader) -> None:
        self.out.append(Send(to=self.leader, message=message))


def _done(held: Held) -> Done:
    output = held.output
    assert output is not None
    return Done(
        task=held.task,
        attempt=held.attempt,
        is_empty=output.is_empty,
        digest=output.digest,
        size_bytes=output.size_bytes,
        records=output.records,
        cuts=output.cuts,
        counters=dict(output.counters),
        sample=output.sample,
        replica_bytes=held.sent_bytes,
        spilled_bytes=output.spilled_bytes,
        bad_records=output.bad_records,
        took_ms=int(output.took_s * 1000),
        cpu_ms=int(output.cpu_s * 1000),
    )
