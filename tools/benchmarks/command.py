"""The commands `compare` and `table` of `python -m tools.bench`.

    python -m tools.bench compare [--rows sort,join] [--size 256MB] [--rounds 3] [--swarm 2x1,2x2,3x2,4x3]
                                  [--with dask,ray,spark,mrjob,polars,duckdb] [--limit 300] [--kill]
                                  [--json FILE]
    python -m tools.bench table FILE… [--markdown] [--plot DIR]

⚙ This module runs processes and writes files.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.bench_inputs import InputSpec, made_apart
from tools.benchmarks.arguments import one_or_more, positive, size
from tools.benchmarks.compare import compare
from tools.benchmarks.environments import ENGINES, EngineMissing, interpreter_of
from tools.benchmarks.plots import draw_comparison, why_not
from tools.benchmarks.questions import QUESTIONS
from tools.benchmarks.results import Results, as_json, read, this_machine
from tools.benchmarks.sides import RUN_LIMIT_S, ByHand, Embedded, Foreign, OurSwarm, Side, parse_swarm
from tools.benchmarks.tables import tables

OURS = ("single", "pair", "embedded")
DEFAULT_SWARMS = "2x1,2x2,3x2,4x3"

Say = Callable[[str], None]


def add_parsers(commands: Any, common: list[argparse.ArgumentParser]) -> None:
    """Add the two commands to those of `tools.bench`; `common` are options that all its commands have."""
    shown = argparse.ArgumentParser(add_help=False)
    shown.add_argument("--markdown", action="store_true", help="print the tables for a README")
    shown.add_argument("--plot", type=Path, metavar="DIR", help="draw pictures there (needs matplotlib)")
    parser = commands.add_parser("compare", parents=[*common, shown], help="beside swarms and other engines")
    names = list(QUESTIONS)
    parser.add_argument("--rows", type=one_or_more(names), default=names, help=",".join(names))
    parser.add_argument("--size", type=size, default=256_000_000, help="of each input  [256MB]")
    parser.add_argument("--books", default="", help="a folder of text files  [Python's standard library]")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--sides", type=one_or_more(OURS), default=list(OURS), help=",".join(OURS))
    parser.add_argument(
        "--swarm",
        type=swarms,
        default=DEFAULT_SWARMS,
        metavar="PEERSxR,…",
        help=f"peers and replicas of our swarms, or 'none'  [{DEFAULT_SWARMS}]",
    )
    engines = list(ENGINES)
    parser.add_argument(
        "--with", dest="engines", type=one_or_more(engines), default=[], help=",".join(engines)
    )
    parser.add_argument(
        "--limit",
        type=positive,
        default=RUN_LIMIT_S,
        metavar="SECONDS",
        help=f"leave another engine out of a question where it takes longer  [{RUN_LIMIT_S:g}]",
    )
    parser.add_argument(
        "--kill", action="store_true", help="then kill a worker, and then the coordinator, of each side"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run there too")
    table = commands.add_parser("table", parents=[shown], help="put the results of several calls together")
    table.add_argument("files", type=Path, nargs="+", metavar="FILE")


def swarms(text: str) -> list[tuple[int, int]]:
    """Return the peers and replicas of "2x1,3x2"; of "none" no swarms."""
    try:
        return [] if text == "none" else [parse_swarm(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def run_compare(options: argparse.Namespace, say: Say) -> str:
    """Measure, write the JSON file, and return the tables.

    Raises:
        CommandFailed, AnswersDiffer: a side of ours did not end well, or one answers otherwise than others.
        ValueError, OSError: the inputs cannot be made, or no pictures drawn.
    """
    if problem := why_not(options.plot):
        raise ValueError(problem)
    cache = options.cache.absolute()
    results = Results(settings=settings_of(options))
    sides = sides_of(options, cache, results, say)
    for name in options.rows:
        question = QUESTIONS[name]
        spec = InputSpec(
            kind=question.kind,
            size_bytes=int(options.size * question.share),
            seed=options.seed,
            books=os.path.abspath(options.books) if question.kind == "text" and options.books else "",
        )
        inputs = made_apart(spec, cache)
        out = cache / f"out-{os.getpid()}"
        try:
            compare(name, inputs, sides, options.rounds, out, results, say, kill=options.kill)
        finally:
            # After each row, and whatever ends it: a call that is cut short has not been for nothing.
            if options.json is not None:
                options.json.write_text(as_json(results))
    return shown(results, options)


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return what of a call belongs to its figures."""
    return {
        "machine": this_machine(),
        "size_bytes": options.size,
        "seed": options.seed,
        "engines": {name: list(ENGINES[name].requirements) for name in options.engines},
    }


def sides_of(options: argparse.Namespace, cache: Path, results: Results, say: Say) -> list[Side]:
    """Return who is asked; an engine that cannot be installed is left out, and said so."""
    sides: list[Side] = [Embedded() if name == "embedded" else ByHand(name) for name in options.sides]
    sides += [OurSwarm(peers, replicas, cache / "peers") for peers, replicas in options.swarm]
    for name in options.engines:
        try:
            sides.append(Foreign(ENGINES[name], interpreter_of(ENGINES[name], cache), options.limit))
        except EngineMissing as error:
            results.left_out.append(str(error))
            say(str(error))
    return sides


def run_table(options: argparse.Namespace) -> str:
    """Return the tables of some results' files put together.

    Raises:
        ValueError, OSError: they cannot be read, or do not belong together.
    """
    if problem := why_not(options.plot):
        raise ValueError(problem)
    return shown(read(options.files), options)


def shown(results: Results, options: argparse.Namespace) -> str:
    if options.plot is not None:
        draw_comparison(results, options.plot)
    return tables(results, markdown=options.markdown)
