"""The graph of a job's steps, and the tasks that a step falls into.

Everything here follows from the job and its input alone, never from how many workers or peers there
are: this is what makes two runs comparable byte for byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mapreduce.errors import JobDefinitionError

if TYPE_CHECKING:
    from mapreduce.job import Step

DEFAULT_SPLIT_BYTES = 32 << 20
# One reduce task for each so many bytes of a step's input: small enough that a partition's values
# are sorted in memory and two cores share the work, large enough that a part is worth its file.
BYTES_PER_PARTITION = 16 << 20
MAX_DEFAULT_PARTITIONS = 256
# A total order is drawn from the beginnings of so many splits at the most, of this size.
SAMPLE_SPLITS = 32
SAMPLE_SPLIT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """A map task's share of the input.

    Attributes:
        path: what to open: a local path or an fsspec URL.
        name: the input as the user knows it (`-` for standard input that was spooled to a file).
        start: first byte; a record belongs to the split in which it starts.
        end: first byte behind the split, or -1: to the end, for streams that cannot be entered midway.
        size_bytes: how much there is to read, for progress; an estimate where `end` is -1.
    """

    path: str
    name: str
    start: int = 0
    end: int = -1
    size_bytes: int = 0


def default_partitions(input_bytes: int) -> int:
    """Return the number of reduce tasks for a step that reads so many bytes."""
    return max(1, min(MAX_DEFAULT_PARTITIONS, -(-input_bytes // BYTES_PER_PARTITION)))


def check_graph(steps: Mapping[str, Step]) -> None:
    """Check that the steps form one job.

    Raises:
        JobDefinitionError: there are no steps, a step reads one that does not exist, steps read each
            other in a circle, or a step's output is never used; the message names the steps.
    """
    if not steps:
        raise JobDefinitionError("a job needs at least one step")
    for name, step in steps.items():
        for before in step.after:
            if before not in steps:
                raise JobDefinitionError(
                    f"step {name!r} reads step {before!r}, which does not exist; there are: "
                    + ", ".join(repr(known) for known in steps)
                )
    if len(steps) == 1 and not next(iter(steps.values())).after:
        return  # one step needs no graph, and a small job should not wait for networkx
    import networkx as nx

    graph = nx.DiGraph()
    graph.add_nodes_from(steps)
    graph.add_edges_from((before, name) for name, step in steps.items() for before in step.after)
    try:
        cycle = [edge[0] for edge in nx.find_cycle(graph)]
    except nx.NetworkXNoCycle:
        pass
    else:
        circle = " -> ".join(repr(name) for name in [*cycle, cycle[0]])
        raise JobDefinitionError(f"steps read each other in a circle: {circle}")
    ends = [name for name in steps if graph.out_degree(name) == 0]
    if len(ends) > 1:
        # The last one written down is taken for the end: people write pipelines in order.
        unused = sorted(set(steps) - nx.ancestors(graph, ends[-1]) - {ends[-1]})
        raise JobDefinitionError(
            f"a job ends in one step, but {ends[-1]!r} is not reachable from "
            + ", ".join(repr(name) for name in unused)
            + ": let a step read their output with after=, or drop them"
        )


def execution_order(steps: Mapping[str, Step]) -> list[str]:
    """Return the steps' names so that each comes after all that it reads; ties keep the written order."""
    if len(steps) == 1:
        return list(steps)
    order: list[str] = []
    done: set[str] = set()
    while len(order) < len(steps):  # ends: check_graph has refused circles
        for name, step in steps.items():
            if name not in done and done.issuperset(step.after):
                order.append(name)
                done.add(name)
    return order
