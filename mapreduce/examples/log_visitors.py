"""Distinct visitors by URL, from access logs in the common or the combined format.

ringreduce run log_visitors /var/log/apache2/ -o visitors

A visitor is a client address.  Counts of distinct things cannot be added up, so the combiner may only
drop repetitions; the reducer counts.
"""

from collections.abc import Iterable, Iterator

from mapreduce import Job, task
from mapreduce.examples.log_hits import LINE, url_of


def mapper(line: str) -> Iterator[tuple[str, str]]:
    match = LINE.match(line)
    if match is None:
        task.counters["lines left out"] += 1
        return
    yield url_of(match["request"]), match["client"]


def combiner(url: str, clients: Iterable[str]) -> Iterator[tuple[str, str]]:
    for client in sorted(set(clients)):  # sorted: the order of a set differs from run to run
        yield url, client


def reducer(url: str, clients: Iterable[str]) -> Iterator[tuple[str, int]]:
    yield url, len(set(clients))


job = Job(mapper=mapper, combiner=combiner, reducer=reducer, name="log_visitors")

if __name__ == "__main__":
    job.main()
