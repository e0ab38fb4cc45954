"""What the Lifeguard paper claims and we rely on, one test per claim.

A. Dadgar, J. Phillips, J. Currey: "Lifeguard: Local Health Awareness for More Accurate Failure Detection",
2017.
"""

from __future__ import annotations

import statistics

from membership.awareness import Awareness
from membership.config import LAN
from membership.effects import MemberDied, MemberRefuted, MemberSuspected, SelfRefuted, Send
from membership.messages import Ack, Gossip, Nack, Ping, PingRequest, Rumour
from membership.view import Status
from tests.membership.cluster import Cluster, node, record


def sends(effects: list[object], kind: type) -> list[Send]:
    return [effect for effect in effects if isinstance(effect, Send) and isinstance(effect.message, kind)]


def test_the_score_stays_between_zero_and_its_cap_and_stretches_times() -> None:
    awareness = Awareness(8)
    awareness.improve()
    assert awareness.scale(2.0) == 2.0
    awareness.worsen(5)
    awareness.worsen(5)
    assert (awareness.score, awareness.scale(2.0)) == (8, 18.0)
    awareness.improve()
    assert awareness.score == 7


def test_lha_probe_a_member_whose_probes_all_fail_slows_down_its_probing() -> None:
    """A member that hears nobody has probably itself gone deaf; it must accuse less, not more."""
    cluster = Cluster(6)
    deaf = record(0).address
    cluster.cut = lambda _source, to: to == deaf
    cluster.run(60)
    probes = {
        message.number for _, who, _, message in cluster.log if who == node(0) and isinstance(message, Ping)
    }
    assert cluster[0].health >= 5  # once for each of the others
    assert len(probes) < 20  # sixty without awareness


def test_lha_probe_health_comes_back_with_answered_probes() -> None:
    cluster = Cluster(6)
    deaf = record(0).address
    cluster.cut = lambda _source, to: to == deaf
    cluster.run(15)
    assert cluster[0].health > 0
    cluster.cut = lambda _source, _to: False
    cluster.run(90)
    assert cluster[0].health == 0
    assert cluster.agreed()


def test_lha_probe_nacks_show_that_the_prober_is_well_when_the_target_is_dead() -> None:
    cluster = Cluster(6)
    cluster.run(2)
    cluster.kill(5)
    cluster.run(4)
    assert cluster.sent["Nack"] > 0
    assert {swim.health for swim in cluster.alive()} == {0}


def test_lha_probe_a_relay_sends_its_nack_before_the_requester_gives_up() -> None:
    relay = Cluster(3)[0]
    request = PingRequest(
        number=77, target=node(2), target_address=record(2).address, reply_to=record(1).address
    )
    (ping,) = sends(relay.receive(request, node(1), 10.0), Ping)
    assert ping.to_address == record(2).address
    at = LAN.probe_timeout_s * LAN.nack_fraction + 10.0
    assert relay.next_deadline() <= at
    effects = [effect for moment in (10.1, 10.2, 10.3, at) for effect in relay.tick(moment)]
    (nack,) = sends(effects, Nack)
    assert (nack.to_address, nack.message) == (record(1).address, Nack(number=77))


def test_a_late_ack_is_passed_on_even_after_the_nack() -> None:
    relay = Cluster(3)[0]
    request = PingRequest(
        number=77, target=node(2), target_address=record(2).address, reply_to=record(1).address
    )
    (ping,) = sends(relay.receive(request, node(1), 0.0), Ping)
    relay.tick(0.45)
    effects = relay.receive(Ack(number=ping.message.number), node(2), 0.6)
    assert [(e.to_address, e.message.number) for e in sends(effects, Ack)] == [(record(1).address, 77)]


def test_lha_suspicion_independent_confirmations_shorten_the_time_to_death() -> None:
    def seconds_to_death(accusers: int) -> float:
        swim = Cluster(12)[0]
        suspect = record(11, status=Status.SUSPECT)
        rumour = Rumour(member=suspect, accusers=tuple(node(n) for n in range(1, 1 + accusers)))
        swim.receive(Gossip(rumours=(rumour,)), node(1), 0.0)
        suspicion = swim._beliefs.suspicions.get(node(11))
        return suspicion.deadline_s

    one, two, three, many = map(seconds_to_death, (1, 2, 3, 9))
    assert one > two > three == many
    assert one == LAN.suspicion_max_mult * LAN.suspicion_min_s(12)
    assert three == LAN.suspicion_min_s(12)


def test_lha_suspicion_confirmations_travel_with_the_rumour() -> None:
    """Each member hears of the accusers that others have heard of, so all wait for about the same time."""
    cluster = Cluster(12)
    cluster.run(2)
    cluster.kill(11)
    cluster.run_until(lambda: bool(cluster.announced(MemberDied)), 30)
    known = [swim._beliefs.suspicions.get(node(11)) for swim in cluster.alive()]
    accusers = [len(suspicion.accusers) for suspicion in known if suspicion is not None]
    assert accusers
    assert min(accusers) == LAN.suspicion_confirmations + 1


def test_buddy_system_a_suspect_is_told_in_the_very_ping_and_objects_in_the_ack() -> None:
    cluster = Cluster(3)
    prober, suspect = cluster[0], cluster[2]
    accusation = Rumour(member=record(2, status=Status.SUSPECT), accusers=(node(1),))
    prober.receive(Gossip(rumours=(accusation,)), node(1), 0.0)
    while prober._beliefs.queue:
        prober._voice.news()  # told often enough already, so that it does not ride on the ping anyway
    pings: list[Send] = []
    while not pings:
        effects = prober.tick(prober.next_deadline())
        pings = [ping for ping in sends(effects, Ping) if ping.to == node(2)]
    assert pings[0].message.rumours[0] == accusation
    effects = suspect.receive(pings[0].message, node(0), 1.0)
    (ack,) = sends(effects, Ack)
    assert suspect.me.incarnation == 2
    assert suspect.me in [rumour.member for rumour in ack.message.rumours]
    prober.receive(ack.message, node(2), 1.1)
    assert prober.get(node(2)).status is Status.ALIVE


def test_a_dead_member_that_pings_is_told_in_the_ack() -> None:
    """The buddy system backwards: who was declared dead unjustly hears of it from the first one it probes."""
    cluster = Cluster(3)
    dead = record(2, status=Status.DEAD)
    cluster[0].receive(Gossip(rumours=(Rumour(member=dead),)), node(1), 0.0)
    ping = Ping(number=1, target=node(0), reply_to=dead.address)
    (ack,) = sends(cluster[0].receive(ping, node(2), 0.1), Ack)
    assert ack.message.rumours[0].member == dead


def test_refuting_an_accusation_counts_as_ill_health() -> None:
    swim = Cluster(3)[0]
    accusation = Rumour(member=record(0, status=Status.SUSPECT), accusers=(node(1),))
    effects = swim.receive(Gossip(rumours=(accusation,)), node(1), 0.0)
    assert swim.health == 1
    assert [e.event for e in effects if hasattr(e, "event")] == [SelfRefuted(2, Status.SUSPECT, (node(1),))]
    swim.receive(Gossip(rumours=(accusation,)), node(1), 0.1)
    assert (swim.health, swim.me.incarnation) == (1, 2)


def test_false_deaths_from_short_overload_are_mostly_rescued_by_refutation() -> None:
    """A member that is starved for a second now and then is suspected at times, and never buried."""
    cluster = Cluster(12, seed=4)
    for _ in range(30):
        cluster.pause(3)
        cluster.run(1.2)
        cluster.resume(3)
        cluster.run(2.0)
    cluster.run(20)
    assert cluster.announced(MemberSuspected)
    assert cluster.announced(MemberRefuted)
    assert cluster.announced(MemberDied) == []
    assert cluster.agreed()


def test_a_sick_member_does_not_have_healthy_ones_declared_dead() -> None:
    """The headline of the paper: slow members no longer cause false positives about healthy ones."""
    cluster = Cluster(12, seed=5)
    for _ in range(20):
        for sick in (3, 7):
            cluster.pause(sick)
        cluster.run(3.0)
        for sick in (3, 7):
            cluster.resume(sick)
        cluster.run(1.5)
    healthy_accused = {e.member.id for _, _, e in cluster.announced(MemberDied)} - {node(3), node(7)}
    assert healthy_accused == set()
    cluster.run(60)
    assert cluster.agreed()


def test_loss_of_five_in_a_hundred_messages_buries_nobody() -> None:
    cluster = Cluster(16, loss=0.05, seed=6)
    cluster.run(300)
    assert cluster.announced(MemberDied) == []


def test_detection_stays_fast_with_awareness_and_confirmations() -> None:
    """The price of fewer false positives is small: the median time to death stays near its minimum."""
    took = []
    for seed in range(9):
        cluster = Cluster(16, seed=seed)
        cluster.run(3 + seed / 7)
        crash = cluster.now
        cluster.kill(15)
        cluster.run_until(lambda: bool(cluster.announced(MemberDied)), 40)  # noqa: B023 - called at once
        took.append(cluster.announced(MemberDied)[0][0] - crash)
    assert statistics.median(took) <= LAN.suspicion_min_s(16) + 3 * LAN.probe_period_s
