"""Ballots, groups, records: the values that a register is made of."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from membership.config import LAN
from membership.errors import InvalidConfig, InvalidGroup
from membership.register import (
    NO_BALLOT,
    Ballot,
    BallotSource,
    Fence,
    Group,
    Place,
    Record,
    derive,
    majority,
    next_group,
    seal,
    successor,
)
from membership.register_config import LAN_REGISTER, LOCAL_REGISTER, RegisterConfig
from membership.view import NodeId
from tests.membership.bench import acceptor, append, members

ids = st.integers(0, 12).map(acceptor)
groups = st.lists(ids, min_size=1, max_size=7, unique=True).map(tuple)


def never(_payload: bytes) -> bool:
    return False


@pytest.mark.parametrize("count", range(1, 8))
def test_any_two_majorities_of_one_group_share_a_member(count: int) -> None:
    group = members(*range(count))
    for one in combinations(group, majority(group)):
        for other in combinations(group, majority(group)):
            assert set(one) & set(other)


@given(st.lists(st.integers(0, 50)))
def test_a_ballot_outbids_what_it_was_taken_above_and_is_never_handed_out_twice(rounds: list[int]) -> None:
    source = BallotSource(NodeId("a"), 7)
    taken = []
    for number in rounds:
        rival = Ballot(number, NodeId("z"), 9)
        ballot = source.above(rival)
        assert ballot > rival > NO_BALLOT or number == 0
        taken.append(ballot)
    assert sorted(set(taken)) == taken


def test_ballots_of_two_nodes_or_two_lives_differ_whatever_their_rounds() -> None:
    sources = [BallotSource(NodeId("a"), 1), BallotSource(NodeId("a"), 2), BallotSource(NodeId("b"), 1)]
    assert len({source.above(NO_BALLOT) for source in sources}) == 3


def test_a_fence_of_a_later_group_is_higher_whatever_the_ballots() -> None:
    low, high = Ballot(1, NodeId("a"), 1), Ballot(9, NodeId("a"), 1)
    assert (
        Fence(Place(0, 0), low) < Fence(Place(0, 0), high) < Fence(Place(0, 1), low) < Fence(Place(1, 0), low)
    )


def test_a_change_makes_the_next_payload_and_nothing_else() -> None:
    record = Record(generation=2, epoch=3, members=members(0, 1, 2), payload=b"a")
    changed = derive(record, append("b"), never)
    assert changed == Record(generation=2, epoch=3, members=members(0, 1, 2), payload=b"a b")


def test_a_sealed_record_absorbs_every_change_and_every_other_seal() -> None:
    sealed = seal(Record(generation=0, epoch=0, members=members(0), payload=b"a"), members(1))
    assert derive(sealed, append("b"), never) is sealed
    assert seal(sealed, members(2)) is sealed


def test_a_terminal_payload_absorbs_changes_but_can_still_be_handed_on() -> None:
    record = Record(generation=0, epoch=0, members=members(0), payload=b"a")
    terminal = derive(record, append("END"), lambda payload: payload.endswith(b"END"))
    assert terminal.terminal
    assert derive(terminal, append("b"), never) is terminal
    heir = successor(seal(terminal, members(1)))
    assert (heir.payload, heir.terminal, heir.members) == (b"a END", True, members(1))


def test_the_next_epoch_begins_with_what_the_last_one_ended_with() -> None:
    sealed = seal(Record(generation=4, epoch=7, members=members(0, 1, 2), payload=b"a"), members(2, 3, 4))
    assert successor(sealed) == Record(generation=4, epoch=8, members=members(2, 3, 4), payload=b"a")


@pytest.mark.parametrize("wrong", [(), members(1, 1)])
def test_a_group_without_members_or_with_one_twice_is_refused(wrong: tuple[object, ...]) -> None:
    with pytest.raises(InvalidGroup):
        Record(generation=0, epoch=0, members=wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidGroup):
        Group(key="k", place=Place(0, 0), members=wrong)  # type: ignore[arg-type]


# -- the next group --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "alive", "size", "expected"),
    [
        ((0, 1, 2), (0, 1, 2, 3), 3, None),  # all well
        ((0, 1, 2), (0, 2, 3), 3, (0, 2, 3)),  # one replaced; who stays keeps the place
        ((0, 1, 2), (3, 4, 5), 3, (3, 4, 5)),  # all replaced
        ((0, 1, 2), (0, 2), 3, None),  # nobody to replace it with: two of three go on
        ((0, 1, 2, 3, 4), (0, 1, 2, 3), 5, (0, 1, 2)),  # the largest odd number alive
        ((0, 1, 2), (0, 1, 2, 3, 4), 5, (0, 1, 2, 3, 4)),  # grown again
        ((0, 1, 2), (0, 1, 2, 3), 5, None),  # not enough to grow
        ((0,), (0, 1), 1, None),
        ((0,), (1,), 1, (1,)),
        ((0, 1, 2), (), 3, None),
    ],
)
def test_the_next_group(
    group: tuple[int, ...], alive: tuple[int, ...], size: int, expected: tuple[int, ...] | None
) -> None:
    wanted = None if expected is None else members(*expected)
    assert next_group(members(*group), members(*alive), size) == wanted


@given(groups, groups, st.sampled_from([1, 3, 5, 7]))
def test_a_next_group_is_odd_alive_large_enough_and_final(
    group: tuple[object, ...], alive: tuple[object, ...], size: int
) -> None:
    chosen = next_group(group, alive, size)  # type: ignore[arg-type]
    if chosen is None:
        return
    assert len(chosen) % 2 == 1
    assert min(size, 3) <= len(chosen) <= size
    assert set(chosen) <= set(alive)
    assert next_group(chosen, alive, size) is None  # type: ignore[arg-type]


# -- settings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"retransmit_s": 9.0}, ("retransmit_s", "retransmit_max_s")),
        ({"rest_s": 9.0}, ("rest_s", "rest_max_s")),
        ({"quorum_patience_s": 0.05}, ("quorum_patience_s", "retransmit_s")),
        ({"heartbeat_s": 0.5}, ("heartbeat_s", "silence_s")),
        ({"desertion_s": 0.5}, ("desertion_s", "silence_s")),
        ({"stagger_s": 0.1}, ("stagger_s", "poll_timeout_s")),
        ({"keys_max": 0}, ("keys_max",)),
        ({"batch_s": -1.0}, ("batch_s",)),
    ],
)
def test_settings_that_contradict_each_other_are_refused_by_name(
    changed: dict[str, float], named: tuple[str, ...]
) -> None:
    values = {name: getattr(LOCAL_REGISTER, name) for name in LOCAL_REGISTER.__slots__} | changed
    with pytest.raises(InvalidConfig) as refusal:
        RegisterConfig(**values)  # type: ignore[arg-type]
    assert all(name in str(refusal.value) for name in named)


def test_a_leader_is_missed_before_membership_has_buried_it() -> None:
    assert LAN_REGISTER.silence_s < LAN.probe_period_s + LAN.suspicion_min_s(3)
