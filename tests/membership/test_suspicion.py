"""How long suspicions last."""

from __future__ import annotations

from itertools import pairwise
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from membership.suspicion import Suspicion, Suspicions, suspicion_timeout_s
from membership.view import NodeId

X, Y = NodeId("x"), NodeId("y")


def suspicion(*accusers: str, started_s: float = 0.0, expected: int = 2) -> Suspicion:
    names = tuple(map(NodeId, accusers))
    return Suspicion(accusers=names, started_s=started_s, expected=expected, min_s=4.0, max_s=24.0)


def test_lifeguard_an_unconfirmed_suspicion_lasts_longest_and_a_fully_confirmed_one_shortest() -> None:
    assert suspicion_timeout_s(0, 3, 4.0, 24.0) == 24.0
    assert suspicion_timeout_s(3, 3, 4.0, 24.0) == 4.0


@given(st.integers(1, 8), st.floats(0.1, 10), st.floats(1, 10))
def test_lifeguard_each_confirmation_shrinks_it_and_the_first_ones_most(
    expected: int, min_s: float, mult: float
) -> None:
    lasts = [suspicion_timeout_s(c, expected, min_s, min_s * mult) for c in range(expected + 1)]
    assert lasts == sorted(lasts, reverse=True)
    shrunk = [a - b for a, b in pairwise(lasts)]
    assert all(a >= b - 1e-9 for a, b in pairwise(shrunk))


def test_where_nobody_is_left_to_confirm_it_is_short_at_once() -> None:
    assert suspicion_timeout_s(0, 0, 4.0, 24.0) == 4.0


def test_the_same_accuser_does_not_confirm_twice() -> None:
    first = suspicion("a")
    assert first.confirm((NodeId("a"),), 3) is first
    assert first.confirm((NodeId("b"), NodeId("b")), 3).accusers == ("a", "b")


def test_only_so_many_accusers_are_remembered() -> None:
    assert suspicion("a").confirm(tuple(map(NodeId, "bcdef")), 3).accusers == ("a", "b", "c")


def test_suspects_die_in_the_order_of_their_deadlines_and_once() -> None:
    under_way = Suspicions()
    under_way.put(X, suspicion("a", started_s=1.0, expected=0))
    under_way.put(Y, suspicion("a", started_s=0.0, expected=0))
    assert under_way.deadline_s == 4.0
    assert under_way.pop_due(3.9) == []
    assert [node for node, _ in under_way.pop_due(5.0)] == [Y, X]
    assert under_way.pop_due(100.0) == []
    assert under_way.deadline_s == inf


def test_a_confirmation_moves_the_deadline_forward_and_an_end_takes_it_away() -> None:
    under_way = Suspicions()
    begun = suspicion("a")
    under_way.put(X, begun)
    assert under_way.deadline_s == 24.0
    under_way.put(X, begun.confirm(tuple(map(NodeId, "bc")), 3))
    assert under_way.deadline_s == 4.0
    under_way.drop(X)
    assert under_way.deadline_s == inf
    assert under_way.pop_due(100.0) == []


def test_postponing_gives_every_suspect_that_much_more_time() -> None:
    under_way = Suspicions()
    under_way.put(X, suspicion("a", expected=0))
    under_way.put(Y, suspicion("a", expected=2))
    under_way.postpone(10.0)
    assert under_way.deadline_s == 14.0
    assert [node for node, _ in under_way.pop_due(14.0)] == [X]
    assert under_way.deadline_s == 34.0
