"""The jobs that the script runs, their inputs, and what the embedded engine makes of them.

Inputs are small and made from the seed; what is right is computed once, by `ringreduce run`, the embedded
engine in processes of its own: its parts, byte for byte, its counters, and how many tasks there were.

⚙ This module writes files and starts processes.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools import bench_inputs

__all__ = [
    "JOBS",
    "WORKLOADS",
    "Expected",
    "Workload",
    "WorkloadFailed",
    "expected_of",
    "make_mix",
    "parts_of",
]

JOBS = Path(__file__).parent / "jobs"
EMBEDDED_LIMIT_S = 600.0
WORDS_A_LINE = 12
BOOK_LINES = 2_000
VOCABULARY = 8_000


class WorkloadFailed(Exception):
    """The embedded engine itself did not do a job: nothing can be compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A job and its input.

    Attributes:
        name: for people.
        job: the name of an example, or a file.
        inputs: paths.
        options: for both `run` and `submit`, as their command lines have them.
        alone: further ones for `run`, that change how long it takes but not what it gives.
    """

    name: str
    job: str
    inputs: tuple[str, ...]
    options: tuple[str, ...]
    alone: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What is right.

    Attributes:
        parts: {name: bytes} of the output directory, `_SUCCESS` included.
        counters: all of them.
        map_tasks, reduce_tasks: how many there are, and so how many winners.
        output_records: how many pairs.
        wall_s: how long the embedded engine took.
    """

    parts: Mapping[str, bytes]
    counters: Mapping[str, int]
    map_tasks: int
    reduce_tasks: int
    output_records: int
    wall_s: float

    @property
    def tasks(self) -> int:
        """Of all stages."""
        return self.map_tasks + self.reduce_tasks


def parts_of(directory: Path) -> dict[str, bytes]:
    """Return {name: bytes} of all files of an output directory."""
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def expected_of(
    workload: Workload, directory: Path, environment: Mapping[str, str], *, reuse: bool = False
) -> Expected:
    """Run a workload in the embedded engine.

    Args:
        directory: for its output, which stays there.
        reuse: take what lies there from an earlier run.

    Raises:
        WorkloadFailed: it did not work; its last words are in the text.
    """
    output, report = directory / workload.name, directory / f"{workload.name}.json"
    if not (reuse and report.exists()):
        _run_alone(workload, output, report, environment)
    told: dict[str, Any] = json.loads(report.read_text())
    return Expected(
        parts=parts_of(output),
        counters=told["counters"],
        map_tasks=told["map_tasks"],
        reduce_tasks=told["reduce_tasks"],
        output_records=told["output_records"],
        wall_s=told["wall_s"],
    )


def _run_alone(workload: Workload, output: Path, report: Path, environment: Mapping[str, str]) -> None:
    command = [sys.executable, "-m", "p2p.cli", "run", workload.job, *workload.inputs, *workload.options]
    command += [*workload.alone, "-o", str(output), "--report", str(report), "--quiet"]
    ended = subprocess.run(
        command,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=EMBEDDED_LIMIT_S,
        check=False,
    )
    if ended.returncode:
        raise WorkloadFailed(f"{workload.name}: exit code {ended.returncode}\n{ended.stderr[-4_000:]}")


# ---- inputs --------------------------------------------------------------------------------------------


def _words(path: Path, size_bytes: int, rng: random.Random) -> str:
    """Write text whose words follow Zipf's law."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = ["".join(rng.choices(letters, k=rng.randint(2, 12))) for _ in range(VOCABULARY)]
    weights = bench_inputs.zipf(VOCABULARY, 1.0)
    lines = [
        " ".join(rng.choices(vocabulary, cum_weights=weights, k=rng.randrange(2 * WORDS_A_LINE)))
        for _ in range(BOOK_LINES)
    ]
    with path.open("wb") as file:
        for line in bench_inputs.text_lines([lines], rng):
            if file.tell() >= size_bytes:
                break
            file.write(line)
    return str(path)


def _tables(directory: Path, size_bytes: int, rng: random.Random) -> tuple[str, str]:
    """Write customers and their orders; some orders are of nobody."""
    orders, customers = size_bytes // 24, max(10, size_bytes // 400)
    (directory / "customers.csv").write_text(
        "customer_id,name\n" + "".join(f'c{n},"Name {rng.randrange(10**6)}, {n}"\n' for n in range(customers))
    )
    (directory / "orders.csv").write_text(
        "order_id,customer_id,item\n"
        + "".join(f"o{n},c{rng.randrange(customers + 5)},{rng.randrange(10**6)}\n" for n in range(orders))
    )
    return str(directory / "customers.csv"), str(directory / "orders.csv")


def _edges(path: Path, size_bytes: int, rng: random.Random) -> str:
    """Write a graph, an edge a line; some nodes have no links."""
    nodes = max(20, size_bytes // 60)
    path.write_text(
        "".join(
            f"n{rng.randrange(nodes * 4 // 5)} n{rng.randrange(nodes)}\n" for _ in range(size_bytes // 11)
        )
    )
    return str(path)


def _records(path: Path, size_bytes: int, rng: random.Random) -> str:
    with path.open("wb") as file:
        file.writelines(bench_inputs.sort_records(size_bytes, rng))
    return str(path)


# ---- the mix -------------------------------------------------------------------------------------------


def _options(size_bytes: int, tasks: int, partitions: int, *more: str) -> tuple[str, ...]:
    return ("--split-size", str(max(1, size_bytes // tasks)), "-r", str(partitions), *more)


def _on_words(
    name: str, job: str, *, tasks: int = 24, alone: tuple[str, ...] = ()
) -> Callable[[Path, int, int], Workload]:
    def make(directory: Path, size_bytes: int, seed: int) -> Workload:
        text = directory / "words.txt"
        if not text.exists():
            _words(text, size_bytes, random.Random(seed))
        options = _options(size_bytes, tasks, 5)
        return Workload(name=name, job=job, inputs=(str(text),), options=options, alone=alone)

    return make


def _join(directory: Path, size_bytes: int, seed: int) -> Workload:
    inputs = _tables(directory, size_bytes // 2, random.Random(seed))
    options = _options(size_bytes // 2, 12, 5, "--out-format", "jsonl")
    return Workload(name="join", job="join", inputs=inputs, options=options)


def _sort(directory: Path, size_bytes: int, seed: int) -> Workload:
    path = _records(directory / "records.dat", size_bytes, random.Random(seed))
    options = _options(size_bytes, 20, 5, "--out-format", "msgpack")
    return Workload(name="sort", job="sort_records", inputs=(path,), options=options)


def _pagerank(directory: Path, size_bytes: int, seed: int) -> Workload:
    path = _edges(directory / "edges.txt", size_bytes // 10, random.Random(seed))
    options = _options(size_bytes // 10, 6, 4, "--param", "rounds=3")
    return Workload(name="pagerank", job="pagerank", inputs=(path,), options=options)


WORKLOADS: Mapping[str, Callable[[Path, int, int], Workload]] = {
    "wordcount": _on_words("wordcount", "wordcount"),
    "index": _on_words("index", "inverted_index"),
    "join": _join,
    "sort": _sort,
    "pagerank": _pagerank,
    "map-only": _on_words("map-only", str(JOBS / "long_words.py")),
    "slow": _on_words("slow", str(JOBS / "slow_words.py"), tasks=40, alone=("--param", "nap_ms=0")),
}
"""What the script runs, by name: each makes its input below a directory, from a size and a seed."""


def make_mix(names: Sequence[str], directory: Path, size_bytes: int, seed: int) -> list[Workload]:
    """Make the inputs of some workloads."""
    directory.mkdir(parents=True, exist_ok=True)
    return [WORKLOADS[name](directory, size_bytes, seed) for name in names]
