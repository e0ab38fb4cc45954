"""The lines with long words: a map-only job that counts what it sees.

Counters of map tasks are what goes wrong first when an attempt is counted twice.
"""

from collections.abc import Iterator

from mapreduce import Job, task

LONG = 9


def mapper(line: str) -> Iterator[tuple[str, int]]:
    task.counters["lines"] += 1
    words = line.split()
    long = [word for word in words if len(word) >= LONG]
    task.counters["words"] += len(words)
    task.counters["long words"] += len(long)
    if long:
        yield line, len(long)


job = Job(mapper=mapper, name="long_words")
