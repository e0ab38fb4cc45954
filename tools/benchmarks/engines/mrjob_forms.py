"""mrjob: jobs with a combiner where one helps, on the local runner, which uses all processors.

mrjob starts this file again for every task, so the question travels in the environment.  Records without line
ends it cannot read; PageRank needs a number from all nodes in every round, for which it shows no way.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from mrjob.compat import jobconf_from_env
from mrjob.job import MRJob

ASKED = "RINGREDUCE_BENCH_ASKED"


class Lines:
    """Writes key, tab and value, strings as they are."""

    def write(self, key: str, value: Any) -> bytes:
        return f"{key}\t{json.dumps(value)}".encode()


def document() -> str:
    return os.path.basename(str(jobconf_from_env("mapreduce.map.input.file")))


class WordCount(MRJob):
    OUTPUT_PROTOCOL = Lines

    def mapper(self, _: None, line: str) -> Iterator[tuple[str, int]]:
        for word in line.split():
            yield word, 1

    def combiner(self, word: str, counts: Iterable[int]) -> Iterator[tuple[str, int]]:
        yield word, sum(counts)

    def reducer(self, word: str, counts: Iterable[int]) -> Iterator[tuple[str, int]]:
        yield word, sum(counts)


class InvertedIndex(MRJob):
    OUTPUT_PROTOCOL = Lines

    def mapper_init(self) -> None:
        self.words: set[str] = set()

    def mapper(self, _: None, line: str) -> None:
        self.words.update(line.split())

    def mapper_final(self) -> Iterator[tuple[str, str]]:
        name = document()
        for word in self.words:
            yield word, name

    def reducer(self, word: str, documents: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
        yield word, sorted(set(documents))


class LogHits(MRJob):
    OUTPUT_PROTOCOL = Lines

    def mapper(self, _: None, line: str) -> Iterator[tuple[str, tuple[int, int]]]:
        _client, request, rest = line.split('"', 2)
        size = rest.split(" ", 3)[2]
        yield request.split(" ", 2)[1], (1, 0 if size == "-" else int(size))

    def combiner(self, url: str, pairs: Iterable[tuple[int, int]]) -> Iterator[tuple[str, list[int]]]:
        yield url, [sum(column) for column in zip(*pairs, strict=True)]

    reducer = combiner


class LogVisitors(MRJob):
    OUTPUT_PROTOCOL = Lines

    def mapper(self, _: None, line: str) -> Iterator[tuple[str, str]]:
        yield line.split('"', 2)[1].split(" ", 2)[1], line.split(" ", 1)[0]

    def reducer(self, url: str, clients: Iterable[str]) -> Iterator[tuple[str, int]]:
        yield url, len(set(clients))


class Join(MRJob):
    OUTPUT_PROTOCOL = Lines
    SORT_VALUES = True

    def mapper(self, _: None, line: str) -> Iterator[tuple[str, list[Any]]]:
        fields = line.split(",")
        if len(fields) == 3:
            yield fields[0], [0, *fields[1:]]
        else:
            yield fields[1], [1, fields[0], *fields[2:]]

    def reducer(self, _: str, rows: Iterable[list[Any]]) -> Iterator[tuple[str, list[str]]]:
        known: list[str] = []
        for tag, *fields in rows:
            if tag == 0:
                known = fields
            elif known:
                yield fields[0], known + fields[1:]


JOBS: dict[str, Any] = {
    "wordcount": WordCount,
    "inverted-index": InvertedIndex,
    "log-hits": LogHits,
    "log-visitors": LogVisitors,
    "join": Join,
}

if __name__ == "__main__":
    if ASKED not in os.environ:
        asked, out, *inputs = sys.argv[1:]
        os.environ[ASKED] = asked
        sys.argv[1:] = ["-r", "local", "--no-cat-output", "--output-dir", out, *inputs]
    JOBS[os.environ[ASKED]].run()
