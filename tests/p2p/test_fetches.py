"""Fetching what lies elsewhere: who is asked next, and when."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from membership.view import NodeId
from p2p.bulk import CHUNK_BYTES, Bulk
from p2p.fetches import PATIENCE_S, ROUNDS, Fetches
from p2p.job_inquiries import FetchSegment
from p2p.roles import Role
from p2p.store import Store
from p2p.transport import BulkArrival
from tests.p2p.test_job_service import JOB, Talking

B, C = NodeId("b"), NodeId("c")
STAGE, ATTEMPT = 1, 7


def asked_at(fetches: Fetches, now: float) -> list[NodeId]:
    asked, _ = fetches.tick(now)
    return [node for node, _ in asked]


def test_who_is_silent_is_given_up_and_in_the_end_the_fetch_has_failed() -> None:
    fetches = Fetches()
    fetches.want(JOB, STAGE, ATTEMPT, [B, C], "tag", 0.0)
    for turn in range(2 * ROUNDS):
        assert asked_at(fetches, turn * PATIENCE_S - 0.1 if turn else 0.0) == ([] if turn else [B])
        if turn:
            assert asked_at(fetches, turn * PATIENCE_S) == [(B, C)[turn % 2]]
    _, ended = fetches.tick(2 * ROUNDS * PATIENCE_S)
    assert [(one.tag, one.reason) for one in ended] == [("tag", "nobody has it")]


def test_who_sends_slowly_is_waited_for_until_nothing_more_comes() -> None:
    fetches = Fetches()
    fetches.want(JOB, STAGE, ATTEMPT, [B, C], "tag", 0.0)
    assert asked_at(fetches, 0.0) == [B]
    for turn in range(1, 20):
        now = turn * PATIENCE_S
        fetches.comes(JOB, STAGE, (ATTEMPT - 1, ATTEMPT), now)
        fetches.comes(JOB, STAGE, (ATTEMPT + 1,), now + 5.0)  # another output: of no concern
        assert asked_at(fetches, now) == []
    assert asked_at(fetches, 20 * PATIENCE_S) == [C]


def chunks_of(directory: Path, size_bytes: int) -> list[BulkArrival]:
    """An output on its way from peer b, in chunks."""
    sent: list[BulkArrival] = []

    def send(_to: NodeId, parts: Sequence[bytes]) -> bool:
        sent.append(BulkArrival(tuple(map(memoryview, parts)), Role.PEER, "memory:b"))
        return True

    store = Store(str(directory), low_free_bytes=0, high_free_bytes=0)
    store.put(JOB, STAGE, 0, ATTEMPT, bytes(size_bytes))
    bulk = Bulk(me=B, session=7, store=store, send_chunk=send)
    bulk.send(JOB, STAGE, store.sources(JOB, STAGE, (ATTEMPT,), ()) or [], NodeId("a"), "tag", 0.0)
    for turn in range(10):
        bulk.tick(0.1 * turn)
    return sent


def test_as_long_as_chunks_of_it_come_a_peer_asks_nobody_else_for_an_output(tmp_path: Path) -> None:
    peer = Talking(tmp_path / "a")
    try:
        peer.engine.arrivals.want(JOB, STAGE, ATTEMPT, [B, C], ("piece", JOB, 1), peer.now)
        chunks = chunks_of(tmp_path / "b", 4 * CHUNK_BYTES)
        assert len(chunks) == 4
        for chunk in chunks:
            peer.advance(0.8 * PATIENCE_S)
            peer._take(peer.engine.pump([chunk], peer.now))
        assert peer.engine.store.holds(JOB, STAGE, ATTEMPT)
        asked = [one.address for one in peer.said if isinstance(one.message, FetchSegment)]
        assert asked == ["memory:b"]
    finally:
        peer.engine.close()


def test_what_is_asked_for_again_while_it_is_sent_is_not_sent_twice(tmp_path: Path) -> None:
    peer = Talking(tmp_path)
    try:
        for attempt, size_bytes in ((ATTEMPT, 1_000), (ATTEMPT + 1, 500)):
            peer.engine.store.put(JOB, STAGE, 0, attempt, bytes(size_bytes))
        for attempt, sent_bytes in ((ATTEMPT, 1_000), (ATTEMPT, 1_000), (ATTEMPT + 1, 1_500)):
            # A life of b that begins anew counts its questions from one again.
            peer.hear(FetchSegment(number=1, job=JOB, stage=STAGE, attempt=attempt), "b")
            peer.advance(0.1)
            assert peer.engine.bulk.bytes_sent == sent_bytes
    finally:
        peer.engine.close()
