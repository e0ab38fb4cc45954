"""What a careful person writes without us, one function a row: the other sides of the benchmark.

    python -m tools.bench_scripts single|pair ROW OUT INPUT...

`single` is one thread that holds everything in dictionaries.  `pair` is the usual next step by hand: two
processes map half of the input each, divide what they found by the hash of the key into a blob of text
for each of the two, and then each reduces the blobs that are meant for it.  Nothing is sampled, spilled,
checked or retried; memory has to suffice.

Lines are read as everybody reads them, `for line in file`, and counted by `Counter.update(line.split())`.
Our batch mappers get many lines at once and count the chain of their words, which spares about a tenth.

Both write what our job writes: lines of key, tab and value into part files of the directory OUT.  Only
the sort has to write its output in order, as only there order was asked for; ours comes in order always.

⚙ This module reads and writes files and starts processes.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

RECORD_BYTES = 100
SIDES = 2

Chunk = tuple[str, int, int]  # a file, from where, to where


def main() -> None:
    side, row, out, *inputs = sys.argv[1:]
    os.makedirs(out)
    if side == "single":
        SINGLE[row](inputs, Path(out))
    else:
        in_two_processes(PAIR[row], inputs, Path(out))


# --- one thread -------------------------------------------------------------------------------------


def wordcount(inputs: list[str], out: Path) -> None:
    counts: Counter[str] = Counter()
    for path in inputs:
        with open(path, encoding="utf-8") as file:
            for line in file:
                counts.update(line.split())
    write_part(out, 0, (f"{word}\t{count}\n" for word, count in counts.items()))


def inverted_index(inputs: list[str], out: Path) -> None:
    index = index_of(zip(map(json.dumps, inputs), inputs, strict=True))
    write_part(out, 0, (f"{word}\t[{', '.join(documents)}]\n" for word, documents in index.items()))


def index_of(named: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return the names of the documents that each word stands in, in order; given (name, path)."""
    index: dict[str, list[str]] = defaultdict(list)
    for name, path in named:
        words: set[str] = set()
        with open(path, encoding="utf-8") as file:
            for line in file:
                words.update(line.split())
        for word in words:
            index[word].append(name)
    return index


def sort_records(inputs: list[str], out: Path) -> None:
    records = []
    for path in inputs:
        records += records_in((path, 0, os.path.getsize(path)))
    records.sort()
    with (out / "part-00000").open("wb") as file:
        file.writelines(records)


def records_in(chunk: Chunk) -> list[bytes]:
    path, start, end = chunk
    with open(path, "rb") as file:
        file.seek(start)
        data = file.read(end - start)
    return [data[at : at + RECORD_BYTES] for at in range(0, len(data), RECORD_BYTES)]


def log_hits(inputs: list[str], out: Path) -> None:
    hits, size_bytes = hits_of((path, 0, os.path.getsize(path)) for path in inputs)
    write_part(out, 0, (f"{url}\t[{hits[url]}, {size_bytes[url]}]\n" for url in hits))


def hits_of(chunks: Iterable[Chunk]) -> tuple[dict[str, int], dict[str, int]]:
    hits: dict[str, int] = defaultdict(int)
    size_bytes: dict[str, int] = defaultdict(int)
    for chunk in chunks:
        for line in lines_in(chunk):
            _, request, rest = line.split('"', 2)
            url = request.split(" ", 2)[1]
            size = rest.split(" ", 3)[2]
            hits[url] += 1
            if size != "-":
                size_bytes[url] += int(size)
    return hits, size_bytes


def log_visitors(inputs: list[str], out: Path) -> None:
    visitors = visitors_of((path, 0, os.path.getsize(path)) for path in inputs)
    write_part(out, 0, (f"{url}\t{len(clients)}\n" for url, clients in visitors.items()))


def visitors_of(chunks: Iterable[Chunk]) -> dict[str, set[str]]:
    visitors: dict[str, set[str]] = defaultdict(set)
    for chunk in chunks:
        for line in lines_in(chunk):
            client = line.split(" ", 1)[0]
            url = line.split('"', 2)[1].split(" ", 2)[1]
            visitors[url].add(client)
    return visitors


def lines_in(chunk: Chunk) -> Iterator[str]:
    path, start, end = chunk
    if start == 0 and end == os.path.getsize(path):
        with open(path, encoding="utf-8") as file:
            yield from file
        return
    with open(path, "rb") as binary:
        binary.seek(start)
        while start < end:
            block = binary.read(min(1 << 20, end - start))
            if not block.endswith(b"\n"):
                block += binary.readline()
            start += len(block)
            yield from block.decode().removesuffix("\n").split("\n")


def write_part(out: Path, number: int, lines: Iterable[str]) -> None:
    with (out / f"part-{number:05}").open("w", encoding="utf-8") as file:
        file.writelines(lines)


# --- two processes ----------------------------------------------------------------------------------

MapSide = Callable[[int, list[str]], "list[str] | list[bytes]"]
ReduceSide = Callable[[int, list[Any], list[str], Path], None]


def in_two_processes(row: tuple[str, MapSide, ReduceSide], inputs: list[str], out: Path) -> None:
    # Forked, so that both hash strings alike.
    context = get_context("fork")
    mapped = context.Barrier(SIDES)
    sides = [context.Process(target=one_side, args=(side, mapped, row, inputs, out)) for side in range(SIDES)]
    for process in sides:
        process.start()
    for process in sides:
        process.join()
    if any(process.exitcode for process in sides):
        sys.exit("a process failed")
    for blob in out.glob("blob-*"):
        blob.unlink()


def one_side(
    side: int, mapped: Any, row: tuple[str, MapSide, ReduceSide], inputs: list[str], out: Path
) -> None:
    mode, map_side, reduce_side = row
    encoding = "utf-8" if mode == "" else None
    for to, blob in enumerate(map_side(side, inputs)):
        with (out / f"blob-{side}-{to}").open(f"w{mode}", encoding=encoding) as file:
            file.write(blob)
    mapped.wait()
    blobs = []
    for sender in range(SIDES):
        with (out / f"blob-{sender}-{side}").open(f"r{mode}", encoding=encoding) as file:
            blobs.append(file.read())
    reduce_side(side, blobs, inputs, out)


def half_of(side: int, path: str) -> Chunk:
    """Return one half of a file of lines, cut behind a line."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(size // SIDES)
        file.readline()
        middle = file.tell()
    return (path, 0, middle) if side == 0 else (path, middle, size)


def count_half(side: int, inputs: list[str]) -> list[str]:
    counts: Counter[str] = Counter()
    for path in inputs[side::SIDES]:
        with open(path, encoding="utf-8") as file:
            for line in file:
                counts.update(line.split())
    lines: list[list[str]] = [[] for _ in range(SIDES)]
    for word, count in counts.items():
        lines[hash(word) % SIDES].append(f"{word}\t{count}")
    return ["\n".join(some) for some in lines]


def add_counts(side: int, blobs: list[str], _: list[str], out: Path) -> None:
    total: dict[str, int] = defaultdict(int)
    for blob in blobs:
        for line in blob.split("\n") if blob else ():
            word, count = line.split("\t")
            total[word] += int(count)
    write_part(out, side, (f"{word}\t{count}\n" for word, count in total.items()))


def index_half(side: int, inputs: list[str]) -> list[str]:
    lines: list[list[str]] = [[] for _ in range(SIDES)]
    # Each of a million words would carry the names of its documents; their numbers are shorter.
    numbered = ((str(number), inputs[number]) for number in range(side, len(inputs), SIDES))
    for word, documents in index_of(numbered).items():
        lines[hash(word) % SIDES].append(f"{word}\t{' '.join(documents)}")
    return ["\n".join(some) for some in lines]


def unite_indexes(side: int, blobs: list[str], inputs: list[str], out: Path) -> None:
    index: dict[str, list[int]] = defaultdict(list)
    for blob in blobs:
        for line in blob.split("\n") if blob else ():
            word, documents = line.split("\t")
            index[word] += map(int, documents.split(" "))
    names = list(map(json.dumps, inputs))
    write_part(
        out,
        side,
        (
            f"{word}\t[{', '.join([names[number] for number in sorted(some)])}]\n"
            for word, some in index.items()
        ),
    )


def divide_records(side: int, inputs: list[str]) -> list[bytes]:
    parts: list[list[bytes]] = [[] for _ in range(SIDES)]
    for path in inputs:
        size = os.path.getsize(path)
        middle = size // RECORD_BYTES // SIDES * RECORD_BYTES
        for record in records_in((path, 0, middle) if side == 0 else (path, middle, size)):
            parts[record[0] >= 0x80].append(record)  # the keys are known to be evenly spread
    return [b"".join(part) for part in parts]


def sort_part(side: int, blobs: list[bytes], _: list[str], out: Path) -> None:
    records = [blob[at : at + RECORD_BYTES] for blob in blobs for at in range(0, len(blob), RECORD_BYTES)]
    records.sort()
    with (out / f"part-{side:05}").open("wb") as file:
        file.writelines(records)


def hits_of_half(side: int, inputs: list[str]) -> list[str]:
    hits, size_bytes = hits_of(half_of(side, path) for path in inputs)
    lines: list[list[str]] = [[] for _ in range(SIDES)]
    for url, count in hits.items():
        lines[hash(url) % SIDES].append(f"{url}\t{count}\t{size_bytes[url]}")
    return ["\n".join(some) for some in lines]


def add_hits(side: int, blobs: list[str], _: list[str], out: Path) -> None:
    hits: dict[str, int] = defaultdict(int)
    size_bytes: dict[str, int] = defaultdict(int)
    for blob in blobs:
        for line in blob.split("\n") if blob else ():
            url, count, size = line.split("\t")
            hits[url] += int(count)
            size_bytes[url] += int(size)
    write_part(out, side, (f"{url}\t[{hits[url]}, {size_bytes[url]}]\n" for url in hits))


def visitors_of_half(side: int, inputs: list[str]) -> list[str]:
    visitors = visitors_of(half_of(side, path) for path in inputs)
    lines: list[list[str]] = [[] for _ in range(SIDES)]
    for url, clients in visitors.items():
        lines[hash(url) % SIDES].append(f"{url}\t{' '.join(clients)}")
    return ["\n".join(some) for some in lines]


def unite_visitors(side: int, blobs: list[str], _: list[str], out: Path) -> None:
    visitors: dict[str, set[str]] = defaultdict(set)
    for blob in blobs:
        for line in blob.split("\n") if blob else ():
            url, clients = line.split("\t")
            visitors[url].update(clients.split(" "))
    write_part(out, side, (f"{url}\t{len(clients)}\n" for url, clients in visitors.items()))


SINGLE: dict[str, Callable[[list[str], Path], None]] = {
    "wordcount": wordcount,
    "inverted-index": inverted_index,
    "sort": sort_records,
    "log-hits": log_hits,
    "log-visitors": log_visitors,
}
PAIR: dict[str, tuple[str, MapSide, ReduceSide]] = {  # "b" where blobs are bytes
    "wordcount": ("", count_half, add_counts),
    "inverted-index": ("", index_half, unite_indexes),
    "sort": ("b", divide_records, sort_part),
    "log-hits": ("", hits_of_half, add_hits),
    "log-visitors": ("", visitors_of_half, unite_visitors),
}

if __name__ == "__main__":
    main()
