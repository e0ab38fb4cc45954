"""Ray: map and reduce tasks with one return value a partition ("A Simple MapReduce Example with Ray Core").

Every question is answered by that one form: mappers return a blob for each partition, which Ray moves; a
reducer gets its blobs of all mappers.  The documentation advises against many small tasks, so a piece of the
input is 32 MiB, or a file.
"""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import ray

from tools.benchmarks.engines.forms import DAMPING, PAGERANK_ROUNDS, WORKERS, Clock, Form, answer

PIECE_BYTES = 32 << 20
RECORD_BYTES = 100

Piece = tuple[str, int, int]  # a file, from where, to where
Mapped = dict[Any, Any]


def pieces_of(inputs: list[str]) -> list[Piece]:
    return [
        (os.path.abspath(path), start, min(start + PIECE_BYTES, os.path.getsize(path)))
        for path in inputs
        for start in range(0, os.path.getsize(path), PIECE_BYTES)
    ]


def lines_in(piece: Piece) -> Iterator[str]:
    """Yield the lines that begin within a piece."""
    path, start, end = piece
    with open(path, "rb") as file:
        file.seek(max(0, start - 1))
        if start:
            file.readline()
        data = file.read(max(0, end - file.tell()))
        if not data.endswith(b"\n"):
            data += file.readline()
    yield from data.decode().splitlines()


def divided(pairs: Iterable[tuple[Any, Any]]) -> Any:
    partitions: list[Mapped] = [{} for _ in range(WORKERS)]
    for key, value in pairs:
        partitions[crc32(key.encode()) % WORKERS][key] = value
    return partitions if WORKERS > 1 else partitions[0]


def map_reduce(
    pieces: list[Any], mapper: Callable[[Any], Any], reducer: Callable[..., Any], *context: Any
) -> list[Any]:
    """Map all pieces, and reduce each partition; returns references to what the reducers return."""
    map_task = ray.remote(mapper).options(num_returns=WORKERS)
    reduce_task = ray.remote(reducer)
    mapped = [map_task.remote(piece) for piece in pieces]
    columns = [[row[n] for row in mapped] if WORKERS > 1 else mapped for n in range(WORKERS)]
    return [reduce_task.remote(n, *context, *column) for n, column in enumerate(columns)]


def write(out: str, number: int, lines: Iterable[str]) -> None:
    with open(os.path.join(out, f"part-{number:05}"), "w", encoding="utf-8") as file:
        file.writelines(lines)


def answered(inputs: list[str], out: Path, mapper: Any, reducer: Any) -> None:
    out.mkdir()
    ray.get(map_reduce(pieces_of(inputs), mapper, reducer, str(out)))


# --- the questions ----------------------------------------------------------------------------------


def count_words(piece: Piece) -> Any:
    counts: Counter[str] = Counter()
    for line in lines_in(piece):
        counts.update(line.split())
    return divided(counts.items())


def add_counts(number: int, out: str, *mapped: Mapped) -> None:
    total: Counter[str] = Counter()
    for counts in mapped:
        total.update(counts)
    write(out, number, (f"{word}\t{count}\n" for word, count in total.items()))


def words_of_document(piece: Piece) -> Any:
    words: set[str] = set()
    for line in lines_in(piece):
        words.update(line.split())
    document = os.path.basename(piece[0])
    return divided((word, document) for word in words)


def gather_documents(number: int, out: str, *mapped: Mapped) -> None:
    index: dict[str, set[str]] = defaultdict(set)
    for words in mapped:
        for word, document in words.items():
            index[word].add(document)
    write(out, number, (f"{word}\t{json.dumps(sorted(some))}\n" for word, some in index.items()))


def hits_of(piece: Piece) -> Any:
    hits: dict[str, int] = defaultdict(int)
    size_bytes: dict[str, int] = defaultdict(int)
    for line in lines_in(piece):
        _, request, rest = line.split('"', 2)
        url = request.split(" ", 2)[1]
        size = rest.split(" ", 3)[2]
        hits[url] += 1
        if size != "-":
            size_bytes[url] += int(size)
    return divided((url, (count, size_bytes[url])) for url, count in hits.items())


def add_hits(number: int, out: str, *mapped: Mapped) -> None:
    hits: dict[str, int] = defaultdict(int)
    size_bytes: dict[str, int] = defaultdict(int)
    for some in mapped:
        for url, (count, size) in some.items():
            hits[url] += count
            size_bytes[url] += size
    write(out, number, (f"{url}\t[{hits[url]}, {size_bytes[url]}]\n" for url in hits))


def visitors_of(piece: Piece) -> Any:
    visitors: dict[str, set[str]] = defaultdict(set)
    for line in lines_in(piece):
        client = line.split(" ", 1)[0]
        url = line.split('"', 2)[1].split(" ", 2)[1]
        visitors[url].add(client)
    return divided(visitors.items())


def unite_visitors(number: int, out: str, *mapped: Mapped) -> None:
    visitors: dict[str, set[str]] = defaultdict(set)
    for some in mapped:
        for url, clients in some.items():
            visitors[url] |= clients
    write(out, number, (f"{url}\t{len(clients)}\n" for url, clients in visitors.items()))


def rows_of(piece: Piece) -> Any:
    partitions: list[list[list[str]]] = [[] for _ in range(WORKERS)]
    place = 0 if piece[0].endswith("customers.csv") else 1
    for line in lines_in(piece):
        fields = line.split(",")
        partitions[crc32(fields[place].encode()) % WORKERS].append(fields)
    return partitions if WORKERS > 1 else partitions[0]


def join_rows(number: int, out: str, *mapped: list[list[str]]) -> None:
    customers = {row[0]: row[1:] for rows in mapped for row in rows if len(row) == 3}
    joined = (
        (row[0], customers[row[1]], row[2:])
        for rows in mapped
        for row in rows
        if len(row) == 4 and row[1] in customers
    )
    write(out, number, (f"{order}\t{json.dumps(known + rest)}\n" for order, known, rest in joined))


def records_of(piece: Piece) -> Any:
    path, start, end = piece
    # Ray moves bytes without copying them; the keys are known to be evenly spread.
    partitions: list[list[bytes]] = [[] for _ in range(WORKERS)]
    with open(path, "rb") as file:
        file.seek(start)
        data = file.read(end - start)
    for at in range(0, len(data), RECORD_BYTES):
        partitions[data[at] * WORKERS >> 8].append(data[at : at + RECORD_BYTES])
    joined = [b"".join(part) for part in partitions]
    return joined if WORKERS > 1 else joined[0]


def sort_records(number: int, out: str, *mapped: bytes) -> None:
    records = [data[at : at + RECORD_BYTES] for data in mapped for at in range(0, len(data), RECORD_BYTES)]
    records.sort()
    with open(os.path.join(out, f"part-{number:05}"), "wb") as file:
        file.writelines(records)


def sort(inputs: list[str], out: Path) -> None:
    out.mkdir()
    step = PIECE_BYTES // RECORD_BYTES * RECORD_BYTES
    pieces = [
        (os.path.abspath(path), start, min(start + step, os.path.getsize(path)))
        for path in inputs
        for start in range(0, os.path.getsize(path), step)
    ]
    ray.get(map_reduce(pieces, records_of, sort_records, str(out)))


# --- PageRank ---------------------------------------------------------------------------------------


def ends_of_edges(piece: Piece) -> Any:
    partitions: list[dict[str, set[str]]] = [defaultdict(set) for _ in range(WORKERS)]
    for line in lines_in(piece):
        source, target = line.split("\t")
        partitions[crc32(source.encode()) % WORKERS][source].add(target)
        partitions[crc32(target.encode()) % WORKERS][target].update()
    return partitions if WORKERS > 1 else partitions[0]


class Nodes:
    """An actor that keeps a share of the nodes ("Actors" keep state between tasks)."""

    def build(self, *mapped: dict[str, set[str]]) -> int:
        self.links: dict[str, set[str]] = defaultdict(set)
        for some in mapped:
            for node, targets in some.items():
                self.links[node] |= targets
        return len(self.links)

    def begin(self, count: int) -> None:
        self.count = count
        self.ranks = dict.fromkeys(self.links, 1 / count)

    def spread(self) -> Any:
        """Return the sum of the ranks without links, and what is given to each share."""
        given: list[dict[str, float]] = [defaultdict(float) for _ in range(WORKERS)]
        dangling = 0.0
        for node, rank in self.ranks.items():
            targets = self.links[node]
            if not targets:
                dangling += rank
                continue
            share = rank / len(targets)
            for target in targets:
                given[crc32(target.encode()) % WORKERS][target] += share
        return (dangling, *given)

    def gather(self, *letters: Any) -> None:
        dangling, given = sum(letters[:WORKERS]), letters[WORKERS:]
        received: dict[str, float] = defaultdict(float)
        for some in given:
            for node, rank in some.items():
                received[node] += rank
        for_all = (1 - DAMPING + DAMPING * dangling) / self.count
        self.ranks = {node: for_all + DAMPING * received[node] for node in self.links}

    def write(self, number: int, out: str) -> None:
        write(out, number, (f"{node}\t{rank!r}\n" for node, rank in self.ranks.items()))


def pagerank(inputs: list[str], out: Path) -> None:
    out.mkdir()
    map_task = ray.remote(ends_of_edges).options(num_returns=WORKERS)
    mapped = [map_task.remote(piece) for piece in pieces_of(inputs)]
    actor: Any = ray.remote(Nodes)
    shares = [actor.remote() for _ in range(WORKERS)]
    columns = [[row[n] for row in mapped] if WORKERS > 1 else mapped for n in range(WORKERS)]
    count = sum(ray.get([share.build.remote(*column) for share, column in zip(shares, columns, strict=True)]))
    for share in shares:
        share.begin.remote(count)
    for _ in range(PAGERANK_ROUNDS):
        sent = [share.spread.options(num_returns=WORKERS + 1).remote() for share in shares]
        dangling = [row[0] for row in sent]
        for n, share in enumerate(shares):
            share.gather.remote(*dangling, *(row[n + 1] for row in sent))
    ray.get([share.write.remote(n, str(out)) for n, share in enumerate(shares)])


FORMS: dict[str, Form] = {
    "wordcount": lambda inputs, out: answered(inputs, out, count_words, add_counts),
    "inverted-index": lambda inputs, out: answered(inputs, out, words_of_document, gather_documents),
    "sort": sort,
    "log-hits": lambda inputs, out: answered(inputs, out, hits_of, add_hits),
    "log-visitors": lambda inputs, out: answered(inputs, out, visitors_of, unite_visitors),
    "join": lambda inputs, out: answered(inputs, out, rows_of, join_rows),
    "pagerank": pagerank,
}

if __name__ == "__main__":
    clock = Clock()
    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
    clock.ready()
    answer(FORMS, clock)
