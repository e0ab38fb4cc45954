"""The scenario commands: ``kills``, ``successive``, ``pair`` and ``shuffles``.

    python -m tools.chaos kills --size 256MB --peers 5 --replicas 2 --runs 60 --cache DIR --books DIR
    python -m tools.chaos successive --size 256MB --runs 5
    python -m tools.chaos pair --size 256MB --runs 5
    python -m tools.chaos shuffles --records 1000000 --partitions 200 --runs 50

Inputs are made once and kept in the cache, and so is what the embedded engine makes of them.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

from tools import bench_inputs
from tools.chaos.options import count, size
from tools.chaos.scenarios import VICTIMS, Blow, Setup, Trial, run_trials, shortfall, table
from tools.chaos.workloads import JOBS, Workload, expected_of

__all__ = ["SCENARIOS", "run_scenario"]

DEFAULT_CACHE = Path(tempfile.gettempdir()) / "ringreduce-chaos-cache"
ID_BYTES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What a command does if not told otherwise."""

    text: str
    peers: int = 5
    replicas: int = 2
    runs: int = 3
    at: str = "20,50,80"
    victims: str = "leader,submission,worker"
    maps_again: int = 0


SCENARIOS = {
    "kills": Scenario(
        text="one peer is killed at one of the moments, in turn: leader, submission peer, any worker", runs=9
    ),
    "successive": Scenario(
        text="peers are killed one after another, one at each moment, while one job runs",
        maps_again=10**9,  # the second may fall before the copies of the first are made again
    ),
    "pair": Scenario(
        text="two peers are killed at the same instant, the leader among them",
        peers=7,
        replicas=3,
        at="50",
        victims="leader,worker",
    ),
    "shuffles": Scenario(
        text="records go through two shuffles, a peer is killed in between, and every id comes out once",
        peers=4,
        runs=5,
        at="40,50,60,70",
    ),
}


def run_scenario(name: str, arguments: Sequence[str]) -> int:
    """Run one of the commands; returns its exit code."""
    parsed = _parser(name, SCENARIOS[name]).parse_args(arguments)
    workload = _records(parsed) if name == "shuffles" else _words(parsed)
    print("what is right: the embedded engine", file=sys.stderr)
    expected = expected_of(workload, parsed.cache, os.environ, reuse=True)
    if name == "shuffles":
        ids = sum(content.count(b"\n") for content in expected.parts.values())
        distinct = len({line for content in expected.parts.values() for line in content.splitlines()})
        assert ids == parsed.records, f"the embedded engine itself gives {ids} of {parsed.records} ids"
        print(f"{ids:,} records in, {distinct:,} distinct (group, id) pairs out", file=sys.stderr)
    setup = Setup(
        workload=workload,
        expected=expected,
        peers=parsed.peers,
        replicas=parsed.replicas,
        slots=parsed.slots,
        maps_again=SCENARIOS[name].maps_again,
        seed=parsed.seed,
    )
    results = run_trials(setup, _trials(name, parsed), _say, keep=parsed.logs)
    print("\n".join(table(results)))
    if parsed.report is not None:
        from tools.chaos.report import write_trials

        write_trials(parsed.report, f"{name}: {SCENARIOS[name].text}", results)
    short = shortfall(results)
    print(f"BROKEN: {short}; replay: python -m tools.chaos {name} --seed {parsed.seed}" if short else "HOLDS")
    return 1 if short else 0


def _trials(name: str, parsed: argparse.Namespace) -> list[Trial]:
    moments = [int(text) / 100 for text in parsed.at.split(",")]
    victims = [_victim(text) for text in parsed.victims.split(",")]
    if name == "successive":
        blows = tuple(Blow(at=at, victims=(who,)) for at, who in zip(moments, cycle(victims), strict=False))
        return [Trial(blows=blows)] * parsed.runs
    if name == "pair":
        each = [Trial(blows=(Blow(at=at, victims=tuple(victims)),)) for at in moments]
    else:
        each = [Trial(blows=(Blow(at=at, victims=(who,)),)) for at in moments for who in victims]
    return list(islice(cycle(each), parsed.runs))


def _victim(text: str) -> str:
    if text not in VICTIMS:
        raise SystemExit(f"there is no victim {text!r}: it is one of {', '.join(VICTIMS)}")
    return text


def _words(parsed: argparse.Namespace) -> Workload:
    spec = bench_inputs.InputSpec(kind="text", size_bytes=parsed.size, books=parsed.books)
    paths = bench_inputs.make(spec, parsed.cache)
    return Workload(
        name=f"words-{parsed.size}", job="wordcount", inputs=tuple(map(str, paths)), options=("-r", "8")
    )


def _records(parsed: argparse.Namespace) -> Workload:
    path = parsed.cache / f"ids-{parsed.records}.txt"
    parsed.cache.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        unfinished = path.with_suffix(".tmp")
        with unfinished.open("w") as file:
            file.writelines(f"{number:0{ID_BYTES}d}\n" for number in range(parsed.records))
        unfinished.rename(path)
    splits = max(1, parsed.records * (ID_BYTES + 1) // 16)
    return Workload(
        name=f"shuffles-{parsed.records}-{parsed.partitions}",
        job=str(JOBS / "two_shuffles.py"),
        inputs=(str(path),),
        options=("--param", f"partitions={parsed.partitions}", "--split-size", str(splits)),
    )


def _parser(name: str, scenario: Scenario) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m tools.chaos {name}", description=scenario.text)
    add = parser.add_argument
    add("--peers", type=count, default=scenario.peers, metavar="N", help=f"({scenario.peers})")
    add("--replicas", type=count, default=scenario.replicas, metavar="R", help=f"({scenario.replicas})")
    add("--slots", type=count, default=1, metavar="N", help="tasks at a time of each peer (1)")
    add("--runs", type=int, default=scenario.runs, metavar="N", help=f"with blows ({scenario.runs})")
    add("--at", default=scenario.at, metavar="P,P", help=f"percent of the tasks done ({scenario.at})")
    add("--victims", default=scenario.victims, metavar="A,B", help=f"({scenario.victims})")
    add("--seed", type=int, default=1, help="chooses the worker that is killed (1)")
    add("--cache", type=Path, default=DEFAULT_CACHE, metavar="DIR", help=f"of inputs ({DEFAULT_CACHE})")
    add("--logs", type=Path, metavar="DIR", help="keep the logs of runs that went wrong or were late here")
    add("--report", type=Path, metavar="FILE.html", help="write a page to look at")
    if name == "shuffles":
        add("--records", type=int, default=1_000_000, metavar="N", help="(1000000)")
        add("--partitions", type=int, default=200, metavar="N", help="of each shuffle (200)")
    else:
        add("--size", type=size, default=size("64MB"), metavar="SIZE", help="of the input (64MB)")
        add("--books", default="", metavar="DIR", help="text to make the input of [Python's own sources]")
    return parser


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
