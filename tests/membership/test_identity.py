"""Restarts, moves, zombies, and two processes with one id."""

from __future__ import annotations

import pytest

from membership.config import LAN
from membership.effects import ConflictingIdentity, MemberDied, MemberReturned, MemberUpdated
from membership.messages import Gossip, Rumour
from membership.view import NodeId, Status
from tests.membership.cluster import Cluster, Host, node, record

SEED = record(0).address


def conflicts(cluster: Cluster) -> list[tuple[NodeId, int, int]]:
    """Who was refused: (id, its session, the session of the holder)."""
    return [
        (who, event.mine.session, event.holder.session)
        for _, who, event in cluster.announced(ConflictingIdentity)
    ]


def test_a_peer_restarted_before_its_death_was_noticed_just_goes_on_as_a_new_incarnation() -> None:
    cluster = Cluster(5)
    cluster.run(2)
    cluster.kill(4)
    cluster.restart(4, seeds=[SEED])
    cluster.run_until(cluster.agreed, 2)
    assert cluster[0].get(node(4)).incarnation == 2
    assert cluster.announced(MemberDied) == []
    assert conflicts(cluster) == []


def test_a_peer_restarted_after_its_death_returns_with_a_higher_incarnation() -> None:
    cluster = Cluster(5)
    cluster.run(2)
    cluster.kill(4)
    cluster.run_until(lambda: cluster.status(4) == {Status.DEAD}, 30)
    cluster.restart(4, seeds=[SEED])
    cluster.run_until(cluster.agreed, 2)
    assert {who for _, who, _ in cluster.announced(MemberReturned)} >= {node(n) for n in range(4)}


def test_old_rumours_about_its_zombie_do_not_harm_a_restarted_peer() -> None:
    cluster = Cluster(5)
    cluster.run(2)
    cluster.kill(4)
    cluster.restart(4, seeds=[SEED])
    cluster.run_until(cluster.agreed, 2)
    for status in (Status.ALIVE, Status.SUSPECT, Status.DEAD, Status.LEFT):
        late = Rumour(member=record(4, status=status), accusers=(node(1),))
        for number in range(5):
            host = cluster.hosts[node(number)]
            cluster.perform(host, host.swim.receive(Gossip(rumours=(late,)), node(1), cluster.now))
    cluster.run(20)
    assert cluster.agreed()
    assert cluster[0].get(node(4)).incarnation == 2


def test_the_same_id_at_a_new_address_is_admitted_once_the_old_address_stays_silent() -> None:
    cluster = Cluster(5)
    cluster.run(2)
    cluster.kill(4)
    cluster.restart(4, address="10.9.9.9:7000", seeds=[SEED])
    took = cluster.run_until(cluster.agreed, 5)
    assert took <= LAN.challenge_pings * LAN.probe_timeout_s + 1
    assert cluster[1].get(node(4)).address == "10.9.9.9:7000"
    assert [event for _, who, event in cluster.announced(MemberUpdated) if who == node(1)]
    assert cluster.announced(MemberDied) == []
    assert conflicts(cluster) == []


def test_after_a_goodbye_a_new_address_is_admitted_at_once() -> None:
    cluster = Cluster(5)
    cluster.run(2)
    host = cluster.hosts[node(4)]
    cluster.perform(host, host.swim.leave(cluster.now))
    cluster.run_until(lambda: host.swim.has_left, 5)
    cluster.kill(4)
    cluster.restart(4, address="10.9.9.9:7000", seeds=[SEED])
    assert cluster.run_until(cluster.agreed, 5) < LAN.probe_timeout_s


def test_a_running_peer_may_change_its_own_address() -> None:
    cluster = Cluster(4)
    cluster.run(2)
    host = cluster.hosts[node(3)]
    cluster.at["10.9.9.9:7000"] = host
    cluster.perform(host, host.swim.update_self(cluster.now, address="10.9.9.9:7000"))
    cluster.run_until(cluster.agreed, 2)
    assert cluster[0].get(node(3)).address == "10.9.9.9:7000"


def test_of_two_live_processes_with_one_id_the_younger_is_refused_and_nobody_notices() -> None:
    cluster = Cluster(5)
    cluster.run(2)
    elder = cluster.hosts[node(4)]
    younger = cluster.add(record(4, address="10.9.9.9:7000", incarnation=2, session=2), seeds=[SEED])
    cluster.run(5)
    assert younger.stopped
    assert younger.next_deadline() == float("inf")
    assert conflicts(cluster) == [(node(4), 2, 1)]
    assert not elder.swim.stopped
    assert {swim.get(node(4)).address for swim in cluster.alive()} == {elder.address}
    assert cluster.announced(MemberUpdated) == []


def test_the_younger_is_refused_even_if_it_outbids_the_elder_from_a_lost_disk() -> None:
    cluster = Cluster(5)
    host = cluster.hosts[node(4)]
    cluster.perform(host, host.swim.update_self(0.0, slots=8))
    cluster.run(2)
    younger = cluster.add(record(4, address="10.9.9.9:7000", incarnation=0, session=2), seeds=[SEED])
    cluster.run(5)
    assert younger.stopped
    assert not host.swim.stopped
    assert {swim.get(node(4)).address for swim in cluster.alive()} == {host.address}


def test_the_younger_is_refused_although_the_elder_was_just_declared_dead_by_mistake() -> None:
    cluster = Cluster(5)
    cluster.run(2)
    elder = cluster.hosts[node(4)]
    lie = Rumour(member=record(4, status=Status.DEAD), accusers=(node(1),))
    cluster.perform(cluster.hosts[node(0)], cluster[0].receive(Gossip(rumours=(lie,)), node(1), cluster.now))
    younger = cluster.add(record(4, address="10.9.9.9:7000", incarnation=2, session=2), seeds=[SEED])
    cluster.run(5)
    assert younger.stopped
    assert not elder.swim.stopped


def test_a_younger_one_that_joins_through_the_elder_itself_is_refused() -> None:
    cluster = Cluster(3)
    cluster.run(2)
    elder = cluster.hosts[node(2)]
    younger = cluster.add(record(2, address="10.9.9.9:7000", incarnation=2, session=2), seeds=[elder.address])
    cluster.run(3)
    assert younger.stopped
    assert not elder.swim.stopped


def test_a_zombie_that_returns_after_its_successor_was_admitted_stops() -> None:
    cluster = Cluster(5)
    cluster.run(2)
    zombie: Host = cluster.hosts[node(4)]
    cluster.cut = lambda source, to: zombie.address in (source, to)
    cluster.run_until(lambda: {s.get(node(4)).status for s in cluster.alive()[:4]} == {Status.DEAD}, 30)
    successor = cluster.restart(4, address="10.9.9.9:7000", seeds=[SEED])
    cluster.run(5)
    assert not successor.stopped
    assert not zombie.swim.stopped
    cluster.cut = lambda _source, _to: False
    cluster.run(30)
    assert zombie.swim.stopped
    assert not successor.stopped
    assert cluster.agreed()
    assert cluster[0].get(node(4)).address == "10.9.9.9:7000"


def test_a_restart_whose_clock_went_backwards_still_gets_its_id_back() -> None:
    """Its session is smaller than the dead one's: at the door it continues the dead one's line."""
    cluster = Cluster(5)
    cluster.run(2)
    cluster.kill(4)
    returned = cluster.add(record(4, address="10.9.9.9:7000", incarnation=0, session=0), seeds=[SEED])
    cluster.run(10)
    assert not returned.stopped
    assert cluster.agreed()
    assert returned.me.session > 1


def test_a_claim_is_examined_by_whoever_hears_it_first_hand_even_without_a_join() -> None:
    """A claimant that knows the members from its last run probes at once; it is refused all the same."""
    cluster = Cluster(5)
    cluster.run(2)
    known = [member for member in cluster[0].view if member.id != node(4)]
    younger = cluster.add(record(4, address="10.9.9.9:7000", incarnation=2, session=2), known=known)
    cluster.run(10)
    assert younger.stopped
    assert {swim.get(node(4)).address for swim in cluster.alive()} == {record(4).address}


def test_only_so_many_claims_are_examined_at_a_time_and_the_rest_come_again() -> None:
    cluster = Cluster(25)
    cluster.run(1)
    for number in range(5, 25):
        cluster.kill(number)
    for number in range(5, 25):
        cluster.restart(number, address=f"10.9.9.{number}:7000", seeds=[SEED])
    cluster.run(0.05)
    assert 0 < len(cluster[0]._identity.door) <= LAN.challenges_max
    cluster.run_until(cluster.agreed, 60)


@pytest.mark.parametrize("session", [1, 3])
def test_a_conflict_meant_for_another_session_is_ignored(session: int) -> None:
    from membership.messages import Conflict

    swim = Cluster(3).add(record(9, session=2))
    refusal = Conflict(session=session, holder=record(9, session=1, address="h:1"))
    assert swim.receive(refusal, node(0), 0.1) == []
    assert not swim.stopped
