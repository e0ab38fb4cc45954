"""A swarm of real leaders and workers on a fake clock, without faults but those that a test asks for.

Messages, pushes, tasks and proposals take fixed times; user code is replaced by what the test says that an
attempt gives.  Where the simulator looks for what nobody thought of, this is for telling single stories.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, get_args

from mapreduce import effects as e
from mapreduce import messages as m
from mapreduce.changes import apply
from mapreduce.config import JobsConfig
from mapreduce.endings import dissolve_of
from mapreduce.failures import INPUT_GONE
from mapreduce.leader import Leader
from mapreduce.placement import FAILING
from mapreduce.record import Failure, JobRecord, JobStatus, StageKind, born
from mapreduce.spec import InputSplit, JobPlan, StepPlan
from mapreduce.worker import Worker
from membership.view import Member, NodeId, Status, View
from p2p.disk import REFUSALS
from p2p.job_protocol import JOB_KINDS, pack_record, unpack_record
from p2p.wire import Envelope, WireFormat

TO_WORKER = frozenset(get_args(m.ToWorker))
MESSAGE_S, PUSH_S, CHOICE_S = 0.001, 0.002, 0.003
EIO = "Input/output error"
Outcome = e.TaskOutput | Failure


def node(number: int) -> NodeId:
    return NodeId(f"n{number}")


def plan(tasks: int = 8, partitions: int = 2, **options: Any) -> JobPlan:
    """A job of one step with so many map and reduce tasks."""
    return JobPlan(
        name="job",
        steps=(step("main", tasks, partitions=partitions),),
        **{"split_bytes": 100, "python": "3.11", **options},
    )


def plan_with(base: JobPlan, *steps: StepPlan) -> JobPlan:
    """A job of other steps, else as `base`."""
    return replace(base, steps=steps)


def step(name: str, tasks: int = 0, **options: Any) -> StepPlan:
    return StepPlan(name=name, splits=splits(name, tasks), **options)


def splits(name: str, tasks: int) -> tuple[InputSplit, ...]:
    return tuple(
        InputSplit(path=f"/{name}/{i}", name=f"{name}/{i}", size_bytes=100, key=f"/{name}/{i}:0")
        for i in range(tasks)
    )


@dataclass
class Peer:
    """One peer: its worker, the leaders it hosts, what it stores and runs."""

    id: NodeId
    worker: Worker
    leaders: dict[str, Leader] = field(default_factory=dict)
    stored: dict[tuple[str, int, int, int], set[tuple[int, ...]]] = field(default_factory=dict)
    running: dict[tuple[str, int], e.RunTask] = field(default_factory=dict)
    done: list[e.RunTask] = field(default_factory=list)
    is_up: bool = True


class FakeSwarm:
    """So many peers, one register a job."""

    def __init__(self, peers: int, *, slots: int = 2, **config: Any) -> None:
        self.now = 100.0
        self.config = JobsConfig(**config)
        self.slots = slots
        self.task_s = 0.05
        self.outcome: Callable[[e.RunTask, NodeId], Outcome] = lambda order, _: output_of(order)
        self.duration: Callable[[e.RunTask, NodeId], float] = lambda order, _: self.task_s
        self.blocked: set[NodeId] = set()  # pushes to these are never answered
        self.failing: set[NodeId] = set()  # the disks of these take nothing
        self.refusals: Counter[NodeId] = Counter()
        self.sent: Counter[str] = Counter()
        self.records: dict[str, JobRecord] = {}
        self.plans: dict[str, JobPlan] = {}
        self.leads: dict[str, NodeId] = {}
        self.proposals = 0
        self.quorum = True
        self.record_bytes_max = inf  # what makes a record larger is refused
        self.events: list[str] = []
        self.announced: list[object] = []
        self.effects: list[tuple[NodeId, object]] = []
        self._wire = WireFormat(JOB_KINDS)
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._members = {node(i): Member(node(i), f"h:{i}", slots=slots, session=1) for i in range(peers)}
        self._version = 1
        self.peers: dict[NodeId, Peer] = {}
        for name in list(self._members):
            self._boot(name)

    @property
    def view(self) -> View:
        return View.of(self._members.values(), self._version)

    def _boot(self, name: NodeId) -> Peer:
        session = self._members[name].session
        worker = Worker(me=name, session=session, slots=self.slots, view=self.view, config=self.config)
        self.peers[name] = Peer(name, worker)
        return self.peers[name]

    # -- what tests do ----------------------------------------------------------------------------------

    def submit(self, job_plan: JobPlan, *, leader: int = 0, job: str = "0" * 32) -> str:
        """Birth a job and have a peer lead it."""
        self.plans[job] = job_plan
        self.records[job] = born(job, "ab", 0.0)
        self.lead(job, leader)
        return job

    def lead(self, job: str, by: int) -> Leader:
        """Elect a leader; whoever led before is fenced."""
        old = self.leads.get(job)
        if old is not None:
            self.peers[old].leaders.pop(job, None)
        self.leads[job] = node(by)
        leader = Leader(
            me=node(by),
            plan=self.plans[job],
            record=self.records[job],
            token=f"{by}/{self._count}",
            members=tuple(sorted(self.peers))[:3],
            view=self.view,
            config=self.config,
            wall_offset_s=0.0,
        )
        self.peers[node(by)].leaders[job] = leader
        self._perform(node(by), leader.start(self.now), job)
        return leader

    def kill(self, number: int, *, disk: bool = True) -> None:
        """Stop a peer at once; membership knows a second later."""
        peer = self.peers[node(number)]
        peer.is_up = False
        peer.leaders.clear()
        if not disk:
            peer.stored.clear()
        self.after(1.0, lambda: self.change(number, status=Status.DEAD))

    def restart(self, number: int) -> None:
        """Start a peer anew, on its disk."""
        stored = self.peers[node(number)].stored
        old = self._members[node(number)]
        self.change(number, status=Status.ALIVE, session=old.session + 1, incarnation=old.incarnation + 1)
        self._boot(node(number)).stored = stored
        self._tell_view()

    def join(self, number: int) -> None:
        """Add a peer."""
        self._members[node(number)] = Member(node(number), f"h:{number}", slots=self.slots, session=1)
        self._boot(node(number))
        self._tell_view()

    def change(self, number: int, **changes: Any) -> None:
        """Change what membership says of a peer, and tell everybody."""
        self._members[node(number)] = replace(self._members[node(number)], **changes)
        self._tell_view()

    def _tell_view(self) -> None:
        self._version += 1
        for name, peer in list(self.peers.items()):
            if peer.is_up:
                self._perform(name, peer.worker.on_view(self.view, self.now))
                for job, leader in list(peer.leaders.items()):
                    self._perform(name, leader.on_view(self.view, self.now), job)

    def leader(self, job: str = "0" * 32) -> Leader:
        return self.peers[self.leads[job]].leaders[job]

    def call(self, name: NodeId, effects: Iterable[object], job: str = "0" * 32) -> None:
        """Perform what a machine returned to the test."""
        self._perform(name, effects, job)

    def record(self, job: str = "0" * 32) -> JobRecord:
        return self.records[job]

    def done(self, stage: int = 0, job: str = "0" * 32) -> int:
        """How many tasks of a stage have their winner; 0 before it opens."""
        stages = self.records[job].stages
        return stages[stage].done if stage < len(stages) else 0

    def run_until(self, holds: Callable[[], bool], limit_s: float = 60.0) -> None:
        """Let time pass until something holds."""
        until = self.now + limit_s
        while not holds():
            assert self._step(until), f"it has not come true within {limit_s:g} s"

    def run_for(self, seconds: float) -> None:
        until = self.now + seconds
        while self._step(until):
            pass
        self.now = until

    def finish(self, job: str = "0" * 32, limit_s: float = 60.0) -> JobRecord:
        """Let the job end."""
        self.run_until(lambda: self.records[job].status.is_final, limit_s)
        return self.records[job]

    def commit(self, job: str = "0" * 32, limit_s: float = 60.0) -> JobRecord:
        """Let the job end well."""
        record = self.finish(job, limit_s)
        assert record.status is JobStatus.COMMITTED, record.failure
        return record

    def runs(self, kind: StageKind, stage: int | None = None) -> list[tuple[int, NodeId]]:
        """(task, peer) of every attempt that ended, in order."""
        return [
            (order.task, name)
            for name, peer in self.peers.items()
            for order in peer.done
            if order.setup.kind is kind and stage in (None, order.setup.stage)
        ]

    def holders(self, stage: int, task: int, job: str = "0" * 32) -> list[NodeId]:
        winner = self.records[job].stages[stage].winners[task]
        assert winner is not None
        key = (job, stage, task, winner.attempt)
        return sorted(name for name, peer in self.peers.items() if peer.is_up and key in peer.stored)

    # -- time -------------------------------------------------------------------------------------------

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._timers, (self.now + delay_s, self._count, action))

    def _step(self, until: float) -> bool:
        due = self._timers[0][0] if self._timers else inf
        machines = [
            (peer.worker.next_deadline(), name, None) for name, peer in self.peers.items() if peer.is_up
        ]
        machines += [
            (leader.next_deadline(), name, job)
            for name, peer in self.peers.items()
            for job, leader in peer.leaders.items()
        ]
        deadline, name, job = min(machines, key=lambda one: one[0])
        at = max(self.now, min(due, deadline))
        if at > until:
            return False
        self.now = at
        if due <= deadline:
            heapq.heappop(self._timers)[2]()
        elif job is None:
            self._perform(name, self.peers[name].worker.tick(self.now))
        else:
            self._perform(name, self.peers[name].leaders[job].tick(self.now), job)
        return True

    # -- effects ----------------------------------------------------------------------------------------

    def _perform(self, name: NodeId, effects: Iterable[object], job: str = "") -> None:
        for effect in effects:
            self.effects.append((name, effect))
            self._one(name, self.peers[name], effect)

    def _later(self, peer: Peer, delay_s: float, action: Callable[[], Iterable[object]]) -> None:
        def act() -> None:
            if self.peers.get(peer.id) is peer and peer.is_up:
                self._perform(peer.id, action())

        self.after(delay_s, act)

    def _one(self, name: NodeId, peer: Peer, effect: object) -> None:
        worker = peer.worker
        match effect:
            case e.Send(to=to, message=message):
                self._send(name, to, message)
            case e.Propose(job=job, proposal=proposal):
                self._propose(peer, job, proposal)
            case e.StepDown(job=job):
                peer.leaders.pop(job, None)
            case e.Announce(event=e.Happened(event=event)):
                self.events.append(f"{event.kind} {event.node}: {event.text}")
            case e.Announce(event=event):
                self.announced.append(event)
            case e.RunTask():
                peer.running[effect.setup.job, effect.attempt] = effect
                self.after(self.duration(effect, name), lambda: self._ran(peer, effect))
            case e.CancelTask(job=job, attempt=attempt):
                peer.running.pop((job, attempt), None)
            case e.Push():
                self._push(peer, effect)
            case e.Fetch():
                self._later(peer, PUSH_S, lambda: self._fetched(worker, effect))
            case e.FetchPlan(job=job):
                self._later(peer, MESSAGE_S, lambda: worker.on_plan(job, self.plans[job], self.now))
            case e.ReadInventory(job=job):
                self._later(
                    peer, MESSAGE_S, lambda: worker.on_inventory(job, self._inventory(peer, job), self.now)
                )
            case e.Drop(job=job, stages=stages):
                self._drop(peer, job, lambda stage: stage in stages)
            case e.DropJob(job=job, keep_stage=keep):
                self._drop(peer, job, lambda stage: stage != keep)

    def _send(self, sender: NodeId, to: NodeId, message: Any) -> None:
        self.sent[type(message).__name__] += sender != to
        frame = self._wire.encode(
            Envelope(cluster="c", ring_digest=b"", sender=sender, incarnation=1, message=message)
        )
        said = self._wire.decode(frame).message

        def deliver() -> None:
            peer = self.peers.get(to)
            if peer is None or not peer.is_up:
                return
            if type(said) in TO_WORKER:
                self._perform(to, peer.worker.receive(said, sender, self.now))
            elif said.job in peer.leaders:
                self._perform(to, peer.leaders[said.job].receive(said, sender, self.now))
            elif isinstance(said, m.AskFate) and self.records[said.job].status.is_final:
                self._send(to, sender, dissolve_of(self.plans[said.job], self.records[said.job]))

        self.after(MESSAGE_S, deliver)

    def _propose(self, peer: Peer, job: str, proposal: Any) -> None:
        leader = peer.leaders.get(job)

        def choose() -> None:
            if peer.leaders.get(job) is not leader or leader is None or not peer.is_up:
                return
            if not self.quorum:
                self.after(CHOICE_S, choose)
                return
            self.proposals += 1
            after = apply(self.records[job], proposal)
            packed = pack_record(after)
            if len(packed) > self.record_bytes_max:
                self._perform(peer.id, leader.on_refused(f"{len(packed):,} bytes", self.now))
                return
            self.records[job] = unpack_record(packed)  # a record that nobody can read stops every peer
            self._perform(peer.id, leader.on_committed(self.records[job], self.now))

        self.after(CHOICE_S, choose)

    def _ran(self, peer: Peer, order: e.RunTask) -> None:
        if self.peers.get(peer.id) is not peer or not peer.is_up:
            return
        if peer.running.pop((order.setup.job, order.attempt), None) is None:
            return
        peer.done.append(order)
        job, worker = order.setup.job, peer.worker
        outcome = self.outcome(order, peer.id)
        lacking = [
            task
            for task, attempt in enumerate(order.reads)
            if attempt and not self._has(peer, job, order.read_stage, task, attempt, order.task)
        ]
        if lacking:
            gone = Failure(kind=INPUT_GONE, message=f"{len(lacking)} runs are not here")
            self._perform(peer.id, worker.on_task_failed(job, order.attempt, gone, self.now, missing=lacking))
        elif isinstance(outcome, Failure):
            self._perform(peer.id, worker.on_task_failed(job, order.attempt, outcome, self.now))
        else:
            took = replace(outcome, took_s=self.duration(order, peer.id))
            self._perform(peer.id, worker.on_task_done(job, order.attempt, took, self.now))

    def _has(self, peer: Peer, job: str, stage: int, task: int, attempt: int, partition: int) -> bool:
        held = peer.stored.get((job, stage, task, attempt), set())
        return any(not covered or partition in covered for covered in held)

    def _push(self, peer: Peer, push: e.Push) -> None:
        def arrive() -> None:
            target = self.peers.get(push.to)
            if self.peers.get(peer.id) is not peer or not peer.is_up or push.to in self.blocked:
                return
            if target is None or not target.is_up:
                self._perform(
                    peer.id, peer.worker.on_push_failed(push.job, push.number, "no answer", self.now)
                )
                return
            if push.to in self.failing:
                self._refuse(peer, push)
                return
            for task, attempt in zip(push.group.tasks, push.group.attempts, strict=True):
                key = (push.job, push.group.stage, task, attempt)
                target.stored.setdefault(key, set()).add(push.group.partitions)
            self._perform(peer.id, peer.worker.on_pushed(push.job, push.number, self.now))

        self.after(PUSH_S, arrive)

    def _refuse(self, peer: Peer, push: e.Push) -> None:
        """The store of the place counts, and its peer says so in its meta."""
        self._perform(peer.id, peer.worker.on_push_failed(push.job, push.number, EIO, self.now))
        self.refusals[push.to] += 1
        if self.refusals[push.to] == REFUSALS:
            self.change(int(push.to[1:]), meta=((FAILING, EIO),))

    def _fetched(self, worker: Worker, fetch: e.Fetch) -> Iterable[object]:
        piece = fetch.piece
        key = (fetch.job, piece.stage, piece.part, piece.attempt)
        if any(self.peers[holder].is_up and key in self.peers[holder].stored for holder in piece.holders):
            return worker.on_fetched(fetch.job, fetch.attempt, self.now)
        return worker.on_fetch_failed(fetch.job, fetch.attempt, "nobody has it", self.now)

    def _inventory(self, peer: Peer, job: str) -> list[m.HeldGroup]:
        return [
            m.HeldGroup(stage=stage, partitions=partitions, tasks=(task,), attempts=(attempt,))
            for (name, stage, task, attempt), held in peer.stored.items()
            for partitions in sorted(held)
            if name == job
        ]

    def _drop(self, peer: Peer, job: str, goes: Callable[[int], bool]) -> None:
        for key in [key for key in peer.stored if key[0] == job and goes(key[1])]:
            del peer.stored[key]


def output_of(order: e.RunTask) -> e.TaskOutput:
    """What an attempt gives if a test does not say otherwise."""
    if order.setup.kind is StageKind.MAP and not order.setup.map_only:
        return e.TaskOutput(partitions=(0,), size_bytes=10, counters=(("maps", 1),))
    return e.TaskOutput(size_bytes=10, records=1, cuts=(0, 10), counters=(("parts", 1),), digest=b"d")
