"""The keeper by itself: what reports of finished attempts are worth."""

from __future__ import annotations

import pytest

from mapreduce.config import JobsConfig
from mapreduce.keeper import Keeper
from mapreduce.stages import StageGraph
from tests.mapreduce.fake_swarm import FakeSwarm, plan


def a_keeper(replicas: int) -> Keeper:
    """Of a job with one map task, whose output lies by partition at six peers; version 1 is told."""
    swarm = FakeSwarm(6)
    job_plan = plan(tasks=1, partitions=16, replicas=replicas)
    job = swarm.submit(job_plan)
    swarm.run_until(lambda: swarm.record().stage == 0)
    keeper = Keeper(StageGraph(job_plan), job, swarm.view, JobsConfig())
    keeper.follow(swarm.record())
    assert keeper.new_version(0) == 1
    assert len(keeper.rows(0).nodes) > 2
    return keeper


def test_a_report_of_which_a_part_may_lie_nowhere_does_not_count_until_a_new_version_is_satisfied() -> None:
    """Else its worker, told that all is well, would drop the only output that is whole."""
    keeper = a_keeper(replicas=1)
    nodes = keeper.rows(0).nodes
    keeper.forget(nodes[0])
    assert keeper.finished(0, 0, 1, nodes[1]) == ()
    assert not keeper.is_held(0, 0)
    version = keeper.new_version(0)
    assert set(keeper.finished(0, 0, version, nodes[1])) == set(nodes)
    assert keeper.is_held(0, 0)


@pytest.mark.parametrize("forgotten", [0, 1])
def test_a_report_counts_for_the_other_places_where_they_hold_everything(forgotten: int) -> None:
    keeper = a_keeper(replicas=2)
    nodes = keeper.rows(0).nodes
    keeper.forget(nodes[forgotten])
    assert set(keeper.finished(0, 0, 1, nodes[2])) == {*nodes} - {nodes[forgotten]}
    assert keeper.is_held(0, 0)
