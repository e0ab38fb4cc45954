"""The PageRank of every node after n rounds, as a pipeline of n + 2 steps.

ringreduce run pagerank edges.txt --param rounds=20 --param damping=0.85 -o ranks

A node without links gives its rank to all nodes alike, so in every round one number has to get from
everywhere to everywhere.  That is why nodes live in blocks: each block sends every block one letter, with
what its nodes give to the nodes there and with its share of the numbers that all need.  (Brin and Page, "The
anatomy of a large-scale hypertextual web search engine", 1998; blocks: Haveliwala, "Efficient computation
of PageRank", 1999.)

The edges from one block to another are known to both, in the order in which they stand in the input.  So a
letter is a list of numbers, one an edge, and names no nodes.  Letters are read in the order of their senders,
so the sums of floats, and with them the output, are the same for any number of partitions and workers.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain
from operator import itemgetter
from typing import Any
from zlib import crc32

from mapreduce import Job, Step, batch, identity, task
from mapreduce.examples.degrees import edge_of

BLOCKS = 16  # a block is held in memory: more blocks for larger graphs
SELF = -1  # the sender of what a block keeps for itself; it comes before all others

Letter = tuple[Any, ...]
# Names and ranks of a block's nodes, how many links each has, and for each other block the ends that lie
# here, as indexes into the names: of the edges that go there, and of those that come from there.
Nodes = tuple[list[str], list[float], list[int], list[list[int]], list[list[int]]]


def block_of(node: str) -> int:
    return crc32(node.encode()) % BLOCKS


@batch
def edges_between_blocks(lines: list[str]) -> Iterator[tuple[int, tuple[int, int, str]]]:
    edges: dict[tuple[int, int], list[str]] = defaultdict(list)
    for source, target in filter(None, map(edge_of, lines)):
        edges[block_of(source), block_of(target)] += source, target
    for (start, end), nodes in edges.items():
        for block in {start, end}:
            yield block, (start, end, " ".join(nodes))


def build(block: int, edges: Iterable[tuple[int, int, str]]) -> Iterator[tuple[int, Nodes]]:
    # Dicts are sets that keep their order: an edge that is there twice counts once, where it came first.
    outgoing: list[dict[tuple[str, str], None]] = [{} for _ in range(BLOCKS)]
    incoming: list[dict[tuple[str, str], None]] = [{} for _ in range(BLOCKS)]
    for start, end, nodes in edges:
        ends = iter(nodes.split())
        some = dict.fromkeys(zip(ends, ends, strict=True))
        if start == block:
            outgoing[end].update(some)
        if end == block:
            incoming[start].update(some)
    sources = [[source for source, _ in some] for some in outgoing]
    targets = [[target for _, target in some] for some in incoming]
    names = sorted(set(chain(*sources, *targets)))
    index = {name: place for place, name in enumerate(names)}
    links = Counter(chain(*sources))
    yield (
        block,
        (
            names,
            [1.0] * len(names),
            [links[name] for name in names],
            [[index[name] for name in some] for some in sources],
            [[index[name] for name in some] for some in targets],
        ),
    )


def spread(block: int, nodes: Nodes) -> Iterator[tuple[int, Letter]]:
    names, ranks, links, sources, targets = nodes
    shares = [rank / count if count else 0.0 for rank, count in zip(ranks, links, strict=True)]
    dangling = sum(rank for rank, count in zip(ranks, links, strict=True) if not count)
    everything = sum(ranks)
    yield block, (SELF, names, links, sources, targets)
    for to, givers in enumerate(sources):
        yield to, (block, [shares[giver] for giver in givers], len(ranks), everything, dangling)


def gather(block: int, letters: Iterable[Letter]) -> Iterator[tuple[int, Nodes]]:
    damping = float(task.params["damping"])
    (first, *kept), *others = letters
    if first != SELF:
        return  # no node lives in this block
    names, links, sources, targets = kept
    received = [0.0] * len(names)
    count, everything, dangling = 0, 0.0, 0.0
    for sender, given, *numbers in others:
        for node, share in zip(targets[sender], given, strict=True):
            received[node] += share
        count, everything, dangling = count + numbers[0], everything + numbers[1], dangling + numbers[2]
    # Dividing by the sum of all ranks makes them add up to 1 again, whatever they began with.
    for_all = (1 - damping + damping * dangling / everything) / count
    yield (
        block,
        (names, [for_all + damping * rank / everything for rank in received], links, sources, targets),
    )


def ranks_of(_: int, nodes: Nodes) -> Iterator[tuple[str, float]]:
    names, ranks, *_edges = nodes
    yield from zip(names, ranks, strict=True)


def job(rounds: int = 10, damping: float = 0.85) -> Job:
    if rounds < 1 or not 0 <= damping <= 1:
        raise ValueError(f"rounds={rounds} must be at least 1, and damping={damping} between 0 and 1")
    # A block is much work for few bytes, so its tasks are not counted by bytes.
    steps = {"build": Step(mapper=edges_between_blocks, reducer=build, partitions=BLOCKS)}
    for number in range(1, rounds + 1):
        before = next(reversed(steps))
        name = f"round-{number:03}"
        steps[name] = Step(
            mapper=spread,
            reducer=gather,
            sort_values=itemgetter(0),
            partitions=BLOCKS,
            after=(before,),
        )
    steps["ranks"] = Step(mapper=ranks_of, reducer=identity, after=(name,))
    return Job(steps=steps, name="pagerank", params={"damping": damping})


if __name__ == "__main__":
    job().main()
