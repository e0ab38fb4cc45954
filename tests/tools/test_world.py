"""The deterministic world itself: a simulator that lies finds nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import pytest

from tools.simulation.chance import child_random
from tools.simulation.faults import RATES, Nemesis, SwarmConfig, draw_swarm_config
from tools.simulation.kinds import COMMANDS, Fault
from tools.simulation.network import Conditions, Network
from tools.simulation.node import Clock, Disk, Node, NodeState
from tools.simulation.trace import Trace
from tools.simulation.world import Violation, World

# -- a program small enough to be right ------------------------------------------------------------------


@dataclass(frozen=True)
class Beat:
    number: int


@dataclass(frozen=True)
class SendBeat:
    to: str
    beat: Beat


@dataclass(frozen=True)
class Save:
    number: int


class Beating:
    """Once a second: save a number, then send it to the next node; remembers what it heard."""

    def __init__(self, node: Node, now: float) -> None:
        self.node = node
        stored = node.disk.read("number")
        self.number = stored if isinstance(stored, int) else 0
        self.heard: list[tuple[str, int]] = []
        self.ticked_at: list[float] = []
        self.lags: list[float] = []
        self.due = now + 1.0

    def start(self, now: float) -> Iterable[object]:
        return []

    def receive(self, message: object, sender: str, now: float) -> Iterable[object]:
        assert isinstance(message, Beat)
        self.heard.append((sender, message.number))
        return []

    def tick(self, now: float) -> Iterable[object]:
        if now < self.due:
            return []
        self.ticked_at.append(now)
        self.due = now + 1.0
        self.number += 1
        return [Save(self.number), SendBeat(f"host:{(self.node.index + 1) % 3}", Beat(self.number))]

    def next_deadline(self) -> float:
        return self.due

    def lagged(self, lag_s: float, now: float) -> None:
        self.lags.append(lag_s)

    def perform(self, effect: object) -> None:
        if isinstance(effect, Save):
            self.node.disk.write("number", effect.number)
            self.node.disk.sync()
        else:
            assert isinstance(effect, SendBeat)
            self.node.send_to(effect.to, effect.beat)


def beating_world(seed: int = 1, conditions: Conditions | None = None, trace: Trace | None = None) -> World:
    world = World(seed, Network(child_random(seed, "network"), conditions), trace=trace)
    for index in range(3):
        world.boot(world.add_node(f"n{index}", f"host:{index}", Beating))
    return world


def program_of(node: Node) -> Beating:
    assert isinstance(node.process, Beating)
    return node.process


# -- time ------------------------------------------------------------------------------------------------


def test_an_hour_of_three_nodes_passes_without_waiting_and_every_timer_fires() -> None:
    world = beating_world()
    world.run(3600.0)
    for node in world.nodes:
        assert 3580 <= len(program_of(node).ticked_at) <= 3600
        assert len(program_of(node).heard) >= 3579


def test_the_same_seed_gives_the_same_trace_and_another_seed_another() -> None:
    digests = []
    for seed in (5, 5, 6):
        trace = Trace()
        world = beating_world(seed, Conditions(drop=0.2, reorder=0.2), trace)
        world.run(50.0)
        digests.append(trace.digest)
    assert digests[0] == digests[1] != digests[2]


def test_keeping_lines_does_not_change_the_hash() -> None:
    with_lines, without = Trace(keep_lines=True), Trace()
    for trace in (with_lines, without):
        beating_world(7, Conditions(drop=0.3), trace).run(20.0)
    assert with_lines.digest == without.digest
    assert any("lost" in line for line in with_lines.lines)
    assert not without.lines


def test_child_generators_are_repeatable_and_independent_of_each_other() -> None:
    assert child_random(1, "a").random() == child_random(1, "a").random()
    draws = {child_random(*arguments).random() for arguments in [(1, "a"), (1, "b"), (2, "a"), (1, "a", "b")]}
    assert len(draws) == 4


def test_a_process_whose_deadline_stays_in_the_past_is_a_violation() -> None:
    world = beating_world()
    program_of(world.nodes[0]).tick = lambda now: []  # type: ignore[method-assign]
    with pytest.raises(Violation, match="n0 spins"):
        world.run(10.0)


# -- nodes -----------------------------------------------------------------------------------------------


def test_a_crash_keeps_what_was_synced_and_a_wiped_disk_keeps_nothing() -> None:
    world = beating_world()
    world.run(10.5)
    kept, wiped = world.nodes[0], world.nodes[1]
    number = program_of(kept).number
    assert number >= 9
    world.crash(kept)
    world.crash(wiped, wipe=True)
    world.boot(kept)
    world.boot(wiped)
    assert program_of(kept).number == number
    assert program_of(wiped).number == 0


def test_unsynced_writes_survive_a_crash_as_a_prefix_only() -> None:
    lengths = set()
    for seed in range(50):
        disk = Disk()
        disk.write("synced", 0)
        disk.sync()
        for number in range(3):
            disk.write(f"cached-{number}", number)
        disk.crash(child_random(seed, "disk"))
        kept = [number for number in range(3) if disk.read(f"cached-{number}") is not None]
        assert kept == list(range(len(kept)))
        assert disk.read("synced") == 0
        lengths.add(len(kept))
    assert lengths == {0, 1, 2, 3}


def test_a_crash_between_two_effects_leaves_the_first_done_and_the_second_not() -> None:
    world = beating_world()
    node = world.nodes[0]
    node.torn_after = 0
    node.when_torn = lambda: world.crash(node)
    world.run(1.5)
    assert node.state is NodeState.DOWN
    assert node.disk.read("number") == 1
    assert program_of(world.nodes[1]).heard == []


def test_a_paused_node_gets_what_it_missed_and_learns_that_it_was_late() -> None:
    world = beating_world()
    world.run(2.5)
    node = world.nodes[1]
    before = len(program_of(node).heard)
    world.pause(node)
    world.run(12.5)
    assert len(program_of(node).heard) == before
    world.resume(node)
    assert len(program_of(node).heard) == before + 10
    assert program_of(node).lags == [pytest.approx(9.5, abs=0.6)]


def test_messages_to_a_node_that_is_down_or_has_moved_are_lost() -> None:
    world = beating_world()
    node = world.nodes[1]
    world.crash(node)
    world.run(5.0)
    world.move(node, "elsewhere:1")
    world.boot(node)
    world.run(10.0)
    assert program_of(node).heard == []
    assert len(program_of(world.nodes[2]).heard) >= 4


def test_a_skewed_clock_runs_faster_and_a_step_makes_timers_due() -> None:
    world = beating_world()
    fast, stepped, normal = world.nodes
    fast.clock.turn_to_rate(1.5, world.now)
    world.rearm(fast)
    world.run(0.1)
    stepped.clock.offset_s += 100.0
    world.rearm(stepped)
    world.run(0.2)
    assert len(program_of(stepped).ticked_at) == 1
    world.run(30.0)
    assert len(program_of(fast).ticked_at) == pytest.approx(1.5 * len(program_of(normal).ticked_at), abs=2)


@pytest.mark.parametrize("reading", [0.1, 1 / 3, 12345.6789, 1e6 + 0.1])
def test_a_clock_shows_at_least_the_reading_it_was_asked_for(reading: float) -> None:
    for rate in (0.8, 1.0, 1.1, 1.25):
        clock = Clock(rate, 0.7)
        at = clock.when(reading)
        assert clock.read(at) >= reading
        assert clock.read(at - 1e-6) < reading


# -- the network -----------------------------------------------------------------------------------------


def arrivals_of(network: Network, count: int, interval_s: float = 0.01) -> list[list[float]]:
    from tools.simulation.network import Datagram

    return [network.arrivals(Datagram("a", "b", number, number * interval_s)) for number in range(count)]


def test_a_link_without_faults_is_in_order_and_loses_nothing() -> None:
    times = arrivals_of(Network(child_random(1, "n"), Conditions(latency_s=0.01, jitter_s=0.05)), 500)
    flat = [at for each in times for at in each]
    assert len(flat) == 500
    assert flat == sorted(flat)


@pytest.mark.parametrize(
    ("fault", "conditions"),
    [
        (Fault.DROP, Conditions(drop=0.1)),
        (Fault.DUPLICATE, Conditions(duplicate=0.1)),
        (Fault.REORDER, Conditions(reorder=0.1)),
        (Fault.DELAY, Conditions(delay=0.1)),
    ],
)
def test_each_rate_happens_about_as_often_as_said_and_counts_what_it_did(
    fault: Fault, conditions: Conditions
) -> None:
    network = Network(child_random(3, "n"), conditions)
    times = arrivals_of(network, 5000)
    lost = sum(not each for each in times)
    twice = sum(len(each) == 2 for each in times)
    first = [each[0] for each in times if each]
    overtaken = sum(later < earlier for earlier, later in pairwise(first))
    seen = {Fault.DROP: lost, Fault.DUPLICATE: twice, Fault.REORDER: overtaken}
    assert set(network.fired) == {fault}
    if fault in seen:
        assert seen[fault] == pytest.approx(network.fired[fault], rel=0.2)
    assert 0.05 * 5000 < network.fired[fault] < 0.15 * 5000
    for other, count in seen.items():
        assert other is fault or count == 0


def test_cuts_are_one_way_and_partitions_both_ways_until_mended() -> None:
    from tools.simulation.network import Datagram

    network = Network(child_random(1, "n"))
    there, back = Datagram("a", "b", "x", 0.0), Datagram("b", "a", "x", 0.0)
    network.cut("a", "b")
    assert (network.arrivals(there), bool(network.arrivals(back))) == ([], True)
    network.mend("a", "b")
    assert network.arrivals(there)
    side = frozenset({"a"})
    network.partition(side)
    assert network.arrivals(there) == network.arrivals(back) == []
    network.rejoin(side)
    assert network.arrivals(there)
    assert network.fired == {Fault.CUT: 1, Fault.PARTITION: 2}


def test_a_clogged_link_delivers_all_at_once_in_order_when_it_opens() -> None:
    network = Network(child_random(1, "n"))
    network.clog("a", "b", 3.0)
    times = [at for each in arrivals_of(network, 100, 0.02) for at in each]
    assert times == sorted(times)
    assert times[0] >= 3.0
    assert times[-1] < 3.1


def test_late_replay_delivers_old_messages_again() -> None:
    world = beating_world()
    world.run(300.0)
    before = sum(len(program_of(node).heard) for node in world.nodes)
    world.replay(10)
    world.run(300.0001)
    after = sum(len(program_of(node).heard) for node in world.nodes)
    assert after - before == world.network.fired[Fault.REPLAY] == 10


# -- the nemesis -----------------------------------------------------------------------------------------


def only(fault: Fault) -> SwarmConfig:
    return SwarmConfig(
        fault_phase_s=200.0,
        enabled=(fault,),
        conditions=Conditions(),
        mean_interval_s={fault: 10.0},
        kill_share=0.3,
    )


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault not in RATES and fault not in COMMANDS])
def test_every_strike_hits_and_everything_is_healed_in_the_end(fault: Fault) -> None:
    world = beating_world(11)
    nemesis = Nemesis(world, only(fault), max_down=2, anchors=["n0"])
    nemesis.begin()
    world.run(200.0)
    nemesis.heal()
    world.run(200.1)
    fired = nemesis.fired + world.network.fired
    assert set(fired) == {fault}
    assert fired[fault] >= 3
    assert world.nodes[0].running
    assert world.nodes[0].address == "host:0"
    counts = []
    for node in world.nodes:
        assert node.running or node.gone
        assert node.clock.rate == 1.0
        counts.append(len(program_of(node).ticked_at) if node.running else 0)
    world.run(260.0)
    for node, count in zip(world.nodes, counts, strict=True):
        assert node.gone or len(program_of(node).ticked_at) >= count + 55


def test_no_more_nodes_are_down_at_a_time_than_allowed() -> None:
    world = beating_world(12)
    most = 0

    def count_down(_: Node) -> None:
        nonlocal most
        most = max(most, sum(not node.running for node in world.nodes))

    world.checks.append(count_down)
    Nemesis(world, only(Fault.PAUSE), max_down=1).begin()
    world.run(200.0)
    assert most == 1


def test_swarm_configuration_turns_each_fault_on_in_about_half_of_the_seeds() -> None:
    configs = [draw_swarm_config(seed, tuple(Fault), (10.0, 20.0)) for seed in range(400)]
    for fault in Fault:
        assert 140 < sum(fault in config.enabled for config in configs) < 260
    assert len({config.enabled for config in configs}) > 390
    assert draw_swarm_config(3, tuple(Fault), (10.0, 20.0)) == configs[3]


def test_leaving_a_fault_out_of_the_menu_changes_nothing_about_the_others() -> None:
    whole = draw_swarm_config(9, tuple(Fault), (10.0, 20.0))
    without = draw_swarm_config(9, [fault for fault in Fault if fault is not Fault.DROP], (10.0, 20.0))
    assert without.enabled == tuple(fault for fault in whole.enabled if fault is not Fault.DROP)
    assert dict(without.mean_interval_s) == dict(whole.mean_interval_s)
