"""A message: to a frame and back, the kinds of which a busy peer says most."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from mapreduce.messages import Claim, Done, Finished, Grant, GrantItem
from membership.messages import Ping, Rumour
from membership.view import Member, NodeId
from p2p.protocol import wire_format
from p2p.wire import Envelope

JOB = "0123456789abcdef" * 2
RUMOURS = 8
TASKS = 16
MESSAGES = {
    "ping": Ping(
        number=7,
        target=NodeId("node-1"),
        reply_to="127.0.0.1:7000",
        rumours=tuple(
            Rumour(member=Member(id=NodeId(f"node-{n}"), address=f"127.0.0.1:{7000 + n}", slots=2))
            for n in range(RUMOURS)
        ),
    ),
    "claim": Claim(
        job=JOB, ballot=3, stage=0, session=1, seen=2, room=TASKS, idle=2, tasks=tuple(range(TASKS))
    ),
    "grant": Grant(
        job=JOB,
        ballot=3,
        stage=0,
        number=1,
        items=tuple(GrantItem(task=task, attempt=task + 1, number=1) for task in range(TASKS)),
        lease_s=10.0,
    ),
    "finished": Finished(
        job=JOB,
        ballot=3,
        stage=0,
        version=1,
        items=tuple(
            Done(task=task, attempt=task + 1, digest=bytes(16), size_bytes=1 << 20, records=1_000)
            for task in range(TASKS)
        ),
    ),
}


@pytest.fixture(params=MESSAGES)
def envelope(request: pytest.FixtureRequest) -> Envelope:
    """A message and its sender."""
    return Envelope(
        cluster="benchmark",
        ring_digest=bytes(16),
        sender=NodeId("node-0"),
        incarnation=1,
        message=MESSAGES[request.param],
    )


def test_encode(benchmark: BenchmarkFixture, envelope: Envelope) -> None:
    assert wire_format().decode(benchmark(wire_format().encode, envelope)) == envelope


def test_decode(benchmark: BenchmarkFixture, envelope: Envelope) -> None:
    assert benchmark(wire_format().decode, wire_format().encode(envelope)) == envelope
