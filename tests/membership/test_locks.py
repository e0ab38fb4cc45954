"""Named locks on a real register: one holder at a time, tokens that grow, changes that count once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from membership.locks import CLAIMANTS_MAX, Lock, LockTable, amend, locks_in
from membership.register import Change, Record
from tests.membership.bench import Bench, members


def record_of(payload: bytes = b"") -> Record:
    return Record(generation=0, epoch=0, members=members(0), payload=payload)


def claim(claimant: str, name: str = "x") -> Change:
    return amend(claims=[(name, claimant)])


def release(*claimants: str) -> Change:
    return amend(releases=claimants)


def applied(*changes: Change) -> LockTable:
    record = record_of()
    for change in changes:
        record = record_of(change(record))
    return locks_in(record)


def test_the_first_claimant_holds_the_lock_and_the_others_follow_in_order_with_growing_tokens() -> None:
    claims = [claim("a"), claim("b"), claim("c")]
    assert applied(*claims).get("x") == Lock(1, ("a", "b", "c"))
    assert applied(*claims, release("a")).get("x") == Lock(2, ("b", "c"))
    assert applied(*claims, release("a", "b", "c")) == LockTable(1)


def test_who_stops_waiting_changes_nothing_for_the_holder() -> None:
    assert applied(claim("a"), claim("b"), release("b")).get("x") == Lock(1, ("a",))


def test_a_lock_that_was_forgotten_goes_on_with_a_higher_token() -> None:
    table = applied(claim("a"), release("a"), claim("other", "y"), claim("b"))
    assert table.tokens() == {"other": 2, "b": 3}


def test_a_release_and_a_claim_in_one_change_hand_the_lock_on() -> None:
    handed_on = applied(claim("a"), amend(claims=[("x", "b")], releases=["a"]))
    assert handed_on.get("x") == Lock(2, ("b",))


@pytest.mark.parametrize(
    ("before", "change"),
    [
        ((), claim("a")),
        ((claim("a"),), claim("b")),
        ((claim("a"), claim("b")), release("a")),
        ((claim("a"),), release("c")),
        ((claim("a"),), amend(claims=[("x", "b"), ("y", "c")], releases=["a"])),
    ],
)
def test_a_change_that_is_applied_twice_is_applied_once(before: tuple[Change, ...], change: Change) -> None:
    assert applied(*before, change, change) == applied(*before, change)


def test_a_full_table_takes_nobody_more() -> None:
    record = record_of(amend(claims=[("x", f"c{number}") for number in range(CLAIMANTS_MAX)])(record_of()))
    assert claim("late")(record) == record.payload
    assert "late" not in locks_in(record).claimants()


claimants = st.sampled_from("abcd")
changes = st.builds(
    amend, st.lists(st.tuples(st.sampled_from("xy"), claimants), max_size=3), st.lists(claimants, max_size=3)
)


@given(st.lists(changes, max_size=30))
def test_whatever_happens_a_new_holder_means_a_higher_token_and_only_that(changes: list[Change]) -> None:
    record = record_of()
    highest: dict[str, int] = {}
    for change in changes:
        before = locks_in(record)
        record = record_of(change(record))
        after = locks_in(record)
        assert len(set(after.claimants())) == len(list(after.claimants()))
        for name, lock in after.locks:
            held = before.get(name)
            if held is not None and held.holder == lock.holder:
                assert lock.token == held.token
            else:
                assert lock.token > highest.get(name, 0)
            highest[name] = lock.token


def test_two_nodes_that_claim_at_once_never_both_hold_the_lock() -> None:
    bench = Bench(3)
    bench.found(0, 1, 2)
    bench.introduce(1, 0, 1, 2)
    for number in (0, 1):
        bench.propose(number, claim(f"n{number}"))
    bench.advance(5.0)
    first = locks_in(bench.look(0)).get("x")
    assert first is not None
    assert (first.token, len(first.claimants)) == (1, 2)
    one, other = first.claimants
    bench.propose(0, release(one))
    assert locks_in(bench.look(1)).get("x") == Lock(2, (other,))
    bench.propose(1, release(other))
    assert locks_in(bench.look(0)) == LockTable(2)
