"""How a register goes from one group to the next: sealed epochs, heirs, generations, and who comes late.

Once an epoch is sealed it ends with what it held, and the next begins with that, when a majority of its own
members has been born. Whoever began this may die at any moment: another completes it, and until the next
group is settled the one before can open it again.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from membership.errors import InvalidGroup
from membership.register import Group, Place, Record
from membership.register_effects import Committed, Founded, GroupChanged, Leads, QuorumLost
from membership.register_messages import Accept, Birth, Prepare
from membership.view import NodeId
from tests.membership.bench import KEY, Bench, acceptor, append, lead, members, to


def five() -> Bench:
    """Five nodes with a register at the first three."""
    bench = Bench(5)
    bench.found(0, 1, 2)
    for number in range(1, 5):
        bench.introduce(number, 0, 1, 2)
    bench.propose(0, append("a"))
    bench.settle()
    bench.sent.clear()
    return bench


def seal(bench: Bench, by: int, *numbers: int) -> None:
    bench.perform(by, bench[by].seal(KEY, members(*numbers), bench.now))


# -- sealing, opening, following -------------------------------------------------------------------------


def test_a_sealed_epoch_goes_on_in_the_next_with_what_it_ended_with() -> None:
    bench = five()
    seal(bench, 0, 2, 3, 4)
    bench.settle()
    assert bench.hosts[0].told(GroupChanged) == [
        GroupChanged(group=Group(key=KEY, place=Place(0, 1), members=members(2, 3, 4)))
    ]
    for number in range(5):
        assert bench.log(number) == "a"


def test_nothing_is_accepted_in_the_next_epoch_before_a_majority_of_it_is_born() -> None:
    bench = five()
    bench.lost = lambda letter: letter.to in to(3, 4) and isinstance(letter.message, Birth)
    seal(bench, 0, 2, 3, 4)
    bench.settle()
    later = [
        letter.message
        for letter in bench.sent
        if isinstance(letter.message, Prepare | Accept)
        and (letter.message.place if isinstance(letter.message, Prepare) else letter.message.record.place)
        == Place(0, 1)
    ]
    assert later == []
    bench.lost = lambda _letter: False
    bench.advance(1.0)
    assert bench.hosts[0].told(GroupChanged)


def test_changes_that_meet_a_sealed_record_wait_for_the_next_epoch() -> None:
    bench = five()
    bench.lost = lambda letter: isinstance(letter.message, Birth)
    seal(bench, 0, 0, 3, 4)
    bench.settle()
    bench.propose(1, append("b"))  # finds the seal, and may not write behind it
    bench.advance(0.5)
    assert not bench.hosts[1].told(Committed)
    bench.lost = lambda _letter: False
    bench.advance(5.0)
    assert bench.hosts[1].told(Committed)[-1].record.place == Place(0, 1)
    assert bench.log(3) == "a b"


def test_a_seal_that_its_proposer_does_not_survive_is_completed_by_another() -> None:
    bench = five()
    bench.lost = lambda letter: isinstance(letter.message, Birth) and letter.to != NodeId("n3")
    seal(bench, 0, 2, 3, 4)
    bench.settle()
    bench.kill(0)
    bench.lost = lambda _letter: False
    bench.propose(1, append("b"))
    bench.advance(5.0)
    assert bench.log(4) == "a b"
    assert bench[1].group(KEY) == Group(key=KEY, place=Place(0, 1), members=members(2, 3, 4))


def test_an_epoch_of_which_only_one_is_born_is_completed_without_the_old_group() -> None:
    bench = five()
    bench.lost = lambda letter: isinstance(letter.message, Birth) and letter.to != NodeId("n3")
    seal(bench, 0, 2, 3, 4)
    bench.settle()
    for number in (0, 1):
        bench.kill(number)
    bench.lost = lambda _letter: False
    bench.propose(3, append("b"))  # born in the next epoch, it knows the group and helps the others
    bench.advance(5.0)
    assert bench.log(4) == "a b"


@pytest.mark.parametrize("asker", [1, 2, 4])
def test_an_epoch_whose_only_born_member_is_lost_is_opened_again_by_the_group_before(asker: int) -> None:
    bench = five()
    bench.lost = lambda letter: isinstance(letter.message, Birth) and letter.to != NodeId("n3")
    seal(bench, 0, 2, 3, 4)
    bench.settle()
    bench.kill(0)
    bench.lost = lambda _letter: False
    heirs = Group(key=KEY, place=Place(0, 1), members=members(2, 3, 4))
    bench.perform(asker, bench[asker].learn(heirs, bench.now))  # it has heard of the next group ...
    bench.kill(3, wipe=True)  # ... of which nobody is left that was born there
    bench.propose(asker, append("b"))
    bench.advance(5.0)
    assert bench.log(asker) == "a b"
    assert bench[asker].group(KEY) == heirs


def test_a_settled_epoch_that_lost_its_majority_is_reported_lost_and_not_opened_again() -> None:
    bench = five()
    bench.lost = lambda letter: isinstance(letter.message, Birth) and letter.to == NodeId("n4")
    seal(bench, 0, 2, 3, 4)
    bench.settle()
    bench.lost = lambda letter: letter.to == NodeId("n4")
    bench.propose(0, append("b"))
    bench.settle()  # n2 and n3 accepted, n4 is unborn still
    for number in (2, 3):
        bench.kill(number, wipe=True)
    bench.lost = lambda _letter: False
    bench.propose(1, append("c"))
    bench.advance(10.0)
    (lost,) = bench.hosts[1].told(QuorumLost)
    assert lost.group == Group(key=KEY, place=Place(0, 1), members=members(2, 3, 4))
    assert acceptor(3) in lost.missing


def test_a_restarted_sealer_remembers_the_group_before_by_its_own_vote() -> None:
    bench = five()
    bench.lost = lambda letter: isinstance(letter.message, Birth)
    seal(bench, 0, 3, 4, 2)
    bench.settle()
    for number in (0, 1):
        bench.kill(number)
        bench.boot(number)
    bench.lost = lambda _letter: False
    heirs = Group(key=KEY, place=Place(0, 1), members=members(3, 4, 2))
    bench.perform(1, bench[1].learn(heirs, bench.now))
    assert bench.log(1) == "a"


def test_of_two_seals_of_one_epoch_one_is_chosen_and_both_sealers_follow_it() -> None:
    bench = five()
    seal(bench, 0, 0, 1, 3)
    seal(bench, 1, 0, 1, 4)
    bench.advance(5.0)
    assert bench.log(0) == bench.log(1) == "a"
    assert bench[0].group(KEY) == bench[1].group(KEY)


def test_a_seal_for_an_epoch_that_is_over_does_nothing() -> None:
    bench = five()
    bench.lost = lambda letter: letter.to == NodeId("n1")
    seal(bench, 1, 0, 1, 3)  # n1 is cut off, and asks in vain
    seal(bench, 0, 2, 3, 4)
    bench.settle()
    bench.lost = lambda _letter: False
    bench.advance(5.0)
    assert bench.log(1) == "a"
    assert bench[1].group(KEY) == Group(key=KEY, place=Place(0, 1), members=members(2, 3, 4))


def test_a_leader_goes_on_leading_in_the_epoch_it_opened_under_a_higher_fence() -> None:
    bench = five()
    lead(bench, 0)
    seal(bench, 0, 2, 3, 4)
    bench.settle()
    before, after = bench.hosts[0].told(Leads)
    assert before.fence < after.fence
    assert after.record.place == Place(0, 1)
    assert bench[0].proposers[KEY].leads


def test_those_left_out_send_late_comers_to_the_next_group() -> None:
    bench = five()
    bench.kill(4)
    seal(bench, 0, 1, 2, 3)
    bench.settle()
    bench.boot(4)
    bench.introduce(4, 0, 1, 2)  # the handle is old
    assert bench.log(4) == "a"


def test_a_peer_that_lost_its_disk_is_another_acceptor_and_votes_only_when_an_epoch_names_it() -> None:
    bench = five()
    bench.kill(2, wipe=True)
    bench.boot(2)
    bench.kill(1)
    bench.propose(0, append("b"))
    bench.advance(3.0)
    (lost,) = bench.hosts[0].told(QuorumLost)
    assert lost.missing == members(1, 2)
    bench.boot(1)
    bench.advance(3.0)
    heirs = (acceptor(0), acceptor(1), acceptor(2, "d2"))
    bench.perform(0, bench[0].seal(KEY, heirs, bench.now))
    bench.settle()
    bench.kill(1)
    assert bench.log(0) == "a b"


# -- founding again --------------------------------------------------------------------------------------


def test_the_founder_may_begin_another_generation_and_the_lost_one_ends() -> None:
    bench = five()
    for number in (1, 2):
        bench.kill(number, wipe=True)
    record = Record(generation=1, epoch=0, members=members(0, 3, 4), payload=b"again")
    bench.perform(0, bench[0].found(KEY, record, bench.now))
    bench.advance(2.0)
    assert bench.hosts[0].told(Founded)[-1].group.place == Place(1, 0)
    assert bench.log(0) == bench.log(3) == "again"


def test_a_founder_that_comes_again_is_not_given_a_group_that_may_never_be_born() -> None:
    bench = five()
    bench.lost = lambda letter: isinstance(letter.message, Birth)
    seal(bench, 0, 2, 3, 4)
    bench.settle()
    again = Record(generation=0, epoch=0, members=members(0, 1, 2))
    bench.lost = lambda _letter: False
    bench.perform(0, bench[0].found(KEY, again, bench.now))
    bench.settle()
    assert bench.hosts[0].told(Founded)[-1].group == Group(
        key=KEY, place=Place(0, 0), members=members(0, 1, 2)
    )
    assert bench.log(0) == "a"


def test_a_founder_that_comes_again_is_told_who_keeps_the_register_now() -> None:
    bench = five()
    seal(bench, 0, 2, 3, 4)
    bench.settle()
    again = Record(generation=0, epoch=0, members=members(0, 1, 2))
    bench.kill(1)
    bench.boot(1)
    bench.perform(1, bench[1].found(KEY, again, bench.now))
    bench.settle()
    assert bench.hosts[1].told(Founded)[-1].group == Group(
        key=KEY, place=Place(0, 1), members=members(2, 3, 4)
    )


@pytest.mark.parametrize("changes", [{"epoch": 1}, {"sealed_to": members(1)}])
def test_only_an_open_record_of_epoch_0_founds_a_register(changes: dict[str, object]) -> None:
    record = replace(Record(generation=0, epoch=0, members=members(0)), **changes)  # type: ignore[arg-type]
    with pytest.raises(InvalidGroup):
        Bench(1)[0].found(KEY, record, 0.0)
