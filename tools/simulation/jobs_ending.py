"""How every job must end once the faults are over: well, with the right answer, and with nothing left of it.

It is COMMITTED; its parts are those of the embedded engine, byte for byte, and so are its counters; no task
of a gentle seed was run again; and no leader, worker or data plane knows it any more, nor does a store hold
anything of it but the result. What is not so yet has time until the scenario's limit; what can never become
so is a `Violation` at once.
"""

from __future__ import annotations

from collections.abc import Sequence

from mapreduce.record import JobRecord, JobStatus
from tools.simulation.jobs_invariants import SeenJob
from tools.simulation.jobs_process import process_of, store_of
from tools.simulation.jobs_workloads import workload
from tools.simulation.world import Violation, World

__all__ = ["unfinished"]


def unfinished(world: World, jobs: Sequence[SeenJob], *, gentle: bool) -> str | None:
    """What is not yet as it must be in the end, or None.

    Args:
        world: with the nodes.
        jobs: all of the seed.
        gentle: whether nothing may have been lost.

    Raises:
        Violation: something is as it must never be.
    """
    for node in world.nodes:
        if not node.running and not node.gone:
            return f"{node.name} has not come back yet"
    for job in jobs:
        problem = _not_committed(job)
        if problem is None:
            _check_result(world, job, job.register.record, gentle=gentle)
            problem = _left_of(job, world, all_ended=all(one.ended_at >= 0 for one in jobs))
        if problem is not None:
            return f"{job.name} {job.id[:8]}: {problem}"
    return None


def _not_committed(job: SeenJob) -> str | None:
    record = job.register.record
    if record.status is JobStatus.FAILED:
        raise Violation(f"{job.name} has failed: {record.failure}")
    if record.status is JobStatus.COMMITTED:
        return None
    stage = record.stages[record.stage] if record.stages else None
    done = f"{stage.done} of {stage.tasks} {stage.kind} tasks" if stage is not None else "nothing"
    leader = job.register.leader
    leading = process_of(leader).leaders.get(job.id) if leader is not None and leader.process else None
    why = leading[1].waiting_for if leading is not None else "nobody leads"
    return f"{record.status}, stage {record.stage}: {done} done; {why}"


def _check_result(world: World, job: SeenJob, record: JobRecord, *, gentle: bool) -> None:
    work = workload(job.name)
    stage = job.graph.result_stage
    winners = record.stages[stage].winners
    if len(winners) != len(work.parts):
        raise Violation(f"{len(winners)} parts instead of {len(work.parts)}")
    for part, winner in enumerate(winners):
        assert winner is not None
        holders = [
            node
            for node in world.nodes
            if node.process is not None and store_of(node).holds(job.id, stage, part, winner.attempt, 0)
        ]
        for node in holders:
            run = store_of(node).read(job.id, stage, part, winner.attempt, 0)
            if (run.data if run is not None else b"") != work.parts[part]:
                raise Violation(f"part {part} is not what the embedded engine gives")
        # A single copy, made while the others were down, may go with its holder.
        if not holders and gentle and not any(node.gone for node in world.nodes):
            raise Violation(f"nobody holds part {part}")
    if record.counters != work.counters:
        raise Violation(f"counters {dict(record.counters)} instead of {work.counters}")
    again = record.totals.maps_run_again + record.totals.parts_run_again
    if gentle and again:
        raise Violation(f"{again} tasks were run again, though at most R-1 peers were down at once")


def _left_of(job: SeenJob, world: World, *, all_ended: bool) -> str | None:
    """Who still has something of the job; what is not kept by job is looked at when all have ended."""
    for node in world.nodes:
        if node.process is None:
            continue
        process = process_of(node)
        if job.id in process.leaders:
            return f"{node.name} still leads"
        if job.id in process.worker.jobs:
            return f"{node.name} still works for it"
        left = sorted({s.stage for s in process.store.segments(job.id)} - {job.graph.result_stage})
        if left:
            return f"{node.name} still holds outputs of stages {left}"
        if all_ended and (things := process.left_over()):
            return f"{node.name} still has {things}"
    return None
