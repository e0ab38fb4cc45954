"""What an acceptor answers, for each cell of its table, and that it is on disk before it is said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from membership.acceptor import Acceptor, Vote, decode_vote, encode_vote
from membership.errors import DamagedVote
from membership.register import NO_BALLOT, Ballot, Group, Place, Record
from membership.register_config import LOCAL_REGISTER
from membership.register_effects import RegisterEffect, Save, SendTo
from membership.register_messages import (
    Accept,
    Accepted,
    Birth,
    Born,
    Nack,
    Prepare,
    Promise,
    RegisterMessage,
    Request,
    Unborn,
)
from membership.view import NodeId
from tests.membership.bench import acceptor, members

ME = acceptor(0)
ASKER = NodeId("asker")
GROUP = members(0, 1, 2)
LATER = members(0, 3, 4)
FIRST = Record(generation=0, epoch=0, members=GROUP, payload=b"first")


def ballot(number: int) -> Ballot:
    return Ballot(number, ASKER, 1)


def prepare(number: int, place: Place = FIRST.place) -> Prepare:
    return Prepare(key="k", place=place, ballot=ballot(number), to=ME)


def accept(number: int, record: Record = FIRST, promise: int = 0) -> Accept:
    promised = ballot(max(number, promise))
    return Accept(key="k", ballot=ballot(number), promise=promised, record=record, to=ME)


def birth(record: Record = FIRST) -> Birth:
    return Birth(key="k", record=record, to=ME)


class Disk:
    """An acceptor on a disk that can be restarted."""

    def __init__(self) -> None:
        self.saved: dict[str, bytes] = {}
        self.acceptor = Acceptor(ME, LOCAL_REGISTER)

    def say(self, *requests: Request) -> RegisterMessage | None:
        """Make requests; returns the answer to the last one."""
        answer: RegisterMessage | None = None
        for request in requests:
            answer = None
            for effect in self.acceptor.receive(request, ASKER, 0.0):
                match effect:
                    case Save(key, bytes() as state):
                        self.saved[key] = state
                    case SendTo(to, message):
                        assert to == ASKER
                        answer = message
        return answer

    def restart(self) -> Disk:
        self.acceptor = Acceptor(ME, LOCAL_REGISTER, self.saved)
        return self


def born() -> Disk:
    disk = Disk()
    assert isinstance(disk.say(birth()), Born)
    return disk


# -- the table -------------------------------------------------------------------------------------------


def test_the_unborn_promise_nothing_and_say_so() -> None:
    assert isinstance(Disk().say(prepare(1)), Unborn)


def test_the_unborn_name_the_group_that_they_still_vote_in() -> None:
    answer = born().say(prepare(1, Place(0, 1)))
    assert isinstance(answer, Unborn)
    assert answer.earlier == Group(key="k", place=Place(0, 0), members=GROUP)


def test_a_birth_is_what_the_first_promise_tells() -> None:
    answer = born().say(prepare(1))
    assert isinstance(answer, Promise)
    assert (answer.accepted, answer.record) == (NO_BALLOT, FIRST)


def test_a_promise_refuses_lower_ballots_to_prepare_and_to_accept() -> None:
    disk = born()
    disk.say(prepare(5))
    for request in (prepare(4), accept(4)):
        answer = disk.say(request)
        assert isinstance(answer, Nack)
        assert answer.promised == ballot(5)
    assert isinstance(disk.say(prepare(5)), Promise)
    assert isinstance(disk.say(accept(5)), Accepted)


def test_an_accept_promises_the_next_ballot_with_it() -> None:
    disk = born()
    disk.say(accept(3, promise=7))
    assert isinstance(disk.say(prepare(6)), Nack)
    assert isinstance(disk.say(accept(7)), Accepted)


def test_a_promise_tells_what_was_accepted_last() -> None:
    disk = born()
    second = replace(FIRST, payload=b"second")
    disk.say(accept(3, second))
    answer = disk.say(prepare(4))
    assert isinstance(answer, Promise)
    assert (answer.accepted, answer.record) == (ballot(3), second)


def test_an_accept_that_comes_twice_is_confirmed_again_though_more_was_promised_since() -> None:
    disk = born()
    disk.say(accept(3, promise=4), prepare(9))
    assert isinstance(disk.say(accept(3, promise=4)), Accepted)
    assert isinstance(disk.say(accept(8)), Nack)


def test_a_second_birth_changes_nothing() -> None:
    disk = born()
    disk.say(accept(3, replace(FIRST, payload=b"second")))
    assert isinstance(disk.say(birth()), Born)
    vote = disk.acceptor.get("k")
    assert vote is not None
    assert vote.record.payload == b"second"


def test_an_accept_of_a_later_epoch_is_a_birth() -> None:
    disk = born()
    later = Record(generation=0, epoch=1, members=LATER, payload=b"later")
    assert isinstance(disk.say(accept(2, later)), Accepted)
    answer = disk.say(prepare(1, FIRST.place))
    assert isinstance(answer, Group)
    assert (answer.place, answer.members) == (Place(0, 1), LATER)


@pytest.mark.parametrize("request_", [prepare(9), accept(9), birth()])
def test_who_was_born_later_answers_for_an_earlier_epoch_with_the_later_group_only(request_: Request) -> None:
    disk = born()
    disk.say(birth(Record(generation=0, epoch=1, members=LATER)))
    assert isinstance(disk.say(request_), Group)
    vote = disk.acceptor.get("k")
    assert vote is not None
    assert vote.place == Place(0, 1)


def test_another_generation_ends_the_one_before() -> None:
    disk = born()
    disk.say(birth(Record(generation=1, epoch=0, members=LATER)))
    assert isinstance(disk.say(prepare(9)), Group)
    assert isinstance(disk.say(accept(9)), Group)


def test_of_two_founders_with_different_groups_the_first_is_served() -> None:
    disk = born()
    other = Record(generation=0, epoch=0, members=LATER)
    for request in (birth(other), accept(9, other)):
        answer = disk.say(request)
        assert isinstance(answer, Group)
        assert answer.members == GROUP


def test_who_is_left_out_of_the_next_group_forgets_its_vote_and_names_that_group() -> None:
    disk = born()
    successors = Group(key="k", place=Place(0, 1), members=members(3, 4, 5), settled=True)
    assert disk.say(successors) is None
    for request in (prepare(9), accept(9), prepare(9, Place(0, 1)), birth()):
        assert disk.restart().say(request) == successors


def test_it_keeps_its_vote_while_the_next_group_may_still_need_it() -> None:
    disk = born()
    disk.say(Group(key="k", place=Place(0, 1), members=members(3, 4, 5)))
    assert isinstance(disk.say(prepare(1)), Promise)


def test_a_group_is_settled_when_somebody_accepted_in_it() -> None:
    disk = born()
    group = disk.acceptor.group("k")
    assert group is not None
    assert not group.settled
    disk.say(accept(1))
    group = disk.acceptor.group("k")
    assert group is not None
    assert group.settled


def test_a_member_of_the_next_group_keeps_voting_until_it_is_born_there() -> None:
    disk = born()
    disk.say(Group(key="k", place=Place(0, 1), members=LATER))
    assert isinstance(disk.say(prepare(1)), Promise)


@pytest.mark.parametrize("request_", [prepare(1), accept(1), birth()])
def test_what_is_meant_for_another_disk_is_not_answered(request_: Prepare | Accept | Birth) -> None:
    assert born().say(replace(request_, to=acceptor(0, "lost"))) is None


@pytest.mark.parametrize("request_", [birth, lambda record: accept(1, record)])
def test_who_is_no_member_does_not_vote(request_: type) -> None:
    stranger = Record(generation=0, epoch=1, members=members(3, 4, 5))
    disk = born()
    assert disk.say(request_(stranger)) is None
    assert isinstance(disk.say(prepare(1)), Promise)


def test_a_full_acceptor_takes_no_further_key_and_serves_those_it_has() -> None:
    full = Acceptor(ME, replace(LOCAL_REGISTER, keys_max=1))
    full.receive(birth(), ASKER, 0.0)
    assert full.receive(replace(birth(), key="other"), ASKER, 0.0) == []
    assert full.receive(replace(accept(1), key="other"), ASKER, 0.0) == []
    assert full.receive(prepare(1), ASKER, 0.0)


def test_a_forgotten_key_is_removed_from_disk_too() -> None:
    disk = born()
    assert disk.acceptor.forget("k") == [Save("k", None)]
    assert disk.acceptor.forget("k") == []
    assert isinstance(disk.say(prepare(1)), Unborn)


# -- on disk, and before it is said ----------------------------------------------------------------------

records = st.builds(
    Record,
    generation=st.integers(0, 2),
    epoch=st.integers(0, 2),
    members=st.sampled_from([GROUP, LATER, members(3, 4, 5)]),
    sealed_to=st.sampled_from([(), LATER]),
    payload=st.binary(max_size=4),
    terminal=st.booleans(),
)
places = st.builds(Place, st.integers(0, 2), st.integers(0, 2))
requests = st.one_of(
    st.builds(prepare, st.integers(1, 9), places),
    st.builds(accept, st.integers(1, 9), records, st.integers(1, 9)),
    st.builds(birth, records),
    st.builds(
        lambda place, settled: Group(key="k", place=place, members=members(3, 4, 5), settled=settled),
        places,
        st.booleans(),
    ),
)


def saves_first(effects: Sequence[RegisterEffect]) -> bool:
    kinds = [isinstance(effect, Save) for effect in effects]
    return kinds == sorted(kinds, reverse=True)


@given(st.lists(requests, max_size=30))
def test_whatever_is_asked_promises_only_grow_and_are_saved_before_they_are_said(
    asked: list[Request],
) -> None:
    disk = Disk()
    before: Vote | None = None
    for request in asked:
        effects = disk.acceptor.receive(request, ASKER, 0.0)
        assert saves_first(effects)
        vote = disk.acceptor.get("k")
        assert (vote != before) == any(isinstance(effect, Save) for effect in effects)
        if before is not None:
            assert vote is not None
            assert vote.place >= before.place
            if vote.place == before.place:
                assert vote.promised >= before.promised
                assert vote.accepted >= before.accepted
        before = vote


@given(st.lists(requests, max_size=20))
def test_a_restarted_acceptor_is_the_one_that_stopped(asked: list[Request]) -> None:
    disk = Disk()
    disk.say(*asked)
    before = disk.acceptor.get("k")
    assert disk.restart().acceptor.get("k") == before


@given(st.builds(Vote, st.builds(ballot, st.integers(0, 9)), st.builds(ballot, st.integers(0, 9)), records))
def test_a_vote_survives_its_form_on_disk(vote: Vote) -> None:
    assert decode_vote(encode_vote(vote)) == vote


@pytest.mark.parametrize("byte", [0, 3, 10, -1])
def test_a_damaged_vote_is_a_lost_disk_not_another_vote(byte: int) -> None:
    state = bytearray(encode_vote(Vote(ballot(1), ballot(1), FIRST)))
    state[byte] ^= 1
    with pytest.raises(DamagedVote):
        Acceptor(ME, LOCAL_REGISTER, {"k": bytes(state)})


@pytest.mark.parametrize("length", [0, 5, 20])
def test_a_torn_vote_is_a_lost_disk(length: int) -> None:
    with pytest.raises(DamagedVote):
        decode_vote(encode_vote(Vote(ballot(1), ballot(1), FIRST))[:length])
