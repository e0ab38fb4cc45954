"""One life of a simulated peer that works for jobs: the host of `Worker` and `Leader`, and its data plane.

The real peer's host is `p2p.job_service`.  This one performs the same effects by simpler means: a task takes
a drawn time and is run by `jobs_engine`; a push is one datagram, sent again until it is acknowledged or has
failed too often; a plan is fetched from whoever can be reached.  Datagrams are lost, doubled and late like
all others, and what arrives is checked and stored before it is acknowledged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence, Sized
from dataclasses import dataclass
from random import Random
from typing import assert_never, get_args

from mapreduce.config import JobsConfig
from mapreduce.effects import (
    Announce,
    CancelPush,
    CancelTask,
    Drop,
    DropJob,
    Fetch,
    FetchPlan,
    Forget,
    Happened,
    LeaderEffect,
    Propose,
    Push,
    ReadInventory,
    RunTask,
    Send,
    StepDown,
    TaskOutput,
    WorkerEffect,
)
from mapreduce.endings import dissolve_of
from mapreduce.failures import INPUT_GONE, NOT_BEGUN
from mapreduce.leader import Leader
from mapreduce.messages import (
    AskFate,
    Copied,
    CopyOrder,
    Dissolve,
    DropOutputs,
    Message,
    Missing,
    Piece,
    Returned,
    Revoke,
    ToWorker,
)
from mapreduce.record import Failure, JobRecord, StageKind
from mapreduce.spec import JobPlan
from mapreduce.worker import Worker
from membership.view import NodeId, View
from tools.simulation.jobs_engine import Made, Run, make
from tools.simulation.jobs_store import (
    DiskFailed,
    JobFault,
    Segment,
    SegmentMissing,
    Store,
    segment_of,
)
from tools.simulation.jobs_surroundings import HonestRegister
from tools.simulation.jobs_workloads import Workload
from tools.simulation.node import Node
from tools.simulation.world import Violation, World

__all__ = ["JobProcess", "Moods", "SimFetch", "SimFetched", "SimPush", "SimPushed", "Swarm"]

RESEND_S = 0.4
MAX_SENDS = 8
# Of shorter ones a slot may be given several at a time.
LONG_TASK_S = 0.05
NOTABLE = (AskFate, Copied, CopyOrder, DropOutputs, Missing, Returned, Revoke)
TO_WORKER = frozenset(get_args(ToWorker))


@dataclass(frozen=True, slots=True)
class SimPush:
    """Segments on their way to a place."""

    number: int
    boot: int
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class SimPushed:
    """They are stored, or (with a reason) are not."""

    number: int
    boot: int
    reason: str


@dataclass(frozen=True, slots=True)
class SimFetch:
    """A request for a range of a part."""

    job: str
    attempt: int
    piece: Piece


@dataclass(frozen=True, slots=True)
class SimFetched:
    """The range; None where it does not lie there."""

    job: str
    attempt: int
    data: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Moods:
    """How user code and machines behave in a seed.

    Attributes:
        task_s: the range of what a task takes.
        slow: how likely a task takes `slow_s` instead.
        user_errors: how likely an attempt fails by an exception, at most once a task in a row.
        deaths: how likely the child dies, sometimes before it began.
        syncs: whether segments are synced before they are acknowledged.
    """

    task_s: tuple[float, float]
    slow: float
    slow_s: float
    user_errors: float
    deaths: float
    syncs: bool


@dataclass(slots=True)
class Swarm:
    """What all processes of a world share.

    `works`, `plans`, `digests` and `registers` are by job. `watch_run` is called with every attempt that
    begins. `happened` counts what leaders announce and rare messages, `fired` what disks did.
    """

    world: World
    config: JobsConfig
    moods: Moods
    works: dict[str, Workload]
    plans: dict[str, JobPlan]
    digests: dict[str, str]
    registers: dict[str, HonestRegister]
    address_of: dict[str, str]
    node_of: dict[str, Node]
    view_of: Callable[[Node], View]
    watch_run: Callable[[Node, RunTask], None]
    leader_type: type[Leader]
    worker_type: type[Worker]
    slots: int
    happened: Counter[str]
    fired: Counter[JobFault]


class JobProcess:
    """One life of a peer.

    Args:
        node: its machine.
        swarm: what all share.
        random: this life's.
    """

    def __init__(self, node: Node, swarm: Swarm, random: Random) -> None:
        self.node = node
        self.store = Store(node.disk, syncs=swarm.moods.syncs, fired=swarm.fired)
        self.leaders: dict[str, tuple[str, Leader]] = {}
        self.made: dict[tuple[str, int], Made] = {}
        self.running: dict[tuple[str, int], RunTask] = {}
        self._swarm = swarm
        self._random = random
        self._boot = node.boots
        self._me = NodeId(node.name)
        self.worker = swarm.worker_type(
            me=self._me,
            session=node.boots,
            slots=swarm.slots,
            view=swarm.view_of(node),
            config=swarm.config,
        )
        self._pushes: dict[int, tuple[Push, tuple[Segment, ...], int]] = {}
        self._fetches: dict[tuple[str, int], tuple[Fetch, list[NodeId]]] = {}
        self._fetched: dict[tuple[str, int], bytes] = {}
        self._ballots: dict[str, int] = {}

    # -- what the world calls ------------------------------------------------------------------------------

    def start(self, now: float) -> list[object]:
        """See ``Process``."""
        for job in self.store.jobs:
            self.worker.on_stored(job, now)
        return []

    def receive(self, message: object, sender: str, now: float) -> Iterable[object]:
        """See ``Process``."""
        if isinstance(message, SimPush):
            if self.store.slow_s:
                self._later(self._disk_s(), lambda _now: self._take_push(message, sender))
                return []
            return self._take_push(message, sender)
        if isinstance(message, SimPushed):
            return self._take_pushed(message, now)
        if isinstance(message, SimFetch):
            self._answer_fetch(message, sender)
            return []
        if isinstance(message, SimFetched):
            return self._take_fetched(message, now)
        return self.deliver(message, NodeId(sender), now)

    def deliver(self, message: object, sender: NodeId, now: float) -> Iterable[object]:
        """Give a job's message to the machine that it is for."""
        if type(message) in TO_WORKER:
            return self._obey(message, sender, now)  # type: ignore[arg-type]  # as just looked at
        job: str = message.job  # type: ignore[attr-defined]
        leading = self.leaders.get(job)
        if leading is not None:
            return leading[1].receive(message, sender, now)  # type: ignore[arg-type]
        return self._answer_fate(job, sender) if isinstance(message, AskFate) else []

    def _obey(self, message: ToWorker, sender: NodeId, now: float) -> Iterable[object]:
        """Let the worker take an order; one of a deposed leader must move nothing."""
        effects = self.worker.receive(message, sender, now)
        if isinstance(message, Dissolve):
            return effects
        highest = self._ballots.get(message.job, 0)
        self._ballots[message.job] = max(highest, message.ballot)
        if message.ballot < highest and effects:
            raise Violation(f"{self._me} obeyed {sender}, whose ballot {message.ballot} is below {highest}")
        return effects

    def _answer_fate(self, job: str, sender: NodeId) -> list[object]:
        """Say how a job ended: from the terminal record, if we are of its group, or from our own memory."""
        register, fate = self._swarm.registers[job], self.worker.fate_of(job)
        if self.node in register.members and register.record.status.is_final:
            fate = dissolve_of(self._swarm.plans[job], register.record)
        return [Send(to=sender, message=fate)] if fate is not None else []

    def tick(self, now: float) -> Iterable[object]:
        """See ``Process``."""
        effects: list[object] = list(self.worker.tick(now)) if self.worker.next_deadline() <= now else []
        for _, leader in list(self.leaders.values()):
            if leader.next_deadline() <= now:
                effects += leader.tick(now)
        return effects

    def next_deadline(self) -> float:
        """See ``Process``."""
        return min(
            [self.worker.next_deadline()] + [leader.next_deadline() for _, leader in self.leaders.values()]
        )

    def lagged(self, lag_s: float, now: float) -> None:
        """See ``Process``."""

    def on_view(self, view: View, now: float) -> list[object]:
        """Membership has another picture."""
        effects: list[object] = list(self.worker.on_view(view, now))
        for _, leader in list(self.leaders.values()):
            effects += leader.on_view(view, now)
        return effects

    # -- what the register calls -----------------------------------------------------------------------------

    def lead(self, job: str, record: JobRecord, token: str, members: tuple[NodeId, ...]) -> None:
        """See ``Leading``."""
        now = self.node.clock.read(self._swarm.world.now)
        leader = self._swarm.leader_type(
            me=self._me,
            plan=self._swarm.plans[job],
            record=record,
            token=token,
            members=members,
            view=self._swarm.view_of(self.node),
            config=self._swarm.config,
            wall_offset_s=-now,
        )
        self.leaders[job] = token, leader
        self._swarm.world.inject(self.node, leader.start(now))

    def depose(self, job: str, token: str) -> None:
        """See ``Leading``."""
        if job in self.leaders and self.leaders[job][0] == token:
            del self.leaders[job]

    def chosen(self, job: str, token: str, record: JobRecord) -> None:
        """See ``Leading``."""
        leading = self.leaders.get(job)
        if leading is not None and leading[0] == token:
            now = self.node.clock.read(self._swarm.world.now)
            self._swarm.world.inject(self.node, leading[1].on_committed(record, now))

    def quorum(self, job: str, token: str, missing: tuple[NodeId, ...]) -> None:
        """See ``Leading``."""
        leading = self.leaders.get(job)
        if leading is not None and leading[0] == token:
            now = self.node.clock.read(self._swarm.world.now)
            self._swarm.world.inject(self.node, leading[1].on_quorum(missing, now))

    # -- effects ---------------------------------------------------------------------------------------------

    def perform(self, effect: object) -> None:
        """See ``Process``."""
        self._perform(effect)  # type: ignore[arg-type]  # leaders and workers return nothing else

    def _perform(self, effect: LeaderEffect | WorkerEffect) -> None:
        match effect:
            case Send():
                self._send(effect.to, effect.message)
            case Propose():
                register = self._swarm.registers[effect.job]
                token = self.leaders[effect.job][0]
                register.propose(self.node, self._boot, token, effect.proposal)
            case StepDown():
                self.leaders.pop(effect.job, None)
                self._swarm.registers[effect.job].is_over = True
            case RunTask():
                self._run(effect)
            case CancelTask():
                self._cancel(effect.job, effect.attempt)
            case Forget():
                for attempt in effect.attempts:
                    self._cancel(effect.job, attempt)
            case Push():
                self._push(effect)
            case CancelPush():
                self._pushes.pop(effect.number, None)
            case Fetch():
                self._fetches[effect.job, effect.attempt] = effect, list(effect.piece.holders)
                self._later(0.0, lambda now: self._fetch(effect.job, effect.attempt, now))
            case FetchPlan():
                self._fetch_plan(effect)
            case ReadInventory():
                self._later(
                    self._random.uniform(0.0, 0.1),
                    lambda now: self.worker.on_inventory(effect.job, self.store.inventory(effect.job), now),
                )
            case Drop():
                self.store.drop(effect.job, effect.stages)
            case DropJob():
                self.store.drop(effect.job, None, but=effect.keep_stage)
            case Announce():
                event = effect.event
                if isinstance(event, Happened):
                    self._swarm.happened[event.event.kind] += 1
                    note = f"{event.event.kind} {event.event.node} {event.event.text}"
                    self._swarm.world.trace.note(self._swarm.world.now, "job", f"{self._me}: {note}")
            case _:
                assert_never(effect)

    def _send(self, to: NodeId, message: Message) -> None:
        if isinstance(message, NOTABLE):
            self._swarm.happened[type(message).__name__] += 1
        if to == self._me:
            self._later(0.0001, lambda now: self.deliver(message, self._me, now))
        else:
            self.node.send_to(self._swarm.address_of[to], message)

    def _later(self, delay_s: float, action: Callable[[float], Iterable[object]]) -> None:
        """Do something in this life of the process, as a step of its own; a paused process does it late."""
        world = self._swarm.world

        def act() -> None:
            if self.node.process is not self:
                return
            if not self.node.running:
                world.at(world.now + 0.05, act)
                return
            world.inject(self.node, action(self.node.clock.read(world.now)))

        world.at(world.now + delay_s, act)

    # -- running ---------------------------------------------------------------------------------------------

    def _run(self, order: RunTask) -> None:
        self._swarm.watch_run(self.node, order)
        moods, random = self._swarm.moods, self._random
        self.running[order.setup.job, order.attempt] = order
        if moods.task_s[0] >= LONG_TASK_S and len(self.running) > self._swarm.slots:
            raise Violation(f"{self._me} runs {len(self.running)} tasks in {self._swarm.slots} slots")
        took_s = random.uniform(*moods.task_s)
        if random.random() < moods.slow:
            took_s = moods.slow_s
        self._later(took_s, lambda now: self._ran(order, took_s, now))

    def _ran(self, order: RunTask, took_s: float, now: float) -> Iterable[object]:
        job = order.setup.job
        if self.running.pop((job, order.attempt), None) is None:
            return []  # it was cancelled
        failure = self._bad_luck(order)
        if failure is not None:
            if failure.kind != NOT_BEGUN:
                self._fetched.pop((job, order.attempt), None)
            return self.worker.on_task_failed(job, order.attempt, failure, now)
        try:
            inputs = self._inputs(order)
        except SegmentMissing as missing:
            failure = Failure(kind=INPUT_GONE, message=str(missing))
            tasks = (missing.task,) if order.setup.kind is StageKind.REDUCE else ()
            return self.worker.on_task_failed(job, order.attempt, failure, now, missing=tasks)
        made = make(self._swarm.works[job], order, inputs)
        self.made[job, order.attempt] = made
        self._fetched.pop((job, order.attempt), None)
        is_part = order.setup.kind is StageKind.REDUCE or order.setup.map_only
        output = TaskOutput(
            partitions=() if is_part else tuple(sorted(made.runs)),
            is_empty=not made.runs,
            digest=segment_of(job, 0, 0, 0, (), made.runs).digest if is_part else b"",
            size_bytes=made.size_bytes,
            records=made.records,
            cuts=made.cuts,
            counters=made.counters,
            sample=made.sample,
            bad_records=made.bad_records,
            took_s=took_s,
            cpu_s=took_s,
        )
        return self.worker.on_task_done(job, order.attempt, output, now)

    def _bad_luck(self, order: RunTask) -> Failure | None:
        moods, random = self._swarm.moods, self._random
        died, raised = random.random() < moods.deaths, random.random() < moods.user_errors
        if died and random.random() < 0.5:
            return Failure(kind=NOT_BEGUN, message="its process was killed before")
        # A task's later attempts are spared: the job is to end well.
        if order.number >= self._swarm.plans[order.setup.job].max_attempts - 1:
            return None
        if died:
            return Failure(kind="Died", message="its process was killed")
        if raised:
            return Failure(kind="UserCode", message="ValueError: bad luck", details="Traceback …")
        return None

    def _inputs(self, order: RunTask) -> list[Run]:
        job = order.setup.job
        if order.setup.kind is StageKind.REDUCE:
            runs = []
            for task, attempt in enumerate(order.reads):
                if attempt:
                    run = self.store.read(job, order.read_stage, task, attempt, order.task)
                    if run is not None:
                        runs.append(run)
            return runs
        if order.piece is None:
            return []
        piece = order.piece
        data = self._fetched.get((job, order.attempt))
        if data is None:
            part = self.store.read(job, piece.stage, piece.part, piece.attempt, 0)
            data = part.data[piece.start : piece.end] if part is not None else b""
        return [Run(data)]

    def _cancel(self, job: str, attempt: int) -> None:
        self.running.pop((job, attempt), None)
        self.made.pop((job, attempt), None)
        self._fetched.pop((job, attempt), None)
        self._fetches.pop((job, attempt), None)

    # -- pushing ---------------------------------------------------------------------------------------------

    def _push(self, push: Push) -> None:
        try:
            segments = tuple(self._segments(push))
        except SegmentMissing as missing:
            reason, task, attempt = str(missing), missing.task, missing.attempt
            self._later(0.001, lambda now: self.worker.on_push_failed(push.job, push.number, reason, now))
            if missing.damaged:
                self._later(
                    0.001,
                    lambda now: self.worker.on_missing(push.job, push.group.stage, [task], [attempt], now),
                )
            return
        if push.to == self._me:
            self._later(0.001 + self._disk_s(), lambda now: self._link(push, segments, now))
            return
        self._pushes[push.number] = push, segments, 0
        self._send_push(push.number)

    def _segments(self, push: Push) -> Iterable[Segment]:
        group = push.group
        for task, attempt in zip(group.tasks, group.attempts, strict=True):
            made = self.made.get((push.job, attempt))
            if made is not None:
                yield segment_of(push.job, group.stage, task, attempt, group.partitions, made.runs)
            else:
                yield self.store.extract(push.job, group.stage, task, attempt, group.partitions)

    def _disk_s(self) -> float:
        """How long the disk takes for what is written now."""
        self._swarm.fired[JobFault.SLOW] += self.store.slow_s > 0
        return self.store.slow_s

    def _link(self, push: Push, segments: Sequence[Segment], now: float) -> Iterable[object]:
        try:
            for segment in segments:
                if self.worker.accepts(segment.job):
                    self.store.write(segment)
        except DiskFailed as error:
            return self.worker.on_push_failed(push.job, push.number, str(error), now)
        return self.worker.on_pushed(push.job, push.number, now)

    def _send_push(self, number: int) -> None:
        if number not in self._pushes:
            return
        push, segments, sends = self._pushes[number]
        if sends >= MAX_SENDS:
            del self._pushes[number]
            self._later(0.0, lambda now: self.worker.on_push_failed(push.job, number, "no answer", now))
            return
        self._pushes[number] = push, segments, sends + 1
        self.node.send_to(self._swarm.address_of[push.to], SimPush(number, self._boot, segments))
        self._later(RESEND_S, lambda _: self._resend(number))

    def _resend(self, number: int) -> list[object]:
        self._send_push(number)
        return []

    def _take_push(self, push: SimPush, sender: str) -> list[object]:
        reason = ""
        try:
            for segment in push.segments:
                if not self.worker.accepts(segment.job):
                    reason = "the job is over"
                    break
                if not segment.is_intact:
                    reason = "damaged on the way"
                    break
                self.store.write(segment)
                now = self.node.clock.read(self._swarm.world.now)
                self.worker.on_stored(segment.job, now, source=NodeId(sender))
        except DiskFailed as error:
            reason = str(error)
        self.node.send_to(self._swarm.address_of[sender], SimPushed(push.number, push.boot, reason))
        return []

    def _take_pushed(self, answer: SimPushed, now: float) -> Iterable[object]:
        if answer.boot != self._boot or answer.number not in self._pushes:
            return []
        push, segments, _ = self._pushes.pop(answer.number)
        if answer.reason:
            return self.worker.on_push_failed(push.job, push.number, answer.reason, now)
        size = sum(len(run.data) for segment in segments for run in segment.runs.values())
        return self.worker.on_pushed(push.job, push.number, now, sent_bytes=size)

    # -- fetching --------------------------------------------------------------------------------------------

    def _fetch(self, job: str, attempt: int, now: float) -> Iterable[object]:
        """Ask the next holder; each has a while to answer."""
        waiting = self._fetches.get((job, attempt))
        if waiting is None:
            return []
        fetch, holders = waiting
        if not holders:
            del self._fetches[job, attempt]
            return self.worker.on_fetch_failed(job, attempt, "nobody answers", now)
        holder = holders.pop(0)
        self.node.send_to(self._swarm.address_of[holder], SimFetch(job, attempt, fetch.piece))
        left = len(holders)

        def next_one(now: float) -> Iterable[object]:
            still = self._fetches.get((job, attempt))
            return self._fetch(job, attempt, now) if still is not None and len(still[1]) == left else []

        self._later(2 * RESEND_S, next_one)
        return []

    def _answer_fetch(self, fetch: SimFetch, sender: str) -> None:
        data: bytes | None = None
        piece = fetch.piece
        try:
            part = self.store.read(fetch.job, piece.stage, piece.part, piece.attempt, 0)
            data = part.data[piece.start : piece.end] if part is not None else b""
        except SegmentMissing as missing:
            task, attempt = missing.task, missing.attempt
            self._later(
                0.0, lambda now: self.worker.on_missing(fetch.job, piece.stage, [task], [attempt], now)
            )
        answer = SimFetched(fetch.job, fetch.attempt, data)
        self.node.send_to(self._swarm.address_of[sender], answer)

    def _take_fetched(self, answer: SimFetched, now: float) -> Iterable[object]:
        key = answer.job, answer.attempt
        if key not in self._fetches:
            return []
        if answer.data is None:
            return self._fetch(answer.job, answer.attempt, now)
        del self._fetches[key]
        self._fetched[key] = answer.data
        return self.worker.on_fetched(answer.job, answer.attempt, now)

    def _fetch_plan(self, fetch: FetchPlan) -> None:
        if fetch.spec_digest != self._swarm.digests[fetch.job]:
            raise Violation(f"{self._me} was told another spec of {fetch.job[:8]}")

        def arrive(now: float) -> Iterable[object]:
            nodes = [self._swarm.node_of[source] for source in fetch.sources if source in self._swarm.node_of]
            if any(node.running for node in nodes):
                return self.worker.on_plan(fetch.job, self._swarm.plans[fetch.job], now)
            return self.worker.on_plan_failed(fetch.job, now)

        self._later(self._random.uniform(0.001, 0.05), arrive)

    def left_over(self) -> str:
        """What of any job is left in this process, in words."""
        left: dict[str, Sized] = {
            "leaders": self.leaders,
            "outputs": self.made,
            "tasks": self.running,
            "pushes": self._pushes,
            "fetches": self._fetches,
            "fetched": self._fetched,
        }
        return ", ".join(f"{len(things)} {name}" for name, things in left.items() if things)
