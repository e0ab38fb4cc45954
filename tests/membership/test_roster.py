"""The probe order: everybody once a round, newcomers at a random place, in constant time and little room."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from membership.roster import Roster
from membership.view import NodeId


def ids(count: int) -> tuple[NodeId, ...]:
    return tuple(NodeId(f"n{number}") for number in range(count))


def roster_of(base: tuple[NodeId, ...]) -> Roster:
    return Roster(base, {node: place for place, node in enumerate(base)})


@given(st.integers(1, 30), st.integers(0, 5))
def test_each_round_visits_everybody_exactly_once(count: int, seed: int) -> None:
    roster, rng = roster_of(ids(count)), random.Random(seed)
    for _ in range(3):
        assert sorted(roster.next(rng) for _ in range(count)) == sorted(ids(count))


def test_rounds_have_different_orders() -> None:
    roster, rng = roster_of(ids(30)), random.Random(1)
    rounds = {tuple(roster.next(rng) for _ in range(30)) for _ in range(10)}
    assert len(rounds) == 10


def test_every_place_in_the_order_is_equally_likely() -> None:
    seen = Counter()
    for seed in range(3000):
        roster, rng = roster_of(ids(6)), random.Random(seed)
        for place in range(6):
            seen[place, roster.next(rng)] += 1
    assert all(abs(times - 500) < 110 for times in seen.values())  # five standard deviations
    assert len(seen) == 36


def test_a_newcomer_comes_up_within_the_round_at_any_place() -> None:
    places = Counter()
    for seed in range(500):
        roster, rng = roster_of(ids(10)), random.Random(seed)
        for _ in range(5):
            roster.next(rng)
        roster.add(NodeId("new"))
        rest = [roster.next(rng) for _ in range(6)]
        places[rest.index(NodeId("new"))] += 1
    assert sorted(places) == [0, 1, 2, 3, 4, 5]
    assert min(places.values()) > 40


class Model:
    """What the roster means: the set of members, and those not yet visited in this round."""

    def __init__(self, base: tuple[NodeId, ...]) -> None:
        self.members = set(base)
        self.left = set(base)


@given(
    st.integers(0, 8),
    st.lists(st.tuples(st.sampled_from(["add", "remove", "next"]), st.integers(0, 11)), max_size=60),
)
def test_whoever_comes_and_goes_nobody_is_missed_or_visited_twice_in_a_round(
    count: int, steps: list[tuple[str, int]]
) -> None:
    roster, rng, model = roster_of(ids(count)), random.Random(7), Model(ids(count))
    for what, number in steps:
        node = NodeId(f"n{number}")
        if what == "add":
            if node not in model.members:
                model.left.add(node)
            model.members.add(node)
            roster.add(node)
        elif what == "remove":
            model.members.discard(node)
            model.left.discard(node)
            roster.remove(node)
        else:
            visited = roster.next(rng)
            if not model.left:
                model.left = set(model.members)
            assert (visited is None) == (not model.members)
            if visited is not None:
                assert visited in model.left
                model.left.discard(visited)
        assert {roster[place] for place in range(len(roster))} == model.members
        assert len(roster) == len(model.members)
        assert all((NodeId(f"n{n}") in roster) == (NodeId(f"n{n}") in model.members) for n in range(12))


@given(st.integers(0, 12), st.integers(0, 6), st.integers(0, 3))
def test_a_sample_holds_distinct_members_without_the_one_left_out(count: int, k: int, seed: int) -> None:
    roster = roster_of(ids(count))
    sample = roster.sample(k, random.Random(seed), without=NodeId("n0"))
    assert len(sample) == len(set(sample)) == min(k, max(0, count - 1))
    assert NodeId("n0") not in sample


def test_a_shared_base_is_not_copied() -> None:
    base = ids(10_000)
    position = {node: place for place, node in enumerate(base)}
    rng = random.Random(1)
    roster = Roster(base, position)
    roster.remove(NodeId("n77"))
    for _ in range(10):
        roster.next(rng)
    differences = len(roster._moved) + len(roster._where)
    assert differences <= 50


def test_a_place_beyond_the_end_is_an_error() -> None:
    with pytest.raises(IndexError):
        roster_of(ids(3))[3]
