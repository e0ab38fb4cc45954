"""A peer that was asleep knows it, and accuses nobody when it wakes."""

from __future__ import annotations

import pytest

from membership.config import LAN, LOCAL, SwimConfig
from membership.effects import MemberDied, MemberSuspected
from membership.messages import Gossip, Rumour
from membership.view import Status
from tests.membership.cluster import Cluster, node, record


@pytest.mark.parametrize("config", [LOCAL, LAN], ids=["local", "lan"])
@pytest.mark.parametrize("seed", range(6))
def test_a_peer_stopped_for_ten_seconds_comes_back_and_no_other_is_buried(
    config: SwimConfig, seed: int
) -> None:
    cluster = Cluster(16, config=config, seed=seed)
    cluster.run(3 + seed / 7)
    cluster.pause(5)
    cluster.run(10)
    cluster.resume(5)
    cluster.run_until(cluster.agreed, 15)
    cluster.run(30)
    assert {event.member.id for _, _, event in cluster.announced(MemberDied)} <= {node(5)}
    assert {event.member.id for _, _, event in cluster.announced(MemberSuspected)} <= {node(5)}
    assert cluster.agreed()
    assert cluster[0].get(node(5)).session == 1


def test_suspects_get_the_time_that_we_slept() -> None:
    swim = Cluster(6)[0]
    accusation = Rumour(member=record(5, status=Status.SUSPECT), accusers=tuple(node(n) for n in (1, 2, 3)))
    swim.receive(Gossip(rumours=(accusation,)), node(1), 0.0)
    swim.tick(100.0)
    assert swim.get(node(5)).status is Status.SUSPECT
    while swim.get(node(5)).status is Status.SUSPECT:
        now = swim.next_deadline()
        swim.tick(now)
    assert now > 100.0


def test_a_late_wake_up_and_a_reported_lag_count_as_ill_health_once_each() -> None:
    swim = Cluster(4)[0]
    due = swim.next_deadline()
    swim.tick(due + LAN.lag_tolerance_s / 2)
    assert swim.health == 0
    due = swim.next_deadline()
    swim.tick(due + 3.0)
    assert swim.health == 1
    now = due + 3.1
    swim.observe_lag(LAN.lag_tolerance_s / 2, now)
    assert swim.health == 1
    swim.observe_lag(2.0, now)
    assert swim.health == 2
    swim.tick(now)
    assert swim.health == 2


def test_a_clock_that_is_set_back_stops_nothing() -> None:
    cluster = Cluster(2)
    swim = cluster[0]
    now = 1000.0
    for _ in range(20):
        now = max(now, swim.next_deadline())
        swim.tick(now)
    swim.tick(now - 500.0)
    assert swim.next_deadline() <= now - 500.0 + LAN.probe_period_s * (1 + LAN.awareness_max)


def test_an_idle_peer_wakes_and_sends_about_once_a_period() -> None:
    """What an idle peer costs: its wake-ups and messages, which must stay few with sixteen peers."""
    cluster = Cluster(16, config=LOCAL)
    cluster.run(5)
    ticks = 0
    original = cluster[0].tick

    def counted(now: float) -> list[object]:
        nonlocal ticks
        ticks += 1
        return original(now)

    cluster[0].tick = counted  # type: ignore[method-assign]
    before = sum(cluster.sent.values())
    cluster.run(60)
    per_second = (sum(cluster.sent.values()) - before) / 16 / 60
    assert ticks / 60 <= 1 / LOCAL.probe_period_s + 0.5
    assert per_second <= 2 / LOCAL.probe_period_s + 0.5
