"""The log of a job: who claimed, was granted, pushed and committed how much, and what happened besides."""

from __future__ import annotations

from collections import Counter

from mapreduce.changes import ROUTINE_KINDS
from mapreduce.doings import MAX_OPEN, Doings
from mapreduce.outcome import EventRecord
from mapreduce.record import JobRecord
from membership.view import NodeId
from tests.mapreduce.fake_swarm import FakeSwarm, node, plan


def counted(record: JobRecord, kind: str) -> dict[str, int]:
    """How many tasks the log says, by peer."""
    found: Counter[str] = Counter()
    for event in record.events:
        if event.kind == kind:
            found[event.node] += int(event.text.split()[0].replace(",", ""))
    return found


def test_the_log_tells_of_every_grant_push_and_commit_and_whose_it_was() -> None:
    swarm = FakeSwarm(4)
    swarm.task_s = 0.4
    swarm.submit(plan(tasks=20, partitions=3))
    record = swarm.commit()
    runs = Counter(peer.id for peer in swarm.peers.values() for _ in peer.done)
    assert counted(record, "granted") == counted(record, "pushed") == counted(record, "committed") == runs
    assert set(counted(record, "claimed")) == set(runs)
    assert all(event.node and 100.0 <= event.at_s <= swarm.now for event in record.events)
    assert [event.kind for event in record.events if event.kind not in ROUTINE_KINDS][:2] == [
        "leader",
        "stage",
    ]


def test_the_log_tells_of_losses_elections_and_repairs() -> None:
    swarm = FakeSwarm(5)
    swarm.task_s = 0.5
    swarm.submit(plan(tasks=60))
    swarm.run_until(lambda: swarm.done() >= 20)
    victim = next(n for row in swarm.record().places(0) for n in row if n != node(0))
    swarm.kill(int(victim[1:]))
    swarm.run_until(lambda: swarm.record().stage == 1)
    survivor = next(peer for peer in swarm.peers if peer not in (victim, node(0)))
    swarm.kill(0)
    swarm.lead("0" * 32, int(survivor[1:]))
    record = swarm.commit()
    found = {(event.kind, event.node) for event in record.events}
    assert {("lost", victim), ("leader", node(0)), ("leader", survivor)} <= found
    assert counted(record, "copied")
    assert victim not in counted(record, "copied")


def test_the_log_of_a_long_job_is_bounded() -> None:
    swarm = FakeSwarm(3)
    swarm.task_s = 0.4
    swarm.submit(plan(tasks=1_000))
    record = swarm.commit(limit_s=400)
    assert sum(event.kind in ROUTINE_KINDS for event in record.events) <= 192
    assert [event.kind for event in record.events][:2] == ["leader", "stage"]


def test_what_is_counted_is_told_by_the_second_and_all_of_it_in_the_end() -> None:
    doings = Doings()
    doings.note("granted", NodeId("a"), 2, 10.0)
    doings.note("granted", NodeId("a"), 3, 10.5, size_bytes=1_000)
    doings.note("pushed", NodeId("b"), 1, 10.9)
    doings.note("pushed", NodeId("c"), 0, 10.9)
    first = EventRecord(at_s=110.0, kind="granted", node=NodeId("a"), text="5 tasks, 1,000 bytes")
    second = EventRecord(at_s=110.9, kind="pushed", node=NodeId("b"), text="1 task")
    assert doings.take(11.2, 100.0, everything=False) == [first]
    assert doings.take(11.2, 100.0, everything=True) == [second]
    assert doings.take(12.0, 100.0, everything=True) == []


def test_what_is_counted_is_bounded() -> None:
    doings = Doings()
    for number in range(2 * MAX_OPEN):
        doings.note("granted", NodeId(f"n{number}"), 1, 1.0)
    assert len(doings.take(1.0, 0.0, everything=True)) == MAX_OPEN
