"""What must hold of jobs at every step, or whenever a record changes, while faults last and afterwards.

* A winner changes only by being lost, and is lost only when no node that is here and known to the leader
  holds its output; in a gentle seed it is never lost.
* A reduce attempt begins only when every map task has a winner, and reads exactly winners, in task order.
* While nobody comes or goes, a committed output lies at all its places, and a result with R peers.
* A final record stays, and every record is what its bytes say.
* What waits anywhere is bounded.

A check asks the stores of all nodes, and the stand-in of membership what a leader could know. Where somebody
has just come or gone it says nothing: what was proposed before may be chosen after.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mapreduce.changes import Lost, Proposal
from mapreduce.effects import RunTask
from mapreduce.record import JobRecord, JobStatus, StageKind
from mapreduce.stages import StageGraph
from p2p.job_protocol import pack_record, unpack_record
from tools.simulation.jobs_misfortunes import Luck
from tools.simulation.jobs_process import process_of, store_of
from tools.simulation.jobs_surroundings import HonestRegister, Watch
from tools.simulation.jobs_swarm import Swarm
from tools.simulation.node import Node
from tools.simulation.world import Violation, World

__all__ = ["Invariants", "SeenJob"]

# So long after somebody came or went, everybody has heard of it and what was proposed before is chosen.
CALM_S = 4.0
MAX_HELD = 4_096


@dataclass(slots=True)
class SeenJob:
    """One job of a seed, and what was seen of it."""

    id: str
    name: str
    graph: StageGraph
    register: HonestRegister
    submitted_at: float
    ended_at: float = -1.0
    winners: dict[tuple[int, int], set[int]] = field(default_factory=dict)
    opened_at: dict[int, float] = field(default_factory=dict)


class Invariants:
    """Looks at the jobs of a seed, and raises `Violation` where a promise is broken.

    Args:
        world: with the nodes.
        swarm: of the seed; knows when somebody was disturbed last.
        watch: what nodes believe of each other.
        jobs: of the seed, each from its submission on.
        luck: what disks suffer.
        gentle: whether nothing may be lost.
        replicas: so many copies are promised.
        phase_s: how long faults last, in world time.
    """

    def __init__(
        self,
        world: World,
        swarm: Swarm,
        watch: Watch,
        jobs: Sequence[SeenJob],
        *,
        luck: Luck,
        gentle: bool,
        replicas: int,
        phase_s: float,
    ) -> None:
        self._world = world
        self._swarm = swarm
        self._watch = watch
        self._jobs = jobs
        self._luck = luck
        self._gentle = gentle
        self._replicas = replicas
        self._phase_s = phase_s

    def check(self, node: Node) -> None:
        """After every step of a node: what waits there is bounded."""
        worker = process_of(node).worker
        for job in worker.jobs:
            held = worker.held_count(job)
            if held > MAX_HELD:
                raise Violation(f"{node.name} holds {held} attempts of {job[:8]}")

    def begins(self, node: Node, order: RunTask) -> None:
        """A reduce attempt begins: are all maps done, and does it read winners?"""
        if order.setup.kind is not StageKind.REDUCE:
            return
        job = next(job for job in self._jobs if job.id == order.setup.job)
        opened = job.register.record.stages[order.read_stage]
        if len(order.reads) != opened.tasks:
            raise Violation(f"{node.name} reduces {len(order.reads)} of {opened.tasks} map tasks")
        for task, attempt in enumerate(order.reads):
            ever = job.winners.get((order.read_stage, task), set())
            if not ever:
                raise Violation(f"{node.name} reduces before map {task} is committed")
            if attempt and attempt not in ever:
                raise Violation(f"{node.name} reduces attempt {attempt:#x} of map {task}, which never won")

    def chosen(self, job: SeenJob, before: JobRecord, after: JobRecord, proposal: Proposal) -> None:
        """The record has changed: were the changes allowed?"""
        if unpack_record(pack_record(after)) != after:
            raise Violation("the record is not what its bytes say")
        if before.status.is_final and after != before:
            raise Violation(f"a record that was {before.status} has changed")
        if after.status.is_final and job.ended_at < 0:
            job.ended_at = self._world.now
            self._check_copies(job, after)
        losses = {(c.stage, one.task) for c in proposal.changes if isinstance(c, Lost) for one in c.tasks}
        for index, stage in enumerate(after.stages):
            old = before.stages[index] if index < len(before.stages) else None
            if old is None:
                job.opened_at[index] = self._world.now
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

    def _check_loss(self, job: SeenJob, record: JobRecord, stage: int, task: int, attempt: int) -> None:
        """Nobody whom the leader has known to be here for a while may hold the output."""
        leader = job.register.leader
        assert leader is not None
        if self._world.now - job.register.proposed_at > 1.0:
            return  # it waited for a quorum, and whoever came back meanwhile came too late
        partitions = self._partitions(job, record, stage)
        patience_s = 2 * self._swarm.config.lost_grace_s
        here = [
            node
            for node in self._world.nodes
            if node.running
            and self._watch.believes_here(leader, node)
            and self._world.now - self._swarm.up_since.get(node.name, 0.0) > patience_s
        ]
        if self._gentle:
            raise Violation(
                f"task {task} of stage {stage} is lost, though at most R-1 peers were down at once"
            )
        for partition in partitions:
            if not any(store_of(node).holds(job.id, stage, task, attempt, partition) for node in here):
                return
        raise Violation(f"task {task} of stage {stage} is lost, but {[n.name for n in here]} hold it")

    def _check_commit(self, job: SeenJob, record: JobRecord, stage: int, task: int, attempt: int) -> None:
        """While nobody came or went, an output lies at all its places when it is committed."""
        if self._luck.misdirects:
            return  # what was acknowledged may lie nowhere
        calm_since = self._swarm.disturbed_at + CALM_S
        if calm_since >= job.opened_at.get(stage, 0.0) or any(not n.running for n in self._world.nodes):
            return
        rows = record.places(stage)
        if job.graph[stage].has_shuffle:
            wanted = [(p, node) for p in self._partitions(job, record, stage) for node in rows[p % len(rows)]]
        else:
            wanted = [(0, node) for node in record.winner_places(stage, task)]
            leader = job.register.leader
            assert leader is not None
            able = [n for n in self._world.nodes if n.name not in self._watch.flags]
            here = sum(self._watch.believes_here(leader, node) for node in able)
            if len(wanted) < min(self._replicas, here):
                raise Violation(f"task {task} of stage {stage} is committed with {len(wanted)} copies")
        for partition, name in wanted:
            if not store_of(self._swarm.node_of[name]).holds(job.id, stage, task, attempt, partition):
                raise Violation(f"task {task} of stage {stage} is committed, and {name} does not hold it")

    def _check_copies(self, job: SeenJob, record: JobRecord) -> None:
        """A job that ends while nobody comes or goes leaves R copies of its result."""
        leader = job.register.leader
        assert leader is not None
        # While links misbehave a job may end with fewer, having waited for them.
        calm_s = self._world.now - max(self._swarm.disturbed_at, self._phase_s)
        if (
            record.status is not JobStatus.COMMITTED
            or calm_s < CALM_S
            or self._luck.rots
            or self._luck.misdirects
        ):
            return
        here = [n for n in self._world.nodes if n.running and self._watch.believes_here(leader, n)]
        able = [node for node in here if node.name not in self._watch.flags]
        stage = job.graph.result_stage
        for part, winner in enumerate(record.stages[stage].winners):
            assert winner is not None
            copies = sum(store_of(node).holds(job.id, stage, part, winner.attempt, 0) for node in here)
            if copies < min(self._replicas, len(able)):
                raise Violation(f"part {part} of the result has {copies} copies")

    def _partitions(self, job: SeenJob, record: JobRecord, stage: int) -> Iterable[int]:
        return range(record.stages[stage].partitions) if job.graph[stage].has_shuffle else (0,)
