"""Named locks and counters on a real register: one holder, growing tokens, additions that count once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from membership.locks import CLAIMANTS_MAX, Count, Lock, acquire, add, count_of, lock_of, release
from membership.register import Change, Record
from tests.membership.bench import Bench, members

EMPTY = Record(generation=0, epoch=0, members=members(0))


def applied(*changes: Change) -> Record:
    record = EMPTY
    for change in changes:
        record = Record(generation=0, epoch=0, members=members(0), payload=change(record))
    return record


def test_the_first_claimant_holds_the_lock_and_the_others_follow_in_order_with_growing_tokens() -> None:
    claims = [acquire("a"), acquire("b"), acquire("c")]
    assert lock_of(applied(*claims)) == Lock(1, ("a", "b", "c"))
    assert lock_of(applied(*claims, release("a"))) == Lock(2, ("b", "c"))
    assert lock_of(applied(*claims, release("a"), release("b"), release("c"))) == Lock(3, ())


def test_who_stops_waiting_changes_nothing_for_the_holder() -> None:
    assert lock_of(applied(acquire("a"), acquire("b"), release("b"))) == Lock(1, ("a",))


@pytest.mark.parametrize(
    ("before", "change"),
    [
        ((), acquire("a")),
        ((acquire("a"),), acquire("b")),
        ((acquire("a"), acquire("b")), release("a")),
        ((acquire("a"),), release("c")),
        ((add("x", 1, 5),), add("x", 2, 5)),
    ],
)
def test_a_change_that_is_applied_twice_is_applied_once(before: tuple[Change, ...], change: Change) -> None:
    assert applied(*before, change, change) == applied(*before, change)


def test_a_full_queue_takes_nobody_more() -> None:
    record = applied(*(acquire(f"c{number}") for number in range(CLAIMANTS_MAX)))
    assert acquire("late")(record) == record.payload
    assert "late" not in lock_of(record).claimants


names = st.sampled_from("abc")


@given(st.lists(st.one_of(st.builds(acquire, names), st.builds(release, names)), max_size=30))
def test_whatever_happens_a_new_holder_means_a_higher_token_and_only_that(changes: list[Change]) -> None:
    record = EMPTY
    for change in changes:
        before = lock_of(record)
        record = Record(generation=0, epoch=0, members=members(0), payload=change(record))
        after = lock_of(record)
        grew = after.holder is not None and after.holder != before.holder
        assert after.token == before.token + grew
        assert len(set(after.claimants)) == len(after.claimants)


def test_a_counter_adds_each_numbered_addition_once_whoever_repeats_it() -> None:
    record = applied(add("x", 1, 5), add("y", 1, 2), add("x", 1, 5), add("x", 2, -1), add("x", 1, 5))
    assert count_of(record) == Count(6, (("x", 2), ("y", 1)))


def test_two_nodes_that_claim_at_once_never_both_hold_the_lock() -> None:
    bench = Bench(3)
    bench.found(0, 1, 2)
    bench.introduce(1, 0, 1, 2)
    for number in (0, 1):
        bench.propose(number, acquire(f"n{number}"))
    bench.advance(5.0)
    first = lock_of(bench.look(0))
    assert (first.token, len(first.claimants)) == (1, 2)
    one, other = first.claimants
    bench.propose(0, release(one))
    assert lock_of(bench.look(1)) == Lock(2, (other,))
    bench.propose(1, release(other))
    assert lock_of(bench.look(0)) == Lock(2, ())
