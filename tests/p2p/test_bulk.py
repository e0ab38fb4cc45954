"""Transfers between two stores, over a link that loses, doubles and reorders what the seed says."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgpack
import pytest

from mapreduce.messages import MAX_TRANSFER_ROWS
from membership.view import NodeId
from p2p.bulk import (
    ABANDON_AFTER_S,
    CHUNK_BYTES,
    GIVE_UP_AFTER_S,
    MAX_SENT_HEADER_BYTES,
    RESEND_AFTER_S,
    STEP_BYTES,
    STEP_PAUSE_S,
    WINDOW_BYTES,
    Bulk,
    SendFailed,
    Sent,
)
from p2p.segments import WHOLE, Covers, Entry, Source
from p2p.store import Store
from p2p.transport import MAX_BULK_BYTES, check_bulk

JOB = "ab" * 16
A, B = NodeId("a"), NodeId("b")


class Pair:
    """Two ends and the link between them, on a clock of their own."""

    def __init__(self, directory: Path, loss: float = 0.0, seed: int = 0) -> None:
        self.now = 0.0
        self.loss = loss
        self.random = random.Random(seed)
        self.events: list[Any] = []
        self.chunks: deque[tuple[NodeId, tuple[bytes, ...]]] = deque()
        self.capacity = 1_000
        self.unwanted: set[tuple[str, int]] = set()
        self.stores = {node: Store(str(directory / node)) for node in (A, B)}
        self.sessions = {A: 1, B: 1}
        self.ends = {node: self._end(node) for node in (A, B)}

    def _end(self, node: NodeId) -> Bulk:
        def send(to: NodeId, parts: Sequence[bytes]) -> bool:
            if len(self.chunks) >= self.capacity:
                return False
            self.chunks.append((to, tuple(parts)))
            return True

        def refuse(job: str, stage: int, sender: NodeId) -> str:
            return f"not from {sender}" if (job, stage) in self.unwanted else ""

        return Bulk(
            me=node, session=self.sessions[node], store=self.stores[node], send_chunk=send, refuse=refuse
        )

    def close(self) -> None:
        for end in self.ends.values():
            end.close()

    def restart(self, node: NodeId) -> None:
        self.ends[node].close()
        self.sessions[node] += 1
        self.ends[node] = self._end(node)

    def step(self) -> None:
        self.now += 0.1
        while self.chunks:
            to, parts = self.chunks.popleft()
            if self.random.random() < self.loss:
                continue
            copies = 2 if self.random.random() < self.loss else 1
            for _ in range(copies):
                for back, message in self.ends[to].take_chunk([memoryview(part) for part in parts], self.now):
                    if self.random.random() >= self.loss:
                        self.events += self.ends[back].receive(message, to, self.now)
        for end in self.ends.values():
            self.events += end.tick(self.now)

    def begin(self, node: NodeId = A) -> None:
        """Let an end read what it is to send, until it sends."""
        while not self.chunks:
            self.now += 0.001
            self.events += self.ends[node].tick(self.now)

    def run(self, most: int = 5_000) -> None:
        for _ in range(most):
            if not any(end.is_busy for end in self.ends.values()):
                return
            self.step()
        raise AssertionError("the transfers did not come to an end")


@pytest.fixture
def linked(tmp_path: Path) -> Iterator[Callable[..., Pair]]:
    pairs: list[Pair] = []

    def make(**options: Any) -> Pair:
        pairs.append(Pair(tmp_path, **options))
        return pairs[-1]

    yield make
    for pair in pairs:
        pair.close()


def source(directory: Path, name: str, data: bytes, attempt: int, partition: int = WHOLE) -> Source:
    path = directory / name
    path.write_bytes(b"before" + data)
    entry = Entry(task=attempt, attempt=attempt, partition=partition, offset=0, length=len(data))
    return Source(entry=entry, path=str(path), offset=len(b"before"))


def test_what_is_sent_lies_there_byte_for_byte(tmp_path: Path, linked: Callable[..., Pair]) -> None:
    pair = linked()
    small, large = b"x" * 10, random.Random(1).randbytes(3_000_000)
    sources = [source(tmp_path, "s", small, 7, 0), source(tmp_path, "l", large, 7, 3)]
    pair.events += pair.ends[A].send(JOB, 2, sources, B, "tag", pair.now)
    pair.run()
    assert pair.events == [Sent(tag="tag", size_bytes=3_000_010)]
    for partition, data in ((0, small), (3, large)):
        located = pair.stores[B].find(JOB, 2, 7, partition)
        assert located is not None
        assert pair.stores[B].read(located) == data


@pytest.mark.parametrize("seed", range(20))
def test_a_lossy_link_delays_transfers_and_changes_nothing(
    tmp_path: Path, linked: Callable[..., Pair], seed: int
) -> None:
    pair = linked(loss=0.2, seed=seed)
    chance = random.Random(seed)
    bodies = {n: chance.randbytes(chance.choice([0, 1, 100_000, 2_500_000])) for n in range(6)}
    for number, body in bodies.items():
        one = [source(tmp_path, f"{number}", body, number)]
        pair.events += pair.ends[A].send(JOB, 0, one, B, number, pair.now)
    pair.run()
    arrived = {event.tag for event in pair.events if isinstance(event, Sent)}
    failed = {event.tag for event in pair.events if isinstance(event, SendFailed)}
    assert arrived | failed == set(bodies)
    assert arrived, "everything failed"
    for number in arrived:
        located = pair.stores[B].find(JOB, 0, number)
        assert located is not None
        assert pair.stores[B].read(located) == bodies[number]


def test_what_is_not_wanted_is_refused_at_once_or_when_it_comes_to_be_so(
    tmp_path: Path, linked: Callable[..., Pair]
) -> None:
    pair = linked()
    pair.unwanted = {(JOB, 1)}
    pair.ends[A].send(JOB, 0, [source(tmp_path, "l", bytes(3 * WINDOW_BYTES), 1)], B, "large", pair.now)
    pair.ends[A].send(JOB, 1, [source(tmp_path, "s", b"small", 2)], B, "small", pair.now)
    pair.begin()
    pair.step()
    assert pair.events == [SendFailed(tag="small", reason="not from a")]
    pair.unwanted = {(JOB, 0)}
    pair.run()
    assert pair.events[1:] == [SendFailed(tag="large", reason="not from a")]
    assert pair.stores[B].bytes_held == 0
    assert [path for path in (tmp_path / B).rglob("*") if path.is_file()] == []


def test_no_more_than_the_window_is_on_its_way(tmp_path: Path, linked: Callable[..., Pair]) -> None:
    pair = linked()
    pair.ends[A].send(JOB, 0, [source(tmp_path, "l", bytes(3 * WINDOW_BYTES), 1)], B, 1, pair.now)
    pair.begin()
    assert WINDOW_BYTES <= sum(len(parts[2]) for _, parts in pair.chunks) < 2 * WINDOW_BYTES


def test_a_small_transfer_does_not_wait_for_a_large_one(tmp_path: Path, linked: Callable[..., Pair]) -> None:
    pair = linked()
    pair.capacity = 2
    pair.ends[A].send(JOB, 0, [source(tmp_path, "l", bytes(20_000_000), 1)], B, "large", pair.now)
    pair.ends[A].send(JOB, 0, [source(tmp_path, "s", b"small", 2)], B, "small", pair.now)
    pair.run()
    assert [event.tag for event in pair.events] == ["small", "large"]


def test_a_receiver_that_was_restarted_gets_the_body_anew(
    tmp_path: Path, linked: Callable[..., Pair]
) -> None:
    pair = linked()
    data = random.Random(2).randbytes(12_000_000)
    pair.ends[A].send(JOB, 0, [source(tmp_path, "l", data, 1)], B, 1, pair.now)
    pair.begin()
    for _ in range(2):
        to, parts = pair.chunks.popleft()
        for back, message in pair.ends[to].take_chunk([memoryview(part) for part in parts], pair.now):
            pair.events += pair.ends[back].receive(message, to, pair.now)
    pair.restart(B)
    pair.run()
    located = pair.stores[B].find(JOB, 0, 1)
    assert located is not None
    assert pair.stores[B].read(located) == data


@pytest.mark.parametrize("to", [A, B])
def test_a_large_output_is_read_a_step_a_turn_and_a_small_one_beside_it(
    tmp_path: Path, linked: Callable[..., Pair], to: NodeId
) -> None:
    pair = linked()
    end = pair.ends[A]
    sources = [source(tmp_path, "l", bytes(5 * STEP_BYTES), 1)]
    assert end.send(JOB, 0, sources, to, "large", pair.now) == []
    turns = 0
    pair.events += end.send(JOB, 0, [source(tmp_path, "s", b"small", 2)], to, "small", pair.now)
    while end._preparing:
        assert end.next_deadline(pair.now) <= pair.now + STEP_PAUSE_S
        pair.now += STEP_PAUSE_S
        pair.events += end.tick(pair.now)
        turns += 1
    assert turns >= (8 if to == A else 4)
    pair.run()
    assert [event.tag for event in pair.events if isinstance(event, Sent)] == ["small", "large"]


def test_what_is_given_up_while_it_is_read_leaves_nothing(
    tmp_path: Path, linked: Callable[..., Pair]
) -> None:
    pair = linked()
    large = [source(tmp_path, "l", bytes(5 * STEP_BYTES), 1)]
    pair.ends[A].send(JOB, 0, large, A, "mine", pair.now)
    pair.ends[A].send(JOB, 0, large, B, "yours", pair.now)
    for _ in range(12):
        pair.now += STEP_PAUSE_S
        pair.ends[A]._prepare(pair.now)
    pair.ends[A].cancel("mine")
    pair.ends[A].send(JOB, 0, large, B, "later", pair.now)
    gone = pair.ends[A].peer_is_gone(B)
    assert {event.tag for event in gone} == {"yours", "later"}
    assert not pair.ends[A].is_busy
    assert not list((tmp_path / "a").glob("*/*"))


def test_a_silent_receiver_is_given_up(tmp_path: Path, linked: Callable[..., Pair]) -> None:
    pair = linked(loss=1.0)
    pair.ends[A].send(JOB, 0, [source(tmp_path, "s", b"data", 1)], B, 1, pair.now)
    pair.run()
    assert pair.events == [SendFailed(tag=1, reason="no answer")]
    assert pair.now > GIVE_UP_AFTER_S


def test_a_lost_segment_without_a_body_is_sent_again(linked: Callable[..., Pair]) -> None:
    pair = linked()
    covers = Covers(partitions=(0,), tasks=(5,), attempts=(50,))
    pair.ends[A].send(JOB, 1, [], B, "tag", pair.now, covers=covers)
    pair.begin()
    pair.chunks.clear()
    pair.run()
    assert pair.events == [Sent(tag="tag", size_bytes=0)]
    assert pair.now < 2 * RESEND_AFTER_S
    assert pair.stores[B].holds(JOB, 1, 50, 0)


@pytest.mark.parametrize("arrived", [1, 2, 3])
def test_what_has_arrived_is_not_read_again(
    tmp_path: Path, linked: Callable[..., Pair], arrived: int
) -> None:
    pair = linked()
    first, second = (random.Random(seed).randbytes(3 * CHUNK_BYTES // 2) for seed in (1, 2))
    sources = [source(tmp_path, "f", first, 7, 0), source(tmp_path, "s", second, 7, 1)]
    pair.ends[A].send(JOB, 1, sources, B, "tag", pair.now)
    pair.begin()
    for to, parts in [pair.chunks.popleft() for _ in range(arrived)]:
        for back, message in pair.ends[to].take_chunk([memoryview(part) for part in parts], pair.now):
            pair.events += pair.ends[back].receive(message, to, pair.now)
    pair.chunks.clear()
    if arrived >= 2:
        Path(sources[0].path).unlink()
    pair.run()
    assert pair.events == [Sent(tag="tag", size_bytes=6 * CHUNK_BYTES // 2)]
    for partition, data in ((0, first), (1, second)):
        located = pair.stores[B].find(JOB, 1, 7, partition)
        assert located is not None
        assert pair.stores[B].read(located) == data


def test_a_source_that_shrank_fails_the_transfer(tmp_path: Path, linked: Callable[..., Pair]) -> None:
    pair = linked()
    one = source(tmp_path, "s", bytes(20_000_000), 1)
    pair.events += pair.ends[A].send(JOB, 0, [one], B, 1, pair.now)
    Path(one.path).write_bytes(b"")
    pair.run()
    (event,) = pair.events
    assert isinstance(event, SendFailed)
    assert pair.stores[B].find(JOB, 0, 1) is None


def test_what_a_sender_gave_up_does_not_lie_about_for_ever(
    tmp_path: Path, linked: Callable[..., Pair]
) -> None:
    pair = linked()
    pair.ends[A].send(JOB, 0, [source(tmp_path, "l", bytes(20_000_000), 1)], B, 1, pair.now)
    pair.begin()
    _, parts = pair.chunks.popleft()
    pair.ends[B].take_chunk([memoryview(part) for part in parts], pair.now)
    pair.chunks.clear()
    pair.ends[A].cancel(1)
    assert list((tmp_path / "b" / JOB).glob("*.tmp"))
    pair.now += ABANDON_AFTER_S
    pair.step()
    pair.step()
    assert not list((tmp_path / "b" / JOB).glob("*.tmp"))


def test_a_body_that_changed_on_its_way_is_refused(tmp_path: Path, linked: Callable[..., Pair]) -> None:
    pair = linked()
    pair.ends[A].send(JOB, 0, [source(tmp_path, "s", b"data", 1)], B, 1, pair.now)
    to, (head, header, _) = pair.chunks.popleft()
    pair.chunks.append((to, (head, header, b"dada")))
    pair.run()
    (event,) = pair.events
    assert isinstance(event, SendFailed)
    assert pair.stores[B].segments() == []


def test_malformed_chunks_are_dropped(tmp_path: Path, linked: Callable[..., Pair]) -> None:
    end = linked().ends[B]
    for parts in ([], [b""], [b"", b"", b""], [b"\x94\xa1a\x01\x01\xff", b"", b""], [b"\x90", b"", b""]):
        assert end.take_chunk([memoryview(part) for part in parts], 0.0) == []


def test_a_store_that_is_opened_again_holds_what_it_held(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    store.take(JOB, 1, [source(tmp_path, "s", b"data", 5, 2)])
    (tmp_path / "store" / JOB / "1.half.seg.tmp").write_bytes(b"half")
    again = Store(str(tmp_path / "store"))
    located = again.find(JOB, 1, 5, 2)
    assert located is not None
    assert again.read(located) == b"data"
    assert list(again.held(JOB)) == [(1, Covers(partitions=(), tasks=(5,), attempts=(5,)))]
    assert not list((tmp_path / "store" / JOB).glob("*.tmp"))


def test_a_damaged_segment_is_found_and_removed(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    store.take(JOB, 1, [source(tmp_path, "s", b"data", 5)])
    (path,) = store.segments()
    damaged = bytearray(Path(path).read_bytes())
    damaged[-1] ^= 1
    Path(path).write_bytes(damaged)
    assert not store.verify(path)
    assert store.find(JOB, 1, 5) is None
    assert store.segments() == []


def test_dropping_a_job_keeps_the_stages_that_are_to_stay(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    for stage in (0, 1, 2):
        store.take(JOB, stage, [source(tmp_path, "s", b"data", stage)])
    store.drop_job(JOB, keep_stages=[2])
    assert [stage for stage, *_ in store.held(JOB)] == [2]
    store.drop_job(JOB)
    assert store.jobs == ()
    assert list((tmp_path / "store").iterdir()) == []


def test_what_has_no_pairs_is_held_and_what_never_came_is_not(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.take(JOB, 1, [], Covers(partitions=(2, 3), tasks=(5,), attempts=(50,)))
    assert store.holds(JOB, 1, 50, 3)
    assert store.find(JOB, 1, 50, 3) is None
    assert not store.holds(JOB, 1, 50, 4)
    assert not store.holds(JOB, 1, 51, 3)


def test_a_damaged_segment_gives_way_to_another_copy_of_the_same_output(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for _ in range(2):
        store.put(JOB, 1, 5, 50, b"the same bytes")
    first = store.find(JOB, 1, 50)
    assert first is not None
    store.remove_segment(first.path)
    second = store.find(JOB, 1, 50)
    assert second is not None
    assert store.holds(JOB, 1, 50)
    assert store.read(second) == b"the same bytes"


def test_a_header_that_fits_no_message_fails_the_transfer_and_not_the_peer(
    tmp_path: Path, linked: Callable[..., Pair]
) -> None:
    pair = linked()
    many = tuple(range(1 << 16, MAX_BULK_BYTES // 5))
    covers = Covers(partitions=many, tasks=(1,), attempts=(1,))
    one = source(tmp_path, "s", b"a few bytes", 1, 1 << 16)
    pair.events += pair.ends[A].send(JOB, 0, [one], B, 1, pair.now, covers=covers)
    pair.run()
    (event,) = pair.events
    assert isinstance(event, SendFailed)
    assert "fits no message" in event.reason


def test_no_header_that_is_sent_makes_a_message_too_large() -> None:
    head = msgpack.packb(["n" * 64, 2**64 - 1, 2**64 - 1, 2**64 - 1])
    check_bulk((head, bytes(MAX_SENT_HEADER_BYTES), bytes(CHUNK_BYTES)))
    row = (2**32 - 1, 2**32 - 1, 2**16 - 1, 2**40, 2**32 - 1, 2**32 - 1, 2**32 - 1, 1)
    assert len(msgpack.packb([row] * MAX_TRANSFER_ROWS)) < MAX_SENT_HEADER_BYTES
