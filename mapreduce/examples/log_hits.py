r"""Hits and bytes by URL, from access logs in the common or the combined format.

ringreduce run log_hits /var/log/apache2/ -o hits

Lines that are no log lines are left out and counted.  Inside its quotes a request may hold `\"`: robots
send such things, and servers write them down like that.
"""

import re
from collections.abc import Iterable, Iterator

from mapreduce import Job, task

LINE = re.compile(r'(?P<client>\S+) \S+ .*?\] "(?P<request>(?:[^"\\]|\\.)*)" \d{3} (?P<bytes>\d+|-)')


def url_of(request: str) -> str:
    """Return the URL in `GET /index.html HTTP/1.1`; what is no such request stands for itself."""
    parts = request.split(" ")
    return parts[1] if len(parts) == 3 else request


def mapper(line: str) -> Iterator[tuple[str, tuple[int, int]]]:
    match = LINE.match(line)
    if match is None:
        task.counters["lines left out"] += 1
        return
    size = match["bytes"]
    yield url_of(match["request"]), (1, 0 if size == "-" else int(size))


def reducer(url: str, sums: Iterable[tuple[int, int]]) -> Iterator[tuple[str, tuple[int, int]]]:
    hits = size_bytes = 0
    for more_hits, more_bytes in sums:
        hits += more_hits
        size_bytes += more_bytes
    yield url, (hits, size_bytes)


job = Job(mapper=mapper, combiner=reducer, reducer=reducer, name="log_hits")

if __name__ == "__main__":
    job.main()
