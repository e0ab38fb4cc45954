"""The ring's claims: balance, minimal movement, distinct owners and zones, and that it is a value."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from membership.errors import EmptyRing
from membership.ring import Ring, RingPeer
from membership.ring_types import key_position, peer_positions
from membership.view import Member, NodeId

KEYS = [f"key-{number}" for number in range(200)]

zones = st.sampled_from(["", "", "east", "west", "north"])
weights = st.sampled_from([0.25, 0.5, 1.0, 1.0, 2.0])
names = st.text("abcdefgh-0123456789é", min_size=1, max_size=6).map(NodeId)
peer_lists = st.lists(
    st.builds(RingPeer, names, weights, zones), min_size=1, max_size=9, unique_by=lambda peer: peer.id
)
zoneless_lists = st.lists(
    st.builds(RingPeer, names, weights), min_size=1, max_size=9, unique_by=lambda peer: peer.id
)


def plain_ring(count: int, cluster: str = "") -> Ring:
    return Ring.of(RingPeer(NodeId(f"{cluster}peer-{number}")) for number in range(count))


def first_owners(ring: Ring) -> dict[str, NodeId]:
    return {key: ring.owners(key, 1)[0] for key in KEYS}


# -- balance ---------------------------------------------------------------------------------------------


def test_ten_peers_with_64_points_stay_within_1_35_of_the_mean_load() -> None:
    """The reference ring peer-0 … peer-9, by its arcs and by 20,000 numbered keys."""
    ring = plain_ring(10)
    loads = Counter(ring.owners(f"task/{number}", 1)[0] for number in range(20_000))
    assert max(loads.values()) / 2_000 <= 1.35
    assert max(ring.share(peer.id) for peer in ring.peers) * 10 <= 1.35


def test_nineteen_of_twenty_rings_of_ten_peers_stay_within_1_35_of_the_mean_share() -> None:
    """64 points leave a spread of 1/8 of the mean, so no bound holds for every set of names: 300 rings,
    exactly."""
    worst = []
    for cluster in range(300):
        ring = plain_ring(10, f"cluster-{cluster}/")
        worst.append(10 * max(ring.share(peer.id) for peer in ring.peers))
    worst.sort()
    assert worst[int(0.95 * len(worst))] <= 1.35
    assert statistics.median(worst) <= 1.25
    assert worst[-1] <= 1.7


def test_shares_follow_weights() -> None:
    peers = [RingPeer(NodeId(f"light-{number}"), 1.0) for number in range(20)]
    ring = Ring.of([*peers, RingPeer(NodeId("heavy"), 16.0)])
    assert ring.share(NodeId("heavy")) == pytest.approx(16 / 36, rel=0.1)


@given(peer_lists)
def test_shares_and_arcs_cover_the_circle_once(peers: list[RingPeer]) -> None:
    ring = Ring.of(peers)
    assert sum(length for peer in peers for _, length in ring.arcs(peer.id)) == 2**64


# -- a ring is a value -----------------------------------------------------------------------------------


@given(st.data(), peer_lists)
def test_the_order_of_insertion_leaves_no_mark(data: st.DataObject, peers: list[RingPeer]) -> None:
    shuffled = data.draw(st.permutations(peers))
    one_by_one = Ring()
    for peer in shuffled:
        one_by_one = one_by_one.add(peer)
    assert list(one_by_one.points()) == list(Ring.of(peers).points()) == list(Ring.of(shuffled).points())
    assert one_by_one == Ring.of(peers)
    assert one_by_one.digest == Ring.of(peers).digest


@given(peer_lists, peer_lists)
def test_incremental_changes_equal_a_ring_built_anew(before: list[RingPeer], after: list[RingPeer]) -> None:
    start = Ring.of(before)
    points_before = list(start.points())
    ring = start
    for peer in before:
        ring = ring.remove(peer.id)
    assert len(ring) == 0
    assert ring == Ring()
    for peer in after:
        ring = ring.add(peer)
    anew = Ring.of(after)
    for changed in (ring, start.changed_to(after)):
        assert list(changed.points()) == list(anew.points())
        assert changed.digest == anew.digest
        assert [changed.owners(key, 3) for key in KEYS[:50]] == [anew.owners(key, 3) for key in KEYS[:50]]
    assert list(start.points()) == points_before, "the ring that others were derived from has changed"


def test_peers_on_the_same_point_are_ordered_by_id_whoever_came_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """2**64 is wide, but two peers that disagree about a tie would disagree for ever."""
    import membership.ring as ring_module

    monkeypatch.setattr(ring_module, "peer_positions", lambda peer: [5, 9])
    a, b, c = (RingPeer(NodeId(name)) for name in "abc")
    expected = [(5, "a"), (5, "b"), (5, "c"), (9, "a"), (9, "b"), (9, "c")]
    assert list(Ring.of([b, c, a]).points()) == expected
    assert list(Ring().add(c).add(a).add(b).points()) == expected
    assert list(Ring.of([a, b, c]).remove(b.id).add(b).points()) == expected


def test_more_weight_adds_points_and_moves_none() -> None:
    light = peer_positions(RingPeer(NodeId("a"), 0.7))
    heavy = peer_positions(RingPeer(NodeId("a"), 3.0))
    assert len(light) == round(64 * 0.7)
    assert heavy[: len(light)] == light


def test_adding_a_peer_again_with_another_weight_or_zone_replaces_it() -> None:
    ring = plain_ring(3)
    changed = ring.add(RingPeer(NodeId("peer-1"), 2.0, "east"))
    assert changed.peer(NodeId("peer-1")) == RingPeer(NodeId("peer-1"), 2.0, "east")
    assert len(changed) == 3
    assert changed.digest != ring.digest
    assert ring.add(RingPeer(NodeId("peer-1"))) is ring


def test_a_member_of_weight_zero_owns_nothing() -> None:
    idle, busy = Member(NodeId("idle"), "host:1", weight=0), Member(NodeId("busy"), "host:2", zone="east")
    assert Ring.of([idle, busy]).peers == (RingPeer(NodeId("busy"), 1, "east"),)
    assert Ring.of([busy]).add(idle) == Ring.of([busy]) == Ring.of([busy]).changed_to([idle, busy])
    assert len(Ring.of([busy]).add(replace(busy, weight=0))) == 0


@pytest.mark.parametrize(
    "other",
    [
        RingPeer(NodeId("peer-9")),
        RingPeer(NodeId("peer-1"), 2.0),
        RingPeer(NodeId("peer-1"), 1.0, "east"),
    ],
)
def test_the_digest_tells_apart_ids_weights_and_zones(other: RingPeer) -> None:
    rest = [RingPeer(NodeId("peer-0")), RingPeer(NodeId("peer-2"))]
    assert Ring.of([*rest, RingPeer(NodeId("peer-1"))]).digest != Ring.of([*rest, other]).digest


def test_owners_and_digest_do_not_depend_on_the_hash_seed() -> None:
    program = (
        "from membership.ring import Ring, RingPeer\n"
        "ring = Ring.of(RingPeer(f'peer-{n}', 1 + n % 3, 'ab'[n % 2]) for n in range(20))\n"
        "keys = [f'key-{n}' for n in range(200)]\n"
        "print(ring.digest.hex(), [ring.owners(key, 3).peers for key in keys],\n"
        "      sorted(ring.assign(keys, replicas=2).owners.items()))\n"
    )
    outputs = set()
    for seed in ("0", "1", "4711"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(filter(None, sys.path)) or "."},
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.add(done.stdout)
    assert len(outputs) == 1


def test_one_change_among_ten_thousand_peers_costs_far_less_than_building_anew() -> None:
    """Measured about 1 ms against 0.8 s; the claim leaves room for a busy machine."""
    peers = [RingPeer(NodeId(f"peer-{number}")) for number in range(10_000)]
    begin = time.perf_counter()
    ring = Ring.of(peers)
    anew_s = time.perf_counter() - begin

    def fastest_of_five(change: str) -> float:
        times_s = []
        for number in range(5):
            begin = time.perf_counter()
            if change == "add":
                ring.add(RingPeer(NodeId(f"joiner-{number}")))
            else:
                ring.remove(NodeId(f"peer-{number}"))
            times_s.append(time.perf_counter() - begin)
        return min(times_s)

    assert fastest_of_five("add") < anew_s / 50
    assert fastest_of_five("remove") < anew_s / 50


# -- movement --------------------------------------------------------------------------------------------


@given(peer_lists, st.data())
def test_a_leave_moves_only_the_leavers_keys(peers: list[RingPeer], data: st.DataObject) -> None:
    leaver = data.draw(st.sampled_from(peers))
    before = first_owners(Ring.of(peers))
    ring_after = Ring.of(peers).remove(leaver.id)
    if len(ring_after) == 0:
        return
    after = first_owners(ring_after)
    assert {before[key] for key in KEYS if before[key] != after[key]} <= {leaver.id}
    assert leaver.id not in after.values()


@given(peer_lists, names)
def test_a_join_moves_keys_to_the_joiner_only(peers: list[RingPeer], name: NodeId) -> None:
    ring = Ring.of(peers)
    if name in ring:
        return
    before, after = first_owners(ring), first_owners(ring.add(RingPeer(name)))
    assert {after[key] for key in KEYS if before[key] != after[key]} <= {name}


@given(zoneless_lists, st.data())
def test_without_zones_a_lost_owner_is_replaced_by_the_next_and_the_others_stay(
    peers: list[RingPeer], data: st.DataObject
) -> None:
    """What fail-over rests on: the peer that takes over is the one that held the spare already."""
    leaver = data.draw(st.sampled_from(peers))
    ring = Ring.of(peers)
    after = ring.remove(leaver.id)
    for key in KEYS[:50]:
        survivors = [owner for owner in ring.owners(key, 3) if owner != leaver.id]
        assert list(after.owners(key, 3))[: len(survivors)] == survivors if after else True


@given(peer_lists, st.data())
def test_the_preview_of_a_leave_says_what_the_leave_then_does(
    peers: list[RingPeer], data: st.DataObject
) -> None:
    ring = Ring.of(peers)
    leaver = data.draw(st.sampled_from(peers)).id
    preview = ring.preview_leave(leaver)
    after = ring.remove(leaver)
    assert preview.fraction == pytest.approx(ring.share(leaver))
    for peer in after.peers:
        gained = after.share(peer.id) - ring.share(peer.id)
        assert preview.per_peer.get(peer.id, 0.0) == pytest.approx(gained, abs=1e-12)


@given(peer_lists, names, weights)
def test_the_preview_of_a_join_says_what_the_join_then_does(
    peers: list[RingPeer], name: NodeId, weight: float
) -> None:
    ring = Ring.of(peers)
    if name in ring:
        with pytest.raises(ValueError, match="on the ring already"):
            ring.preview_join(RingPeer(name))
        return
    joiner = RingPeer(name, weight)
    preview = ring.preview_join(joiner)
    after = ring.add(joiner)
    assert preview.fraction == pytest.approx(after.share(name))
    assert sum(preview.per_peer.values()) == pytest.approx(preview.fraction)
    for peer in ring.peers:
        lost = ring.share(peer.id) - after.share(peer.id)
        assert preview.per_peer.get(peer.id, 0.0) == pytest.approx(lost, abs=1e-12)


# -- owners and zones ------------------------------------------------------------------------------------


@given(peer_lists, st.integers(1, 12))
def test_owners_are_distinct_and_as_many_as_the_ring_can_give(peers: list[RingPeer], n: int) -> None:
    ring = Ring.of(peers)
    for key in KEYS[:30]:
        owners = ring.owners(key, n)
        assert len(set(owners.peers)) == len(owners) == min(n, len(peers))
        assert owners.missing == n - len(owners)


@given(peer_lists, st.integers(1, 9))
def test_zones_are_used_as_evenly_as_their_sizes_allow_and_repeats_are_named(
    peers: list[RingPeer], n: int
) -> None:
    zone_of = {peer.id: peer.zone or f"own:{peer.id}" for peer in peers}
    sizes = Counter(zone_of.values())
    ring = Ring.of(peers)
    for key in KEYS[:30]:
        owners = ring.owners(key, n)
        used = Counter(zone_of[owner] for owner in owners)
        most = max(used.values())
        for zone, size in sizes.items():
            assert used[zone] >= min(size, most - 1), (
                "a zone is used again while another still has a fresh peer"
            )
        assert set(owners.zones_repeated) == {zone for zone, count in used.items() if count > 1}


@given(peer_lists)
def test_fewer_owners_are_the_beginning_of_more_owners(peers: list[RingPeer]) -> None:
    ring = Ring.of(peers)
    for key in KEYS[:20]:
        most = ring.owners(key, len(peers)).peers
        for n in range(1, len(peers)):
            assert ring.owners(key, n).peers == most[:n]


def test_owners_without_zones_follow_the_points_clockwise() -> None:
    ring = plain_ring(5)
    points = list(ring.points())
    for key in KEYS[:40]:
        at = key_position(key)
        clockwise = [peer for position, peer in points if position >= at] + [peer for _, peer in points]
        assert list(ring.owners(key, 5)) == list(dict.fromkeys(clockwise))


def test_explain_names_the_position_every_owner_and_why_a_peer_was_skipped() -> None:
    ring = Ring.of(
        RingPeer(NodeId(name), 1.0, zone) for name, zone in [("a", "z1"), ("b", "z1"), ("c", "z2")]
    )
    key = next(
        key
        for key in KEYS
        if set(ring.owners(key, 2)) == {"a", "c"} and "skipped" in str(ring.explain(key, 2))
    )
    lines = ring.explain(key, 2)
    assert f"{key_position(key):#018x}" in lines[0]
    assert "a in zone z1: owner 1" in lines[1]
    assert "b in zone z1: skipped" in lines[2]
    assert "c in zone z2: owner 2" in lines[3]
    three = ring.explain(key, 4)
    assert "too few zones for 4 owners: z1 used more than once" in three
    assert three[-1] == "4 owners were asked for, the ring has only 3"
    assert "nobody owns it" in Ring().explain(key)[-1]


# -- bad input -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf"), 1001.0])
def test_a_weight_outside_its_bounds_is_refused_by_name(weight: float) -> None:
    with pytest.raises(ValueError, match="weight of peer a is"):
        RingPeer(NodeId("a"), weight)


def test_impossible_requests_are_refused() -> None:
    ring = plain_ring(2)
    with pytest.raises(ValueError, match="0 owners were asked for"):
        ring.owners("key", 0)
    with pytest.raises(ValueError, match="given twice"):
        Ring.of([RingPeer(NodeId("a")), RingPeer(NodeId("a"), 2.0)])
    with pytest.raises(KeyError):
        ring.remove(NodeId("stranger"))
    with pytest.raises(EmptyRing):
        Ring().owner_at(0)
    with pytest.raises(EmptyRing):
        Ring().owners("key", 2)


# -- bounded loads ---------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(peer_lists, st.integers(0, 200), st.sampled_from([1.0, 1.1, 1.25, 2.0]))
def test_no_peer_is_assigned_more_than_its_bounded_load(
    peers: list[RingPeer], count: int, factor: float
) -> None:
    ring = Ring.of(peers)
    keys = KEYS[:count]
    assignment = ring.assign(keys, factor)
    assert sorted(assignment.owners) == sorted(keys)
    loads = Counter(owners[0] for owners in assignment.owners.values())
    points = {peer.id: peer.points for peer in peers}
    for peer in peers:
        assert loads[peer.id] == assignment.loads[peer.id] <= assignment.capacities[peer.id]
        fair = factor * len(keys) * points[peer.id] / sum(points.values())
        assert assignment.capacities[peer.id] <= fair + 1


def test_with_bounded_loads_ten_peers_stay_within_1_25_of_the_mean() -> None:
    for cluster in range(30):
        loads = plain_ring(10, f"cluster-{cluster}/").assign(KEYS).loads
        assert max(loads.values()) <= 1.25 * len(KEYS) / 10


@given(peer_lists, st.randoms(use_true_random=False))
def test_an_assignment_does_not_depend_on_the_order_of_the_keys(peers: list[RingPeer], random) -> None:  # type: ignore[no-untyped-def]
    keys = KEYS[:100]
    shuffled = random.sample(keys, len(keys))
    assert Ring.of(peers).assign(shuffled + keys[:3]) == Ring.of(reversed(peers)).assign(keys)


def test_bounded_loads_move_few_keys_beyond_the_leavers_own() -> None:
    """Mirrokni et al., theorem 4: O(1/ε²) a removed key; with ε = 1/4 measured far below one in ten."""
    extra = 0
    for cluster in range(10):
        ring = plain_ring(10, f"cluster-{cluster}/")
        leaver = NodeId(f"cluster-{cluster}/peer-3")
        before, after = ring.assign(KEYS).owners, ring.remove(leaver).assign(KEYS).owners
        extra += sum(before[key][0] != after[key][0] and before[key][0] != leaver for key in KEYS)
    assert extra / (10 * len(KEYS)) < 0.1


def test_spare_owners_are_distinct_in_other_zones_and_bounded() -> None:
    ring = Ring.of(RingPeer(NodeId(f"peer-{n}"), 1.0, f"zone-{n % 3}") for n in range(9))
    assignment = ring.assign(KEYS, replicas=3)
    by_rank: list[Counter[NodeId]] = [Counter(), Counter(), Counter()]
    for owners in assignment.owners.values():
        assert len(set(owners.peers)) == 3
        assert owners.zones_repeated == ()
        for rank, owner in enumerate(owners):
            by_rank[rank][owner] += 1
    cap = max(assignment.capacities.values())
    assert max(by_rank[0].values()) <= cap
    assert max(by_rank[1].values()) <= cap


def test_more_replicas_than_peers_are_reported_missing() -> None:
    assignment = plain_ring(2).assign(["a", "b"], replicas=3)
    assert {owners.missing for owners in assignment.owners.values()} == {1}


def test_an_assignment_that_cannot_exist_is_refused() -> None:
    ring = plain_ring(2)
    for factor in (0.9, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="capacity_factor"):
            ring.assign(["a"], factor)
    with pytest.raises(ValueError, match="replicas"):
        ring.assign(["a"], replicas=0)
    with pytest.raises(EmptyRing, match="nobody can own the 1 keys"):
        Ring().assign(["a"])
    assert ring.assign([]).owners == {}
