"""Measure how fast jobs run on a swarm of real peers of this machine.

    python -m tools.measure_jobs tasks                          # 1,000 empty map tasks on 4 peers
    python -m tools.measure_jobs small --rounds 20              # a job of ten lines on a standing swarm
    python -m tools.measure_jobs large --size 256MB --rounds 5  # beside the embedded engine
    python -m tools.measure_jobs large --rows sort --cache DIR --books DIR-OF-BOOKS

*Tasks*: from a handle's `submit` to the job's end, as that client hears of it; so vetting, birth and the
last commit count.

*Small*: the whole process of `ringreduce submit`, and the same job through a standing `Swarm`, from `submit`
until its pairs are here.  Each kind's first run finds peers that have never run a job; it is told apart.

*Large*: the jobs of `tools/bench_jobs.py`, R=2, as `ringreduce submit`, in turns with `ringreduce run`; both
as whole processes that write the same parts to the same disk.  Their bytes are compared after every pair of
runs.  The ratio is that of the medians.

Prints a line for each promise: what was measured, what was promised, and whether it holds; the exit code is 1
if one does not.

⚙ This module runs processes and writes files.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mapreduce import finding
from p2p.local_swarm import LocalSwarm
from tools.bench import (
    JOBS,
    REPOSITORY,
    ROWS,
    TEN_LINE_JOB,
    command_of,
)
from tools.bench_inputs import InputSpec, made_apart
from tools.bench_measure import CommandFailed, measure
from tools.benchmarks.arguments import one_or_more, positive, size
from tools.measure_membership import Report

LIMIT_S = 600.0
TTL_S = 10.0  # results are fetched at once; kept longer they would fill the page cache
LARGE_ROWS = ("wordcount", "wordcount-batch", "inverted-index", "sort")
MOST_RATIO = {"sort": 1.8}
MOST_RATIO_ELSE = 1.3


class BytesDiffer(Exception):
    """The swarm's parts are not those of the embedded engine."""


EMPTY_JOB = """\
from mapreduce import Job

def mapper(line):
    return ()

job = Job(mapper=mapper)
"""


def measure_tasks(options: argparse.Namespace, report: Report) -> None:
    """How many empty map tasks a second a swarm gets through."""
    per_s: list[float] = []
    with (
        tempfile.TemporaryDirectory(prefix="ringreduce-measure-") as folder,
        LocalSwarm(peers=options.peers, slots=options.slots) as swarm,
    ):
        path = Path(folder) / "lines.txt"
        path.write_bytes(b"0123456\n" * options.tasks)
        (Path(folder) / "empty.py").write_text(EMPTY_JOB)
        job, code, _ = finding.load(str(Path(folder) / "empty.py"), {})
        for _ in range(options.rounds + 1):
            began_at = time.monotonic()
            with swarm.submit(job, str(path), split_bytes=8, code=code) as handle:
                view = handle.wait(LIMIT_S)
                took_s = time.monotonic() - began_at
                done = sum(stage.done for stage in view.stages)
            assert done == options.tasks, f"{done} tasks of {options.tasks} were run"
            per_s.append(options.tasks / took_s)
            say(f"{options.tasks} tasks in {took_s:.2f} s")
    first, *later = per_s
    median = statistics.median(later)
    measured = f"{median:,.0f}/s (first: {first:,.0f}/s)"
    what = f"{options.tasks:,} empty map tasks on {options.peers} peers"
    report.add(what, measured, ">= 1,000/s", median >= 1_000)


def measure_small(options: argparse.Namespace, report: Report) -> None:
    """How long a job of ten lines takes on a standing swarm, by the command and through a handle."""
    with tempfile.TemporaryDirectory(prefix="ringreduce-measure-") as directory:
        folder = Path(directory)
        (folder / "job.py").write_text(TEN_LINE_JOB)
        (folder / "input.txt").write_text("a few words, and a few more\n" * 10)
        with LocalSwarm(peers=options.peers, slots=options.slots) as swarm:
            by_command = _timed(options.rounds, lambda: _command(swarm, folder))
        _add_small(report, "a ten-line job by the command", by_command, 0.25)
        job, code, _ = finding.load(str(folder / "job.py"), {})
        with LocalSwarm(peers=options.peers, slots=options.slots) as swarm:

            def by_a_handle() -> None:
                with swarm.submit(job, str(folder / "input.txt"), code=code) as handle:
                    pairs = dict(handle.result(LIMIT_S))
                assert pairs["few"] == 20, pairs

            _add_small(report, "a ten-line job through a handle", _timed(options.rounds, by_a_handle), 0.08)


def _command(swarm: LocalSwarm, folder: Path) -> None:
    command = [sys.executable, "-m", "p2p.cli", "submit", "job.py", "input.txt", "--quiet"]
    measure(
        [*command, "--peer", ",".join(swarm.peers)],
        environment={"PYTHONPATH": str(REPOSITORY), "RINGREDUCE_KEYS": str(swarm.keys_directory)},
        directory=folder,
        limit_s=LIMIT_S,
    )


def _timed(rounds: int, run: Callable[[], None]) -> list[float]:
    """Run something once, and then so many times more; return what each took in seconds."""
    walls_s: list[float] = []
    for _ in range(rounds + 1):
        began_at = time.monotonic()
        run()
        walls_s.append(time.monotonic() - began_at)
    return walls_s


def _add_small(report: Report, what: str, walls_s: Sequence[float], most_s: float) -> None:
    first_s, *later_s = walls_s
    median_s = statistics.median(later_s)
    measured = f"median {median_s * 1e3:.0f} ms, worst {max(later_s) * 1e3:.0f} (first {first_s * 1e3:.0f})"
    report.add(what, measured, f"<= {most_s * 1e3:.0f} ms", median_s <= most_s)


def measure_large(options: argparse.Namespace, report: Report) -> None:
    """How much longer a swarm takes than the embedded engine, replicas included."""
    for name in options.rows:
        kind = ROWS[name].kind
        books = os.path.abspath(options.books) if kind == "text" and options.books else ""
        spec = InputSpec(kind=kind, size_bytes=options.size, seed=options.seed, books=books)
        inputs = made_apart(spec, options.cache.absolute())
        with (
            tempfile.TemporaryDirectory(prefix="out-", dir=options.cache.absolute()) as out,
            LocalSwarm(peers=options.peers, slots=options.slots) as swarm,
        ):
            embedded_s, swarm_s = _in_turns(name, inputs, swarm, Path(out), options.rounds)
        ratio = statistics.median(swarm_s) / statistics.median(embedded_s)
        most = MOST_RATIO.get(name, MOST_RATIO_ELSE)
        walls = f"{statistics.median(swarm_s):.2f} s / {statistics.median(embedded_s):.2f} s"
        what = f"{options.size / 1e6:,.0f} MB {name}, {options.peers} peers beside embedded"
        report.add(what, f"{ratio:.2f} ({walls})", f"<= {most:.1f}", ratio <= most)


def _in_turns(
    name: str, inputs: Sequence[Path], swarm: LocalSwarm, out: Path, rounds: int
) -> tuple[list[float], list[float]]:
    """Return the walls of both sides, in seconds.

    Raises:
        BytesDiffer: their parts are not the same.
    """
    row = ROWS[name]
    submit = [sys.executable, "-m", "p2p.cli", "submit", f"{JOBS}:{row.job}", *(path.name for path in inputs)]
    submit += ["-o", str(out / "swarm"), "--quiet", "--peer", ",".join(swarm.peers), "--ttl", f"{TTL_S}"]
    commands = {
        "embedded": command_of("ours", row, inputs, out / "embedded"),
        "swarm": [*submit, *row.options],
    }
    walls_s: dict[str, list[float]] = {side: [] for side in commands}
    for number in range(rounds):
        for side in sorted(commands, reverse=bool(number % 2)):
            usage = measure(
                commands[side],
                environment={"PYTHONPATH": str(REPOSITORY), "RINGREDUCE_KEYS": str(swarm.keys_directory)},
                directory=inputs[0].parent,
                limit_s=LIMIT_S,
                beside=[peer.pid for peer in swarm.local.peers] if side == "swarm" else (),
            )
            walls_s[side].append(usage.wall_s)
            say(f"{name} {side}: {usage.wall_s:.2f} s, {usage.cpu_s:.2f} s of processor time")
        _compare(out / "embedded", out / "swarm")
        for side in commands:
            shutil.rmtree(out / side)
    return walls_s["embedded"], walls_s["swarm"]


def _compare(one: Path, other: Path) -> None:
    names = sorted({path.name for folder in (one, other) for path in folder.iterdir()})
    _, different, missing = filecmp.cmpfiles(one, other, names, shallow=False)
    if different or missing:
        raise BytesDiffer(f"these parts are not the same: {', '.join([*different, *missing])}")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(
        prog="python -m tools.measure_jobs", description=(__doc__ or "").partition("\n")[0]
    )
    commands = top.add_subparsers(dest="command", required=True)

    def command(name: str, peers: int, rounds: int, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text)
        made.add_argument("--peers", type=positive, default=peers, help=f"how many ({peers})")
        made.add_argument("--slots", type=positive, default=1, help="tasks at a time of each peer (1)")
        made.add_argument("--rounds", type=positive, default=rounds, help=f"how often ({rounds})")
        return made

    tasks = command("tasks", 4, 5, "empty map tasks a second")
    tasks.add_argument("--tasks", type=positive, default=1_000, help="how many (1,000)")
    command("small", 3, 20, "a job of ten lines")
    large = command("large", 3, 5, "large jobs beside the embedded engine")
    large.add_argument("--rows", type=one_or_more(LARGE_ROWS), default=list(LARGE_ROWS))
    large.add_argument("--size", type=size, default=256_000_000, help="of each input (256MB)")
    large.add_argument("--seed", type=int, default=1, help="of the inputs (1)")
    large.add_argument("--books", default="", help="a folder of text files (Python's standard library)")
    large.add_argument("--cache", type=Path, default=REPOSITORY / ".bench", help="where inputs are kept")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurements that were asked for; return the exit code."""
    options = parser().parse_args(arguments)
    report = Report()
    measurements = {"tasks": measure_tasks, "small": measure_small, "large": measure_large}
    try:
        measurements[options.command](options, report)
    except (CommandFailed, BytesDiffer) as error:
        say(str(error))
        return 1
    return 0 if all(holds for *_, holds in report.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
