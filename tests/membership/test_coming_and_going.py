"""Joining, leaving, being cut off, coming back, being forgotten."""

from __future__ import annotations

from dataclasses import replace

import pytest

from membership.config import LAN, LOCAL
from membership.effects import (
    Announce,
    MemberDied,
    MemberJoined,
    MemberLeft,
    MemberReturned,
    MemberSuspected,
    SeedSilent,
)
from membership.errors import InvalidMember, SwimStopped
from membership.history import Cause
from membership.messages import Gossip, Rumour
from membership.view import Status
from tests.membership.cluster import Cluster, node, record

SEED = record(0).address


def partition(cluster: Cluster, left: set[int]) -> None:
    island = {record(number).address for number in left}
    cluster.cut = lambda source, to: (source in island) != (to in island)


# Joining.


@pytest.mark.parametrize("config", [LOCAL, LAN], ids=["local", "lan"])
def test_sixteen_peers_started_together_agree_soon(config: object) -> None:
    cluster = Cluster(0, config=config)
    for number in range(16):
        cluster.add(record(number), seeds=[SEED])
    assert cluster.run_until(cluster.agreed, 10) <= 3.0
    joined = [(who, event.member.id) for _, who, event in cluster.announced(MemberJoined)]
    assert len(joined) == len(set(joined)) == 16 * 15


def test_a_seed_that_is_down_at_the_start_is_announced_once_and_retried_for_ever() -> None:
    cluster = Cluster(0)
    lonely = cluster.add(record(1), seeds=[SEED])
    cluster.run(600)
    assert [event for _, _, event in cluster.events] == [SeedSilent(SEED)]
    assert lonely.view.alive == (lonely.me,)
    cluster.add(record(0))
    assert cluster.run_until(cluster.agreed, 60) <= LAN.join_retry_s + 1


def test_a_silent_seed_is_retried_at_low_rate_once_others_are_known() -> None:
    cluster = Cluster(0)
    cluster.add(record(1))
    cluster.add(record(2), seeds=[record(1).address, SEED])
    cluster.run(1)
    before = sum(1 for _, _, to, _ in cluster.log if to == SEED)
    cluster.run(100)
    assert sum(1 for _, _, to, _ in cluster.log if to == SEED) - before <= 100 / LAN.reconnect_period_s + 1


def test_a_seed_that_is_our_own_address_under_another_name_is_not_asked_for_ever() -> None:
    cluster = Cluster(0)
    swim = cluster.add(record(0), seeds=["localhost:7000"])
    cluster.at["localhost:7000"] = cluster.hosts[node(0)]
    cluster.run(600)
    assert cluster.sent["SyncRequest"] == 1
    assert len(swim.view) == 1
    assert cluster.events == []


def test_a_peer_that_starts_alone_sleeps_and_needs_nobody() -> None:
    cluster = Cluster(0)
    swim = cluster.add(record(0))
    cluster.run(100)
    assert swim.next_deadline() == float("inf")
    assert cluster.log == []


def test_a_peer_that_knows_others_who_have_forgotten_it_is_introduced_by_its_first_ping() -> None:
    cluster = Cluster(0)
    cluster.add(record(0))
    cluster.add(record(1), known=[record(0)])
    cluster.run_until(cluster.agreed, LAN.probe_period_s + 1)


@pytest.mark.parametrize("wrong", [{"id": ""}, {"address": ""}, {"status": Status.DEAD}])
def test_a_record_nobody_can_start_with_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidMember):
        Cluster(0).add(record(0, **wrong))


def test_more_members_than_allowed_are_not_taken_in() -> None:
    cluster = Cluster(3, config=replace(LAN, members_max=4))
    for number in (7, 8, 9):
        cluster[0].receive(Gossip(rumours=(Rumour(member=record(number)),)), node(1), 0.1)
    assert len(cluster[0].view) == 4


# Leaving.


def test_a_graceful_leave_is_known_to_all_suspected_by_nobody_and_soon_over() -> None:
    cluster = Cluster(10)
    cluster.run(2)
    host = cluster.hosts[node(9)]
    cluster.perform(host, host.swim.leave(cluster.now))
    assert cluster.run_until(lambda: host.swim.has_left, 10) < 2.0
    cluster.kill(9)
    assert cluster.status(9) == {Status.LEFT}
    cluster.run(60)
    assert cluster.announced(MemberSuspected) == []
    assert cluster.announced(MemberDied) == []
    assert len(cluster.announced(MemberLeft)) == 9
    assert host.swim.next_deadline() == float("inf")


def test_a_leaving_peer_still_answers_pings() -> None:
    cluster = Cluster(3)
    cluster[2].leave(0.1)
    from membership.messages import Ack, Ping

    effects = cluster[2].receive(Ping(number=5, target=node(2), reply_to=SEED), node(0), 0.2)
    assert [type(effect.message) for effect in effects] == [Ack]


def test_a_leave_that_nobody_hears_times_out() -> None:
    cluster = Cluster(3)
    cluster.run(1)
    cluster.kill(0)
    cluster.kill(1)
    host = cluster.hosts[node(2)]
    cluster.perform(host, host.swim.leave(cluster.now))
    assert cluster.run_until(lambda: host.swim.has_left, 60) <= LAN.leave_timeout_s + 0.1


def test_the_last_one_leaves_at_once() -> None:
    cluster = Cluster(0)
    swim = cluster.add(record(0))
    swim.leave(1.0)
    assert swim.has_left
    assert swim.stopped
    with pytest.raises(SwimStopped):
        swim.leave(2.0)


def test_who_has_left_is_not_turned_into_a_dead_one() -> None:
    cluster = Cluster(5)
    cluster.run(1)
    left = Rumour(member=record(4, status=Status.LEFT))
    dead = Rumour(member=record(4, status=Status.DEAD), accusers=(node(2),))
    swim = cluster[0]
    swim.receive(Gossip(rumours=(left,)), node(1), 1.1)
    swim.receive(Gossip(rumours=(dead,)), node(2), 1.2)
    assert swim.get(node(4)).status is Status.LEFT


# Islands.


def test_islands_that_hold_each_other_for_dead_heal_by_themselves() -> None:
    cluster = Cluster(9)
    cluster.run(2)
    partition(cluster, {0, 1, 2, 3})
    cluster.run(200)
    assert {len(swim.view.ring_members) for swim in cluster.alive()} == {4, 5}
    partition(cluster, set())
    healed_in = cluster.run_until(cluster.agreed, 60)
    assert healed_in < 3 * LAN.reconnect_period_s


def test_while_islands_heal_the_ring_never_loses_a_living_member_again() -> None:
    cluster = Cluster(9)
    cluster.run(2)
    partition(cluster, {0, 1, 2, 3})
    cluster.run(200)
    partition(cluster, set())
    cut_off = len(cluster.announced(MemberDied))
    cluster.run(120)
    assert cluster.agreed()
    assert len(cluster.announced(MemberDied)) == cut_off


def test_islands_heal_even_after_the_dead_were_forgotten() -> None:
    cluster = Cluster(6, config=replace(LAN, reap_after_s=60.0))
    cluster.run(2)
    partition(cluster, {0, 1, 2})
    cluster.run(400)
    assert {len(swim.view) for swim in cluster.alive()} == {3}
    partition(cluster, set())
    cluster.run_until(cluster.agreed, 120)


def test_a_one_way_cut_does_not_divide_the_group() -> None:
    cluster = Cluster(6)
    cluster.run(2)
    a, b = record(0).address, record(1).address
    cluster.cut = lambda source, to: (source, to) == (a, b)
    cluster.run(120)
    assert cluster.announced(MemberDied) == []


# Being forgotten.


def test_the_dead_are_forgotten_after_a_while_but_old_news_do_not_bring_them_back() -> None:
    cluster = Cluster(4, config=replace(LAN, reap_after_s=100.0))
    cluster.run(2)
    cluster.kill(3)
    cluster.run_until(lambda: cluster.status(3) == {Status.DEAD}, 30)
    assert cluster[0].why(node(3))
    cluster.run(101)
    assert cluster.status(3) == {None}
    assert cluster[0].why(node(3)) == ()
    effects = cluster[0].receive(Gossip(rumours=(Rumour(member=record(3)),)), node(1), cluster.now)
    assert not [effect for effect in effects if isinstance(effect, Announce)]
    assert cluster[0].get(node(3)) is None


def test_the_forgotten_do_not_come_back_through_those_who_still_remember_them() -> None:
    cluster = Cluster(4, config=replace(LAN, reap_after_s=100.0))
    cluster.run(2)
    cluster.kill(3)
    cluster.run(95)
    cluster.add(record(7), seeds=[SEED])  # learns of the dead one late
    cluster.run(300)
    assert {len(swim.view) for swim in cluster.alive()} == {4}


def test_tombstones_are_bounded_and_the_oldest_goes_first() -> None:
    cluster = Cluster(2, config=replace(LAN, tombstones_max=3))
    for number in range(5, 10):
        dead = record(number, status=Status.DEAD)
        cluster[0].receive(Gossip(rumours=(Rumour(member=dead),)), node(1), 0.1)
    assert list(cluster[0]._beliefs.tombstones) == [node(7), node(8), node(9)]


def test_a_forgotten_peer_returns_with_a_higher_incarnation() -> None:
    cluster = Cluster(4, config=replace(LAN, reap_after_s=100.0))
    cluster.run(2)
    cluster.kill(3)
    cluster.run(150)
    assert cluster.status(3) == {None}
    cluster.restart(3, seeds=[SEED])
    cluster.run_until(cluster.agreed, 5)
    assert {event.was for _, who, event in cluster.announced(MemberReturned) if who == node(0)} == {
        Status.DEAD
    }


# Why.


def test_why_tells_who_suspected_who_confirmed_and_when() -> None:
    cluster = Cluster(8)
    cluster.run(2)
    cluster.kill(7)
    crash = cluster.now
    cluster.run_until(lambda: cluster.status(7) == {Status.DEAD}, 30)
    for swim in cluster.alive():
        story = swim.why(node(7))
        causes = [entry.cause for entry in story]
        assert causes[0] in (Cause.PROBE_FAILED, Cause.ACCUSED)
        assert Cause.CONFIRMED in causes
        assert causes[-1] in (Cause.TIMED_OUT, Cause.DECLARED_DEAD)
        assert all(crash < entry.at_s <= cluster.now for entry in story)
        accusers = {who for entry in story for who in entry.by}
        assert node(7) not in accusers
        assert len(accusers) >= 2


def test_why_is_bounded_for_each_member() -> None:
    cluster = Cluster(3, config=replace(LAN, history_max=5))
    for incarnation in range(2, 40):
        suspect = record(2, incarnation=incarnation, status=Status.SUSPECT)
        cluster[0].receive(Gossip(rumours=(Rumour(member=suspect, accusers=(node(1),)),)), node(1), 0.1)
    story = cluster[0].why(node(2))
    assert [entry.incarnation for entry in story] == [35, 36, 37, 38, 39]


def test_why_of_ourselves_tells_what_we_refuted() -> None:
    cluster = Cluster(3)
    accusation = Rumour(member=record(0, status=Status.SUSPECT), accusers=(node(1),))
    cluster[0].receive(Gossip(rumours=(accusation,)), node(1), 0.5)
    (entry,) = cluster[0].why(node(0))
    assert (entry.cause, entry.by, entry.at_s, entry.incarnation) == (Cause.REFUTED, (node(1),), 0.5, 2)
