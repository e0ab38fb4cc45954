"""Precedence of rumours: the table, cell by cell, and what makes all peers agree in the end."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from membership.view import Member, NodeId, Status, View, merge, supersedes

A, S, D, L = Status.ALIVE, Status.SUSPECT, Status.DEAD, Status.LEFT


def believed(status: Status, incarnation: int, **changes: object) -> Member:
    member = Member(id=NodeId("x"), address="10.0.0.1:7000", incarnation=incarnation, status=status)
    return replace(member, **changes)  # type: ignore[arg-type]


# For each (new, old): does new win with a lower, the same, a higher incarnation?
TABLE = {
    (A, A): (False, False, True),
    (A, S): (False, False, True),
    (A, D): (False, False, True),
    (A, L): (False, False, True),
    (S, A): (False, True, True),
    (S, S): (False, False, True),
    (S, D): (False, False, True),
    (S, L): (False, False, True),
    (D, A): (False, True, True),
    (D, S): (False, True, True),
    (D, D): (False, False, True),
    (D, L): (False, False, True),
    (L, A): (False, True, True),
    (L, S): (False, True, True),
    (L, D): (False, True, True),
    (L, L): (False, False, True),
}


@pytest.mark.parametrize(("new", "old"), TABLE, ids=lambda status: status.value)
def test_each_cell_of_the_table_of_precedence_holds(new: Status, old: Status) -> None:
    held = believed(old, 5)
    lower, same, higher = (supersedes(believed(new, incarnation), held) for incarnation in (4, 5, 6))
    assert (lower, same, higher) == TABLE[new, old]


@pytest.mark.parametrize("status", Status)
def test_anything_is_news_about_a_node_never_heard_of(status: Status) -> None:
    assert supersedes(believed(status, 0), None)


def test_the_dead_are_not_resurrected_by_old_news_after_a_higher_accusation() -> None:
    belief = None
    for heard in (believed(A, 1), believed(D, 1), believed(D, 10), believed(A, 2)):
        belief = merge(belief, heard)
    assert belief == believed(D, 10)


def test_of_two_processes_with_one_incarnation_every_peer_keeps_the_one_with_the_greater_session() -> None:
    elder = believed(A, 3, session=1, address="10.0.0.9:7000")
    younger = believed(A, 3, session=2, address="10.0.0.1:7000")
    assert merge(elder, younger) == merge(younger, elder) == younger


members = st.builds(
    believed,
    status=st.sampled_from(Status),
    incarnation=st.integers(0, 3),
    session=st.integers(0, 1),
    address=st.sampled_from(["10.0.0.1:7000", "10.0.0.2:7000"]),
    weight=st.integers(1, 2),
)


@given(st.lists(members, min_size=1, max_size=4))
def test_the_order_in_which_rumours_arrive_does_not_matter(heard: list[Member]) -> None:
    ends = set()
    for order in permutations(heard):
        belief = None
        for rumour in order:
            belief = merge(belief, rumour)
        ends.add(belief)
    assert len(ends) == 1


@given(members, members, members)
def test_merging_is_a_join_of_a_semilattice(a: Member, b: Member, c: Member) -> None:
    assert merge(a, a) == a
    assert merge(a, b) == merge(b, a)
    assert merge(merge(a, b), c) == merge(a, merge(b, c))


@given(st.lists(members, min_size=1, max_size=8))
def test_a_belief_never_falls_back_to_a_lower_incarnation(heard: list[Member]) -> None:
    belief = heard[0]
    for rumour in heard[1:]:
        after = merge(belief, rumour)
        assert after.incarnation >= max(belief.incarnation, rumour.incarnation)
        belief = after


@given(members, members)
def test_exactly_one_of_two_different_beliefs_supersedes_the_other(a: Member, b: Member) -> None:
    assert supersedes(a, b) + supersedes(b, a) == (a != b)


def test_the_view_is_sorted_and_finds_members_by_id() -> None:
    some = [Member(id=NodeId(name), address=f"{name}:1") for name in "cab"]
    view = View.of(some, version=7)
    assert [member.id for member in view] == ["a", "b", "c"]
    assert view.get(NodeId("b")) is some[2]
    assert view.get(NodeId("z")) is None


def test_suspects_are_in_the_ring_and_the_dead_and_departed_are_not() -> None:
    some = [Member(id=NodeId(status.value), address="h:1", status=status) for status in Status]
    assert [member.status for member in View.of(some).ring_members] == [A, S]


@pytest.mark.parametrize(
    "change", [{"incarnation": 2}, {"address": "h:2"}, {"weight": 2}, {"zone": "z"}, {"status": Status.DEAD}]
)
def test_the_digest_differs_when_the_ring_would(change: dict[str, object]) -> None:
    one, other = Member(id=NodeId("a"), address="h:1"), Member(id=NodeId("b"), address="h:1")
    before = View.of([one, other]).digest
    assert View.of([other, one], version=9).digest == before
    assert View.of([replace(one, **change), other]).digest != before  # type: ignore[arg-type]


def test_the_digest_is_the_same_while_only_things_outside_the_ring_change() -> None:
    one = Member(id=NodeId("a"), address="h:1")
    dead = Member(id=NodeId("b"), address="h:1", status=Status.DEAD)
    suspected = replace(one, status=Status.SUSPECT, slots=9, meta=(("draining", "1"),))
    assert View.of([one]).digest == View.of([suspected, dead]).digest


def test_the_digest_tells_fields_apart_that_run_into_each_other() -> None:
    first = View.of([Member(id=NodeId("ab"), address="c:1")])
    second = View.of([Member(id=NodeId("a"), address="bc:1")])
    assert first.digest != second.digest
