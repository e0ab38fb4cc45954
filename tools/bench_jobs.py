"""The benchmark's own jobs: what `tools.bench` runs as `ringreduce run tools/bench_jobs.py:NAME`.

They answer the same questions as the shipped examples, in the form that somebody would write who wants
them fast: mappers of whole splits that gather in a dict or a set what their lines have in common.
Lines are taken apart as in `tools/bench_scripts.py`.  `wordcount` alone is the plain form, one pair a word.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain, repeat

from mapreduce import FixedLength, Job, TotalOrder, batch, identity, task

RECORD_BYTES = 100
CUSTOMER_FIELDS = 3


def words(line: str) -> Iterator[tuple[str, int]]:
    for word in line.split():
        yield word, 1


def add(key: str, counts: Iterable[int]) -> Iterator[tuple[str, int]]:
    yield key, sum(counts)


wordcount = Job(mapper=words, combiner=add, reducer=add, name="wordcount")


@batch("split")
def counted_words(lines: Iterator[str]) -> dict[str, int]:
    # A chain of lines' words is a tenth faster than one list of all words, which leaves the caches.
    return Counter(chain.from_iterable(map(str.split, lines)))


wordcount_batch = Job(mapper=counted_words, combiner=add, reducer=add, name="wordcount-batch")


@batch("split")
def words_and_document(lines: Iterator[str]) -> dict[str, str]:
    return dict.fromkeys(chain.from_iterable(map(str.split, lines)), task.input_path)


def all_sorted(word: str, documents: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    yield word, sorted(set(documents))


# No combiner: a document gives a word once for each of its splits, and the reducer sees to that.
inverted_index = Job(mapper=words_and_document, reducer=all_sorted, name="inverted-index")


@batch("split")
def records(some: Iterator[bytes]) -> Iterable[tuple[bytes, None]]:
    return zip(some, repeat(None))


# The record is the key, as with the scripts: sorting whole records sorts by their first ten bytes.
sort = Job(
    mapper=records,
    reducer=identity,
    partitioner=TotalOrder(),
    reader=FixedLength(RECORD_BYTES),
    name="sort",
)


@batch("split")
def hits_of(lines: Iterator[str]) -> dict[str, tuple[int, int]]:
    hits: dict[str, int] = defaultdict(int)
    size_bytes: dict[str, int] = defaultdict(int)
    for line in lines:
        _, request, rest = line.split('"', 2)
        url = request.split(" ", 2)[1]
        size = rest.split(" ", 3)[2]
        hits[url] += 1
        if size != "-":
            size_bytes[url] += int(size)
    return {url: (count, size_bytes[url]) for url, count in hits.items()}


def add_hits(url: str, sums: Iterable[tuple[int, int]]) -> Iterator[tuple[str, tuple[int, int]]]:
    hits = size_bytes = 0
    for more_hits, more_bytes in sums:
        hits += more_hits
        size_bytes += more_bytes
    yield url, (hits, size_bytes)


# No combiner: a split gives each page once.
log_hits = Job(mapper=hits_of, reducer=add_hits, name="log-hits")


@batch("split")
def visitors_of(lines: Iterator[str]) -> dict[str, str]:
    visitors: dict[str, set[str]] = defaultdict(set)
    for line in lines:
        client = line.split(" ", 1)[0]
        url = line.split('"', 2)[1].split(" ", 2)[1]
        visitors[url].add(client)
    # One text for many short ones, as by hand: it is written and read again in one piece.
    return {url: " ".join(clients) for url, clients in visitors.items()}


def count_united(url: str, texts: Iterable[str]) -> Iterator[tuple[str, int]]:
    yield url, len(set().union(*map(str.split, texts)))


log_visitors = Job(mapper=visitors_of, reducer=count_united, name="log-visitors")


@batch("split")
def rows_by_customer(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    column = 0 if task.input_path.endswith("customers.csv") else 1
    # A row stays one text until it is joined: it is written and read again in one piece.
    return ((line.split(",", 2)[column], line) for line in lines)


def joined(_: str, rows: Iterable[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    # A key's values come in the order of the inputs, and the customers are the first of them.
    known, *orders = (row.split(",") for row in rows)
    if len(known) == CUSTOMER_FIELDS:
        _, name, city = known
        for order, _, amount, item in orders:
            yield order, (name, city, amount, item)


join = Job(mapper=rows_by_customer, reducer=joined, name="join")
