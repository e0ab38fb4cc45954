"""The job of the failpoint runs: it counts words, and naps before each task to leave time for faults."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from mapreduce import Job, task


def setup() -> None:
    """Sleep as long as the parameter `nap_s` says; a sleeping task costs nobody's processor."""
    time.sleep(task.params["nap_s"])


def mapper(line: str) -> Iterator[tuple[str, int]]:
    """Count each word once."""
    for word in line.split():
        task.counters["words"] += 1
        yield word, 1


def reducer(word: str, counts: Iterable[int]) -> Iterator[tuple[str, int]]:
    """Add up."""
    yield word, sum(counts)


job = Job(mapper=mapper, combiner=reducer, reducer=reducer, setup=setup, params={"nap_s": 0.0})
