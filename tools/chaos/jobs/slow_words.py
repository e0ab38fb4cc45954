"""The word count on a slow machine: it sleeps after every line.

So a job lasts longer than several takeovers, and takes no processor time that the peers on the same machine
would lack.
"""

import time
from collections.abc import Iterable, Iterator

from mapreduce import Job, task


def mapper(line: str) -> Iterator[tuple[str, int]]:
    time.sleep(float(task.params["nap_ms"]) / 1000)
    task.counters["lines"] += 1
    for word in line.split():
        yield word.lower(), 1


def reducer(word: str, counts: Iterable[int]) -> Iterator[tuple[str, int]]:
    yield word, sum(counts)


job = Job(mapper=mapper, combiner=reducer, reducer=reducer, params={"nap_ms": 3}, name="slow_words")
