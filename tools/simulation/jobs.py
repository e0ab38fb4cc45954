"""Jobs on a simulated swarm: real leaders and workers, real user code, and the answer byte for byte.

Every node hosts a `Worker` and, where it is elected, `Leader`s (`jobs_process`); membership and the register
are honest stand-ins (`jobs_surroundings`); a store on a failing disk holds the outputs (`jobs_store`); tasks
run real mappers and reducers on real bytes (`jobs_engine`, `jobs_workloads`). Messages pass the real codec.

What is checked after every step, or whenever the record changes:

* a winner changes only by being lost, and is lost only when no node that is here and known to the leader
  holds its output;
* a reduce attempt begins only when every map task has a winner, and reads exactly winners, in task order;
* while nobody comes or goes, a committed output lies at all its places;
* what waits anywhere is bounded.

And in the end: within ``healing_limit_s`` after the last fault every job is COMMITTED, its parts are those of
the embedded engine and its counters too, R peers hold each part where there are so many, no map was run again
in a *gentle* seed (never more than R-1 peers down at once, disks kept), and nothing of the job is left in any
leader, worker or data plane, nor in a store but the result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random

from mapreduce.changes import Lost, Proposal, apply
from mapreduce.config import JobsConfig
from mapreduce.effects import RunTask
from mapreduce.leader import Leader
from mapreduce.placement import DRAINING, FULL
from mapreduce.record import JobRecord, JobStatus, StageKind, born
from mapreduce.spec import job_id_of
from mapreduce.stages import StageGraph
from mapreduce.worker import Worker
from membership.view import NodeId, View
from p2p.job_protocol import JOB_KINDS, pack_record, unpack_record
from p2p.spec_packing import pack_spec, spec_digest, unpack_spec
from p2p.wire import Envelope, WireFormat
from tools.simulation.chance import child_random
from tools.simulation.faults import Nemesis, SwarmConfig, draw_swarm_config
from tools.simulation.jobs_process import JobProcess
from tools.simulation.jobs_store import JobFault, Segment, Store, torn
from tools.simulation.jobs_surroundings import HonestRegister, Leading, Watch, WatchedNetwork
from tools.simulation.jobs_swarm import Moods, Swarm
from tools.simulation.jobs_transfers import SimFetch, SimFetched, SimPush, SimPushed
from tools.simulation.jobs_workloads import NAMES, workload
from tools.simulation.kinds import Fault
from tools.simulation.node import Node
from tools.simulation.trace import Trace
from tools.simulation.world import Violation, World

__all__ = ["JobFault", "JobsCodec", "JobsScenario", "jobs_maker"]

Apply = Callable[[JobRecord, Proposal], JobRecord]

GENTLE = (
    Fault.DROP,
    Fault.DUPLICATE,
    Fault.REORDER,
    Fault.DELAY,
    Fault.CLOG,
    Fault.REPLAY,
    Fault.CRASH,
    Fault.PAUSE,
    Fault.SKEW,
    Fault.STEP,
)
ROUGH = (*GENTLE, Fault.TORN, Fault.CUT, Fault.PARTITION, Fault.WIPE, Fault.LEAVE)
SLOTS = 2
HEALING_LIMIT_S = 120.0
SETTLING_S = 1.0
CALM_BETWEEN_DEATHS_S = 20.0
# So long after somebody came or went, everybody has heard of it and what was proposed before is chosen.
CALM_S = 4.0
MAX_HELD = 4_096


class JobsCodec:
    """Job messages as real frames; what the stand-ins say to each other as objects."""

    def __init__(self) -> None:
        self._wire = WireFormat(JOB_KINDS)
        self._kinds = frozenset(kind.message for kind in JOB_KINDS)

    def encode(self, message: object, sender: Node) -> object:
        """The frame, or the object beside its sender's name."""
        if type(message) not in self._kinds:
            return message, sender.name
        return self._wire.encode(
            Envelope(
                cluster="simulated",
                ring_digest=b"",
                sender=NodeId(sender.name),
                incarnation=1,
                message=message,
            )
        )

    def decode(self, payload: object) -> tuple[object, str]:
        """The message, checked against its schema, and its sender."""
        if isinstance(payload, bytes):
            envelope = self._wire.decode(payload)
            return envelope.message, envelope.sender
        assert isinstance(payload, tuple)
        return payload[0], payload[1]

    def fingerprint(self, payload: object) -> bytes:
        """The frame itself; of objects their numbers."""
        if isinstance(payload, bytes):
            return payload
        return self.describe(payload).encode()

    def describe(self, payload: object) -> str:
        """A line for a reader."""
        message = self.decode(payload)[0]
        match message:
            case SimPush(number, _, segments):
                held = [f"{s.stage}/{s.task}/{s.attempt:#x}{list(s.partitions)}" for s in segments]
                return f"SimPush {number}: {' '.join(held)}"
            case SimPushed(number, _, reason):
                return f"SimPushed {number} {reason}"
            case SimFetch(_, attempt, piece):
                return f"SimFetch {attempt:#x} {piece.name}"
            case SimFetched(_, attempt, data):
                return f"SimFetched {attempt:#x} {'nothing' if data is None else len(data)}"
            case _:
                return repr(message)


class SparingNemesis(Nemesis):
    """Lets a node vanish for good only where the promises hold without it.

    `spared` nodes always stay. A majority of no job's group goes. With `gentle`, the swarm has time to heal
    between two deaths.
    """

    spared = 2
    gentle = False
    registers: Callable[[], Iterable[HonestRegister]]
    leaves: Callable[[Node], bool]
    last_gone_s = -1e9

    def _may_vanish(self, node: Node) -> bool:
        now, nodes = self._world.now, self._world.nodes
        if sum(not other.gone and not self.leaves(other) for other in nodes) <= self.spared:
            return False
        if self.gentle and now - self.last_gone_s < CALM_BETWEEN_DEATHS_S:
            return False
        for register in self.registers():
            left = sum(not m.gone and m is not node for m in register.members)
            if 2 * left <= len(register.members):
                return False
        self.last_gone_s = now
        return True


@dataclass(slots=True)
class _Job:
    """One job of a seed, and what was seen of it."""

    id: str
    name: str
    graph: StageGraph
    register: HonestRegister
    submitted_at: float
    ended_at: float = -1.0
    winners: dict[tuple[int, int], set[int]] = field(default_factory=dict)
    opened_at: dict[int, float] = field(default_factory=dict)


class JobsScenario:
    """One seed of jobs.

    Args:
        seed: decides everything.
        trace: where to record.
        leader, worker, process, apply: what to run; tests plant mistakes in them.
        calm: no faults at all, for measuring.
    """

    healing_limit_s = HEALING_LIMIT_S
    settling_s = SETTLING_S
    watch_type: type[Watch] = Watch

    def __init__(
        self,
        seed: int,
        trace: Trace,
        *,
        leader: type[Leader] = Leader,
        worker: type[Worker] = Worker,
        process: type[JobProcess] = JobProcess,
        apply: Apply = apply,
        calm: bool = False,
    ) -> None:
        self._process = process
        self._apply = apply
        draw = child_random(seed, "jobs")
        self.gentle = draw.random() < 0.5
        self.replicas = draw.choice([1, 2, 2, 2, 3])
        self.count = draw.randint(max(2, self.replicas), 7)
        menu = () if calm else GENTLE if self.gentle else ROUGH
        self.config: SwarmConfig = draw_swarm_config(seed, menu, (4.0, 25.0))
        network = WatchedNetwork(child_random(seed, "network"), self.config.conditions)
        self.world = World(seed, network, trace=trace, codec=JobsCodec())
        self.world.checks.append(self._check)
        self.fired: Counter[JobFault] = Counter()
        self.jobs: list[_Job] = []
        self._draw = draw
        self._disturbed_at = 0.0
        self._up_since: dict[str, float] = {}
        self._rots = not calm and not self.gentle and draw.random() < 0.3
        self._fills = not calm and not self.gentle and draw.random() < 0.4
        disks = child_random(seed, "disks")
        self._misdirects = not calm and not self.gentle and disks.random() < 0.2
        self._fails_to_sync = not calm and disks.random() < 0.3
        self._is_slow = not calm and disks.random() < 0.3
        self._caprice = 0.0 if calm else draw.choice([0.0, 0.0, 0.02, 0.1])
        self.swarm = Swarm(
            world=self.world,
            config=JobsConfig(),
            moods=Moods(
                task_s=draw.choice([(0.001, 0.01), (0.1, 0.5), (0.3, 1.5)]),
                slow=draw.choice([0.0, 0.0, 0.05]),
                slow_s=8.0,
                user_errors=0.0 if calm else draw.choice([0.0, 0.0, 0.05, 0.2]),
                deaths=0.0 if calm else draw.choice([0.0, 0.05]),
                syncs=self.gentle or draw.random() < 0.5,
            ),
            works={},
            plans={},
            digests={},
            registers={},
            address_of={},
            node_of={},
            view_of=lambda node: self.watch.view_of(node),  # noqa: PLW0108 - there is no watch yet
            watch_run=self._watch_run,
            leader_type=leader,
            worker_type=worker,
            slots=SLOTS,
            happened=Counter(),
            fired=self.fired,
        )
        self._names = [draw.choice(NAMES) for _ in range(draw.choice([1, 1, 1, 2]))]

    @property
    def title(self) -> str:
        """One line: what this seed drew."""
        kind = "gentle" if self.gentle else "rough"
        jobs = ", ".join(self._names)
        return f"{self.count} nodes, R={self.replicas}, {jobs}, {kind}, {self.config.describe()}"

    # -- beginning -------------------------------------------------------------------------------------------

    def begin(self) -> Nemesis:
        """Boot the nodes and submit the jobs."""
        world = self.world

        def program(node: Node, _now: float) -> JobProcess:
            random = child_random(world.seed, "process", node.name, node.boots)
            process = self._process(node, self.swarm, random)
            self._up_since[node.name] = self._disturbed_at = world.now
            node.disk.tears = self._tear
            process.store.is_full = any(name == FULL for name, _ in self.watch.flags.get(node.name, ()))
            return process

        for index in range(self.count):
            node = world.add_node(f"n{index}", f"10.0.0.{index}:7000", program)
            self.swarm.address_of[node.name] = node.address
            self.swarm.node_of[node.name] = node
        self.watch = self.watch_type(world, child_random(world.seed, "watch"), self._tell, SLOTS)
        for node in world.nodes:
            world.boot(node)
        self.watch.begin()
        for number, name in enumerate(self._names):
            at = self._draw.uniform(0.0, 0.5) * self.config.fault_phase_s
            world.at(at, lambda number=number, name=name: self._submit(number, name))  # type: ignore[misc]
        world.run(0.5)
        self._schedule_misfortunes()
        nemesis = SparingNemesis(
            world,
            self.config,
            actions={Fault.LEAVE: self._leave},
            max_down=self.replicas - 1 if self.gentle else self.count - 1,
        )
        nemesis.spared = max(self.replicas, 2)
        nemesis.gentle = self.gentle
        nemesis.registers = self.swarm.registers.values
        nemesis.leaves = self._leaves
        return nemesis

    def _submit(self, number: int, name: str) -> None:
        world, draw = self.world, child_random(self.world.seed, "submit", number)
        work = workload(name)
        packed = pack_spec(work.spec(replicas=self.replicas, priority=draw.choice([-1, 0, 0, 3])))
        digest = spec_digest(packed)
        job = job_id_of(digest, str(number))
        plan = unpack_spec(packed).plan
        able = [node for node in world.nodes if node.running] or world.nodes
        count = min(2 * self.replicas - 1, (self.count - 1) // 2 * 2 + 1)
        register = HonestRegister(
            world=world,
            random=child_random(world.seed, "register", number),
            job=job,
            record=born(job, digest, world.now),
            members=draw.sample(able, min(count, len(able))),
            call=self._call,
            caprice=self._caprice,
            caprice_until=self.config.fault_phase_s,
            on_chosen=lambda before, after, proposal: self._chosen(seen, before, after, proposal),
            apply=self._apply,
            leaves=self._leaves,
        )
        seen = _Job(job, name, StageGraph(plan), register, world.now)
        self.swarm.works[job] = work
        self.swarm.plans[job] = plan
        self.swarm.digests[job] = digest
        self.swarm.registers[job] = register
        self.jobs.append(seen)
        register.begin()

    def _call(self, node: Node, boot: int, action: Callable[[Leading], None]) -> None:
        """Do something with a process, as soon as it runs, if it is still the same."""
        process = node.process
        if process is None or node.boots != boot:
            return
        if not node.running:
            self.world.at(self.world.now + 0.05, lambda: self._call(node, boot, action))
            return
        assert isinstance(process, JobProcess)
        action(process)

    def _tell(self, node: Node, view: View) -> None:
        process = node.process
        assert isinstance(process, JobProcess)
        self._disturbed_at = self.world.now
        self.world.inject(node, process.on_view(view, node.clock.read(self.world.now)))

    # -- misfortunes -----------------------------------------------------------------------------------------

    def _schedule_misfortunes(self) -> None:
        draw, phase_s = child_random(self.world.seed, "misfortunes"), self.config.fault_phase_s
        if self._rots:
            for _ in range(draw.randint(1, 6)):
                self.world.at(draw.uniform(0.5, phase_s), lambda: self._rot(draw))
        if self._fills:
            for _ in range(draw.randint(1, 3)):
                until = draw.uniform(2.0, 15.0)
                self.world.at(draw.uniform(0.1, phase_s), lambda until=until: self._fill(draw, until))  # type: ignore[misc]

        disks = child_random(self.world.seed, "misfortunes of disks")
        for happens, most, act in (
            (self._misdirects, 3, self._misdirect),
            (self._fails_to_sync, 8, self._fail_to_sync),
            (self._is_slow, 3, self._be_slow),
        ):
            for _ in range(disks.randint(1, most) if happens else 0):
                self.world.at(disks.uniform(0.5, phase_s), lambda act=act: self._of_somebody(disks, act))  # type: ignore[misc]

    def _of_somebody(self, draw: Random, act: Callable[[Store, Random], None]) -> None:
        """Let something happen to the disk of a node that is drawn, if it is up."""
        stores = [n.process.store for n in self.world.nodes if isinstance(n.process, JobProcess)]
        if stores:
            act(draw.choice(stores), draw)
            self._disturbed_at = self.world.now

    def _rot(self, draw: Random) -> None:
        def rot(store: Store, draw: Random) -> None:
            self.fired[JobFault.ROT] += store.rot(draw)

        self._of_somebody(draw, rot)

    def _misdirect(self, store: Store, draw: Random) -> None:
        store.misdirects = draw

    def _fail_to_sync(self, store: Store, draw: Random) -> None:
        store.bad_syncs = draw.randint(1, 4)

    def _be_slow(self, store: Store, draw: Random) -> None:
        store.slow_s = draw.choice([0.05, 0.3, 2.0])

        def recover() -> None:
            store.slow_s = 0.0

        self.world.at(self.world.now + draw.uniform(2.0, 15.0), recover)

    def _tear(self, value: object, random: Random) -> object:
        if not isinstance(value, Segment) or random.random() < 0.5:
            return value
        self.fired[JobFault.TORN] += 1
        return torn(value)

    def _fill(self, draw: Random, lasts_s: float) -> None:
        node = draw.choice(self.world.nodes)
        if node.name in self.watch.flags:
            return
        self.fired[JobFault.FULL] += 1
        self._set_full(node, full=True)
        self.world.at(self.world.now + lasts_s, lambda: self._set_full(node, full=False))

    def _set_full(self, node: Node, *, full: bool) -> None:
        self._disturbed_at = self.world.now
        if isinstance(node.process, JobProcess):
            node.process.store.is_full = full
        if full:
            self.watch.flags[node.name] = ((FULL, "1"),)
        elif self.watch.flags.get(node.name) == ((FULL, "1"),):
            del self.watch.flags[node.name]

    def _leaves(self, node: Node) -> bool:
        return self.watch.flags.get(node.name) == ((DRAINING, "1"),)

    def _leave(self, node: Node, _random: Random) -> bool:
        """Drain, then go for good."""
        staying = [n for n in self.world.nodes if not n.gone and n.name not in self.watch.flags]
        if node.name in self.watch.flags or len(staying) <= max(2, self.replicas):
            return False
        process = node.process
        assert isinstance(process, JobProcess)
        self.watch.flags[node.name] = ((DRAINING, "1"),)
        self.world.inject(node, process.worker.drain(node.clock.read(self.world.now)))

        def go() -> None:
            if any(node in register.members for register in self.swarm.registers.values()):
                self.world.at(self.world.now + 1.0, go)  # its groups are healed first
                return
            if node.process is not None:
                if not node.running:
                    self.world.resume(node)
                self.world.crash(node)
            node.gone = True

        self.world.at(self.world.now + 12.0, go)
        return True

    # -- what must always hold ---------------------------------------------------------------------------

    def _check(self, node: Node) -> None:
        process = node.process
        assert isinstance(process, JobProcess)
        for job in process.worker.jobs:
            held = process.worker.held_count(job)
            if held > MAX_HELD:
                raise Violation(f"{node.name} holds {held} attempts of {job[:8]}")

    def _watch_run(self, node: Node, order: RunTask) -> None:
        """A reduce attempt begins: are all maps done, and does it read winners?"""
        if order.setup.kind is not StageKind.REDUCE:
            return
        job = next(job for job in self.jobs if job.id == order.setup.job)
        opened = job.register.record.stages[order.read_stage]
        if len(order.reads) != opened.tasks:
            raise Violation(f"{node.name} reduces {len(order.reads)} of {opened.tasks} map tasks")
        for task, attempt in enumerate(order.reads):
            ever = job.winners.get((order.read_stage, task), set())
            if not ever:
                raise Violation(f"{node.name} reduces before map {task} is committed")
            if attempt and attempt not in ever:
                raise Violation(f"{node.name} reduces attempt {attempt:#x} of map {task}, which never won")

    def _chosen(self, job: _Job, before: JobRecord, after: JobRecord, proposal: Proposal) -> None:
        """The record has changed: were the changes allowed?"""
        if unpack_record(pack_record(after)) != after:
            raise Violation("the record is not what its bytes say")
        if before.status.is_final and after != before:
            raise Violation(f"a record that was {before.status} has changed")
        if after.status.is_final and job.ended_at < 0:
            job.ended_at = self.world.now
            self._check_copies(job, after)
        losses = {(c.stage, one.task) for c in proposal.changes if isinstance(c, Lost) for one in c.tasks}
        for index, stage in enumerate(after.stages):
            old = before.stages[index] if index < len(before.stages) else None
            if old is None:
                job.opened_at[index] = self.world.now
            if stage.is_dropped or (old is not None and old.is_dropped):
                continue
            for task, winner in enumerate(stage.winners):
                was = old.winners[task] if old is not None else None
                if was == winner:
                    continue
                if was is not None and winner is not None:
                    raise Violation(f"task {task} of stage {index} has another winner than before")
                if winner is None and (index, task) not in losses:
                    raise Violation(f"task {task} of stage {index} has lost its winner without being lost")
                if winner is None:
                    assert was is not None
                    self._check_loss(job, before, index, task, was.attempt)
                else:
                    job.winners.setdefault((index, task), set()).add(winner.attempt)
                    if not winner.is_empty:
                        self._check_commit(job, after, index, task, winner.attempt)

    def _check_loss(self, job: _Job, record: JobRecord, stage: int, task: int, attempt: int) -> None:
        """Nobody whom the leader has known to be here for a while may hold the output."""
        leader = job.register.leader
        assert leader is not None
        if self.world.now - job.register.proposed_at > 1.0:
            return  # it waited for a quorum, and whoever came back meanwhile came too late
        partitions = self._partitions(job, record, stage)
        patience_s = 2 * self.swarm.config.lost_grace_s
        here = [
            node
            for node in self.world.nodes
            if node.running
            and self.watch.believes_here(leader, node)
            and self.world.now - self._up_since.get(node.name, 0.0) > patience_s
        ]
        if self.gentle:
            raise Violation(
                f"task {task} of stage {stage} is lost, though at most R-1 peers were down at once"
            )
        for partition in partitions:
            if not any(_store(node).holds(job.id, stage, task, attempt, partition) for node in here):
                return
        raise Violation(f"task {task} of stage {stage} is lost, but {[n.name for n in here]} hold it")

    def _check_commit(self, job: _Job, record: JobRecord, stage: int, task: int, attempt: int) -> None:
        """While nobody came or went, an output lies at all its places when it is committed."""
        if self._misdirects:
            return  # what was acknowledged may lie nowhere
        calm_since = self._disturbed_at + CALM_S
        if calm_since >= job.opened_at.get(stage, 0.0) or any(not n.running for n in self.world.nodes):
            return
        rows = record.places(stage)
        if job.graph[stage].has_shuffle:
            wanted = [(p, node) for p in self._partitions(job, record, stage) for node in rows[p % len(rows)]]
        else:
            wanted = [(0, node) for node in record.winner_places(stage, task)]
            leader = job.register.leader
            assert leader is not None
            able = [n for n in self.world.nodes if n.name not in self.watch.flags]
            here = sum(self.watch.believes_here(leader, node) for node in able)
            if len(wanted) < min(self.replicas, here):
                raise Violation(f"task {task} of stage {stage} is committed with {len(wanted)} copies")
        for partition, name in wanted:
            if not _store(self.swarm.node_of[name]).holds(job.id, stage, task, attempt, partition):
                raise Violation(f"task {task} of stage {stage} is committed, and {name} does not hold it")

    def _check_copies(self, job: _Job, record: JobRecord) -> None:
        """A job that ends while nobody comes or goes leaves R copies of its result."""
        leader = job.register.leader
        assert leader is not None
        # While links misbehave a job may end with fewer, having waited for them.
        calm_s = self.world.now - max(self._disturbed_at, self.config.fault_phase_s)
        if record.status is not JobStatus.COMMITTED or calm_s < CALM_S or self._rots or self._misdirects:
            return
        here = [n for n in self.world.nodes if n.running and self.watch.believes_here(leader, n)]
        able = [node for node in here if node.name not in self.watch.flags]
        stage = job.graph.result_stage
        for part, winner in enumerate(record.stages[stage].winners):
            assert winner is not None
            copies = sum(_store(node).holds(job.id, stage, part, winner.attempt, 0) for node in here)
            if copies < min(self.replicas, len(able)):
                raise Violation(f"part {part} of the result has {copies} copies")

    def _partitions(self, job: _Job, record: JobRecord, stage: int) -> Iterable[int]:
        return range(record.stages[stage].partitions) if job.graph[stage].has_shuffle else (0,)

    # -- what must hold in the end -----------------------------------------------------------------------

    def unfinished(self) -> str | None:
        """What is not yet as it must be, or None."""
        if len(self.jobs) < len(self._names):
            return "a job is not submitted yet"
        for node in self.world.nodes:
            if not node.running and not node.gone:
                return f"{node.name} has not come back yet"
        for job in self.jobs:
            problem = self._unfinished(job)
            if problem is not None:
                return f"{job.name} {job.id[:8]}: {problem}"
        return None

    def _unfinished(self, job: _Job) -> str | None:
        record = job.register.record
        if record.status is JobStatus.FAILED:
            raise Violation(f"{job.name} has failed: {record.failure}")
        if record.status is not JobStatus.COMMITTED:
            stage = record.stages[record.stage] if record.stages else None
            done = f"{stage.done} of {stage.tasks} {stage.kind} tasks" if stage is not None else "nothing"
            leader = job.register.leader
            leading = _process(leader).leaders.get(job.id) if leader is not None and leader.process else None
            why = leading[1].waiting_for if leading is not None else "nobody leads"
            return f"{record.status}, stage {record.stage}: {done} done; {why}"
        self._check_result(job, record)
        for node in self.world.nodes:
            if node.process is None:
                continue
            process = _process(node)
            if job.id in process.leaders:
                return f"{node.name} still leads"
            if job.id in process.worker.jobs:
                return f"{node.name} still works for it"
            left = sorted({s.stage for s in process.store.segments(job.id)} - {job.graph.result_stage})
            if left:
                return f"{node.name} still holds outputs of stages {left}"
            if all(one.ended_at >= 0 for one in self.jobs) and (things := process.left_over()):
                return f"{node.name} still has {things}"
        return None

    def _check_result(self, job: _Job, record: JobRecord) -> None:
        work = workload(job.name)
        stage = job.graph.result_stage
        winners = record.stages[stage].winners
        if len(winners) != len(work.parts):
            raise Violation(f"{len(winners)} parts instead of {len(work.parts)}")
        for part, winner in enumerate(winners):
            assert winner is not None
            holders = [
                node
                for node in self.world.nodes
                if node.process is not None and _store(node).holds(job.id, stage, part, winner.attempt, 0)
            ]
            for node in holders:
                run = _store(node).read(job.id, stage, part, winner.attempt, 0)
                if (run.data if run is not None else b"") != work.parts[part]:
                    raise Violation(f"part {part} is not what the embedded engine gives")
            # A single copy, made while the others were down, may go with its holder.
            if not holders and self.gentle and not any(node.gone for node in self.world.nodes):
                raise Violation(f"nobody holds part {part}")
        if record.counters != work.counters:
            raise Violation(f"counters {dict(record.counters)} instead of {work.counters}")
        again = record.totals.maps_run_again + record.totals.parts_run_again
        if self.gentle and again:
            raise Violation(f"{again} tasks were run again, though at most R-1 peers were down at once")


def _process(node: Node) -> JobProcess:
    assert isinstance(node.process, JobProcess)
    return node.process


def _store(node: Node) -> Store:
    return _process(node).store


def jobs_maker(
    *,
    leader: type[Leader] = Leader,
    worker: type[Worker] = Worker,
    process: type[JobProcess] = JobProcess,
    apply: Apply = apply,
    calm: bool = False,
) -> Callable[[int, Trace], JobsScenario]:
    """What ``run_scenario`` needs to make a seed of jobs with these settings."""

    def make(seed: int, trace: Trace) -> JobsScenario:
        return JobsScenario(
            seed, trace, leader=leader, worker=worker, process=process, apply=apply, calm=calm
        )

    return make
