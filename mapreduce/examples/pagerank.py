"""The PageRank of every node after n rounds, as a pipeline of n + 2 steps.

ringreduce run pagerank edges.txt --param rounds=20 --param damping=0.85 -o ranks

A node without links gives its rank to all nodes alike, so in every round one number has to get from
everywhere to everywhere.  That is why nodes live in blocks: each block sends every block one letter, with
what its nodes give to the nodes there and with its share of the numbers that all need.  (Brin and Page, "The
anatomy of a large-scale hypertextual web search engine", 1998; blocks: Haveliwala, "Efficient computation
of PageRank", 1999.)  Letters are read in the order of their senders, so the sums of floats, and with them the
output, are the same for any number of partitions and workers.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import Any
from zlib import crc32

from mapreduce import Job, Step, identity, task
from mapreduce.examples.degrees import edge_of

BLOCKS = 16  # a block is held in memory: more blocks for larger graphs
SELF = -1  # the sender of what a block keeps for itself; it comes before all others

Nodes = dict[str, tuple[float, list[str]]]  # {node: (rank, links)}
Letter = tuple[Any, ...]


def block_of(node: str) -> int:
    return crc32(node.encode()) % BLOCKS


def ends_of_edge(line: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    edge = edge_of(line)
    if edge is not None:
        source, target = edge
        yield block_of(source), (source, target)
        yield block_of(target), (target,)


def build(block: int, ends: Iterable[tuple[str, ...]]) -> Iterator[tuple[int, Nodes]]:
    links: dict[str, set[str]] = defaultdict(set)
    for node, *targets in ends:
        links[node].update(targets)
    yield block, {node: (1.0, sorted(links[node])) for node in sorted(links)}


def spread(block: int, nodes: Nodes) -> Iterator[tuple[int, Letter]]:
    given: list[dict[str, float]] = [defaultdict(float) for _ in range(BLOCKS)]
    for rank, links in nodes.values():
        for target in links:
            given[block_of(target)][target] += rank / len(links)
    everything = sum(rank for rank, _ in nodes.values())
    dangling = sum(rank for rank, links in nodes.values() if not links)
    yield block, (SELF, {node: links for node, (_, links) in nodes.items()})
    for to in range(BLOCKS):
        yield to, (block, dict(given[to]), len(nodes), everything, dangling)


def gather(block: int, letters: Iterable[Letter]) -> Iterator[tuple[int, Nodes]]:
    damping = float(task.params["damping"])
    kept: dict[str, list[str]] = {}
    received: dict[str, float] = defaultdict(float)
    count, everything, dangling = 0, 0.0, 0.0
    for sender, content, *numbers in letters:
        if sender == SELF:
            kept = content
            continue
        for node, rank in content.items():
            received[node] += rank
        count, everything, dangling = count + numbers[0], everything + numbers[1], dangling + numbers[2]
    # Dividing by the sum of all ranks makes them add up to 1 again, whatever they began with.
    for_all = (1 - damping + damping * dangling / everything) / count
    yield block, {node: (for_all + damping * received[node] / everything, kept[node]) for node in kept}


def ranks_of(_: int, nodes: Nodes) -> Iterator[tuple[str, float]]:
    for node, (rank, _links) in nodes.items():
        yield node, rank


def job(rounds: int = 10, damping: float = 0.85) -> Job:
    if rounds < 1 or not 0 <= damping <= 1:
        raise ValueError(f"rounds={rounds} must be at least 1, and damping={damping} between 0 and 1")
    steps = {"build": Step(mapper=ends_of_edge, reducer=build)}
    for number in range(1, rounds + 1):
        before = next(reversed(steps))
        name = f"round-{number:03}"
        steps[name] = Step(mapper=spread, reducer=gather, sort_values=itemgetter(0), after=(before,))
    steps["ranks"] = Step(mapper=ranks_of, reducer=identity, after=(name,))
    return Job(steps=steps, name="pagerank", params={"damping": damping})


if __name__ == "__main__":
    job().main()
