"""Random faults, then healing: whatever happened, all end up agreeing, and the rules held all the way.

A small cousin of the simulator in tools/, kept here so that a change to the machine meets it at once.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest

from membership.config import LAN, LOCAL
from membership.effects import MemberDied
from membership.swim import Swim
from membership.view import Member, NodeId, Status, supersedes
from tests.membership.cluster import Cluster, node, record

COUNT = 8
FAULTS = ("kill", "restart", "move", "pause", "resume", "cut", "mend", "lossy", "lossless", "leave", "update")


class Watch:
    """What must hold at every machine after every step."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.believed: dict[tuple[int, NodeId], Member] = {}
        self.versions: dict[int, int] = {}

    def look(self) -> None:
        for swim in self.cluster.alive():
            key = id(swim)
            if self.versions.get(key) == swim.version:
                continue
            self.versions[key] = swim.version
            mine = swim.get(swim.me.id)
            assert mine == swim.me
            assert mine.status in (Status.ALIVE, Status.LEFT)
            for member in swim.view:
                before = self.believed.get((key, member.id))
                assert before is None or before == member or supersedes(member, before)
                self.believed[key, member.id] = member
            for members in (swim.view.members,):
                assert max(Counter(member.id for member in members).values()) == 1


def wreak(cluster: Cluster, rng: random.Random, used: Counter[str]) -> None:
    """Bring about one random fault, if it is possible now."""
    number, fault = rng.randrange(COUNT), rng.choice(FAULTS)
    host = cluster.hosts[node(number)]
    running = host.running and not host.swim.stopped
    # Two peers always stay, so that there is a group to come back to.
    enough = sum(h.running and not h.paused and not h.swim.stopped for h in cluster.hosts.values()) > 3
    seeds = [cluster.hosts[node(n)].address for n in range(COUNT) if n != number]
    if fault == "kill" and running and enough:
        cluster.kill(number)
    elif fault == "restart" and not running:
        host.running = False
        cluster.restart(number, seeds=seeds)
    elif fault == "move" and not running:
        host.running = False
        cluster.restart(number, seeds=seeds, address=f"10.1.{rng.randrange(250)}.{number}:7000")
    elif fault == "pause" and running and enough:
        cluster.pause(number)
    elif fault == "resume" and host.paused:
        cluster.resume(number)
    elif fault == "cut":
        # By number rather than by address, so that a peer that moves stays on its side.
        island = {n for n in range(COUNT) if rng.random() < 0.5}
        one_way = rng.random() < 0.3
        names = {node(n) for n in island}
        cluster.cut = lambda source, to: (
            (cluster.at[source].swim.me.id in names) and (cluster.at[to].swim.me.id not in names)
            if one_way
            else (cluster.at[source].swim.me.id in names) != (cluster.at[to].swim.me.id in names)
        )
    elif fault == "mend":
        cluster.cut = lambda _source, _to: False
    elif fault == "lossy":
        cluster.loss = rng.choice([0.05, 0.3])
    elif fault == "lossless":
        cluster.loss = 0.0
    elif fault == "leave" and running and enough and not host.paused:
        cluster.perform(host, host.swim.leave(cluster.now))
    elif fault == "update" and running and not host.paused:
        cluster.perform(host, host.swim.update_self(cluster.now, slots=rng.randrange(100)))
    else:
        return
    used[fault] += 1


def live_through(seed: int) -> tuple[Cluster, Counter[str]]:
    rng = random.Random(f"faults {seed}")
    cluster = Cluster(COUNT, config=LOCAL if seed % 2 else LAN, seed=seed)
    watch, used = Watch(cluster), Counter[str]()
    for _ in range(30):
        wreak(cluster, rng, used)
        until = cluster.now + rng.expovariate(1 / 4)
        while cluster.step(until):
            watch.look()
        cluster.now = until
    cluster.loss = 0.0
    cluster.cut = lambda _source, _to: False
    for number in range(COUNT):
        cluster.resume(number)
    healing = cluster.now
    while not cluster.agreed():
        assert cluster.now < healing + 120, "no agreement within two minutes after the last fault"
        until = cluster.now + 1.0
        while cluster.step(until):
            watch.look()
        cluster.now = until
    deaths = len(cluster.announced(MemberDied))
    cluster.run(60)
    assert cluster.agreed()
    assert len(cluster.announced(MemberDied)) == deaths
    return cluster, used


@pytest.mark.parametrize("block", range(4))
def test_after_any_faults_all_agree_and_beliefs_only_ever_went_up(block: int) -> None:
    used: Counter[str] = Counter()
    for seed in range(block * 5, block * 5 + 5):
        used += live_through(seed)[1]
    assert len(used) >= 8, "the faults did not really happen"


def test_the_watch_notices_a_belief_that_goes_down() -> None:
    cluster = Cluster(2)
    watch = Watch(cluster)
    swim: Swim = cluster[0]
    swim._beliefs.members.put(record(1, incarnation=9))
    watch.look()
    swim._beliefs.members.put(record(1, incarnation=8))
    with pytest.raises(AssertionError):
        watch.look()
