"""The succession of a key's groups, and what is told of a quorum, each by itself."""

from __future__ import annotations

from membership.quorum import QuorumWatch
from membership.register import Group, Place, Record
from membership.register_effects import QuorumLost, QuorumRegained, RegisterEffect, Report
from membership.register_messages import Born
from membership.succession import Succession
from membership.tally import Tally
from tests.membership.bench import KEY, acceptor, members


def group(epoch: int, *numbers: int, settled: bool = False) -> Group:
    return Group(key=KEY, place=Place(0, epoch), members=members(*numbers), settled=settled)


def test_until_the_next_group_is_settled_the_one_before_can_be_gone_back_to() -> None:
    groups = Succession(group(0, 0, 1, 2, settled=True), None)
    groups.wish(members(1, 2, 3))
    sealed = groups.fulfil(Record(generation=0, epoch=0, members=members(0, 1, 2)))
    assert sealed.sealed
    groups.follow(sealed)
    assert groups.must_open
    assert groups.group == group(1, 1, 2, 3)
    assert groups.before(None) == group(0, 0, 1, 2)
    groups.settle()
    assert groups.before(None) is None


def test_a_wish_for_another_group_is_void_when_the_epoch_is_over() -> None:
    groups = Succession(group(0, 0, 1, 2), None)
    groups.wish(members(1, 2, 3))
    groups.move_to(group(1, 0, 1, 2))
    assert not groups.is_wished
    record = Record(generation=0, epoch=1, members=members(0, 1, 2))
    assert groups.fulfil(record) == record
    groups.move_to(group(0, 0, 1, 2))
    assert not groups.is_wished


def test_only_a_founder_gives_way_to_another_group_at_the_same_place() -> None:
    other = group(0, 3, 4, 5)
    assert not Succession(group(0, 0, 1, 2), None).supersedes(other)
    founding = Succession(group(0, 0, 1, 2), None)
    founding.found(Record(generation=0, epoch=0, members=members(0, 1, 2)))
    assert founding.supersedes(other)
    assert not founding.supersedes(group(0, 0, 1, 2))


def test_a_later_group_supersedes_and_an_earlier_one_never() -> None:
    groups = Succession(group(1, 0, 1, 2), None)
    assert groups.supersedes(group(2, 0, 1, 2))
    assert not groups.supersedes(group(0, 3, 4, 5))


def test_hearing_of_ones_own_group_settles_it() -> None:
    groups = Succession(group(1, 0, 1, 2), group(0, 0, 1, 2))
    assert not groups.supersedes(group(1, 0, 1, 2, settled=True))
    assert groups.group.settled


def test_a_lost_quorum_is_told_once_for_each_set_of_the_missing_and_once_when_it_is_back() -> None:
    mine = group(0, 0, 1, 2)
    tally = Tally(mine.members, 0.0, interval_s=1.0, interval_max_s=1.0)
    watch = QuorumWatch(patience_s=3.0)

    def told(effects: list[Report]) -> list[RegisterEffect | object]:
        return [effect.event for effect in effects]

    assert watch.lacks(mine, tally, 2, now=2.9) == []
    (lost,) = told(watch.lacks(mine, tally, 2, now=3.0))
    assert isinstance(lost, QuorumLost)
    assert lost.missing == mine.members
    assert watch.lacks(mine, tally, 2, now=4.0) == []
    one = acceptor(0)
    tally.votes[one] = Born(key=KEY, place=mine.place, acceptor=one)
    (lost,) = told(watch.lacks(mine, tally, 2, now=5.0))
    assert isinstance(lost, QuorumLost)
    assert one not in lost.missing
    assert told(watch.found(KEY)) == [QuorumRegained(key=KEY)]
    assert watch.found(KEY) == []
