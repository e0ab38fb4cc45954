"""What SWIM and Lifeguard promise of large clusters, measured on the code as it is.

Two experiments. *Calm*: nobody loses messages; we take the load of an idle cluster, start one rumour and
see it spread, then kill a few nodes at once and time their detection. *Rough*: messages are lost, or some
nodes are sick, and nobody dies; every accusation is false. The rough cluster runs twice: as configured,
and as plain SWIM with Lifeguard's parts turned off (no local health, no suspicion that shrinks with
confirmations).

*Rounds.* SWIM counts the rounds in which a rumour spreads. Our peers pass news on at once unless they have
gossiped a moment ago, so a round is not a period of the clock here: we count through how many mouths the
rumour came to a node, and give the time beside it.

Claims and where they are made: constant load per node and constant expected time to the first detection,
SWIM (Das, Gupta, Motivala, DSN 2002) sections 1 and 3; dissemination in a logarithmic number of rounds,
section 4.1; false positives cut by more than 50 times at best, Lifeguard (Dadgar, Phillips, Currey, 2018)
section V. We hold the numbers against bounds that are stated beside the verdicts; a verdict is computed,
never written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import log, log2, sqrt
from statistics import fmean, median

from membership.config import LAN, SwimConfig
from membership.effects import Event, MemberDied, MemberSuspected, MemberUpdated
from membership.view import NodeId
from tools.simulation.chance import child_random
from tools.simulation.fleet import Fleet, FleetConfig

__all__ = ["ROUGH_NODES_MAX", "Calm", "Rough", "Verdict", "measure_calm", "measure_rough", "verdicts"]

VICTIMS = 8  # killed at the same instant; the times are means over them
WARM_UP_PERIODS = 5
IDLE_PERIODS = 10
SPREAD_LIMIT_ROUNDS = 100
ROUGH_PERIODS = 60
ROUGH_NODES_MAX = 300  # false accusations flood a cluster; their rate per node needs no larger one
EXPECTED_FIRST_DETECTION_PERIODS = 2.0  # one until somebody pings it, one until that probe has failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Calm:
    """The numbers of one calm cluster; times in seconds after the cause, means over the victims."""

    nodes: int
    spread_rounds_median: float
    spread_rounds_last: float
    spread_last_s: float
    first_suspected_s: float
    first_dead_s: float
    last_dead_s: float
    messages_per_node_s: float
    bytes_per_node_s: float
    busiest_over_mean: float
    events: int
    wall_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rough:
    """The numbers of one rough cluster; every suspicion and death in it is false.

    Each counts once per member and incarnation, however many nodes believed it.
    """

    nodes: int
    condition: str
    lifeguard: bool
    minutes: float
    suspicions: int
    deaths_of_healthy: int
    deaths_of_sick: int
    wall_s: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """A claim, whether the numbers bear it out, and the numbers."""

    claim: str
    holds: bool
    because: str


@dataclass(slots=True)
class _Watch:
    """Collects who learned what when."""

    rumour: NodeId | None = None
    rounds: dict[NodeId, int] = field(default_factory=dict)  # how many mouths the rumour went through
    learned_at: float = 0.0
    victims: dict[NodeId, int] = field(default_factory=dict)
    suspected: dict[tuple[NodeId, int], float] = field(default_factory=dict)
    died: dict[tuple[NodeId, int], float] = field(default_factory=dict)
    buried_by: dict[NodeId, dict[int, float]] = field(default_factory=dict)

    def observe(self, now: float, observer: int, event: Event, hearing: NodeId | None) -> None:
        """Note an event of one node, which is handling a message of ``hearing``."""
        if type(event) is MemberUpdated:
            if event.member.id == self.rumour and hearing is not None:
                self.rounds.setdefault(NodeId(f"n{observer}"), self.rounds[hearing] + 1)
                self.learned_at = now
        elif type(event) is MemberSuspected:
            self.suspected.setdefault((event.member.id, event.member.incarnation), now)
        elif type(event) is MemberDied:
            self.died.setdefault((event.member.id, event.member.incarnation), now)
            if event.member.id in self.victims:
                self.buried_by.setdefault(event.member.id, {}).setdefault(observer, now)


def measure_calm(nodes: int, seed: int, swim: SwimConfig = LAN) -> Calm:
    """Measure load, spread and detection in a cluster of ``nodes`` whose links lose nothing."""
    wall = time.perf_counter()
    watch = _Watch()
    fleet = Fleet(FleetConfig(nodes=nodes, seed=seed, swim=swim), watch.observe)
    period_s = swim.probe_period_s
    fleet.start()
    fleet.run(WARM_UP_PERIODS * period_s)

    sent_before, bytes_before = list(fleet.sent), fleet.traffic.bytes
    idle_s = IDLE_PERIODS * period_s
    fleet.run(fleet.now + idle_s)
    sent = [after - earlier for after, earlier in zip(fleet.sent, sent_before, strict=True)]
    sent_bytes = fleet.traffic.bytes - bytes_before

    rounds, spread_last_s = _spread(fleet, watch, swim)
    first_suspected_s, first_dead_s, last_dead_s = _detection(fleet, watch, swim, seed)
    return Calm(
        nodes=nodes,
        spread_rounds_median=median(rounds),
        spread_rounds_last=max(rounds),
        spread_last_s=spread_last_s,
        first_suspected_s=first_suspected_s,
        first_dead_s=first_dead_s,
        last_dead_s=last_dead_s,
        messages_per_node_s=sum(sent) / nodes / idle_s,
        bytes_per_node_s=sent_bytes / nodes / idle_s,
        busiest_over_mean=max(sent) / fmean(sent),
        events=fleet.events,
        wall_s=time.perf_counter() - wall,
    )


def measure_rough(
    nodes: int,
    seed: int,
    *,
    lifeguard: bool,
    loss: float = 0.0,
    sick_share: float = 0.0,
    swim: SwimConfig = LAN,
) -> Rough:
    """Count the false accusations in a cluster where nobody dies."""
    wall = time.perf_counter()
    watch = _Watch()
    config = FleetConfig(
        nodes=nodes,
        seed=seed,
        swim=swim if lifeguard else without_lifeguard(swim),
        loss=loss,
        sick_share=sick_share,
    )
    fleet = Fleet(config, watch.observe)
    fleet.start()
    fleet.run(ROUGH_PERIODS * swim.probe_period_s)
    sick = {f"n{index}" for index in fleet.sick}
    return Rough(
        nodes=nodes,
        condition=f"{loss:.0%} loss" if loss else f"{sick_share:.0%} sick",
        lifeguard=lifeguard,
        minutes=fleet.now / 60,
        suspicions=len(watch.suspected),
        deaths_of_healthy=sum(node not in sick for node, _ in watch.died),
        deaths_of_sick=sum(node in sick for node, _ in watch.died),
        wall_s=time.perf_counter() - wall,
    )


def without_lifeguard(swim: SwimConfig) -> SwimConfig:
    """The same settings as plain SWIM: one fixed suspicion time, no local health."""
    return replace(swim, awareness_max=0, suspicion_max_mult=1.0, suspicion_confirmations=0)


def verdicts(calm: Sequence[Calm], rough: Sequence[Rough], swim: SwimConfig = LAN) -> list[Verdict]:
    """Hold the numbers against the claims; what is said of growth needs two sizes of calm clusters."""
    found = []
    if len(calm) >= 2:
        found += [_load(calm), _first_detection(calm, swim), _spread_is_logarithmic(calm)]
    found += [_lifeguard(rough, condition) for condition in dict.fromkeys(each.condition for each in rough)]
    return found


def _spread(fleet: Fleet, watch: _Watch, swim: SwimConfig) -> tuple[list[int], float]:
    """Start one rumour; through how many mouths it came to each node, and the seconds until all knew."""
    source = fleet.swims[0]
    assert source is not None
    watch.rumour = source.me.id
    watch.rounds[source.me.id] = 0
    began = fleet.now
    fleet.command(0, source.update_self(began, meta=(("rumour", "1"),)))
    count = len(fleet.swims)
    limit = began + SPREAD_LIMIT_ROUNDS * swim.gossip_period_s
    _run_until(fleet, limit, swim.gossip_period_s, lambda: len(watch.rounds) == count)
    assert len(watch.rounds) == count, f"{count - len(watch.rounds)} of {count} nodes missed the rumour"
    return list(watch.rounds.values()), watch.learned_at - began


def _detection(fleet: Fleet, watch: _Watch, swim: SwimConfig, seed: int) -> tuple[float, float, float]:
    """Kill some nodes; mean times of the first suspicion, the first verdict and the last verdict."""
    count = len(fleet.swims)
    chosen = child_random(seed, "victims").sample(range(1, count), min(VICTIMS, count // 8))
    began = fleet.now
    for index in chosen:
        swim_of_victim = fleet.swims[index]
        assert swim_of_victim is not None
        watch.victims[swim_of_victim.me.id] = swim_of_victim.me.incarnation
        fleet.kill(index)
    living = count - len(chosen)

    def all_buried() -> bool:
        return len(watch.buried_by) == len(chosen) and all(
            len(by) == living for by in watch.buried_by.values()
        )

    limit_s = 60 * swim.probe_period_s + swim.suspicion_max_mult * swim.suspicion_min_s(count)
    _run_until(fleet, began + limit_s, swim.probe_period_s, all_buried)
    assert all_buried(), f"not all of {living} nodes buried all of {len(chosen)} within {limit_s:.0f} s"
    suspected = [watch.suspected[victim] - began for victim in watch.victims.items()]
    first = [min(by.values()) - began for by in watch.buried_by.values()]
    last = [max(by.values()) - began for by in watch.buried_by.values()]
    return fmean(suspected), fmean(first), fmean(last)


def _run_until(fleet: Fleet, limit: float, step_s: float, done: Callable[[], bool]) -> None:
    while fleet.now < limit and not done():
        fleet.run(fleet.now + step_s)


def _load(calm: Sequence[Calm]) -> Verdict:
    loads = [each.messages_per_node_s for each in calm]
    return Verdict(
        "the load per node does not depend on the size of the cluster (SWIM)",
        max(loads) <= 1.2 * min(loads),
        f"{min(loads):.2f} to {max(loads):.2f} messages per node and second; bound: a factor of 1.2",
    )


def _first_detection(calm: Sequence[Calm], swim: SwimConfig) -> Verdict:
    # Pings of one node by all others come as a Poisson stream of one a period, whatever the size: the wait
    # for the first has mean and deviation of a period (SWIM section 3.2 counts whole periods, e/(e-1) of
    # them).
    periods = [each.first_suspected_s / swim.probe_period_s for each in calm]
    bound = EXPECTED_FIRST_DETECTION_PERIODS + 3.0 / sqrt(VICTIMS)
    return Verdict(
        "the expected time to the first detection does not depend on the size (SWIM)",
        max(periods) <= bound,
        f"{min(periods):.2f} to {max(periods):.2f} periods; expected {EXPECTED_FIRST_DETECTION_PERIODS}; "
        f"bound {bound:.2f}: three deviations of the mean over {VICTIMS} deaths",
    )


def _spread_is_logarithmic(calm: Sequence[Calm]) -> Verdict:
    # What pushing takes where each node calls one other a round (Pittel, "On Spreading a Rumor", 1987).
    within = [(each.nodes, each.spread_rounds_last, log2(each.nodes) + log(each.nodes)) for each in calm]
    return Verdict(
        "a rumour reaches the last node in a logarithmic number of rounds (SWIM)",
        all(rounds <= bound for _, rounds, bound in within),
        ", ".join(f"{rounds:.0f} of at most {bound:.1f} for {nodes:,}" for nodes, rounds, bound in within)
        + "; bound: log2 N + ln N",
    )


def _lifeguard(rough: Sequence[Rough], condition: str) -> Verdict:
    """False deaths of the healthy, with Lifeguard and without, over all sizes."""
    these = [each for each in rough if each.condition == condition]
    with_it = sum(each.deaths_of_healthy for each in these if each.lifeguard)
    without = sum(each.deaths_of_healthy for each in these if not each.lifeguard)
    return Verdict(
        f"with {condition}, Lifeguard buries no more healthy nodes than a tenth of plain SWIM's (Lifeguard)",
        10 * with_it <= without,
        f"{with_it} healthy nodes buried with Lifeguard, {without} without"
        + ("" if without else " (nothing to tell apart)"),
    )
