"""How fast a job of ours is beside what a careful person writes by hand.

    python -m tools.bench run [--rows sort,log-hits] [--size 256MB] [--rounds 5] [--json FILE] [--markdown]
    python -m tools.bench make            # only the inputs
    python -m tools.bench startup         # a ten-line job from cold
    python -m tools.bench compare         # the same, and swarms and other engines: see tools/benchmarks/
    python -m tools.bench table FILE...   # what several calls of compare found, in one table
    python -m tools.bench grow            # how the cost grows with input, partitions, tasks and peers

*Sides.*  `ours` is `ringreduce run`, from the start of the process to its end.  `single` is one thread of
plain Python, `pair` two processes that share the work by hand (`tools/bench_scripts.py`); each is the
form that a careful person writes on an afternoon, taking lines apart as our job does.  All start a cold
interpreter, read the same files, and write the whole answer to the same disk, as lines of key, tab and
value; the sort writes records, ours within msgpack.  Ours adds what the others leave out: output in key
order, bounded memory, checksums, retries.

*Rounds.*  The sides take turns within each round, and each round begins with another, so that a noisy
minute on the machine does not fall on one of them.  Reported are medians.  The ratio is of median walls,
to `single`.

*Answers* are compared after every run, untimed: a digest of all lines in any order, for the sort in
order.  A side that gives another answer ends the benchmark.

⚙ This module runs processes and writes files; what it measures, and how, stands in
`tools/bench_measure.py`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tools.bench_inputs import InputSpec, made_apart
from tools.bench_measure import CommandFailed, Usage, measure
from tools.bench_output import Answer, digest
from tools.benchmarks import command as comparison
from tools.benchmarks import grow
from tools.benchmarks.arguments import one_or_more, positive, size
from tools.benchmarks.compare import AnswersDiffer

REPOSITORY = Path(__file__).resolve().parents[1]
JOBS = REPOSITORY / "tools" / "bench_jobs.py"
SIDES = ("single", "pair", "ours")
STARTUP_ROUNDS = 20

TEN_LINE_JOB = """\
from mapreduce import Job

def mapper(line):
    for word in line.split():
        yield word.lower(), 1

def reducer(word, counts):
    yield word, sum(counts)

job = Job(mapper=mapper, combiner=reducer, reducer=reducer)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
        title: for people.
        kind: of the input, see `tools.bench_inputs`.
        job: the name of our job in `tools/bench_jobs.py`.
        script: the name of the other sides' functions in `tools/bench_scripts.py`.
        options: what our command gets besides.
        ordered: the answer's order counts.
    """

    title: str
    kind: str
    job: str
    script: str
    options: tuple[str, ...] = ()
    ordered: bool = False


ROWS = {
    "wordcount": Row(
        title="word count, generator and combiner", kind="text", job="wordcount", script="wordcount"
    ),
    "wordcount-batch": Row(
        title="word count, batch mapper", kind="text", job="wordcount_batch", script="wordcount"
    ),
    "inverted-index": Row(title="inverted index", kind="text", job="inverted_index", script="inverted-index"),
    "sort": Row(
        title="sort of 100-byte records",
        kind="sort",
        job="sort",
        script="sort",
        options=("--out-format", "msgpack"),
        ordered=True,
    ),
    "log-hits": Row(title="hits and bytes by URL", kind="logs", job="log_hits", script="log-hits"),
    "log-visitors": Row(
        title="distinct visitors by URL", kind="logs", job="log_visitors", script="log-visitors"
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One side of one row, as medians over its rounds; `ratio` is its wall over that of `single`."""

    row: str
    side: str
    wall_s: float
    cpu_s: float
    peak_process_bytes: int
    peak_tree_bytes: int
    ratio: float | None
    walls_s: tuple[float, ...]


def run_row(name: str, inputs: list[Path], sides: Sequence[str], rounds: int, out: Path) -> list[Line]:
    """Measure one row.

    Args:
        name: which.
        inputs: files of the row's kind, all in one directory.
        sides: which of `SIDES`.
        rounds: how often each.
        out: a directory that does not exist, for one side's output at a time.

    Raises:
        CommandFailed: a side did not end well.
        AnswersDiffer: they do not agree.
    """
    row = ROWS[name]
    usages: dict[str, list[Usage]] = {side: [] for side in sides}
    agreed: Answer | None = None
    for number in range(rounds):
        for place in range(len(sides)):
            side = sides[(number + place) % len(sides)]
            try:
                usage = measure(
                    command_of(side, row, inputs, out),
                    environment={"PYTHONPATH": str(REPOSITORY)},
                    directory=inputs[0].parent,
                )
                answer = digest(out, ordered=row.ordered, packed=side == "ours" and row.ordered)
            finally:
                shutil.rmtree(out, ignore_errors=True)
            if agreed is not None and answer != agreed:
                raise AnswersDiffer(f"{name}: {side} gave {answer}, others before it {agreed}")
            agreed = answer
            usages[side].append(usage)
            say(f"{name} {side}: {usage.wall_s:.2f} s, {usage.cpu_s:.2f} s of processor time")
    single = median(usage.wall_s for usage in usages["single"]) if "single" in usages else None
    return [summarised(name, side, usages[side], single) for side in sides]


def summarised(row: str, side: str, usages: Sequence[Usage], single_s: float | None) -> Line:
    """Return the medians of some runs; `single_s` is what their wall is divided by."""
    wall_s = median(usage.wall_s for usage in usages)
    return Line(
        row=row,
        side=side,
        wall_s=wall_s,
        cpu_s=median(usage.cpu_s for usage in usages),
        peak_process_bytes=int(median(usage.peak_process_bytes for usage in usages)),
        peak_tree_bytes=int(median(usage.peak_tree_bytes for usage in usages)),
        ratio=None if single_s is None else wall_s / single_s,
        walls_s=tuple(usage.wall_s for usage in usages),
    )


def command_of(side: str, row: Row, inputs: Sequence[Path], out: Path) -> list[str]:
    """Return the command line of one side; it is run in the directory of the inputs."""
    names = [path.name for path in inputs]
    if side == "ours":
        command = [sys.executable, "-m", "p2p.cli", "run", f"{JOBS}:{row.job}", *names]
        return [*command, "-o", str(out), "--quiet", *row.options]
    return [sys.executable, "-m", "tools.bench_scripts", side, row.script, str(out), *names]


def measure_startup(cache: Path, rounds: int) -> list[Line]:
    """Measure a job of ten lines from cold, beside a bare interpreter that starts another one."""
    folder = cache / "startup"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.py").write_text(TEN_LINE_JOB)
    (folder / "input.txt").write_text("a few words, and a few more\n" * 10)
    bare = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'pass'], check=True)"
    out = folder / "out"
    commands = {
        "single": [sys.executable, "-c", bare],
        "ours": [sys.executable, "-m", "p2p.cli", "run", "job.py", "input.txt", "-o", str(out), "--quiet"],
    }
    usages: dict[str, list[Usage]] = {side: [] for side in commands}
    for _ in range(rounds):
        for side, command in commands.items():
            usages[side].append(
                measure(command, environment={"PYTHONPATH": str(REPOSITORY)}, directory=folder)
            )
            shutil.rmtree(out, ignore_errors=True)
    single = median(usage.wall_s for usage in usages["single"])
    return [summarised("startup", side, usages[side], single) for side in commands]


# --- tables -----------------------------------------------------------------------------------------

HEADINGS = ("row", "side", "wall", "to single", "CPU", "peak of a process", "peak of all")


def table(lines: Sequence[Line], *, markdown: bool) -> str:
    """Return the results as a table for a terminal or for a README."""
    rows = [HEADINGS] + [
        (
            ROWS[line.row].title if line.row in ROWS else line.row,
            line.side,
            f"{line.wall_s:.2f} s",
            "" if line.ratio is None else f"{line.ratio:.2f}",
            f"{line.cpu_s:.2f} s",
            f"{line.peak_process_bytes / 1e6:,.0f} MB",
            f"{line.peak_tree_bytes / 1e6:,.0f} MB" if line.peak_tree_bytes else "",
        )
        for line in lines
    ]
    if markdown:
        bars = ["|---|---|" + "---:|" * (len(HEADINGS) - 2)]
        written = [f"| {' | '.join(row)} |" for row in rows]
        return "\n".join(written[:1] + bars + written[1:])
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def as_json(lines: Sequence[Line], settings: dict[str, Any]) -> str:
    """Return the results with the machine they are from."""
    machine = {
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    return json.dumps({"machine": machine, **settings, "lines": [asdict(line) for line in lines]}, indent=1)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# --- the command line -------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m tools.bench", description=(__doc__ or "").partition("\n")[0]
    )
    commands = top.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--cache", type=Path, default=REPOSITORY / ".bench", help="where inputs are kept")
    inputs = argparse.ArgumentParser(add_help=False)
    inputs.add_argument("--rows", type=one_or_more(list(ROWS)), default=list(ROWS), help=",".join(ROWS))
    inputs.add_argument("--size", type=size, default=256_000_000, help="of each input  [256MB]")
    inputs.add_argument("--books", default="", help="a folder of text files  [Python's standard library]")
    inputs.add_argument("--seed", type=int, default=1)
    results = argparse.ArgumentParser(add_help=False)
    results.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    results.add_argument("--markdown", action="store_true", help="print the table for a README")
    commands.add_parser("make", parents=[common, inputs], help="only make the inputs")
    run = commands.add_parser("run", parents=[common, inputs, results], help="make inputs and measure")
    run.add_argument("--rounds", type=positive, default=5)
    run.add_argument("--sides", type=one_or_more(SIDES), default=list(SIDES), help=",".join(SIDES))
    startup = commands.add_parser("startup", parents=[common, results], help="a ten-line job from cold")
    startup.add_argument("--rounds", type=positive, default=STARTUP_ROUNDS)
    comparison.add_parsers(commands, [common])
    grow.add_parser(commands, [common])
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    options = parser().parse_args(arguments)
    try:
        match options.command:
            case "compare":
                print(comparison.run_compare(options, say))
            case "table":
                print(comparison.run_table(options))
            case "grow":
                print(grow.run_grow(options, say))
            case _:
                run_rows(options)
    except (CommandFailed, AnswersDiffer) as error:
        say(str(error))
        return 1
    except (ValueError, OSError) as error:
        say(str(error))
        return 2
    return 0


def run_rows(options: argparse.Namespace) -> None:
    """Run `make`, `run` or `startup`."""
    lines = measure_startup(options.cache, options.rounds) if options.command == "startup" else rows(options)
    if options.command != "make":
        print(table(lines, markdown=options.markdown))
        if options.json is not None:
            settings = {key: options_value(value) for key, value in vars(options).items() if key != "json"}
            options.json.write_text(as_json(lines, settings))


def options_value(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def rows(options: argparse.Namespace) -> list[Line]:
    lines: list[Line] = []
    for name in options.rows:
        kind = ROWS[name].kind
        spec = InputSpec(
            kind=kind,
            size_bytes=options.size,
            seed=options.seed,
            books=os.path.abspath(options.books) if kind == "text" and options.books else "",
        )
        inputs = made_apart(spec, options.cache.absolute())
        if options.command == "run":
            out = options.cache.absolute() / f"out-{os.getpid()}"
            lines += run_row(name, inputs, options.sides, options.rounds, out)
    return lines


if __name__ == "__main__":
    # Asked to end, we end what we have started, and take away what we have written.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main())
