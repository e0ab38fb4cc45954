"""Links broken between peers that are well: who is reached only through another, and through whom."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from membership.config import LAN, LOCAL, SwimConfig
from membership.effects import MemberDied, MemberSuspected
from membership.view import Status
from tests.membership.cluster import Cluster, node, record

BRIDGE = 4


def address(number: int) -> str:
    return record(number).address


def bridged(*sides: set[int]) -> Callable[[str, str], bool]:
    """Cut every link from one side to another; who is on none of them is the bridge."""
    side_of = {address(number): index for index, side in enumerate(sides) for number in side}
    return lambda source, target: (
        source in side_of and target in side_of and side_of[source] != side_of[target]
    )


def detours(cluster: Cluster) -> dict[tuple[int, int], int]:
    """Every detour of every peer that runs: {(who, to whom): over whom}."""
    found = {}
    for swim in cluster.alive():
        for whom in range(len(cluster.hosts)):
            relay = swim.detour(node(whom))
            if relay is not None:
                found[int(swim.me.id[1:]), whom] = int(relay.id[1:])
    return found


ACROSS = {(a, b): BRIDGE for one, other in (({0, 1}, {2, 3}), ({2, 3}, {0, 1})) for a in one for b in other}


@pytest.mark.parametrize("config", [LOCAL, LAN])
def test_over_a_bridge_each_side_finds_the_detour_to_each_peer_of_the_other_within_two_rounds(
    config: SwimConfig,
) -> None:
    cluster = Cluster(5, config=config)
    cluster.run(3)
    assert detours(cluster) == {}
    cluster.cut = bridged({0, 1}, {2, 3})
    # A round probes each of the four others once; those under way when the cut came do not count.
    cluster.run_until(lambda: detours(cluster) == ACROSS, within=3 * 4 * config.probe_period_s)


@pytest.mark.parametrize("seed", range(5))
def test_while_a_bridge_stands_nobody_is_buried_and_the_detours_stay(seed: int) -> None:
    cluster = Cluster(5, config=LOCAL, seed=seed)
    cluster.cut = bridged({0, 1}, {2, 3})
    cluster.run_until(lambda: detours(cluster) == ACROSS, within=10)
    for _ in range(300):
        cluster.run(0.2)
        assert detours(cluster) == ACROSS
    assert cluster.announced(MemberDied) == []


@pytest.mark.parametrize("seed", range(5))
def test_a_healed_link_needs_no_detour_after_two_rounds(seed: int) -> None:
    cluster = Cluster(5, config=LOCAL, seed=seed)
    cluster.cut = bridged({0, 1}, {2, 3})
    cluster.run_until(lambda: detours(cluster) == ACROSS, within=10)
    cluster.cut = lambda _from, _to: False
    cluster.run_until(lambda: detours(cluster) == {}, within=3 * 4 * LOCAL.probe_period_s)
    cluster.run(30)
    assert detours(cluster) == {}


def test_a_link_that_is_cut_one_way_gets_a_detour_at_both_ends_and_nowhere_else() -> None:
    """The pings of one end are lost, and the answers to the other's: neither can tell which."""
    cluster = Cluster(4, config=LOCAL)
    cluster.cut = lambda source, target: (source, target) == (address(0), address(1))
    cluster.run(12)
    assert set(detours(cluster)) == {(0, 1), (1, 0)}
    assert set(detours(cluster).values()) <= {2, 3}


def test_a_peer_that_only_lost_messages_now_and_then_is_sent_to_directly_again() -> None:
    cluster = Cluster(5, config=LOCAL, loss=0.05)
    rounds, with_detour = 0, 0
    for _ in range(200):
        cluster.run(0.5)
        rounds += 20
        with_detour += len(detours(cluster))
    # Ping and answer are lost in a tenth of all probes.
    assert with_detour / rounds < 0.15
    cluster.loss = 0.0
    cluster.run(3 * 4 * LOCAL.probe_period_s)
    assert detours(cluster) == {}


def test_when_the_detour_dies_the_other_bridge_takes_its_place_and_nobody_else_is_buried() -> None:
    cluster = Cluster(6, config=LOCAL)
    cluster.cut = bridged({0, 1}, {2, 3})
    cluster.run_until(lambda: len(detours(cluster)) == 8, within=10)
    first = detours(cluster)[0, 2]
    cluster.kill(first)
    other = 9 - first  # of 4 and 5
    cluster.run(20)
    assert set(detours(cluster).values()) == {other}
    assert {event.member.id for _, _, event in cluster.announced(MemberDied)} == {node(first)}


def test_a_peer_that_stands_still_for_less_than_a_period_gets_no_detour() -> None:
    """It answers the relays no sooner than us: that is no broken link."""
    rng = random.Random(5)
    for seed in range(20):
        cluster = Cluster(5, config=LAN, seed=seed)
        cluster.run(2 + rng.random())
        cluster.pause(1)
        cluster.run(0.7 * (LAN.probe_period_s - LAN.probe_timeout_s))
        cluster.resume(1)
        for _ in range(40):
            cluster.run(0.1)
            assert detours(cluster) == {}
    assert cluster.announced(MemberSuspected) == []


def test_nobody_is_sent_around_to_one_who_has_left() -> None:
    cluster = Cluster(5, config=LOCAL)
    cluster.cut = bridged({0, 1}, {2, 3})
    cluster.run_until(lambda: detours(cluster) == ACROSS, within=10)
    cluster[3].leave(cluster.now)
    cluster.run(2)
    assert cluster.status(3) == {Status.LEFT}
    assert set(detours(cluster)) == {(0, 2), (1, 2), (2, 0), (2, 1)}
