"""Where blocks shall lie, and what each peer does about it."""

from __future__ import annotations

import random

import pytest

from mapreduce.claims import homes
from membership.ring import Ring
from membership.view import Member, NodeId
from p2p.blocks import RingPath, block_key, places
from p2p.catalogue import Entry
from p2p.replication import Copy, Holdings, Surplus, due_copies, state_of

FILE = "a" * 40


def ring_of(*names: str, zones: dict[str, str] | None = None) -> Ring:
    found = zones or {}
    return Ring.of(Member(NodeId(name), f"{name}:1", zone=found.get(name, "")) for name in names)


def entry(blocks: int, replicas: int = 2) -> Entry:
    return Entry(
        name="x",
        version=1,
        file=FILE,
        size_bytes=10 * blocks,
        block_bytes=10,
        digests=bytes(16 * blocks),
        replicas=replicas,
    )


def due(me: str, holdings: Holdings, ring: Ring, staying: str, blocks: int, **more: bool) -> list[object]:
    bits = holdings.bits(NodeId(me), FILE)
    steps = due_copies(
        NodeId(me), {FILE: bits}, [entry(blocks)], holdings, ring, [NodeId(one) for one in staying], **more
    )
    return [step for step in steps if step is not None]


def settle(holdings: Holdings, ring: Ring, staying: str, blocks: int) -> int:
    """Do what all peers want until nobody wants anything; returns how many copies went."""
    went = 0
    for _ in range(10):
        steps = [step for me in staying for step in due(me, holdings, ring, staying, blocks)]
        sent = [step for step in steps if isinstance(step, Copy)]
        if not sent:
            return went
        for step in sent:
            holdings.add(step.to, step.file, step.block)
            went += 1
    raise AssertionError("the copies do not come to rest")


@pytest.mark.parametrize("replicas", [1, 2, 3, 5])
def test_each_block_has_its_places_and_they_are_distinct(replicas: int) -> None:
    rows = places(FILE, 200, replicas, ring_of(*"abcd"))
    assert all(len(set(row)) == len(row) == min(replicas, 4) for row in rows)


def test_the_first_place_is_where_a_task_that_reads_the_block_goes() -> None:
    ring = ring_of(*"abcde")
    rows = places(FILE, 100, 2, ring)
    assert [row[0] for row in rows] == homes([block_key(FILE, block) for block in range(100)], ring)


def test_places_lie_in_distinct_zones_where_there_are_any() -> None:
    zones = {"a": "x", "b": "x", "c": "y", "d": "y"}
    rows = places(FILE, 200, 2, ring_of(*"abcd", zones=zones))
    assert all({zones[node] for node in row} == {"x", "y"} for row in rows)


def test_nobody_on_the_ring_no_places() -> None:
    assert places(FILE, 3, 2, Ring.of([])) == [(), (), ()]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_lies_where_one_peer_sees_to_each_lacking_copy_and_all_come_to_rest(seed: int) -> None:
    rng = random.Random(seed)
    ring, holdings, blocks = ring_of(*"abcd"), Holdings(), 20
    for block in range(blocks):
        for node in rng.sample("abcd", rng.randrange(1, 4)):
            holdings.add(NodeId(node), FILE, block)
    rows = places(FILE, blocks, 2, ring)
    lacking = sum(
        node not in holdings.of(FILE, block, "abcd") for block in range(blocks) for node in rows[block]
    )
    assert settle(holdings, ring, "abcd", blocks) == lacking
    for block, row in enumerate(rows):
        surplus = [one for one in holdings.of(FILE, block, "abcd") if one not in row]
        for node in "abcd":
            wants_rid = Surplus(FILE, block) in due(node, holdings, ring, "abcd", blocks)
            assert wants_rid == (node in surplus)


def test_a_copy_too_many_stays_while_a_place_lacks_its_own() -> None:
    ring, holdings = ring_of(*"abc"), Holdings()
    row = places(FILE, 1, 2, ring)[0]
    outsider = next(node for node in "abc" if node not in row)
    holdings.add(NodeId(outsider), FILE, 0)
    holdings.add(row[0], FILE, 0)
    assert due(outsider, holdings, ring, "abc", 1) == []
    assert due(row[0], holdings, ring, "abc", 1) == [Copy(FILE, 0, row[1])]


def test_a_peer_that_leaves_hands_on_what_lies_nowhere_else_and_others_do_the_rest() -> None:
    ring, holdings = ring_of(*"bcd"), Holdings()  # a leaves, and is no place any more
    holdings.add(NodeId("a"), FILE, 0)
    holdings.add(NodeId("a"), FILE, 1)
    holdings.add(NodeId("b"), FILE, 1)
    steps = due("a", holdings, ring, "bcd", 2, is_leaving=True)
    assert {step.block for step in steps if isinstance(step, Copy)} == {0}
    assert not any(isinstance(step, Surplus) for step in steps)
    assert {step.block for step in due("b", holdings, ring, "bcd", 2) if isinstance(step, Copy)} <= {1}


def test_much_work_comes_in_slices() -> None:
    holdings = Holdings()
    for block in range(1_000):
        holdings.add(NodeId("a"), FILE, block)
    steps = due_copies(
        NodeId("a"), {FILE: (1 << 1_000) - 1}, [entry(1_000)], holdings, ring_of("a"), [NodeId("a")]
    )
    assert list(steps) == [None, None, None]


def test_what_was_heard_of_a_peer_is_known_by_its_digest() -> None:
    holdings = Holdings()
    assert holdings.set(NodeId("b"), [(FILE, 5)], is_all=True)
    assert not holdings.set(NodeId("b"), [(FILE, 5)], is_all=False)
    assert holdings.state(NodeId("b")) == state_of({FILE: 5})
    assert holdings.set(NodeId("b"), [("c" * 40, 1)], is_all=False)
    assert holdings.set(NodeId("b"), [(FILE, 0)], is_all=False)
    assert holdings.state(NodeId("b")) == state_of({"c" * 40: 1})
    holdings.forget(NodeId("b"))
    assert holdings.state(NodeId("b")) == state_of({})


def test_a_path_of_the_ring_says_all_that_a_peer_needs() -> None:
    path = RingPath(file=FILE, block_bytes=10, size_bytes=35, name="a b/c.gz")
    assert RingPath.parse(str(path)) == path
    assert path.blocks(0, 10) == range(1)
    assert path.blocks(9, 21) == range(3)
    assert path.blocks(30, -1) == range(3, 4)
    for other in ("/a/b", "ring:x", "s3://x/y", f"ring://{FILE}/0/1/x", f"ring://{FILE[1:]}/1/1/x"):
        assert RingPath.parse(other) is None
