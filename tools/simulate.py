"""The simulator's command: ``python -m tools.simulate`` with the name of a world.

``membership``, ``register`` and ``jobs`` run seeds of the deterministic world, each with its own faults, and
say what really happened. Exit code 0: every promise was kept; 1: a seed broke one (the command that replays
it is printed), or a fault that was turned on in some of 100 or more seeds never happened; 2: bad usage; 130:
interrupted; 141: whoever read the output left before its end (``| head``).

``locks`` runs seeds of the named locks of jobs, in a smaller world of their own (``tools.simulation.locks``),
with the same exit codes.

``gossip`` measures dissemination and detection in large clusters and holds the numbers against the
papers' claims.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mapreduce.console import UNREAD, while_read
from tools.simulation.kinds import Fault
from tools.simulation.scenario import Outcome, Scenario, never_fired, run_scenario
from tools.simulation.trace import Trace

__all__ = ["main"]

ENOUGH_SEEDS = (
    100  # from so many on, a fault that was turned on and never happened is the simulator's failure
)
MAX_REPORTED = 10
INTERRUPTED = 130
MAX_NODES = 100_000
ROUGH_CONDITIONS = ((0.01, 0.0), (0.05, 0.0), (0.0, 0.05))  # (share of messages lost, share of nodes sick)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parsed = _parser().parse_args(arguments)
    if parsed.world == "gossip":
        return _gossip(parsed)
    if parsed.world == "locks":
        return _locks(parsed)
    if parsed.replay is not None:
        return _replay(parsed)
    return _seeds(parsed)


def _maker(parsed: argparse.Namespace) -> Callable[[int, Trace], Scenario]:
    """What makes a seed of the world that was asked for."""
    if parsed.world == "register":
        from tools.simulation.planted_registers import PLANTS
        from tools.simulation.register import register_maker

        if parsed.plant is None:
            return register_maker(codec=parsed.codec)
        plant = PLANTS[parsed.plant]
        return register_maker(machine=plant.machine, process=plant.process, codec=parsed.codec)
    if parsed.world == "jobs":
        from tools.simulation.jobs import jobs_maker
        from tools.simulation.planted_jobs import PLANTS as JOB_PLANTS

        if parsed.plant is None:
            return jobs_maker()
        wrong = JOB_PLANTS[parsed.plant]
        return jobs_maker(leader=wrong.leader, worker=wrong.worker, process=wrong.process, apply=wrong.apply)
    from tools.simulation.membership import membership_maker

    return membership_maker(nodes=parsed.nodes, codec=parsed.codec)


def _seeds(parsed: argparse.Namespace) -> int:
    make = _maker(parsed)
    outcomes: list[Outcome] = []
    failed = 0
    begin = last_said = time.perf_counter()
    try:
        for seed in parsed.seeds:
            outcome = run_scenario(make, seed)
            outcomes.append(outcome)
            if outcome.violation:
                failed += 1
                if failed <= MAX_REPORTED:
                    print(f"seed {seed} ({outcome.title}):\n    {outcome.violation}")
                    print(f"    {_again(parsed, seed)}", flush=True)
            if time.perf_counter() - last_said >= 5.0:
                last_said = time.perf_counter()
                print(f"{len(outcomes)} of {len(parsed.seeds)} seeds", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted; what was run so far:", file=sys.stderr)
    if failed > MAX_REPORTED:
        print(f"… and {failed - MAX_REPORTED} more")
    _report(outcomes, time.perf_counter() - begin, failed)
    if len(outcomes) < len(parsed.seeds):
        return INTERRUPTED
    idle = never_fired(outcomes) if len(outcomes) >= ENOUGH_SEEDS else []
    if idle:
        print(f"faults turned on that never happened: {', '.join(idle)}")
    return 1 if failed or idle else 0


def _report(outcomes: Sequence[Outcome], elapsed_s: float, failed: int) -> None:
    fired: Counter[Fault] = Counter()
    enabled: Counter[Fault] = Counter()
    for outcome in outcomes:
        fired += outcome.fired
        enabled.update(outcome.enabled)
    virtual_s = sum(outcome.virtual_s for outcome in outcomes)
    print(
        f"{len(outcomes)} seeds in {elapsed_s:.1f} s: {len(outcomes) / elapsed_s:.1f} seeds/s, "
        f"{virtual_s / elapsed_s:.0f} virtual seconds a second, "
        f"{sum(outcome.events for outcome in outcomes) / elapsed_s:,.0f} events/s"
    )
    healed = sorted(outcome.healed_s for outcome in outcomes if not outcome.violation)
    if healed:
        median_s, latest_s = healed[len(healed) // 2], healed[-1]
        print(f"agreement after healing: median {median_s:.1f} s, latest {latest_s:.1f} s (virtual)")
    print(f"{'fault':<22} {'seeds with it':>13} {'really happened':>16}")
    for fault in Fault:
        print(f"{fault:<22} {enabled[fault]:>13,} {fired[fault]:>16,}")
    print(f"{failed} of {len(outcomes)} seeds broke a promise")


def _replay(parsed: argparse.Namespace) -> int:
    trace = Trace(keep_lines=True)
    outcome = run_scenario(_maker(parsed), parsed.replay, trace)
    print(f"seed {outcome.seed}: {outcome.title}")
    print(*trace.lines, sep="\n")
    print(
        f"trace {outcome.trace_digest} ({outcome.events:,} events, {outcome.virtual_s:.1f} virtual seconds)"
    )
    print(f"violation: {outcome.violation}" if outcome.violation else "no violation")
    return 1 if outcome.violation else 0


def _gossip(parsed: argparse.Namespace) -> int:
    from tools.simulation import gossip, gossip_plot

    if parsed.plot is not None:
        problem = gossip_plot.why_not(parsed.plot)
        if problem:
            print(problem, file=sys.stderr)
            return 2
    calm = []
    print("calm links: one rumour's rounds and seconds, seconds to detect the killed (means), idle load")
    print(
        f"{'nodes':>7} {'median':>7} {'last':>5} {'last':>6} {'first':>10} {'first':>6} {'last':>6}"
        f" {'messages':>9} {'bytes':>8} {'busiest':>8} {'wall':>6}\n"
        f"{'':>7} {'round':>7} {'round':>5} {'s':>6} {'suspected':>10} {'dead':>6} {'dead':>6}"
        f" {'/node/s':>9} {'/node/s':>8} {'/mean':>8} {'s':>6}"
    )
    for nodes in parsed.nodes:
        row = gossip.measure_calm(nodes, parsed.seed)
        calm.append(row)
        print(
            f"{nodes:>7,} {row.spread_rounds_median:>7.0f} {row.spread_rounds_last:>5.0f}"
            f" {row.spread_last_s:>6.2f} {row.first_suspected_s:>10.2f} {row.first_dead_s:>6.1f}"
            f" {row.last_dead_s:>6.1f} {row.messages_per_node_s:>9.2f} {row.bytes_per_node_s:>8.0f}"
            f" {row.busiest_over_mean:>8.2f} {row.wall_s:>6.1f}",
            flush=True,
        )
    rough = []
    print("nobody dies: every accusation is false (each counted once per member and incarnation)")
    print(
        f"{'nodes':>7} {'condition':<10} {'':<12} {'minutes':>8} {'suspected':>10} {'healthy dead':>13}"
        f" {'sick dead':>10} {'wall s':>7}"
    )
    for nodes in sorted({min(nodes, gossip.ROUGH_NODES_MAX) for nodes in parsed.nodes}):
        for loss, sick_share in ROUGH_CONDITIONS:
            for lifeguard in (True, False):
                each = gossip.measure_rough(
                    nodes, parsed.seed, lifeguard=lifeguard, loss=loss, sick_share=sick_share
                )
                rough.append(each)
                print(
                    f"{nodes:>7,} {each.condition:<10} {'Lifeguard' if lifeguard else 'plain SWIM':<12}"
                    f" {each.minutes:>8.1f} {each.suspicions:>10,} {each.deaths_of_healthy:>13,}"
                    f" {each.deaths_of_sick:>10,} {each.wall_s:>7.1f}",
                    flush=True,
                )
    for verdict in gossip.verdicts(calm, rough):
        print(f"{'holds' if verdict.holds else 'DOES NOT HOLD'}: {verdict.claim}: {verdict.because}")
    if parsed.plot is not None:
        gossip_plot.draw(parsed.plot, calm, rough)
        print(f"plot: {parsed.plot}")
    return 0


def _locks(parsed: argparse.Namespace) -> int:
    from mapreduce.lock_keeper import LockKeeper
    from tools.simulation.locks import FAULTS, LockWorld
    from tools.simulation.planted_locks import PLANTS
    from tools.simulation.world import Violation

    keeper = LockKeeper if parsed.plant is None else PLANTS[parsed.plant].keeper
    is_replay = parsed.replay is not None
    seeds = range(parsed.replay, parsed.replay + 1) if is_replay else parsed.seeds
    fired: Counter[str] = Counter()
    failed = granted = lost = 0
    for seed in seeds:
        world = LockWorld(seed, keeper_type=keeper, note=print if is_replay else lambda _line: None)
        try:
            world.run()
        except Violation as broken:
            failed += 1
            if failed <= MAX_REPORTED:
                print(f"seed {seed}: {broken}")
                if not is_replay:
                    print(f"    {_again(parsed, seed)}", flush=True)
        fired += world.fired
        granted, lost = granted + world.granted, lost + world.lost
    print(f"{'fault':<22} {'really happened':>16}")
    for fault in FAULTS:
        print(f"{fault:<22} {fired[fault]:>16,}")
    print(f"{granted:,} locks were given, {lost:,} taken from tasks that went on")
    print(f"{failed} of {len(seeds)} seeds broke a promise")
    idle = [fault for fault in FAULTS if not fired[fault]] if len(seeds) >= ENOUGH_SEEDS else []
    if idle:
        print(f"faults that never happened: {', '.join(idle)}")
    return 1 if failed or idle else 0


def _again(parsed: argparse.Namespace, seed: int) -> str:
    options = ""
    if parsed.world == "membership":
        options += f" --nodes {parsed.nodes}" if parsed.nodes is not None else ""
    if parsed.world in ("register", "jobs", "locks"):
        options += f" --plant {parsed.plant}" if parsed.plant is not None else ""
    options += "" if parsed.codec else " --no-codec"
    return f"replay: python -m tools.simulate {parsed.world} --replay {seed}{options}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.simulate", description=(__doc__ or "").split("\n")[0]
    )
    worlds = parser.add_subparsers(dest="world", required=True)
    membership = worlds.add_parser("membership", help="run seeds of membership under faults")
    register = worlds.add_parser("register", help="run seeds of the Paxos registers under faults")
    jobs = worlds.add_parser("jobs", help="run seeds of jobs on a swarm under faults")
    locks = worlds.add_parser("locks", help="run seeds of jobs' named locks under faults")
    for world in (membership, register, jobs, locks):
        world.add_argument("--seeds", type=_seed_range, default=range(100), metavar="FROM:TO", help="0:100")
        world.add_argument("--replay", type=int, metavar="SEED", help="run one seed and print its trace")
    jobs.set_defaults(codec=True)  # always: their limits are half of what is tested
    locks.set_defaults(codec=True)  # there is none to be left out
    for world in (membership, register):
        world.add_argument(
            "--codec",
            action=argparse.BooleanOptionalAction,
            default=True,
            help="pass messages through the real wire format (default) or as objects, which is faster",
        )
    membership.add_argument("--nodes", type=_node_count, default=None, help="default: 3 to 9, drawn by seed")
    register.add_argument("--plant", type=_plant, metavar="NAME", help="run with this mistake; ? lists them")
    jobs.add_argument("--plant", type=_job_plant, metavar="NAME", help="run with this mistake; ? lists them")
    locks.add_argument(
        "--plant", type=_lock_plant, metavar="NAME", help="run with this mistake; ? lists them"
    )
    gossip = worlds.add_parser("gossip", help="measure dissemination and detection in large clusters")
    gossip.add_argument("--nodes", type=_node_counts, default=(100, 1000, 10_000), help="100,1000,10000")
    gossip.add_argument("--seed", type=int, default=0)
    gossip.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the table (needs matplotlib)")
    return parser


def _seed_range(text: str) -> range:
    first, colon, last = text.partition(":")
    try:
        seeds = range(int(first), int(last)) if colon else range(int(first), int(first) + 1)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not FROM:TO, such as 0:1000") from None
    if not seeds:
        raise argparse.ArgumentTypeError(f"{text!r} holds no seed")
    return seeds


def _plant(text: str) -> str:
    from tools.simulation.planted_registers import PLANTS

    return _one_of(text, {plant.name: plant.mistake for plant in PLANTS.values()})


def _job_plant(text: str) -> str:
    from tools.simulation.planted_jobs import PLANTS

    return _one_of(text, {plant.name: plant.mistake for plant in PLANTS.values()})


def _lock_plant(text: str) -> str:
    from tools.simulation.planted_locks import PLANTS

    return _one_of(text, {plant.name: plant.mistake for plant in PLANTS.values()})


def _one_of(text: str, mistakes: Mapping[str, str]) -> str:
    if text not in mistakes:
        known = "".join(f"\n  {name}: {mistake}" for name, mistake in mistakes.items())
        raise argparse.ArgumentTypeError(f"{text!r} is none of the plants:{known}")
    return text


def _node_count(text: str) -> int:
    try:
        count = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of nodes") from None
    if not 2 <= count <= MAX_NODES:
        raise argparse.ArgumentTypeError(f"{count} nodes: it must be 2 to {MAX_NODES:,}")
    return count


def _node_counts(text: str) -> tuple[int, ...]:
    return tuple(_node_count(part) for part in text.split(","))


if __name__ == "__main__":
    sys.exit(while_read(main, unread=UNREAD))
