"""The jobs that the simulated swarm runs, their inputs, and what the embedded engine makes of them.

Each is small and sees through a particular mistake: the index joins its values in the order in which they
come (a merge in order of arrival would show), the count has counters and a combiner, the pipeline reads
parts, one step of it without a reduce, the sort samples, the ranks read one step twice.

⚙ Files: inputs lie in a private temporary directory, made once a process and removed at its end.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from mapreduce import Job, Step, TotalOrder, identity, task
from mapreduce.bundling import Bundle
from mapreduce.inputs import expand
from mapreduce.local import run
from mapreduce.spec import JobSpec
from mapreduce.submission import spec_of
from tools.simulation.chance import child_random

__all__ = ["NAMES", "Workload", "scratch", "workload"]

SPLIT_BYTES = 300
_WORDS = [f"w{number:02d}" for number in range(60)]


def split_words(line: str) -> Iterator[tuple[str, int]]:
    """Count lines and words as it goes."""
    words = line.split()
    task.counters["lines"] += 1
    task.counters["words"] += len(words)
    for word in words:
        yield word, 1


def add_up(key: Any, values: Iterable[int]) -> Iterator[tuple[Any, int]]:
    """The sum."""
    yield key, sum(values)


def words_with_place(line: str) -> Iterator[tuple[str, str]]:
    """Where each word stands: whatever is emitted later must stand later in the index."""
    for place, word in enumerate(line.split()):
        yield word, f"{line[:6]}:{place}"


def in_order(key: str, values: Iterable[str]) -> Iterator[tuple[str, str]]:
    """All places, in the order of their arrival."""
    task.counters["words indexed"] += 1
    yield key, " ".join(values)


def long_words_of(word: str, count: int) -> Iterator[tuple[str, int]]:
    """Pass on what is frequent, one by one."""
    if count > 2:
        task.counters["frequent"] += 1
        yield word, count


def by_count(word: str, count: int) -> Iterator[tuple[int, str]]:
    """Turn it round."""
    yield count, word


def sides(line: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """A record of the left or the right side of a join, by its first word's parity."""
    words = line.split()
    side = "left" if int(words[0][1:]) % 2 else "right"
    for word in words[1:]:
        yield word, (side, words[0])


def joined(key: str, values: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Every left with every right."""
    rows = list(values)
    lefts = [name for side, name in rows if side == "left"]
    rights = [name for side, name in rows if side == "right"]
    for left in lefts:
        for right in rights:
            yield key, f"{left}-{right}"


def links(line: str) -> Iterator[tuple[str, str]]:
    """Each line's first word links to the others."""
    first, *others = line.split()
    for other in others:
        yield first, other


def with_rank(node: str, targets: Iterable[str]) -> Iterator[tuple[str, tuple[int, tuple[str, ...]]]]:
    """All targets of a node, and its first rank."""
    yield node, (1000, tuple(targets))


def give(node: str, value: Any) -> Iterator[tuple[str, tuple[str, Any]]]:
    """Share a rank out, in whole numbers so that no order of adding matters."""
    rank, targets = value
    yield node, ("links", tuple(targets))
    for target in targets:
        yield target, ("rank", rank // len(targets))


def take(node: str, values: Iterable[Any]) -> Iterator[tuple[str, tuple[int, tuple[str, ...]]]]:
    """The new rank."""
    rank, targets = 150, ()
    for kind, value in values:
        if kind == "rank":
            rank += value
        else:
            targets = tuple(value)
    yield node, (rank, targets)


def rank_only(node: str, value: Any) -> Iterator[tuple[str, int]]:
    """What remains in the end."""
    yield node, value[0]


def first_word(line: str) -> Iterator[tuple[str, str]]:
    """Sort lines by their first word."""
    yield line.split(maxsplit=1)[0], line


_JOBS: dict[str, tuple[Job, int]] = {
    "count": (Job(mapper=split_words, combiner=add_up, reducer=add_up), 3),
    "index": (Job(mapper=words_with_place, reducer=in_order), 4),
    "join": (Job(mapper=sides, reducer=joined, sort_values=True), 2),
    "pipeline": (
        Job(
            steps={
                "count": Step(mapper=split_words, combiner=add_up, reducer=add_up),
                "frequent": Step(mapper=long_words_of, after=("count",)),
                "by-count": Step(mapper=by_count, reducer=in_order, after=("frequent", "count")),
            }
        ),
        3,
    ),
    "sort": (Job(mapper=first_word, reducer=identity, partitioner=TotalOrder(sample=60)), 3),
    "ranks": (
        Job(
            steps={
                "links": Step(mapper=links, reducer=with_rank),
                "round-1": Step(mapper=give, reducer=take, after=("links",)),
                "round-2": Step(mapper=give, reducer=take, after=("round-1",)),
                "ranks": Step(mapper=rank_only, reducer=add_up, after=("round-2",)),
            }
        ),
        2,
    ),
}
NAMES = tuple(_JOBS)


@dataclass(frozen=True, slots=True)
class Workload:
    """A job with its inputs, and what it must give: the parts' bytes and the counters."""

    name: str
    job: Job
    inputs: tuple[str, ...]
    partitions: int
    parts: tuple[bytes, ...]
    counters: dict[str, int]

    def spec(self, *, replicas: int, priority: int = 0) -> JobSpec:
        """The spec that a client would submit, without code: it is here already.

        Paths are given below the scratch directory, whose own is another in every process: a seed must give
        the same keys, and so the same history, everywhere.
        """
        found = expand(self.inputs)
        paths = [source.path.removeprefix(scratch()) for source in found]
        sources = [replace(one, path=path, name=path) for one, path in zip(found, paths, strict=True)]
        return spec_of(
            self.job,
            Bundle(job=b"", files={}, file=None, digest=""),
            sources,
            partitions=self.partitions,
            split_bytes=SPLIT_BYTES,
            replicas=replicas,
            priority=priority,
            out_format="text",
        )


@cache
def scratch() -> str:
    """The directory of this process's files; in memory where the system has such a place."""
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    path = tempfile.mkdtemp(prefix="ringreduce-simulated-", dir=base)
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@cache
def workload(name: str) -> Workload:
    """Make a job's inputs and run it embedded."""
    directory = os.path.join(scratch(), name)
    os.makedirs(directory)
    inputs = []
    random = child_random(0, "workload", name)
    for number in range(4):
        path = os.path.join(directory, f"input-{number}.txt")
        with open(path, "w", encoding="utf-8") as file:
            for _ in range(random.randint(20, 50)):
                file.write(" ".join(random.choices(_WORDS, k=random.randint(3, 9))) + "\n")
        inputs.append(path)
    job, partitions = _JOBS[name]
    output = os.path.join(directory, "expected")
    result = run(
        job,
        inputs,
        workers=1,
        partitions=partitions,
        split_bytes=SPLIT_BYTES,
        output=output,
        out_format="text",
    )
    parts = []
    for entry in sorted(os.listdir(output)):
        if entry.startswith("part-"):
            with open(os.path.join(output, entry), "rb") as part:
                parts.append(part.read())
    return Workload(name, job, tuple(inputs), partitions, tuple(parts), result.counters)
