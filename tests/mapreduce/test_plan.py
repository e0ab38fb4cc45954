"""The graph of a job's steps is checked when it is built; defaults follow from job and input alone."""

from __future__ import annotations

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapreduce.errors import JobDefinitionError
from mapreduce.job import Job, Step, identity
from mapreduce.plan import (
    BYTES_PER_PARTITION,
    MAX_DEFAULT_PARTITIONS,
    check_graph,
    default_partitions,
    execution_order,
)


def graph(**after: str) -> dict[str, Step]:
    """Make steps, each given by the names it reads."""
    return {name: Step(reducer=identity, after=tuple(names.split())) for name, names in after.items()}


@pytest.mark.parametrize(
    "steps",
    [
        graph(only=""),
        graph(first="", second="first"),
        graph(second="first", first=""),
        graph(a="", b="a", c="a", d="b c"),
        graph(a="", b="", joined="a b"),
        graph(a="", b="a", c="a b"),
        graph(a="", twice="a a"),
    ],
)
def test_a_graph_that_ends_in_one_step_is_a_job(steps: dict[str, Step]) -> None:
    check_graph(steps)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ({}, "a job needs at least one step"),
        (graph(a="b"), "step 'a' reads step 'b', which does not exist; there are: 'a'"),
        (
            graph(words="", top="word"),
            "step 'top' reads step 'word', which does not exist; there are: 'words', 'top'",
        ),
        (graph(a="a"), "steps read each other in a circle: 'a' -> 'a'"),
        (graph(a="b", b="a"), "steps read each other in a circle: 'a' -> 'b' -> 'a'"),
        (
            graph(start="", a="start c", b="a", c="b", end="c"),
            "steps read each other in a circle: 'a' -> 'b' -> 'c' -> 'a'",
        ),
        (
            graph(a="", b="", end="b"),
            "a job ends in one step, but 'end' is not reachable from 'a': "
            "let a step read their output with after=, or drop them",
        ),
        (
            graph(a="", b="a", c="b", lost="a", end="a"),
            "a job ends in one step, but 'end' is not reachable from 'b', 'c', 'lost': "
            "let a step read their output with after=, or drop them",
        ),
    ],
)
def test_a_graph_that_is_no_job_is_refused_by_the_names_of_its_steps(
    steps: dict[str, Step], message: str
) -> None:
    with pytest.raises(JobDefinitionError) as refused:
        check_graph(steps)
    assert str(refused.value) == message


def test_a_job_checks_its_graph() -> None:
    with pytest.raises(JobDefinitionError, match="in a circle: 'a' -> 'b' -> 'a'"):
        Job(steps=graph(a="b", b="a"))


def test_each_step_comes_after_all_it_reads_and_ties_keep_the_written_order() -> None:
    assert execution_order(graph(d="c b", b="a", c="a", a="")) == ["a", "b", "c", "d"]
    assert execution_order(graph(z="", y="", x="", end="x y z")) == ["z", "y", "x", "end"]
    assert execution_order(graph(only="")) == ["only"]


@given(st.lists(st.sets(st.integers(0, 30), max_size=4), min_size=1, max_size=12), st.randoms())
def test_any_graph_without_circles_has_an_order(reads: list[set[int]], random: object) -> None:
    names = [f"s{number}" for number in range(len(reads))]
    edges = [
        (names[before], name)
        for number, (name, some) in enumerate(zip(names, reads, strict=True))
        for before in some
        if before < number
    ]
    written = list(names)
    random.shuffle(written)  # type: ignore[attr-defined]
    steps = {
        name: Step(reducer=identity, after=tuple(before for before, after in edges if after == name))
        for name in written
    }
    order = execution_order(steps)
    assert sorted(order) == sorted(names)
    assert all(order.index(before) < order.index(after) for before, after in edges)
    assert order == execution_order(steps)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=8))
def test_the_check_agrees_with_the_definition_of_a_job(edges: list[tuple[int, int]]) -> None:
    count = 1 + max((number for edge in edges for number in edge), default=0)
    drawn = nx.DiGraph()
    drawn.add_nodes_from(range(count))
    drawn.add_edges_from(edges)
    steps = {
        f"s{number}": Step(
            reducer=identity, after=tuple(f"s{before}" for before, to in edges if to == number)
        )
        for number in range(count)
    }
    is_job = nx.is_directed_acyclic_graph(drawn) and sum(degree == 0 for _, degree in drawn.out_degree) == 1
    if is_job:
        check_graph(steps)
    else:
        with pytest.raises(JobDefinitionError):
            check_graph(steps)


@pytest.mark.parametrize(
    ("input_bytes", "partitions"),
    [
        (0, 1),
        (1, 1),
        (BYTES_PER_PARTITION, 1),
        (BYTES_PER_PARTITION + 1, 2),
        (10 * BYTES_PER_PARTITION, 10),
        (1 << 50, MAX_DEFAULT_PARTITIONS),
    ],
)
def test_the_default_number_of_partitions_follows_from_the_input(input_bytes: int, partitions: int) -> None:
    assert default_partitions(input_bytes) == partitions
