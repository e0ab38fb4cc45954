"""`python -m tools.bench grow`: how the cost of a job grows with its input, partitions, tasks and peers.

    python -m tools.bench grow [--curves input,partitions,tasks,peers,simulated] [--rounds 3] [--plot DIR]

Each curve changes one thing and leaves the others.  The job is the log's hits by URL: little to compute, a
small result, so that what the engine adds shows.  Times are medians of whole processes, as in `compare`;
peers share this machine's processors, so what more of them cost is overhead and nothing else.

⚙ This module runs processes and reads and writes files.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tools.bench_inputs import InputSpec, made_apart
from tools.bench_measure import Usage, measure
from tools.benchmarks.arguments import one_or_more, positive, positives, size, sizes
from tools.benchmarks.curves import Curves, Point, curve_tables, curves_json, slope
from tools.benchmarks.questions import QUESTIONS
from tools.benchmarks.results import this_machine
from tools.benchmarks.sides import ENVIRONMENT, RUN_LIMIT_S, ringreduce, standing

CURVES = ("input", "partitions", "tasks", "peers", "simulated")
QUESTION = QUESTIONS["log-hits"]
INPUT_SIZES = (64_000_000, 128_000_000, 256_000_000, 512_000_000, 1_000_000_000)
PARTITIONS = (8, 32, 128, 512)
TASKS = (10, 100, 1_000, 10_000)
PEERS = (1, 2, 4, 8, 16, 32)
SIMULATED = (10, 32, 100, 316, 1_000)
# Of fewer peers none can be spared to be killed.
SIMULATED_MIN = 8
TASK_PEERS = 4
EMPTY_JOB = """\
from mapreduce import Job

def mapper(line):
    return ()

job = Job(mapper=mapper)
"""
LINE = b"0123456\n"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Grown:
    """Where curves are measured: the cache, how often, and who is told."""

    cache: Path
    rounds: int
    seed: int
    say: Say

    def logs(self, size_bytes: int) -> list[Path]:
        """Return the input of `QUESTION`."""
        return made_apart(InputSpec(kind=QUESTION.kind, size_bytes=size_bytes, seed=self.seed), self.cache)

    def run(self, label: str, command: Sequence[str], directory: Path, beside: Sequence[int] = ()) -> Usage:
        """Return the medians of some runs of a command whose last argument is the output's directory."""
        usages = []
        for _ in range(self.rounds):
            usages.append(
                measure(
                    command,
                    environment=ENVIRONMENT,
                    directory=directory,
                    limit_s=RUN_LIMIT_S,
                    beside=beside,
                )
            )
            shutil.rmtree(command[-1], ignore_errors=True)
        usage = Usage(
            wall_s=median(each.wall_s for each in usages),
            cpu_s=median(each.cpu_s for each in usages),
            peak_process_bytes=int(median(each.peak_process_bytes for each in usages)),
            peak_tree_bytes=int(median(each.peak_tree_bytes for each in usages)),
        )
        self.say(f"{label}: {usage.wall_s:.2f} s, {usage.peak_process_bytes / 1e6:.0f} MB in one process")
        return usage

    def embedded(self, label: str, inputs: Sequence[Path], *options: str) -> Usage:
        """Run `QUESTION` on the embedded engine."""
        with tempfile.TemporaryDirectory(dir=self.cache) as folder:
            command = self._asked("run", inputs, Path(folder) / "out", options)
            return self.run(f"{label}, embedded", command, inputs[0].parent)

    def swarm(
        self, label: str, inputs: Sequence[Path], *options: str, peers: int = 2, replicas: int = 2
    ) -> tuple[Usage, float]:
        """Run `QUESTION` on a new swarm; returns also how long the swarm took to stand, in seconds."""
        with (
            standing(peers, self.cache / "peers") as swarm,
            tempfile.TemporaryDirectory(dir=self.cache) as folder,
        ):
            more = [*options, *swarm.options, "--replicas", str(replicas)]
            command = self._asked("submit", inputs, Path(folder) / "out", more)
            name = f"{label}, swarm of {peers}"
            return self.run(name, command, inputs[0].parent, swarm.pids), swarm.start_s

    def _asked(self, verb: str, inputs: Sequence[Path], out: Path, options: Sequence[str]) -> list[str]:
        command = ringreduce(verb, QUESTION, [path.name for path in inputs], out)
        # The output comes last, where `run` looks for it.
        place = command.index("-o")
        return [*command[:place], *command[place + 2 :], *options, "-o", str(out)]


def grow_input(grown: Grown, sizes_bytes: Sequence[int]) -> list[Curves]:
    """Measure time and memory for inputs of several sizes."""
    embedded: list[Point] = []
    swarm: list[Point] = []
    memory: dict[str, list[Point]] = {"embedded": [], "swarm of 2": []}
    for size_bytes in sizes_bytes:
        inputs, megabytes = grown.logs(size_bytes), size_bytes / 1e6
        usage = grown.embedded(f"{megabytes:g} MB", inputs)
        embedded.append((megabytes, usage.wall_s))
        memory["embedded"].append((megabytes, usage.peak_process_bytes / 1e6))
        usage, _ = grown.swarm(f"{megabytes:g} MB", inputs)
        swarm.append((megabytes, usage.wall_s))
        memory["swarm of 2"].append((megabytes, usage.peak_process_bytes / 1e6))
    per_s = [f"{1 / slope(points):,.0f} MB/s" for points in (embedded, swarm) if len(points) > 1]
    return [
        Curves(
            name="input",
            title="Hits by URL, by input",
            grows_with="MB",
            unit="seconds",
            lines={"embedded": embedded, "swarm of 2, R=2": swarm},
            bound="Bound by the mapper's own work on each line, on all processors: beyond a constant for "
            f"starting and ending, one more MB costs the same ({' embedded, '.join(per_s)} on the swarm).",
        ),
        Curves(
            name="input-memory",
            title="Memory of the largest process, by input",
            grows_with="MB",
            unit="MB",
            lines=memory,
            bound="Bound by a split and by the distinct keys of a partition, of which there are more in a "
            "larger input; not by the input: what does not fit is spilled.",
        ),
    ]


def grow_partitions(grown: Grown, counts: Sequence[int], size_bytes: int) -> list[Curves]:
    """Measure one input cut into more and more partitions."""
    inputs = grown.logs(size_bytes)
    embedded = [(float(n), grown.embedded(f"{n} parts", inputs, "-r", str(n)).wall_s) for n in counts]
    swarm = [(float(n), grown.swarm(f"{n} parts", inputs, "-r", str(n))[0].wall_s) for n in counts]
    each_ms = [slope(points) * 1e3 for points in (embedded, swarm)]
    return [
        Curves(
            name="partitions",
            title=f"Hits by URL in {size_bytes / 1e6:g} MB, by partitions",
            grows_with="partitions",
            unit="seconds",
            lines={"embedded": embedded, "swarm of 2, R=2": swarm},
            bound="Bound by what one more reduce task costs: order, files opened, commit, copies, fetch "
            f"({each_ms[0]:.1f} ms embedded, {each_ms[1]:.1f} ms on the swarm); the work stays the same.",
        )
    ]


def grow_tasks(grown: Grown, counts: Sequence[int]) -> list[Curves]:
    """Measure more and more map tasks that do nothing."""
    on_swarm = f"swarm of {TASK_PEERS}, R=2"
    rates: dict[str, list[Point]] = {"embedded": [], on_swarm: []}
    memory: dict[str, list[Point]] = {"embedded": [], on_swarm: []}
    with tempfile.TemporaryDirectory(dir=grown.cache) as name:
        folder = Path(name)
        (folder / "empty.py").write_text(EMPTY_JOB)
        for count in counts:
            (folder / "lines.txt").write_bytes(LINE * count)
            common = ["empty.py", "lines.txt", "--quiet", "--split-size", str(len(LINE))]
            out = ["-o", str(folder / "out")]
            command = _python("run", *common, *out)
            usages = {"embedded": grown.run(f"{count} tasks, embedded", command, folder)}
            with standing(TASK_PEERS, grown.cache / "peers") as swarm:
                command = _python("submit", *common, *swarm.options, *out)
                usages[on_swarm] = grown.run(f"{count} tasks, swarm", command, folder, swarm.pids)
            for side, usage in usages.items():
                rates[side].append((count, count / usage.wall_s))
                memory[side].append((count, usage.peak_process_bytes / 1e6))
    each_kb = {side: slope(points) * 1e3 for side, points in memory.items()}
    return [
        Curves(
            name="tasks",
            title="Empty map tasks a second, whole process",
            grows_with="map tasks",
            unit="tasks a second",
            lines=rates,
            bound="Few tasks are bound by starting and ending a job; many by what the children do for each: "
            "open the input, run nothing, write an empty part, report it.",
        ),
        Curves(
            name="tasks-memory",
            title="Memory of the largest process, by map tasks",
            grows_with="map tasks",
            unit="MB",
            lines=memory,
            bound="Bound by what is kept of each task until its job is over: its split, its winner, its "
            f"counters ({each_kb['embedded']:.1f} kB a task embedded, {each_kb[on_swarm]:.1f} kB at the peer "
            "that holds most).",
        ),
    ]


def grow_peers(grown: Grown, counts: Sequence[int], size_bytes: int) -> list[Curves]:
    """Measure one job on more and more peers that share this machine."""
    inputs = grown.logs(size_bytes)
    lines: dict[str, list[Point]] = {"job": [], "processor time of the job": [], "start of the swarm": []}
    for peers in counts:
        usage, start_s = grown.swarm(f"{peers} peers", inputs, peers=peers, replicas=min(2, peers))
        for line, value in zip(lines.values(), (usage.wall_s, usage.cpu_s, start_s), strict=True):
            line.append((peers, value))
    return [
        Curves(
            name="peers",
            title=f"Hits by URL in {size_bytes / 1e6:g} MB, by peers on {os.cpu_count()} processors",
            grows_with="peers",
            unit="seconds",
            lines=lines,
            bound="Bound by the processors, which do not become more: a peer more costs its interpreters, "
            "its share of gossip, and the copies that then go to another process.",
        )
    ]


def _python(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "p2p.cli", *arguments]


# --- the command ------------------------------------------------------------------------------------


def add_parser(commands: Any, common: list[argparse.ArgumentParser]) -> None:
    """Add `grow` to the commands of `tools.bench`."""
    parser = commands.add_parser("grow", parents=common, help="how the cost grows")
    parser.add_argument("--curves", type=one_or_more(CURVES), default=list(CURVES), help=",".join(CURVES))
    parser.add_argument("--sizes", type=sizes, default=list(INPUT_SIZES), help="of the curve over inputs")
    parser.add_argument("--size", type=size, default=64_000_000, help="of the other curves' input  [64MB]")
    parser.add_argument("--partitions", type=positives, default=list(PARTITIONS))
    parser.add_argument("--tasks", type=positives, default=list(TASKS))
    parser.add_argument("--peers", type=positives, default=list(PEERS))
    parser.add_argument("--nodes", type=simulated_sizes, default=list(SIMULATED), help="simulated peers")
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    parser.add_argument("--markdown", action="store_true", help="print the tables for a README")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="draw pictures there (needs matplotlib)")


def simulated_sizes(text: str) -> list[int]:
    """Return sizes of simulated swarms, divided by commas."""
    counts = positives(text)
    if min(counts) < SIMULATED_MIN:
        raise argparse.ArgumentTypeError(f"{min(counts)}: a swarm to be measured has {SIMULATED_MIN} or more")
    return counts


def run_grow(options: argparse.Namespace, say: Say) -> str:
    """Measure, write, draw, and return the tables.

    Raises:
        CommandFailed: a process did not end well.
        ValueError, OSError: something cannot be made or written.
    """
    from tools.benchmarks.plots import draw_curves, why_not

    if problem := why_not(options.plot):
        raise ValueError(problem)
    cache = options.cache.absolute()
    cache.mkdir(parents=True, exist_ok=True)
    grown = Grown(cache, options.rounds, options.seed, say)
    curves: list[Curves] = []
    for name in options.curves:
        match name:
            case "input":
                curves += grow_input(grown, options.sizes)
            case "partitions":
                curves += grow_partitions(grown, options.partitions, options.size)
            case "tasks":
                curves += grow_tasks(grown, options.tasks)
            case "peers":
                curves += grow_peers(grown, options.peers, options.size)
            case _:
                curves += simulated(options.nodes, options.seed)
        if options.json is not None:
            options.json.write_text(curves_json(curves, {"machine": this_machine()}))
    for file in draw_curves(curves, options.plot) if options.plot is not None else ():
        say(str(file))
    return curve_tables(curves, markdown=options.markdown)


def simulated(nodes: Sequence[int], seed: int) -> list[Curves]:
    """Measure in the simulator; imported here, as nothing else needs it."""
    from tools.benchmarks.grow_simulated import job_curves, measure_job, simulated_curves

    return simulated_curves(nodes, seed) + job_curves([measure_job(count, seed) for count in nodes])
