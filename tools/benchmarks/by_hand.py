"""A join and PageRank as a careful person writes them without any engine; see `tools/bench_scripts.py`.

    python -m tools.benchmarks.by_hand single|pair join|pagerank OUT INPUT...

The join holds one table in a dictionary and streams the other past it.  PageRank numbers the nodes, keeps
links and ranks in lists, and goes round; the pair divides the nodes by hash, and after each round the
two tell each other over a pipe what their nodes give to the other's.

⚙ This module reads and writes files and starts processes.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tools.bench_scripts import SIDES, Chunk, half_of, in_two_processes, lines_in, write_part
from tools.benchmarks.questions import DAMPING, PAGERANK_ROUNDS

CUSTOMER_FIELDS = 3


def main() -> None:
    side, row, out, *inputs = sys.argv[1:]
    os.makedirs(out)
    answer = (SINGLE if side == "single" else PAIR)[row]
    answer(inputs, Path(out))


# --- the join ---------------------------------------------------------------------------------------


def join(inputs: list[str], out: Path) -> None:
    customers_path, orders_path = inputs
    customers: dict[str, str] = {}
    with open(customers_path, encoding="utf-8") as file:
        for line in file:
            customer, name, city = line.rstrip("\n").split(",")
            customers[customer] = f'"{name}", "{city}"'
    with open(orders_path, encoding="utf-8") as file:
        write_part(out, 0, joined(customers, map(str.rstrip, file)))


def joined(customers: dict[str, str], orders: Iterable[str]) -> Iterable[str]:
    for line in orders:
        order, customer, amount, item = line.split(",")
        if customer in customers:
            yield f'{order}\t[{customers[customer]}, "{amount}", "{item}"]\n'


def divide_rows(side: int, inputs: list[str]) -> list[str]:
    customers, orders = (lines_in(half_of(side, path)) for path in inputs)
    lines: list[list[str]] = [[] for _ in range(SIDES)]
    for line in customers:
        line = line.rstrip("\n")
        lines[hash(line.split(",", 1)[0]) % SIDES].append(line)
    for line in orders:
        line = line.rstrip("\n")
        lines[hash(line.split(",", 2)[1]) % SIDES].append(line)
    return ["\n".join(some) for some in lines]


def join_half(side: int, blobs: list[str], _: list[str], out: Path) -> None:
    customers: dict[str, str] = {}
    orders: list[str] = []
    for blob in blobs:
        for line in blob.split("\n") if blob else ():
            fields = line.split(",")
            if len(fields) == CUSTOMER_FIELDS:
                customers[fields[0]] = f'"{fields[1]}", "{fields[2]}"'
            else:
                orders.append(line)
    write_part(out, side, joined(customers, orders))


# --- PageRank ---------------------------------------------------------------------------------------


def pagerank(inputs: list[str], out: Path) -> None:
    numbers: dict[str, int] = {}
    linked: dict[int, set[int]] = defaultdict(set)
    for source, target in edges_in([(inputs[0], 0, os.path.getsize(inputs[0]))]):
        linked[numbers.setdefault(source, len(numbers))].add(numbers.setdefault(target, len(numbers)))
    count = len(numbers)
    links = [tuple(linked.get(number, ())) for number in range(count)]
    ranks = [1 / count] * count
    for _ in range(PAGERANK_ROUNDS):
        received = [0.0] * count
        dangling = 0.0
        for rank, nodes in zip(ranks, links, strict=True):
            if nodes:
                share = rank / len(nodes)
                for node in nodes:
                    received[node] += share
            else:
                dangling += rank
        for_all = (1 - DAMPING + DAMPING * dangling) / count
        ranks = [for_all + DAMPING * rank for rank in received]
    write_part(out, 0, (f"{name}\t{ranks[number]!r}\n" for name, number in numbers.items()))


def edges_in(chunks: Iterable[Chunk]) -> Iterable[tuple[str, str]]:
    for chunk in chunks:
        for line in lines_in(chunk):
            source, target = line.split()
            yield source, target


def pagerank_of_pair(inputs: list[str], out: Path) -> None:
    # Forked, so that both hash strings alike.
    context = get_context("fork")
    sides = [
        context.Process(target=pagerank_half, args=(side, end, inputs, out))
        for side, end in enumerate(context.Pipe())
    ]
    for process in sides:
        process.start()
    for process in sides:
        process.join()
    if any(process.exitcode for process in sides):
        sys.exit("a process failed")


def pagerank_half(side: int, other: Connection, inputs: list[str], out: Path) -> None:
    # For each of the two: the edges from its nodes, and its nodes that are pointed at.
    edges: list[list[tuple[str, str]]] = [[] for _ in range(SIDES)]
    targets: list[set[str]] = [set() for _ in range(SIDES)]
    for source, target in edges_in([half_of(side, inputs[0])]):
        edges[hash(source) % SIDES].append((source, target))
        targets[hash(target) % SIDES].add(target)
    their_edges, their_targets = exchanged(side, other, (edges[1 - side], targets[1 - side]))
    links: dict[str, set[str]] = {target: set() for target in (*targets[side], *their_targets)}
    for source, target in (*edges[side], *their_edges):
        links.setdefault(source, set()).add(target)
    count = len(links) + exchanged(side, other, len(links))
    ranks = dict.fromkeys(links, 1 / count)
    for _ in range(PAGERANK_ROUNDS):
        received: list[dict[str, float]] = [defaultdict(float) for _ in range(SIDES)]
        dangling = 0.0
        for node, rank in ranks.items():
            if links[node]:
                share = rank / len(links[node])
                for target in links[node]:
                    received[hash(target) % SIDES][target] += share
            else:
                dangling += rank
        from_there, dangling_there = exchanged(side, other, (received[1 - side], dangling))
        mine = received[side]
        for target, rank in from_there.items():
            mine[target] += rank
        for_all = (1 - DAMPING + DAMPING * (dangling + dangling_there)) / count
        ranks = {node: for_all + DAMPING * mine[node] for node in links}
    write_part(out, side, (f"{node}\t{rank!r}\n" for node, rank in ranks.items()))


def exchanged(side: int, other: Connection, content: Any) -> Any:
    """Tell the other something, and return what it tells; one speaks first, lest both wait for a reader."""
    if side == 0:
        other.send(content)
        return other.recv()
    received = other.recv()
    other.send(content)
    return received


Answer = Callable[[list[str], Path], None]
SINGLE: dict[str, Answer] = {"join": join, "pagerank": pagerank}
PAIR: dict[str, Answer] = {
    "join": lambda inputs, out: in_two_processes(("", divide_rows, join_half), inputs, out),
    "pagerank": pagerank_of_pair,
}

if __name__ == "__main__":
    main()
