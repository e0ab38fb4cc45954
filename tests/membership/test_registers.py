"""A node's registers as one machine: routing, its own messages, and the order of effects."""

from __future__ import annotations

import random

import pytest

from membership.errors import DamagedVote, UnknownRegister
from membership.register import Group, Place, Record
from membership.register_config import LOCAL_REGISTER
from membership.register_effects import Committed, Founded, Report, Save, SendTo
from membership.register_messages import AskHearing, Hearing, Unborn
from membership.registers import Registers
from membership.view import NodeId
from tests.membership.bench import KEY, Bench, acceptor, append, look, members


def alone() -> Registers:
    return Registers(me=acceptor(0), life=1, config=LOCAL_REGISTER, rng=random.Random(1), now=0.0)


def test_a_group_of_one_commits_within_one_call_with_every_save_before_what_rests_on_it() -> None:
    registers = alone()
    record = Record(generation=0, epoch=0, members=members(0))
    effects = registers.found(KEY, record, 0.0)
    assert [type(effect) for effect in effects] == [Save, Report]
    _, effects = registers.propose(KEY, append("a"), 0.0)
    assert [type(effect) for effect in effects] == [Save, Save, Report]  # promise, vote, commit
    assert isinstance(effects[-1], Report)
    assert isinstance(effects[-1].event, Committed)


def test_what_others_are_asked_leaves_before_our_own_disk_is_waited_for() -> None:
    effects = alone().found(KEY, Record(generation=0, epoch=0, members=members(0, 1, 2)), 0.0)
    assert [type(effect) for effect in effects] == [SendTo, SendTo, Save]


def test_a_key_that_nobody_told_us_of_cannot_be_used() -> None:
    registers = alone()
    for call in (
        lambda: registers.propose("unheard", look, 0.0),
        lambda: registers.lead("unheard", 0.0),
        lambda: registers.seal("unheard", members(0), 0.0),
    ):
        with pytest.raises(UnknownRegister):
            call()
    assert registers.group("unheard") is None


def test_a_key_that_our_acceptor_votes_for_can_be_used_after_a_restart() -> None:
    bench = Bench(3)
    bench.found(0, 1, 2)
    bench.propose(0, append("a"))
    bench.settle()
    bench.kill(2)
    bench.boot(2)
    assert bench.log(2) == "a"


def test_registers_do_not_mix() -> None:
    bench = Bench(3)
    for key in ("x", "y"):
        bench.found(0, 1, 2, key=key)
        bench.propose(0, append(key), key)
    bench.settle()
    assert (bench.log(0, "x"), bench.log(0, "y")) == ("x", "y")


def test_old_news_of_a_group_changes_nothing() -> None:
    bench = Bench(4)
    bench.found(0, 1, 2)
    bench.perform(0, bench[0].seal(KEY, members(1, 2, 3), bench.now))
    bench.settle()
    later = Group(key=KEY, place=Place(0, 1), members=members(1, 2, 3))
    assert bench[1].group(KEY) == later
    bench.introduce(1, 0, 1, 2)
    assert bench[1].group(KEY) == later


def test_a_node_without_a_part_in_a_key_hears_nobody_and_says_so() -> None:
    (answer,) = alone().receive(AskHearing(key="job", number=3), NodeId("n1"), 0.0)
    assert answer == SendTo(NodeId("n1"), Hearing(key="job", number=3, leader=None, fence=None))


def test_answers_in_another_nodes_name_and_for_unknown_keys_are_ignored() -> None:
    registers = alone()
    stray = Unborn(key="unheard", place=Place(0, 0), acceptor=acceptor(1), earlier=None)
    assert registers.receive(stray, NodeId("n1"), 0.0) == []


def test_a_closed_key_is_ticked_no_more_and_a_forgotten_one_leaves_the_disk() -> None:
    bench = Bench(3)
    bench.found(0, 1, 2)
    bench.kill(1)
    bench.kill(2)
    bench.propose(0, append("a"))
    assert bench[0].next_deadline() < float("inf")
    bench[0].close(KEY)
    assert bench[0].next_deadline() == float("inf")
    assert KEY in bench.hosts[0].saved
    bench.perform(0, bench[0].forget(KEY))
    assert bench.hosts[0].saved == {}
    assert bench[0].group(KEY) is None


def test_a_node_whose_votes_are_damaged_does_not_start_under_its_old_name() -> None:
    bench = Bench(1)
    bench.found(0)
    bench.hosts[0].saved[KEY] = bench.hosts[0].saved[KEY][:-1] + b"?"
    with pytest.raises(DamagedVote):
        bench.boot(0)


def test_an_idle_node_has_nothing_due() -> None:
    bench = Bench(3)
    bench.found(0, 1, 2)
    bench.propose(0, append("a"))
    bench.advance(5.0)
    assert [bench[number].next_deadline() for number in range(3)] == [float("inf")] * 3
    assert len(bench.hosts[0].told(Founded)) == 1
