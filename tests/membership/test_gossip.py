"""Which news go into a message."""

from __future__ import annotations

import pytest

from membership.gossip import GossipQueue, rumour_bytes, transmissions_max
from membership.messages import Rumour
from membership.view import Member, NodeId, Status


def rumour(name: str, incarnation: int = 1, status: Status = Status.ALIVE) -> Rumour:
    return Rumour(member=Member(id=NodeId(name), address="h:1", incarnation=incarnation, status=status))


def names(rumours: tuple[Rumour, ...]) -> list[str]:
    return [heard.member.id for heard in rumours]


def queue_of(*some: str) -> GossipQueue:
    queue = GossipQueue()
    for name in some:
        queue.put(rumour(name))
    return queue


@pytest.mark.parametrize(
    ("members", "times"), [(1, 4), (2, 4), (9, 4), (10, 8), (99, 8), (100, 12), (9999, 16)]
)
def test_swim_a_rumour_is_sent_a_logarithmic_number_of_times(members: int, times: int) -> None:
    assert transmissions_max(4, members) == times


def test_swim_the_least_told_rumours_go_first() -> None:
    queue = queue_of("a", "b")
    one = rumour_bytes(rumour("a"))
    assert names(queue.take(one, 3)) == ["a"]
    queue.put(rumour("c"))
    assert names(queue.take(2 * one, 3)) == ["b", "c"]
    assert names(queue.take(3 * one, 3)) == ["a", "b", "c"]


def test_a_rumour_is_dropped_when_it_was_sent_often_enough() -> None:
    queue = queue_of("a")
    assert [names(queue.take(1000, 3)) for _ in range(4)] == [["a"], ["a"], ["a"], []]
    assert len(queue) == 0


def test_a_newer_rumour_about_a_node_replaces_the_older_one_and_is_told_afresh() -> None:
    queue = queue_of("a")
    queue.take(1000, 2)
    queue.put(rumour("a", incarnation=2))
    assert [heard.member.incarnation for heard in queue.take(1000, 2)] == [2]
    assert [heard.member.incarnation for heard in queue.take(1000, 2)] == [2]
    assert queue.take(1000, 2) == ()


def test_a_message_holds_no_more_bytes_than_allowed_but_at_least_one_rumour() -> None:
    queue = queue_of("a", "b", "c")
    one = rumour_bytes(rumour("a"))
    assert len(queue.take(2 * one, 9)) == 2
    assert len(queue.take(1, 9)) == 1


def test_the_one_left_out_is_not_counted_as_told() -> None:
    queue = queue_of("a", "b")
    assert names(queue.take(1000, 1, but=NodeId("a"))) == ["b"]
    assert names(queue.take(1000, 1)) == ["a"]


def test_a_dropped_rumour_is_not_told() -> None:
    queue = queue_of("a", "b")
    queue.drop(NodeId("a"))
    assert NodeId("a") not in queue
    assert names(queue.take(1000, 1)) == ["b"]
